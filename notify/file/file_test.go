package file

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
)

// build returns a destination whose today is a day.
func build(t *testing.T, c Config, today string) *destination {
	t.Helper()
	d, err := New(c, notify.Options{Name: "under-test"})
	if err != nil {
		t.Fatal(err)
	}
	own := d.(*destination)
	at, err := time.Parse(time.DateOnly, today)
	if err != nil {
		t.Fatal(err)
	}
	own.now = func() time.Time { return at }
	return own
}

// keys returns the keys of the messages in a file.
func keys(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		var doc struct{ Notification struct{ Key string } }
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, doc.Notification.Key)
	}
	return out
}

func want(batch []notify.Notification) []string {
	var out []string
	for _, n := range batch {
		out = append(out, n.Key)
	}
	return out
}

func TestAppends(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	batch := notifytest.Notifications(9)
	for i, day := range []string{"2026-11-25", "2026-11-26", "2026-11-26"} {
		if err := build(t, Config{Folder: folder}, day).Send(t.Context(), batch[3*i:3*i+3]); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(t, filepath.Join(folder, "kubeguardian-2026-11-25.jsonl")); !slices.Equal(got, want(batch[:3])) {
		t.Errorf("the first day has %v", got)
	}
	file := filepath.Join(folder, "kubeguardian-2026-11-26.jsonl")
	if got := keys(t, file); !slices.Equal(got, want(batch[3:])) {
		t.Errorf("the second day has %v", got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestAfterACrash: half a line, however long, is taken back.
func TestAfterACrash(t *testing.T) {
	batch := notifytest.Notifications(2)
	for _, half := range []string{"", `{"rule":"half`, strings.Repeat("x", 200<<10)} {
		for _, before := range []int{0, 1} {
			folder := t.TempDir()
			d := build(t, Config{Folder: folder}, "2026-11-26")
			file := filepath.Join(folder, "kubeguardian-2026-11-26.jsonl")
			if err := d.Send(t.Context(), batch[:before]); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString(half)
			}
			if err == nil {
				err = f.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Send(t.Context(), batch[before:]); err != nil {
				t.Fatal(err)
			}
			if got := keys(t, file); !slices.Equal(got, want(batch)) {
				t.Errorf("after %d bytes of half a line: %v", len(half), got)
			}
		}
	}
}

// TestFullDisk: what was written of a batch is taken back.
func TestFullDisk(t *testing.T) {
	folder := t.TempDir()
	if err := os.Symlink("/dev/full", filepath.Join(folder, "kubeguardian-2026-11-26.jsonl")); err != nil {
		t.Fatal(err)
	}
	err := build(t, Config{Folder: folder}, "2026-11-26").Send(t.Context(), notifytest.Notifications(1))
	if err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: ") {
		t.Errorf("%v, want an error that is worth another attempt", err)
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	err := build(t, Config{Folder: "/dev/null/a"}, "2026-11-26").Send(t.Context(), notifytest.Notifications(1))
	if err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "under-test: create folder: ") {
		t.Errorf("%v", err)
	}
}

func TestKeep(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"kubeguardian-2026-11-15.jsonl", "kubeguardian-2026-11-16.jsonl", "kubeguardian-2026-11-25.jsonl", "other-2020-01-01.jsonl", "kubeguardian-notes.jsonl"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := build(t, Config{Folder: folder, Keep: 10}, "2026-11-26").Send(t.Context(), notifytest.Notifications(1)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"kubeguardian-2026-11-16.jsonl", "kubeguardian-2026-11-25.jsonl", "kubeguardian-2026-11-26.jsonl", "kubeguardian-notes.jsonl", "other-2020-01-01.jsonl"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"folder: want the whole path": {Folder: "logs"},
		"keep: want 0 to 3650":        {Folder: "/tmp", Keep: -1},
		`unknown format "csv"`:        {Folder: "/tmp", Format: "csv"},
	} {
		if _, err := New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
