package content_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/policy"
)

// TestReadMountedConfigMap: files of a ConfigMap that is mounted are read once,
// and anew when the kubelet switches its links.
func TestReadMountedConfigMap(t *testing.T) {
	dir := t.TempDir()
	link := func(to, name string) {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.Symlink(to, at+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".new", at); err != nil {
			t.Fatal(err)
		}
	}
	version := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "own.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		link(name, "..data")
	}
	version("..2026_11_27_08_00_00.1", "a: 1")
	link("..data/own.yaml", "own.yaml")
	for _, want := range []string{"a: 1", "a: 2"} {
		files, err := content.Read[policy.File](nil, dir)
		if err != nil || len(files) != 1 || files[0].Name != filepath.Join(dir, "own.yaml") || string(files[0].Data) != want {
			t.Errorf("%d files, %v, %v; want own.yaml with %q", len(files), files, err, want)
		}
		version("..2026_11_27_08_01_00.2", "a: 2")
	}
}
