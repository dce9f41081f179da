package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSecretLeaksNowhere(t *testing.T) {
	const value = "correct-horse-battery-staple"
	type holder struct {
		Token Secret `json:"token" yaml:"token"`
		Map   map[string]Secret
		Ptr   *Secret
	}
	s := Secret(value)
	h := holder{Token: s, Map: map[string]Secret{"key": s}, Ptr: &s}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08s", "%t"} {
		fmt.Fprintf(&out, verb+verb+verb, s, h, []Secret{s})
	}
	fmt.Fprint(&out, s, s.String(), s.GoString(), errors.New(s.String()), fmt.Errorf("log in: %v", s))
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("start", "token", s, "holder", h, "any", []any{s})
	}
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	if encoded, err = yaml.Marshal(h); err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)

	for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q was printed: %s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
	if string(s) != value {
		t.Error("the value is lost")
	}
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	first, created, err := Token(file)
	if err != nil || !created || len(string(first)) != 43 {
		t.Fatalf("have %d characters, %v, %v", len(string(first)), created, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, created, err := Token(file)
	if err != nil || created || again != first {
		t.Errorf("the second call: same %v, created %v, %v", again == first, created, err)
	}
	if other, _, _ := Token(filepath.Join(t.TempDir(), "token")); other == first {
		t.Error("two tokens are the same")
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTokenFile(t *testing.T) {
	tests := []struct{ name, data, want, err string }{
		{"white space around it", " 0123456789abcdef\n\n", "0123456789abcdef", ""},
		{"empty", "", "", "want 16 to 4096 characters, have 0"},
		{"short", "password\n", "", "want 16 to 4096 characters, have 8"},
		{"not a token", strings.Repeat("x", 5000), "", "want 16 to 4096 characters"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(tt.data), 0o600); err != nil {
				t.Fatal(err)
			}
			token, _, err := Token(file)
			if string(token) != tt.want || !strings.Contains(errorText(err), tt.err) || (err != nil) != (tt.err != "") {
				t.Errorf("have %q, %v", string(token), err)
			}
			if err != nil && !strings.Contains(err.Error(), file) {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
	if _, _, err := Token(filepath.Join(t.TempDir(), "none", "token")); err == nil {
		t.Error("a token was created in a folder that does not exist")
	}
}

func TestDatabaseURL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	for text, good := range map[string]bool{
		"postgresql://u:s3cret@db/kubeguardian\n": true, " postgres://u:s3cret@a,b/x?target_session_attrs=read-write ": true,
		"": false, "mysql://u:s3cret@db/x": false, "postgresql://u:s3cret@db/x\npostgresql://u:s3cret@db/y": false,
		"postgresql://" + strings.Repeat("s3cret", 1000): false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		url, err := DatabaseURL(file)
		if (err == nil) != good || good && string(url) != strings.TrimSpace(text) || strings.Contains(fmt.Sprint(url, err), "s3cret") {
			t.Errorf("%.40q: %q, %v", text, string(url), err)
		}
		if err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("%v does not name the file", err)
		}
	}
	if _, err := DatabaseURL(file + ".none"); err == nil || !strings.Contains(err.Error(), "read database.urlFile: open "+file) {
		t.Errorf("have %v", err)
	}
}

func TestClientSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for data, want := range map[string]string{" s3cret \n": "s3cret", "": "", "\n": "", "one\ntwo": "", strings.Repeat("x", maxToken+1): ""} {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		have, err := ClientSecret(file)
		if string(have) != want || (err == nil) != (want != "") {
			t.Errorf("%.10q: %q, %v", data, string(have), err)
		}
		if err != nil && (!strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "two")) {
			t.Errorf("%.10q: %v", data, err)
		}
	}
	if _, err := ClientSecret(file + ".none"); err == nil {
		t.Error("no file is no error")
	}
}
