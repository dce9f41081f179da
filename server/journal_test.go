package server

import (
	"database/sql"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/action"
)

// TestActionLogIsVerified removes the end of the log of actions while the server
// is down: the next start tells, and goes on telling until somebody has looked.
func TestActionLogIsVerified(t *testing.T) {
	dir := t.TempDir()
	run := func() (health string) {
		r := start(t, options(t, dir, ""))
		defer func() {
			if err := errors.Join(r.stop(), r.Stop()); err != nil {
				t.Error(err)
			}
		}()
		for range 3 { // of no incident: what was asked for is noted all the same
			if code, body := r.do(http.DefaultClient, http.MethodPost, r.WebURL()+"/api/v1/incidents/none", `{"assignee":"ada"}`); code != http.StatusNotFound {
				t.Fatalf("change: %d %s", code, body)
			}
		}
		_, health = r.page("/api/v1/health")
		return health
	}
	const problem = "The log of actions is not what it was"
	for range 2 {
		if health := run(); strings.Contains(health, problem) {
			t.Fatalf("an honest log: %s", health)
		}
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "kubeguardian.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "DELETE FROM actions WHERE seq > 10"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if health := run(); !strings.Contains(health, problem+": entry 12: it was seen before and is missing") &&
			!strings.Contains(health, problem+": entry 12: it is another one than was seen before") {
			t.Errorf("a log without its end: %s", health)
		}
	}
	if err := os.Remove(filepath.Join(dir, "actions.head")); err != nil {
		t.Fatal(err)
	}
	if health := run(); strings.Contains(health, problem) {
		t.Errorf("after somebody has looked: %s", health)
	}
}

// TestOnlyHealthIsOpen: beside the pages the listener has nothing but what tells
// that the server lives, and its metrics.
func TestOnlyHealthIsOpen(t *testing.T) {
	opts := options(t, t.TempDir(), "")
	opts.Config.Web.Login.Kubernetes = false // the cluster of this test never answers
	r := start(t, opts)
	r.token = "wrong"
	for path, want := range map[string]int{
		"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/metrics": http.StatusOK,
		"/api/v1/health": http.StatusUnauthorized, "/debug/pprof/": http.StatusUnauthorized,
	} {
		if code, body := r.page(path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// TestActionLogIsVerifiedOffline verifies the log by its database and by an export,
// while the server runs and when it does not, before and after somebody changes it.
func TestActionLogIsVerifiedOffline(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir, "")
	if _, err := VerifyActions(t.Context(), opts.Config); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a database: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kubeguardian.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("verifying has made a database: %v", err)
	}
	r := start(t, opts)
	for range 3 {
		if code, body := r.do(http.DefaultClient, http.MethodPost, r.WebURL()+"/api/v1/incidents/none", `{"assignee":"ada"}`); code != http.StatusNotFound {
			t.Fatalf("change: %d %s", code, body)
		}
	}
	live, err := VerifyActions(t.Context(), opts.Config)
	if err != nil || live.Seq != 6 { // each is noted before it is done, and when it has failed
		t.Fatalf("while the server runs: %v, %v", live, err)
	}
	code, export := r.page("/api/v1/export/actions")
	entries, err := action.ReadExport(strings.NewReader(export))
	if code != http.StatusOK || err != nil {
		t.Fatalf("export: %d, %v", code, err)
	}
	chain := action.NewChain(live)
	for _, e := range entries {
		if err := chain.Add(e); err != nil {
			t.Error(err)
		}
	}
	if err := chain.End(); err != nil || chain.Head() != live {
		t.Errorf("the export ends at %v, %v", chain.Head(), err)
	}
	if err := errors.Join(r.stop(), r.Stop()); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyActions(t.Context(), opts.Config, action.Head{Seq: 2, Hash: live.Hash}); err == nil || !strings.Contains(err.Error(), "entry 2: it is another one") {
		t.Errorf("with the head of another log: %v", err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "kubeguardian.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "DELETE FROM actions WHERE seq > 4"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	broken := (*action.BrokenError)(nil)
	if _, err := VerifyActions(t.Context(), opts.Config); !errors.As(err, &broken) || broken.Seq != 6 {
		t.Errorf("without its end: %v", err)
	}
}
