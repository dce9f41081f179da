package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
)

// TestMain lets this binary play the process that is killed; see
// TestKilledProcess.
func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_TEST_WRITE"); path != "" {
		writeForever(path)
	}
	os.Exit(runOnBoth(m))
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testAlert(i int) alert.Alert {
	rules := []string{"Exec into pod", "Secrets listed", "Anonymous request"}
	a := alert.Alert{
		ID: alert.NewID("k8s_audit", fmt.Sprint(i), "rule"), Time: start.Add(time.Duration(i) * time.Second),
		Rule: rules[i%3], Priority: alert.Priority(i % 8), Source: "k8s_audit",
		OutputFields: map[string]any{"ka.user.name": fmt.Sprintf("user-%d", i), "ka.verb": "create", "ka.response.code": 201},
		Tags:         []string{"k8s"}, Cluster: "test",
		Subject: finding.Subject{Kind: "Pod", Namespace: fmt.Sprintf("team-%d", i%5), Name: fmt.Sprintf("pod-%d", i)},
	}
	a.Output = fmt.Sprintf("%s by user-%d in %s with 100%% of_it", a.Rule, i, a.Subject.Namespace)
	return a
}

func testAlerts(from, to int) []alert.Alert {
	var out []alert.Alert
	for i := from; i < to; i++ {
		out = append(out, testAlert(i))
	}
	return out
}

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), address(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestReopen(t *testing.T) {
	ofFiles(t)
	path := filepath.Join(t.TempDir(), "with space and % and ?.db")
	for round := range 3 {
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		added := must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, 10*(round+1))))
		if len(added) != 10 {
			t.Errorf("round %d: %d alerts were new, want 10", round, len(added))
		}
		if c := must[Counts](t)(s.Counts(t.Context())); c.Alerts != 10*(round+1) {
			t.Errorf("round %d: %+v", round, c)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, file := range must[[]string](t)(filepath.Glob(filepath.Dir(path) + "/*")) {
		if info := must[os.FileInfo](t)(os.Stat(file)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(file), info.Mode())
		}
	}
}

func TestFileModes(t *testing.T) {
	ofFiles(t)
	s := open(t)
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, 1)))
	files := must[[]string](t)(filepath.Glob(s.name + "*"))
	if len(files) != 3 {
		t.Fatalf("want the file, its log and its index: %v", files)
	}
	for _, file := range files {
		if info := must[os.FileInfo](t)(os.Stat(file)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(file), info.Mode())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	ofFiles(t)
	database := func(statements ...string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			db := must[*sql.DB](t)(sql.Open("sqlite", path))
			defer db.Close()
			for _, s := range statements {
				must[sql.Result](t)(db.Exec(s))
			}
		}
	}
	bytesOf := func(data string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	ours := fmt.Sprintf("PRAGMA application_id = %d", applicationID)
	tests := []struct {
		name   string
		create func(*testing.T, string)
		want   string
	}{
		{"text", bytesOf(strings.Repeat("not a database\n", 1000)), "move it away to start with an empty one"},
		{"damaged header", bytesOf("SQLite format 3\x00" + strings.Repeat("\xff", 8192)), "move it away"},
		{"another program's", database("CREATE TABLE t (a)"), "database of another program"},
		{"another program's, empty", database("PRAGMA application_id = 77", "CREATE TABLE t (a)", "DROP TABLE t"), "database of another program"},
		{"newer", database(ours, "PRAGMA user_version = 99"), fmt.Sprintf("its schema has version 99 and this program knows %d", len(migrations))},
		{"a folder", func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, "open database"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kubeguardian.db")
			tt.create(t, path)
			before, _ := os.ReadFile(path)
			s, err := Open(t.Context(), path)
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if text := err.Error(); !strings.Contains(text, tt.want) || !strings.Contains(text, path) || strings.Contains(text, "\n") {
				t.Errorf("have %q, want one line with %q and the path", text, tt.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "none", "a.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("have %v, want that the folder does not exist", err)
	}
}

// A damaged page is an error that names the file, never wrong records.
func TestDamagedPages(t *testing.T) {
	ofFiles(t)
	path := filepath.Join(t.TempDir(), "kubeguardian.db")
	s := must[*Store](t)(Open(t.Context(), path))
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), testAlerts(0, 500)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data := must[[]byte](t)(os.ReadFile(path))
	for i := len(data) / 2; i < len(data); i++ {
		data[i] = 0xff
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(t.Context(), path))
	defer s.Close()
	_, _, err := s.Alerts(t.Context(), alert.Query{Limit: 500})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("have %v", err)
	}
}

// smallDisk returns a folder that takes about 2 MB, on a file system of its own
// where that is allowed, else by a limit on the size of files.
func smallDisk(t *testing.T) (dir string, grow func()) {
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir, func() {
			if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, limitFileSize(t, 2<<20)
}

func TestFullDisk(t *testing.T) {
	ofFiles(t)
	dir, grow := smallDisk(t)
	s := must[*Store](t)(Open(t.Context(), filepath.Join(dir, "kubeguardian.db")))
	defer s.Close()
	stored := 0
	var err error
	for err == nil && stored < 100_000 {
		var added []alert.Alert
		added, err = s.AddAlerts(t.Context(), testAlerts(stored, stored+100))
		stored += len(added)
	}
	if err == nil || !strings.Contains(err.Error(), s.name) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("have %v after %d alerts", err, stored)
	}
	t.Logf("after %d alerts: %v", stored, err)
	if have := must[Counts](t)(s.Counts(t.Context())).Alerts; have != stored {
		t.Errorf("%d alerts are stored, %d were acknowledged", have, stored)
	}
	grow()
	if added, err := s.AddAlerts(t.Context(), testAlerts(stored, stored+100)); err != nil || len(added) != 100 {
		t.Errorf("with space again: %d alerts, %v", len(added), err)
	}
	checkIntegrity(t, s)
}

func checkIntegrity(t *testing.T, s *Store) {
	t.Helper()
	if s.postgres {
		return
	}
	var result string
	if err := s.readers.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("integrity check: %s, %v", result, err)
	}
}

// Several batches are written while others are read; overlapping batches store
// each alert once, and exactly one writer is told that it was new.
func TestConcurrentUse(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	const writers, batches, size = 4, 20, 25
	const total = (batches + 1) * size
	var group sync.WaitGroup
	var mu sync.Mutex
	news := map[string]int{}
	for w := range writers {
		group.Go(func() {
			for b := range batches {
				from := (b + w%2) * size // two writers are one batch ahead
				added, err := s.AddAlerts(ctx, testAlerts(from, from+size))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, a := range added {
					news[a.ID]++
				}
				mu.Unlock()
			}
		})
	}
	group.Go(func() {
		for i := range batches {
			if err := s.ReplaceFindings(ctx, testFindings(i+1)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		group.Go(func() {
			last, read := int64(0), 0
			for read < total {
				records, end, err := s.AlertsAfter(ctx, last, alert.Query{Limit: 7})
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range records {
					if r.Seq <= last || r.Seq > end {
						t.Errorf("seq %d follows %d, the end is %d", r.Seq, last, end)
					}
					last = r.Seq
					read++
				}
				last = end
			}
			if read != total {
				t.Errorf("a reader has seen %d alerts, want %d", read, total)
			}
		})
	}
	group.Wait()
	for id, n := range news {
		if n != 1 {
			t.Errorf("alert %s was new %d times", id, n)
		}
	}
	if have := must[Counts](t)(s.Counts(ctx)).Alerts; have != total || len(news) != have {
		t.Errorf("%d alerts are stored and %d were new, want %d", have, len(news), total)
	}
	checkIntegrity(t, s)
}

func TestCancelled(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.AddAlerts(ctx, testAlerts(0, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
	if c := must[Counts](t)(s.Counts(t.Context())); c.Alerts != 0 {
		t.Errorf("%d alerts are stored", c.Alerts)
	}
}

// TestJoinedOnce: of two that join the same alerts one does, and neither undoes
// what a person did meanwhile.
func TestJoinedOnce(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	_, was, err := s.Correlated(ctx, start)
	if err != nil || was != (Joined{}) {
		t.Fatal(was, err)
	}
	one := []*incident.Incident{{ID: "one", State: incident.New, Last: start.Add(time.Hour)}}
	if err := s.SaveIncidents(ctx, one, nil, was, 7); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveIncidents(ctx, one, nil, was, 7); !errors.Is(err, ErrChanged) {
		t.Errorf("the other: %v", err)
	}
	was.Alert = 7
	if _, found, err := s.ChangeIncident(ctx, "one", incident.Change{State: incident.Acknowledged}); !found || err != nil {
		t.Fatal(found, err)
	}
	if err := s.SaveIncidents(ctx, one, nil, was, 9); !errors.Is(err, ErrChanged) {
		t.Errorf("after a change: %v", err)
	}
	known, was, err := s.Correlated(ctx, start)
	if err != nil || len(known) != 1 || known[0].State != incident.Acknowledged || was != (Joined{7, 1}) {
		t.Fatalf("%+v, %+v, %v", known, was, err)
	}
	if err := s.SaveIncidents(ctx, known, nil, was, 9); err != nil {
		t.Error(err)
	}
	if err := s.SaveCheckpoint(ctx, correlated, []byte("12")); err != nil { // as before
		t.Fatal(err)
	}
	if _, was, err = s.Correlated(ctx, start); err != nil || was != (Joined{12, 0}) {
		t.Errorf("%+v, %v", was, err)
	}
}
