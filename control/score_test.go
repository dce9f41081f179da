package control_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

// entry writes one control of a test catalogue.
func entry(id, severity, family string) string {
	text := fmt.Sprintf(`
- id: %s
  title: Title of %[1]s
  severity: %s
  subjects: [workload]
  definition: what it demands
  why: what may happen
  fix: {class: guide, text: what to do}
  evidence: [api]
  evaluator: policy
`, id, severity)
	if family != "" {
		text += "  family: " + family + "\n"
	}
	return text
}

// load builds a catalogue from its controls by level.
func load(t testing.TB, levels map[string][]string) *control.Catalogue {
	t.Helper()
	fsys := fstest.MapFS{"catalogue.yaml": {Data: []byte("version: test\n")}}
	for level, entries := range levels {
		fsys[level+".yaml"] = &fstest.MapFile{Data: []byte("level: " + level + "\ncontrols:" + strings.Join(entries, ""))}
	}
	c, err := control.LoadCatalogue(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// some returns n findings of a control, for objects numbered from 0.
func some(n int, id string, status finding.Status, exposure finding.Exposure) []finding.Finding {
	var out []finding.Finding
	for i := range n {
		out = append(out, finding.Finding{
			Definition: &finding.Definition{Control: id},
			Detail:     &finding.Detail{Reason: "because"},
			Status:     status, Exposure: exposure, Subject: &finding.Subject{Kind: "Pod", Name: fmt.Sprintf("%s-%d", status, i)},
		})
	}
	return out
}

func join(lists ...[]finding.Finding) []finding.Finding {
	var out []finding.Finding
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestWorkedExample(t *testing.T) {
	c := load(t, map[string][]string{"container": {
		entry("CON-AAA-01", "critical", ""), entry("CON-AAA-02", "high", ""), entry("CON-AAA-03", "medium", ""),
	}})
	s := control.Summarize(c, join(
		some(96, "CON-AAA-01", finding.Pass, finding.InCluster),
		some(4, "CON-AAA-01", finding.Fail, finding.InCluster),
		some(7, "CON-AAA-02", finding.Pass, finding.InCluster),
		some(1, "CON-AAA-03", finding.Unknown, finding.InCluster),
	))
	l := s.Levels[2]
	want := control.LevelScore{Pass: 10.0 / 17, Fail: 5.0 / 17, Unknown: 2.0 / 17, Coverage: 15.0 / 17}
	if !near(l.Pass, want.Pass) || !near(l.Fail, want.Fail) || !near(l.Unknown, want.Unknown) || !near(l.Coverage, want.Coverage) {
		t.Errorf("bar = %+v, want %+v", l, want)
	}
	if got := fmt.Sprintf("%.1f of 20, range %.1f to %.1f", *l.Score, s.Low/5, s.High/5); got != "11.8 of 20, range 11.8 to 14.1" {
		t.Error(got)
	}
	if !near(*s.Total, 100*10.0/17) {
		t.Errorf("total = %v: the other levels have no control and leave it", *s.Total)
	}
	if l.Controls != 3 || l.Level != finding.Container {
		t.Errorf("level = %+v", l)
	}
}

func TestBar(t *testing.T) {
	c := load(t, map[string][]string{
		"container": {
			entry("CON-ONE-01", "high", ""), entry("CON-TWO-01", "critical", ""),
			entry("CON-FAM-01", "medium", "paths"), entry("CON-FAM-02", "critical", "paths"),
			entry("CON-FAM-03", "critical", "paths"),
		},
	})
	tests := []struct {
		name                          string
		findings                      []finding.Finding
		pass, fail, unknown, accepted float64
	}{
		{"all pass", some(3, "CON-ONE-01", finding.Pass, ""), 1, 0, 0, 0},
		{"a quarter fails in the cluster", join(some(3, "CON-ONE-01", finding.Pass, ""), some(1, "CON-ONE-01", finding.Fail, finding.InCluster)), .75, .25, 0, 0},
		{"a system failure weighs the same", join(some(3, "CON-ONE-01", finding.Pass, ""), some(1, "CON-ONE-01", finding.Fail, finding.System)), .75, .25, 0, 0},
		{"an exposed failure weighs three", join(some(3, "CON-ONE-01", finding.Pass, ""), some(1, "CON-ONE-01", finding.Fail, finding.Internet)), .25, .75, 0, 0},
		{"and so does one of unknown exposure", join(some(3, "CON-ONE-01", finding.Pass, ""), some(1, "CON-ONE-01", finding.Fail, "")), .25, .75, 0, 0},
		{"never below zero", some(2, "CON-ONE-01", finding.Fail, finding.Internet), 0, 1, 0, 0},
		{"a switch is on or off", some(1, "CON-ONE-01", finding.Fail, finding.InCluster), 0, 1, 0, 0},
		{"the rest is split by weight", join(some(1, "CON-ONE-01", finding.Fail, finding.Internet), some(1, "CON-ONE-01", finding.Unknown, finding.InCluster),
			some(1, "CON-ONE-01", finding.Excepted, finding.InCluster), some(5, "CON-ONE-01", finding.Pass, "")), 3. / 8, 3. / 8, 1. / 8, 1. / 8},
		{"an open critical failure caps", join(some(99, "CON-TWO-01", finding.Pass, ""), some(1, "CON-TWO-01", finding.Fail, finding.InCluster)), .5, .5, 0, 0},
		{"accepted or not", join(some(99, "CON-TWO-01", finding.Pass, ""), some(1, "CON-TWO-01", finding.Excepted, finding.InCluster)), .5, 0, 0, .5},
		{"what is unknown is not open", join(some(9, "CON-TWO-01", finding.Pass, ""), some(1, "CON-TWO-01", finding.Unknown, finding.InCluster)), .9, 0, .1, 0},
		{"not applicable leaves the sum", join(some(1, "CON-ONE-01", finding.Pass, ""), some(9, "CON-ONE-01", finding.NotApplicable, "")), 1, 0, 0, 0},
		{"a family counts the lighter fact at its fraction", join(some(1, "CON-FAM-01", finding.Fail, finding.InCluster),
			some(1, "CON-FAM-02", finding.NotApplicable, "")), .8, .2, 0, 0},
		{"a family counts an object once, by its heaviest fact", join(rename("web", some(1, "CON-FAM-01", finding.Fail, finding.InCluster)),
			rename("web", some(1, "CON-FAM-02", finding.Unknown, finding.InCluster)), rename("db", some(1, "CON-FAM-02", finding.Pass, ""))), .5, 0, .5, 0},
		{"at the same weight a failure counts first", join(rename("web", some(1, "CON-FAM-02", finding.Unknown, finding.InCluster)),
			rename("web", some(1, "CON-FAM-03", finding.Fail, finding.InCluster))), 0, 1, 0, 0},
		{"and what is accepted before what is unknown", join(rename("web", some(1, "CON-FAM-02", finding.Unknown, finding.InCluster)),
			rename("web", some(1, "CON-FAM-03", finding.Excepted, finding.InCluster))), 0, 0, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := control.Summarize(c, tt.findings).Levels[2]
			if !near(l.Pass, tt.pass) || !near(l.Fail, tt.fail) || !near(l.Unknown, tt.unknown) || !near(l.Accepted, tt.accepted) {
				t.Errorf("pass %.3f fail %.3f unknown %.3f accepted %.3f, want %.3f %.3f %.3f %.3f",
					l.Pass, l.Fail, l.Unknown, l.Accepted, tt.pass, tt.fail, tt.unknown, tt.accepted)
			}
		})
	}
}

// rename gives all findings the same subject, each in a container of its own:
// a family looks at the object.
func rename(name string, findings []finding.Finding) []finding.Finding {
	for i := range findings {
		findings[i].Subject.Name = name
		findings[i].Subject.Container = findings[i].Control
	}
	return findings
}

func TestNoData(t *testing.T) {
	c := load(t, map[string][]string{"code": {entry("COD-AAA-01", "low", "")}})
	for name, findings := range map[string][]finding.Finding{
		"no findings":              nil,
		"nothing applies":          some(3, "COD-AAA-01", finding.NotApplicable, ""),
		"controls of other making": some(3, "COD-ZZZ-99", finding.Pass, ""),
	} {
		t.Run(name, func(t *testing.T) {
			s := control.Summarize(c, findings)
			if s.Total != nil || len(s.Levels) != 5 || !strings.HasPrefix(s.Notes[0], "no data") {
				t.Errorf("Summarize = %+v", s)
			}
			for _, l := range s.Levels {
				if l.Score != nil || l.Pass+l.Fail+l.Unknown+l.Accepted != 0 {
					t.Errorf("level = %+v", l)
				}
			}
		})
	}
}

func TestCapsAndNotes(t *testing.T) {
	c := load(t, map[string][]string{
		"container":   {entry("CON-AAA-01", "critical", ""), entry("CON-AAA-02", "critical", ""), entry("CON-AAA-03", "critical", "")},
		"application": {entry("APP-AAA-01", "low", "")},
		"code":        {entry("COD-AAA-01", "low", "")},
		"cluster":     {entry("CLU-AAA-01", "low", "")},
	})
	passing := join(some(99, "CON-AAA-01", finding.Pass, ""), some(1, "CON-AAA-02", finding.Pass, ""), some(1, "CON-AAA-03", finding.Pass, ""),
		some(1, "APP-AAA-01", finding.Pass, ""), some(1, "COD-AAA-01", finding.Pass, ""), some(1, "CLU-AAA-01", finding.Pass, ""))
	tests := []struct {
		name         string
		extra        []finding.Finding
		level, total float64
		levelNote    string
		totalNote    string
	}{
		{"a failure inside the cluster caps its control only", some(1, "CON-AAA-01", finding.Fail, finding.InCluster),
			20 * 2.5 / 3, 100 * (2.5/3 + 3) / 4, "", ""},
		{"one on the internet caps level and total", some(1, "CON-AAA-01", finding.Fail, finding.Internet),
			13.8, 84, "capped at 13.8 of 20: CON-AAA-01 fails for Pod/fail-0, which the internet reaches",
			"capped at 84: CON-AAA-01 fails for Pod/fail-0, which the internet reaches"},
		{"an accepted one too", some(2, "CON-AAA-01", finding.Excepted, finding.Internet),
			13.8, 84, "capped at 13.8 of 20: CON-AAA-01 fails for Pod/excepted-0, which the internet reaches, and 1 more",
			"capped at 84: CON-AAA-01 fails for Pod/excepted-0, which the internet reaches, and 1 more"},
		{"and one that may be", some(1, "CON-AAA-01", finding.Fail, finding.ExposureUnknown),
			13.8, 84, "capped at 13.8 of 20: CON-AAA-01 fails for Pod/fail-0, of which it is not known whether the internet reaches it",
			"capped at 84: CON-AAA-01 fails for Pod/fail-0, of which it is not known whether the internet reaches it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := control.Summarize(c, join(passing, tt.extra))
			l := s.Levels[2]
			if !near(*l.Score, tt.level) || !near(*s.Total, tt.total) {
				t.Errorf("level %.3f total %.3f, want %.3f %.3f", *l.Score, *s.Total, tt.level, tt.total)
			}
			if got := strings.Join(l.Notes, "\n"); got != tt.levelNote {
				t.Errorf("level notes %q, want %q", got, tt.levelNote)
			}
			want := strings.TrimPrefix(tt.totalNote+"\nno control applies at level infrastructure: the total is of the other levels", "\n")
			if got := strings.Join(s.Notes, "\n"); got != want {
				t.Errorf("notes %q, want %q", got, want)
			}
			if s.High < s.Low || s.High > 100 || tt.totalNote != "" && s.High > 84 {
				t.Errorf("range %v to %v", s.Low, s.High)
			}
		})
	}
}

func TestLittleEvidence(t *testing.T) {
	c := load(t, map[string][]string{"container": {entry("CON-AAA-01", "low", ""), entry("CON-AAA-02", "low", "")}})
	lost := some(1, "CON-AAA-01", finding.Unknown, "")
	lost[0].Amend(func(d *finding.Detail) { d.Reason = "no permission" })
	l := control.Summarize(c, join(lost, some(1, "CON-AAA-02", finding.Pass, ""))).Levels[2]
	if want := []string{"not enough evidence, 50% covered: no permission"}; fmt.Sprint(l.Notes) != fmt.Sprint(want) {
		t.Errorf("notes = %q, want %q", l.Notes, want)
	}
	l = control.Summarize(c, join(some(9, "CON-AAA-02", finding.Pass, ""), some(1, "CON-AAA-01", finding.Pass, ""))).Levels[2]
	if len(l.Notes) != 0 {
		t.Errorf("notes = %q for full coverage", l.Notes)
	}
}

func TestStrangersAreCounted(t *testing.T) {
	c := load(t, map[string][]string{"code": {entry("COD-AAA-01", "low", "")}})
	s := control.Summarize(c, join(some(1, "COD-AAA-01", finding.Pass, ""), some(2, "COD-OLD-01", finding.Fail, "")))
	if *s.Total != 100 || !strings.Contains(strings.Join(s.Notes, "\n"), "2 findings of controls outside catalogue test") {
		t.Errorf("Summarize = %v, %q", *s.Total, s.Notes)
	}
}

// A control that sums others up is listed, and changes no score.
func TestPartsScoreAndTheirSumDoesNot(t *testing.T) {
	part := entry("CON-AAA-01", "high", "")
	with := load(t, map[string][]string{"container": {part, entry("CON-AAA-02", "critical", "") + "  parts: [CON-AAA-01]\n"}})
	without := load(t, map[string][]string{"container": {part}})
	parts := join(some(1, "CON-AAA-01", finding.Fail, finding.Internet), some(3, "CON-AAA-01", finding.Pass, finding.Internet))
	sum := some(1, "CON-AAA-02", finding.Fail, finding.Internet)
	want := control.Summarize(without, parts)
	have := control.Summarize(with, join(parts, sum))
	if !reflect.DeepEqual(have, want) {
		t.Errorf("score with the sum %+v, without %+v", have, want)
	}
	fixes := control.Fixes(with, join(parts, sum))
	if len(fixes) != 2 || fixes[0].Control != "CON-AAA-01" || fixes[0].Gain <= 0 || fixes[1].Gain != 0 {
		t.Errorf("fixes %+v", fixes)
	}
	if s := control.Summarize(with, sum); s.Total != nil {
		t.Errorf("the sum alone scores %v", *s.Total)
	}
}
