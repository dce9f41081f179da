package sensor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestAddTypes: what was not asked for at first is shown from when it is, and what
// was shown still is.
func TestAddTypes(t *testing.T) {
	l := start(t, Config{Types: []string{"unlinkat", "rmdir"}}, mine)
	dir := t.TempDir()
	made := func() (folders, removed uint64) {
		folders, removed = counted(t, l, "mkdirat")+counted(t, l, "mkdir"), counted(t, l, "unlinkat")+counted(t, l, "rmdir")
		for range 3 {
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o700), os.Remove(filepath.Join(dir, "a"))); err != nil {
				t.Fatal(err)
			}
		}
		return counted(t, l, "mkdirat") + counted(t, l, "mkdir") - folders, counted(t, l, "unlinkat") + counted(t, l, "rmdir") - removed
	}
	if folders, removed := made(); folders > 0 || removed < 3 {
		t.Errorf("at first %d folders made, %d removed", folders, removed)
	}
	for range 2 { // the second time nothing is left to do
		if err := l.AddTypes([]string{"mkdir", "mkdirat", "rmdir"}); err != nil {
			t.Fatal(err)
		}
		if folders, removed := made(); folders < 3 || removed < 3 {
			t.Errorf("then %d folders made, %d removed", folders, removed)
		}
	}
	for name, err := range l.Missing() {
		t.Errorf("%s: %v", name, err)
	}
}
