package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// A pair is a primary and a standby that it waits for with each commit.
type pair struct {
	primary, standby *postgrestest.Server
	url              string // names both
}

func startPair(t *testing.T) *pair {
	t.Helper()
	ctx := t.Context()
	p := &pair{primary: must[*postgrestest.Server](t)(postgrestest.Start(ctx, t.TempDir()))}
	t.Cleanup(func() { p.primary.Kill() })
	p.standby = must[*postgrestest.Server](t)(p.primary.Standby(ctx, t.TempDir(), "standby"))
	t.Cleanup(func() { p.standby.Kill() })
	if err := p.primary.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	must[string](t)(p.primary.Create(ctx, "kubeguardian"))
	p.url = fmt.Sprintf("postgresql://kubeguardian:%s@127.0.0.1:%d,127.0.0.1:%d/kubeguardian?target_session_attrs=read-write",
		postgrestest.Password, p.primary.Port, p.standby.Port)
	return p
}

// TestPrimaryKilled: while 5,000 alerts are sent each second, and decisions and
// repeats beside them, the primary is killed and the standby takes over. All that
// was acknowledged is there, nothing is there twice, and a reader that follows has
// seen each alert once.
func TestPrimaryKilled(t *testing.T) {
	onPostgres(t)
	if testing.Short() {
		t.Skip("sends alerts for many seconds")
	}
	t.Run("both named", func(t *testing.T) {
		p := startPair(t)
		survives(t, p, p.url)
	})
	t.Run("through Pgpool-II", func(t *testing.T) {
		p := startPair(t)
		pool, err := postgrestest.StartPool(t.Context(), t.TempDir(), p.primary, p.standby)
		if errors.Is(err, postgrestest.ErrNoPool) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Stop() })
		survives(t, p, pool.URL("kubeguardian"))
	})
}

func survives(t *testing.T, p *pair, url string) {
	ctx := t.Context()
	s := must[*Store](t)(Open(ctx, url))
	defer s.Close()
	const perBatch, every, lasts = 500, 100 * time.Millisecond, 12 * time.Second
	const total = perBatch * int(lasts/every)

	sending, stop := context.WithCancel(ctx)
	defer stop()
	seen := make(chan map[string]int, 1)
	done := make(chan int, 1) // alerts that were sent
	go func() { seen <- followed(t, url, done) }()
	var group sync.WaitGroup
	sent, decided, longest, took := 0, 0, time.Duration(0), time.Duration(0)
	group.Go(func() {
		defer stop()
		for first := time.Now(); sent < total; time.Sleep(time.Until(first.Add(every * time.Duration(sent/perBatch)))) {
			began := time.Now() // what is late is sent at once
			// As a sender does that was not answered: the same again, until it is.
			for _, err := s.AddAlerts(ctx, testAlerts(sent, sent+perBatch)); err != nil; _, err = s.AddAlerts(ctx, testAlerts(sent, sent+perBatch)) {
				t.Logf("not acknowledged: %v", err)
			}
			sent += perBatch
			longest = max(longest, time.Since(began))
			took = time.Since(first)
		}
	})
	group.Go(func() {
		for ; sending.Err() == nil; decided += 10 {
			for err := s.AddDecisions(ctx, testDecisions(decided + 10)[decided:]); err != nil; err = s.AddDecisions(ctx, testDecisions(decided + 10)[decided:]) {
				t.Logf("not acknowledged: %v", err)
			}
			time.Sleep(every)
		}
	})
	time.Sleep(lasts / 3)
	if err := p.primary.Kill(); err != nil {
		t.Error(err)
	}
	if err := p.standby.Promote(ctx); err != nil {
		t.Error(err)
	}
	group.Wait()
	t.Logf("%d alerts in %s, %.0f/s; the longest write took %s", sent, took.Round(time.Millisecond), float64(sent)/took.Seconds(), longest.Round(time.Millisecond))
	done <- sent
	counts := <-seen
	for i := range sent {
		if n := counts[testAlert(i).ID]; n != 1 {
			t.Fatalf("alert %d was seen %d times", i, n)
		}
	}
	have := must[Counts](t)(s.Counts(ctx))
	if have.Alerts != sent || have.Decisions != decided || len(counts) != sent {
		t.Errorf("%d alerts and %d decisions are stored, %d alerts were seen; want %d and %d", have.Alerts, have.Decisions, len(counts), sent, decided)
	}
	outcomes := must[map[finding.Outcome]int](t)(s.DecisionCounts(ctx, start))
	if n := outcomes[finding.Denied] + outcomes[finding.Warned] + outcomes[finding.Allowed]; n != decided {
		t.Errorf("%d decisions are counted, want %d", n, decided)
	}
}

// followed reads alerts as they come until it has seen as many as were sent, or
// none came for a minute, and returns how often it saw each.
func followed(t *testing.T, url string, sent <-chan int) map[string]int {
	s, err := Open(t.Context(), url)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer s.Close()
	seen, last, want := map[string]int{}, int64(0), -1
	var until <-chan time.Time
	for want < 0 || len(seen) < want {
		records, end, err := s.AlertsAfter(t.Context(), last, alert.Query{Limit: maxLimit})
		for _, r := range records {
			seen[r.ID]++
		}
		if want >= 0 && len(records) > 0 {
			until = time.After(time.Minute)
		}
		if err != nil {
			t.Logf("the reader tries again: %v", err)
		}
		if last = end; len(records) == maxLimit {
			continue
		}
		select {
		case want = <-sent:
			until = time.After(time.Minute)
		case <-until:
			return seen
		case <-time.After(50 * time.Millisecond):
		}
	}
	return seen
}
