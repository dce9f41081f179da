package store

import (
	"database/sql"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

func testFindings(n int) []finding.Finding {
	severities := []finding.Severity{finding.Low, finding.Critical, finding.Medium, finding.High}
	var out []finding.Finding
	for i := range n {
		f := finding.Finding{
			Definition: &finding.Definition{Control: fmt.Sprintf("CON-SEC-%02d", i%4), Title: fmt.Sprintf("Control %d", i%4), Level: finding.Levels()[i%5], Severity: severities[i%4]},
			Detail:     &finding.Detail{Message: fmt.Sprintf("container web-%d is privileged", i), ObservedAt: start},
			Status:     finding.Fail, Gain: 0.5, Subject: &finding.Subject{APIVersion: "apps/v1", Kind: "Deployment", Namespace: fmt.Sprintf("team-%d", i%3), Name: fmt.Sprintf("web-%03d", i)},
		}
		if i%7 == 0 {
			f.Status, f.Reason, f.Gain = finding.Unknown, "no permission", 0
		}
		out = append(out, f)
	}
	return out
}

func replace(t *testing.T, s *Store, findings []finding.Finding) {
	t.Helper()
	if err := s.ReplaceFindings(t.Context(), findings); err != nil {
		t.Fatal(err)
	}
}

func TestFindingsComeBackWorstFirst(t *testing.T) {
	s := open(t)
	replace(t, s, testFindings(40))
	have := must[[]finding.Finding](t)(s.Findings(t.Context()))
	want := map[string]finding.Finding{}
	for _, f := range testFindings(40) {
		want[f.Subject.Name] = f
	}
	for i, f := range have {
		if !reflect.DeepEqual(f, want[f.Subject.Name]) {
			t.Errorf("have %+v", f)
		}
		if i > 0 && f.Severity.Weight() > have[i-1].Severity.Weight() {
			t.Errorf("%s follows %s", f.Severity, have[i-1].Severity)
		}
	}
	if len(have) != 40 {
		t.Errorf("have %d findings", len(have))
	}
}

// writes counts the rows that a call changes in the database.
func writes(t *testing.T, s *Store, call func()) int {
	t.Helper()
	query := "SELECT total_changes()"
	if s.postgres { // which tells late what happened in transactions that are over
		query = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE relname IN ('findings', 'finding_spans', 'finding_span_subjects')"
		s.writer.SetMaxOpenConns(1)
	}
	total := func() (n int) {
		if s.postgres {
			must[sql.Result](t)(s.writer.Exec("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()"))
		}
		if err := s.writer.QueryRow(query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := total()
	call()
	return total() - before
}

func TestReplaceFindingsWritesOnlyChanges(t *testing.T) {
	s := open(t)
	later := func(fs []finding.Finding, d time.Duration) []finding.Finding {
		fs = slices.Clone(fs)
		for i := range fs {
			fs[i].Amend(func(detail *finding.Detail) { detail.ObservedAt = start.Add(d) })
		}
		return fs
	}
	fixed := testFindings(40)
	fixed[3].Status = finding.Pass
	fixed[3].Amend(func(d *finding.Detail) { d.Message = "" })
	steps := []struct {
		name     string
		findings []finding.Finding
		writes   int // of states, and of when they were found (two rows) and resolved (one)
		left     int
	}{
		{"first scan", testFindings(40), 40 + 2*34, 40},
		{"same again", testFindings(40), 0, 40},
		{"same, a minute later", later(testFindings(40), time.Minute), 0, 40},
		{"one fixed", fixed, 2 + 1, 40}, // the state is written anew, under a new number
		{"two gone", fixed[:38], 2 + 2, 38},
		{"same, an hour later", later(fixed[:38], time.Hour), 38, 38},
		{"nothing left", nil, 38 + 31, 0},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			if n := writes(t, s, func() { replace(t, s, step.findings) }); n != step.writes {
				t.Errorf("%d rows were written, want %d", n, step.writes)
			}
			have := must[[]finding.Finding](t)(s.Findings(t.Context()))
			if len(have) != step.left {
				t.Errorf("%d findings are left, want %d", len(have), step.left)
			}
			for _, f := range have {
				if want := step.findings[len(step.findings)-1].ObservedAt; f.ObservedAt.After(want) || want.Sub(f.ObservedAt) >= refreshAfter {
					t.Errorf("observed at %s, want about %s", f.ObservedAt, want)
				}
			}
		})
	}
}

// TestFindingSpans: what an evaluation finds, loses sight of and sees resolved is
// remembered with the time, whatever the states are by now.
func TestFindingSpans(t *testing.T) {
	s := open(t)
	began := time.Now().Add(-time.Second)
	state := func(name string, status finding.Status) finding.Finding {
		f := testFindings(2)[1]
		f.Subject, f.Status = &finding.Subject{Kind: "Deployment", Namespace: "shop", Name: name}, status
		return f
	}
	spans := func(q finding.SpanQuery) map[string]finding.Span {
		t.Helper()
		out := map[string]finding.Span{}
		for _, span := range must[[]finding.Span](t)(s.FindingSpans(t.Context(), q)) {
			out[span.Finding.Subject.Name] = span
		}
		return out
	}
	all := finding.SpanQuery{Subjects: []string{"Deployment/shop/old", "Deployment/shop/new", "Deployment/shop/gone", "Deployment/shop/odd", "ServiceAccount/shop/web"}}
	replace(t, s, []finding.Finding{state("old", finding.Fail), state("new", finding.Pass), state("gone", finding.Fail), state("odd", finding.Fail)})
	granted := state("new", finding.Fail)
	granted.Amend(func(d *finding.Detail) {
		d.Grantees = []finding.Grantee{{Kind: "ServiceAccount", Namespace: "shop", Name: "web"}}
	})
	replace(t, s, []finding.Finding{state("old", finding.Fail), granted, state("odd", finding.Unknown)})
	have := spans(all)
	if len(have) != 4 || have["old"].New || !have["new"].New || !have["old"].Resolved.IsZero() || have["gone"].Became != "" {
		t.Fatalf("after two evaluations: %+v", have)
	}
	if gone := have["gone"]; gone.Found.Before(began) || gone.Resolved.Before(gone.Found) || gone.Resolved.After(time.Now()) {
		t.Errorf("gone from %s to %s", gone.Found, gone.Resolved)
	}
	if odd := have["odd"]; !odd.Resolved.IsZero() {
		t.Error("losing sight of a failure is no fix")
	}
	if one := spans(finding.SpanQuery{Subjects: []string{"ServiceAccount/shop/web"}}); len(one) != 1 || one["new"].Finding.Control != granted.Control {
		t.Errorf("of who is granted it: %+v", one)
	}
	replace(t, s, []finding.Finding{state("old", finding.Excepted), granted, state("odd", finding.Fail)})
	have = spans(all)
	if have["old"].Became != finding.Excepted || have["old"].Resolved.IsZero() || len(have) != 4 || have["odd"].New {
		t.Errorf("after three: %+v", have)
	}
	replace(t, s, []finding.Finding{state("old", finding.Fail), granted})
	if list := must[[]finding.Span](t)(s.FindingSpans(t.Context(), all)); len(list) != 5 {
		t.Errorf("%d spans, want 5: what fails again is found again", len(list))
	}
	for name, test := range map[string]struct {
		since, until time.Time
		want         int
	}{
		"before it began":  {time.Time{}, began, 0},
		"from now on":      {time.Now().Add(time.Hour), time.Time{}, 2},
		"at that time":     {began, time.Now(), 5},
		"until the future": {time.Time{}, time.Now().Add(time.Hour), 5},
	} {
		q := all
		q.Since, q.Until = test.since, test.until
		if list := must[[]finding.Span](t)(s.FindingSpans(t.Context(), q)); len(list) != test.want {
			t.Errorf("%s: %d spans, want %d", name, len(list), test.want)
		}
	}
	removeOld(t, s, time.Now().Add(time.Hour))
	if have := spans(all); len(have) != 2 || !have["old"].Resolved.IsZero() || !have["old"].New {
		t.Errorf("after retention: %+v", have)
	}
	if list := must[[]finding.Span](t)(s.FindingSpans(t.Context(), finding.SpanQuery{})); list != nil {
		t.Error("of nothing there is something")
	}
}

// Two objects of one name are two states.
func TestSameSubjectTwice(t *testing.T) {
	s := open(t)
	two := testFindings(1)
	two = append(two, two[0])
	two[1].Amend(func(d *finding.Detail) { d.Message = "the other one" })
	replace(t, s, two)
	if n := writes(t, s, func() { replace(t, s, two) }); n != 0 {
		t.Errorf("%d rows were written for the same states", n)
	}
	if have := must[[]finding.Finding](t)(s.Findings(t.Context())); len(have) != 2 {
		t.Errorf("have %d findings, want 2", len(have))
	}
}

func TestFindingFilters(t *testing.T) {
	s := open(t)
	all := testFindings(100)
	replace(t, s, all)
	tests := []struct {
		name  string
		query finding.Query
		match func(f finding.Finding) bool
	}{
		{"all", finding.Query{}, func(finding.Finding) bool { return true }},
		{"control", finding.Query{Control: "CON-SEC-01"}, func(f finding.Finding) bool { return f.Control == "CON-SEC-01" }},
		{"level", finding.Query{Level: finding.Code}, func(f finding.Finding) bool { return f.Level == finding.Code }},
		{"severity or worse", finding.Query{Severity: finding.High}, func(f finding.Finding) bool { return f.Severity.AtLeast(finding.High) }},
		{"status", finding.Query{Status: finding.Unknown}, func(f finding.Finding) bool { return f.Status == finding.Unknown }},
		{"namespace", finding.Query{Namespace: "team-1"}, func(f finding.Finding) bool { return f.Subject.Namespace == "team-1" }},
		{"text", finding.Query{Text: "WEB-17 is"}, func(f finding.Finding) bool { return f.Subject.Name == "web-017" }},
		{"several", finding.Query{Control: "CON-SEC-03", Status: finding.Fail, Namespace: "team-2"},
			func(f finding.Finding) bool {
				return f.Control == "CON-SEC-03" && f.Status == finding.Fail && f.Subject.Namespace == "team-2"
			}},
		{"none", finding.Query{Control: "none"}, func(finding.Finding) bool { return false }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, controls := 0, map[string]int{}
			for _, f := range all {
				if tt.match(f) {
					want++
					controls[f.Control]++
				}
			}
			seen := map[string]bool{}
			q := tt.query
			q.Limit = 3
			for more := true; more; more = q.After != "" {
				page, next, err := s.FindingPage(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range page {
					if seen[f.Subject.Name] || !tt.match(f) {
						t.Errorf("%s is seen again, or does not match", f.Subject)
					}
					seen[f.Subject.Name] = true
				}
				q.After = next
			}
			if len(seen) != want {
				t.Errorf("have %d findings, want %d", len(seen), want)
			}
			checkGroups(t, must[[]finding.Group](t)(s.FindingGroups(t.Context(), tt.query)), controls)
		})
	}
	if have := must[map[finding.Status]int](t)(s.FindingCounts(t.Context())); have[finding.Fail]+have[finding.Unknown] != 100 {
		t.Errorf("have %v", have)
	}
}

func checkGroups(t *testing.T, groups []finding.Group, controls map[string]int) {
	t.Helper()
	for i, g := range groups {
		first := g.Findings[0]
		if g.Count != controls[first.Control] || len(g.Findings) != min(g.Count, 5) {
			t.Errorf("%s has count %d and %d findings, want count %d", first.Control, g.Count, len(g.Findings), controls[first.Control])
		}
		if i > 0 && first.Severity.Weight() > groups[i-1].Findings[0].Severity.Weight() {
			t.Errorf("%s follows %s", first.Severity, groups[i-1].Findings[0].Severity)
		}
		for _, f := range g.Findings {
			if f.Control != first.Control {
				t.Errorf("%s is in the group of %s", f.Control, first.Control)
			}
		}
	}
	if len(groups) != len(controls) {
		t.Errorf("have %d groups, want %d", len(groups), len(controls))
	}
}

func BenchmarkReplaceFindings(b *testing.B) {
	s := open(b)
	for b.Loop() {
		if err := s.ReplaceFindings(b.Context(), testFindings(20_000)); err != nil {
			b.Fatal(err)
		}
	}
}
