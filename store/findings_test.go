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
		query = "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'findings'"
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
		writes   int
		left     int
	}{
		{"first scan", testFindings(40), 40, 40},
		{"same again", testFindings(40), 0, 40},
		{"same, a minute later", later(testFindings(40), time.Minute), 0, 40},
		{"one fixed", fixed, 1, 40},
		{"two gone", fixed[:38], 2, 38},
		{"same, an hour later", later(fixed[:38], time.Hour), 38, 38},
		{"nothing left", nil, 38, 0},
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
