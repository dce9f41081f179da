package sessions_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/access/sealed"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
	"github.com/kubeguardian/kubeguardian/store/sessions"
)

// onDatabases runs a test on SQLite and on PostgreSQL.
func onDatabases(t *testing.T, test func(t *testing.T, s *sessions.Sessions)) {
	open := func(t *testing.T, address string) {
		db, err := store.Open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		test(t, db.Sessions())
	}
	t.Run("SQLite", func(t *testing.T) { open(t, filepath.Join(t.TempDir(), "kubeguardian.db")) })
	t.Run("PostgreSQL", func(t *testing.T) {
		_, address := postgrestest.ForTest(t)
		open(t, address)
	})
}

func TestSessions(t *testing.T) {
	onDatabases(t, func(t *testing.T, s *sessions.Sessions) {
		ctx, now := t.Context(), time.Now().UTC()
		old := now.Add(-time.Hour)
		add := func(id string, began, used time.Time) {
			t.Helper()
			if err := s.Add(ctx, sealed.Session{ID: id, Began: began, Used: used, Body: []byte("body of " + id)}, old, old); err != nil {
				t.Fatal(err)
			}
		}
		there := func(id string) bool {
			t.Helper()
			found, ok, err := s.Session(ctx, id)
			if err != nil || ok && (found.ID != id || len(found.Body) == 0) {
				t.Fatalf("%+v, %v", found, err)
			}
			return ok
		}
		add("first", now, now)
		if found, _, _ := s.Session(ctx, "first"); !found.Began.Equal(now) || !found.Used.Equal(now) || string(found.Body) != "body of first" {
			t.Errorf("what is kept is %+v", found)
		}
		if there("other") {
			t.Error("a session is found that there is not")
		}

		// One claims, renews and lets go; a claim that nobody ended is over in time.
		_, mine, err := s.Claim(ctx, "first", now.Add(time.Hour))
		if _, again, _ := s.Claim(ctx, "first", now.Add(time.Hour)); err != nil || !mine || again {
			t.Errorf("the first claim is %t, the second %t, %v", mine, again, err)
		}
		if err := s.Renew(ctx, "first", []byte("new")); err != nil {
			t.Error(err)
		}
		claimed, mine, err := s.Claim(ctx, "first", time.Now().Add(-time.Minute))
		if err != nil || !mine || string(claimed.Body) != "new" {
			t.Errorf("after it was renewed: %+v, %t, %v", claimed, mine, err)
		}
		if _, mine, err = s.Claim(ctx, "first", now.Add(time.Hour)); err != nil || !mine {
			t.Errorf("a claim goes on for ever: %v", err)
		}
		if err := s.Renew(ctx, "first", nil); err != nil {
			t.Error(err)
		}
		if found, _, _ := s.Session(ctx, "first"); string(found.Body) != "new" {
			t.Errorf("letting go makes the credential %q", found.Body)
		}
		if _, mine, err = s.Claim(ctx, "other", now); err != nil || mine {
			t.Errorf("a session is claimed that there is not: %v", err)
		}
		for _, at := range []time.Time{now.Add(time.Minute), now} { // the clock of a replica may be behind
			if err := s.Use(ctx, "first", at); err != nil {
				t.Error(err)
			}
		}
		if found, _, _ := s.Session(ctx, "first"); !found.Used.Equal(now.Add(time.Minute)) {
			t.Errorf("it was used %s", found.Used)
		}
		if err := s.End(ctx, "first"); err != nil || there("first") {
			t.Errorf("it has not ended, %v", err)
		}

		// What is over goes, and of too many the ones that are idle for longest.
		add("old", old, now)
		add("idle", now, old)
		add("new", now, now)
		if there("old") || there("idle") || !there("new") {
			t.Error("what is over is kept, or what is not is forgotten")
		}
		for i := range sessions.Most {
			add(fmt.Sprint(i), now, now.Add(time.Duration(i+1)*time.Second))
		}
		if there("new") || !there("0") || !there(fmt.Sprint(sessions.Most-1)) {
			t.Error("the one that is idle for longest does not make room")
		}
		add("late", now, now.Add(-time.Minute)) // that its clock is behind does not end it
		if !there("late") || there("0") {
			t.Error("a new session is forgotten at once")
		}
		if n, err := s.Prune(ctx, old, now.Add(time.Duration(sessions.Most)*time.Hour)); err != nil || n != sessions.Most {
			t.Errorf("%d were forgotten, %v", n, err)
		}
	})
}

// TestOneClaims: of many that want to renew a session at the same time one may.
func TestOneClaims(t *testing.T) {
	onDatabases(t, func(t *testing.T, s *sessions.Sessions) {
		now := time.Now()
		if err := s.Add(t.Context(), sealed.Session{ID: "one", Began: now, Used: now, Body: []byte("x")}, now.Add(-time.Hour), now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				_, mine, err := s.Claim(t.Context(), "one", now.Add(time.Hour))
				if err != nil {
					t.Error(err)
				}
				if mine {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d have claimed it", won.Load())
		}
	})
}

// TestFailures: failed logins count by network within a window, at once from many
// replicas, and are forgotten after it.
func TestFailures(t *testing.T) {
	onDatabases(t, func(t *testing.T, s *sessions.Sessions) {
		now := time.Now()
		fail := func(network string, now time.Time) {
			if err := s.Fail(t.Context(), network, now, now.Add(time.Minute)); err != nil {
				t.Error(err)
			}
		}
		want := func(network string, now time.Time, want int) {
			t.Helper()
			if have, err := s.Failures(t.Context(), network, now); err != nil || have != want {
				t.Errorf("%s has failed %d times, %v; want %d", network, have, err, want)
			}
		}
		want("192.0.2.1/32", now, 0)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { fail("192.0.2.1/32", now) })
		}
		wg.Wait()
		fail("2001:db8::/64", now.Add(30*time.Second))
		want("192.0.2.1/32", now.Add(59*time.Second), 16)
		want("192.0.2.1/32", now.Add(time.Minute), 0)
		want("2001:db8::/64", now.Add(time.Minute), 1)
		fail("192.0.2.1/32", now.Add(time.Minute)) // a window of its own, and that of the other goes on
		want("192.0.2.1/32", now.Add(time.Minute), 1)
		want("2001:db8::/64", now.Add(time.Minute), 1)
		fail("192.0.2.1/32", now.Add(90*time.Second))
		want("192.0.2.1/32", now.Add(90*time.Second), 2)
		var rows int
		if err := s.Readers.QueryRowContext(t.Context(), "SELECT count(*) FROM login_failures").Scan(&rows); err != nil || rows != 1 {
			t.Errorf("%d networks are kept, %v", rows, err)
		}
	})
}
