package sensor

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
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
	for _, types := range [][]string{{"mkdir", "mkdirat", "rmdir"}, {"mkdir", "mkdirat", "rmdir"}, {"nonsense"}, {"folly", "nonsense"}} { // of the second nothing is left to do
		if err := l.AddTypes(types); err != nil {
			t.Fatal(err)
		}
		if folders, removed := made(); folders < 3 || removed < 3 {
			t.Errorf("then %d folders made, %d removed", folders, removed)
		}
	}
	missing := l.Missing()
	for _, name := range []string{"folly", "nonsense"} {
		if err := missing[name]; err == nil || err.Error() != "types: no program of the sensor shows folly, nonsense" {
			t.Errorf("%s: %v", name, err)
		}
		delete(missing, name)
	}
	for name, err := range missing {
		t.Errorf("%s: %v", name, err)
	}
	names := map[string]bool{}
	for _, f := range l.Features() {
		if names[f.Name] {
			t.Errorf("feature %s is told of twice", f.Name)
		}
		names[f.Name] = true
	}
}

// TestAddTypesBesideReaders: what is asked of a sensor while more types are added
// meets no half of them. The race detector sees it.
func TestAddTypesBesideReaders(t *testing.T) {
	l := start(t, Config{Types: []string{"unlinkat"}, Enforce: true}, mine)
	over := make(chan struct{})
	var readers sync.WaitGroup
	for _, ask := range []func() error{
		func() error { _, err := l.Counters(); return err },
		func() error { return l.SetGuards([]Guard{{7, "unlinkat", 0, DryRun}}) },
		func() error {
			if _, err := l.BlockEgress("/nothing"); err == nil {
				return errors.New("a folder that does not exist was blocked")
			}
			return nil
		},
	} {
		readers.Go(func() {
			for {
				if err := ask(); err != nil {
					t.Error(err)
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	for _, typ := range []string{"execve", "procexit", "prctl", "capset", "connect"} {
		if err := l.AddTypes([]string{typ}); err != nil {
			t.Error(err)
		}
	}
	close(over)
	readers.Wait()
}
