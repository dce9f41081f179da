package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

const attestation = `apiVersion: kubeguardian.dev/attestation/v1
statements:
- control: INF-BCK-01
  by: Ada
  at: 2026-11-01T00:00:00Z
  text: restored on the last Friday of October
  expires: 2026-12-31T00:00:00Z
  scope: {kind: Cluster, name: "prod-*"}
`

func TestStatements(t *testing.T) {
	set, err := Read("ops.yaml", []byte(attestation))
	if err != nil {
		t.Fatal(err)
	}
	s := set.Statements[0]
	if s.By != "Ada" || s.Source != "ops.yaml:3" || s.Kind != Attestation || !s.SeenAt.Equal(s.At) {
		t.Errorf("statement %+v", s)
	}
	for subject, want := range map[finding.Subject]bool{
		{Kind: "Cluster", Name: "prod-1"}: true, {Kind: "Cluster", Name: "test"}: false, {Kind: "Node", Name: "prod-1"}: false,
	} {
		if have := s.Scope.Matches(subject); have != want {
			t.Errorf("%v: %v", subject, have)
		}
	}
	for day, want := range map[string]string{
		"2026-11-26": "", "2026-10-31": "in the future", "2027-01-01": "expired on 2026-12-31",
	} {
		now, _ := time.Parse(time.DateOnly, day)
		if err := s.Valid(now); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("on %s: %v", day, err)
		}
	}
}

func TestReadBadInput(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":        {"", "f: empty"},
		"text":         {"hello", "f:1:"},
		"list":         {"[1, 2]", "f:1: want a mapping"},
		"broken JSON":  {"{\n  \"a\": }", "f:2:"},
		"broken YAML":  {"a: b\n  c: d\n", "f:2:"},
		"two":          {"a: 1\n---\nb: 2\n", "f: want one document"},
		"unknown":      {`{"hello": 1}`, "f: not evidence of a known format: want "},
		"deep":         {strings.Repeat("[", 1000), "f: nested more than 200 levels deep"},
		"unknown key":  {strings.Replace(attestation, "by:", "who:", 1), "f:4: unknown key who"},
		"missing keys": {strings.Replace(attestation, "  by: Ada\n", "", 1), "f:3: statement without by"},
		"pattern":      {strings.Replace(attestation, "prod-*", "[", 1), "f:3: scope"},
		"backwards":    {strings.Replace(attestation, "2026-12-31", "2026-10-31", 1), "f:3: statement expires before it is made"},
		"none":         {"apiVersion: kubeguardian.dev/attestation/v1", "f: no statements"},
	} {
		if _, err := Read("f", []byte(tt.text)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a/ops.yaml": attestation, "b/ops.yml": attestation, "b/README.md": "not evidence"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if set, err := Load(t.Context(), dir); err != nil || len(set.Statements) != 2 {
		t.Errorf("%+v, %v", set, err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "b/README.md"): "README.md:1:", filepath.Join(dir, "none"): "none: no such file or directory", os.DevNull: "null: not a regular file",
	} {
		if _, err := Load(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(attestation))
	f.Add([]byte(allowList))
	for _, seed := range seeds() {
		f.Add([]byte(seed))
	}
	f.Add([]byte(`{"enforce_admins": {}, "allow_force_pushes": {}, "rules": [{"type": "pull_request"}]}`))
	f.Add([]byte(`{"format_version": "1.2", "planned_values": {"root_module": {}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if set, err := Read("f", data); err == nil && set == nil {
			t.Error("neither evidence nor an error")
		}
	})
}
