package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// held returns a decision on a request that passed with a violation.
func held(id string, at time.Time, user, name string, violations ...finding.Violation) finding.Decision {
	return finding.Decision{ID: id, Time: at, Operation: "CREATE", User: user, Allowed: true, Violations: violations,
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: name}}
}

func violation(policy, enforcement string) finding.Violation {
	return finding.Violation{Policy: policy, Binding: "all", Enforcement: enforcement, Message: policy + " says no"}
}

// TestReadiness counts what was held against requests: once for each binding, by
// the strongest enforcement, and not for dry runs, denials or the same decision
// twice.
func TestReadiness(t *testing.T) {
	s := open(t)
	now := time.Date(2026, 3, 10, 15, 0, 0, 0, time.UTC)
	dry := held("dry", now, "alice", "web", violation("tags", "warn"))
	dry.DryRun = true
	decisions := []finding.Decision{
		held("1", now.Add(-time.Hour), "alice", "first", violation("tags", "audit"), violation("tags", "warn")),
		held("2", now, "alice", "second", violation("tags", "warn"), violation("tags", "warn"), violation("probes", "dryrun")),
		held("3", now.Add(-3*day), "bob", "third", violation("tags", "warn")),
		held("4", now.Add(-9*day), "bob", "old", violation("tags", "warn")),
		held("5", now, "bob", "denied", violation("tags", "deny"), violation("tags", "audit")),
		dry,
	}
	for range 2 {
		if err := s.AddDecisions(t.Context(), decisions); err != nil {
			t.Fatal(err)
		}
	}
	check := func(days int, want ...string) {
		t.Helper()
		have, err := s.Readiness(t.Context(), days, now)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range have {
			got = append(got, fmt.Sprintf("%s %s %d %v %s %s", r.Policy, r.Enforcement, r.Requests, r.Users, r.Samples[0].Subject, r.Last.Format(time.DateTime)))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("in %d days:\n%s\nwant\n%s", days, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	probes := "probes dryrun 1 [{alice 1}] Pod/shop/second 2026-03-10 15:00:00"
	check(1, probes, "tags warn 2 [{alice 2}] Pod/shop/second 2026-03-10 15:00:00")
	check(4, probes, "tags warn 3 [{alice 2} {bob 1}] Pod/shop/second 2026-03-10 15:00:00")
	check(30, probes, "tags warn 4 [{alice 2} {bob 2}] Pod/shop/second 2026-03-10 15:00:00")
	if err := s.PruneReadiness(t.Context(), now.Add(-4*day)); err != nil {
		t.Fatal(err)
	}
	check(30, probes, "tags warn 3 [{alice 2} {bob 1}] Pod/shop/second 2026-03-10 15:00:00")
	if since, err := s.HeldSince(t.Context()); err != nil || time.Since(since) > time.Minute {
		t.Errorf("counted since %v, %v", since, err)
	}
}

// TestReadinessIsBounded expects requests beyond the rows of a day to be counted
// together, and nothing to be lost.
func TestReadinessIsBounded(t *testing.T) {
	s := open(t)
	now := time.Now()
	const beyond = 7
	var decisions []finding.Decision
	for i := range maxHeldRows + beyond {
		decisions = append(decisions, held(fmt.Sprint(i), now, fmt.Sprint("user-", i), "web", finding.Violation{
			Policy: "tags", Enforcement: "warn", Message: strings.Repeat("é", maxHeldMessage),
		}))
	}
	for _, part := range [][]finding.Decision{decisions[:5000], decisions[5000:]} {
		if err := s.AddDecisions(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	have, err := s.Readiness(t.Context(), 1, now)
	if err != nil {
		t.Fatal(err)
	}
	r := have[0]
	if r.Requests != maxHeldRows+beyond || len(r.Users) != finding.ReadinessUsers || r.Users[0] != (finding.UserRequests{Requests: beyond}) || len(r.Samples) != finding.ReadinessSamples {
		t.Errorf("%d requests, users %v, %d samples", r.Requests, r.Users, len(r.Samples))
	}
	if m := r.Samples[0].Message; m != strings.Repeat("é", maxHeldMessage/2) {
		t.Errorf("a message has %d bytes", len(m))
	}
}

// TestReadinessWhileItGrows: a report that is read while policies are held to
// something for the first time tells of those that it began with, whole.
func TestReadinessWhileItGrows(t *testing.T) {
	s := open(t)
	now := time.Date(2026, 3, 10, 15, 0, 0, 0, time.UTC)
	added := make(chan error)
	go func() {
		for i := range 200 {
			name := fmt.Sprint("p", i)
			if err := s.AddDecisions(t.Context(), []finding.Decision{held(name, now, "alice", name, violation(name, "warn"))}); err != nil {
				added <- err
				return
			}
		}
		added <- nil
	}()
	for {
		have, err := s.Readiness(t.Context(), 1, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range have {
			if r.Requests != 1 || len(r.Users) != 1 || len(r.Samples) != 1 {
				t.Fatalf("%+v", r)
			}
		}
		select {
		case err := <-added:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
