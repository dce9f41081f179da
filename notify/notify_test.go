package notify_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
)

func TestOutcomes(t *testing.T) {
	cause := errors.New("cause")
	wrapped := fmt.Errorf("send: %w", notify.Permanent(cause))
	if !notify.IsPermanent(wrapped) || !errors.Is(wrapped, cause) || wrapped.Error() != "send: cause" {
		t.Errorf("permanent: %v", wrapped)
	}
	if notify.IsPermanent(cause) || notify.IsPermanent(nil) || notify.Permanent(nil) != nil || notify.RetryAfter(nil, 1) != nil {
		t.Error("what is not marked is permanent")
	}
	later := fmt.Errorf("send: %w", notify.RetryAfter(cause, time.Minute))
	if d, asked := notify.Delay(later); !asked || d != time.Minute || notify.IsPermanent(later) || !errors.Is(later, cause) {
		t.Errorf("retry after: %s %t", d, asked)
	}
	if _, asked := notify.Delay(wrapped); asked {
		t.Error("nobody asked for a delay")
	}
}

func TestSecretFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	read := func(content string) (string, error) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := notify.SecretFile(name).Read()
		return string(s), err
	}
	if s, err := read("  one\n"); err != nil || s != "one" {
		t.Errorf("got %q, %v", s, err)
	}
	if s, err := read("two"); err != nil || s != "two" {
		t.Errorf("after it was replaced: %q, %v", s, err)
	}
	for _, bad := range []string{"", " \n", strings.Repeat("S3cret", 20000)} {
		if _, err := read(bad); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%.10q: %v, want an error that names the file", bad, err)
		}
	}
	if _, err := notify.SecretFile("").Read(); err == nil {
		t.Error("no file has a secret")
	}
}
