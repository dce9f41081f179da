package report

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
)

func catalogue(t *testing.T) *control.Catalogue {
	t.Helper()
	c, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// count returns how many findings of a report have one of the states.
func counted(r *Report, states ...finding.Status) int {
	n := 0
	for _, f := range r.Findings {
		if slices.Contains(states, f.Status) {
			n++
		}
	}
	return n
}

var reports = []string{"mixed", "hostile", "empty"}

func TestGolden(t *testing.T) {
	formats := map[string]Format{"sarif.json": SARIF{Version: "1.2.3"}, "junit.xml": JUnit{}, "openreports.yaml": OpenReports{}}
	for suffix, format := range formats {
		for _, name := range []string{"mixed", "hostile"} {
			have, file := write(t, format, load(t, name)), filepath.Join("testdata", name+"."+suffix+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(have), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if have != string(want) {
				t.Errorf("differs from %s (run with -update to accept):\n%s", file, have)
			}
		}
	}
}

func TestSARIF(t *testing.T) {
	for _, name := range reports {
		r := load(t, name)
		var log sarifLog
		if err := json.Unmarshal([]byte(write(t, SARIF{}, r)), &log); err != nil {
			t.Fatal(err)
		}
		run := log.Runs[0]
		if want := counted(r, finding.Fail, finding.Unknown, finding.Excepted); len(run.Results) != want {
			t.Errorf("%s: %d results, want %d", name, len(run.Results), want)
		}
		prints := map[string]bool{}
		for _, result := range run.Results {
			if run.Tool.Driver.Rules[result.RuleIndex].ID != result.RuleID {
				t.Errorf("%s: rule %d is not %s", name, result.RuleIndex, result.RuleID)
			}
			if prints[result.Fingerprints["kubeguardian/v1"]] {
				t.Errorf("%s: two results with one fingerprint: %s", name, result.Message.Text)
			}
			prints[result.Fingerprints["kubeguardian/v1"]] = true
			if (result.Kind == "open") != (result.Level == "none") {
				t.Errorf("%s: kind %s and level %s", name, result.Kind, result.Level)
			}
		}
	}
}

func TestJUnit(t *testing.T) {
	for _, name := range reports {
		r := load(t, name)
		var all junitSuites
		if err := xml.Unmarshal([]byte(write(t, JUnit{}, r)), &all); err != nil {
			t.Fatal(err)
		}
		skipped := 0
		for _, s := range all.Suites {
			skipped += s.Skipped
		}
		tests, failures := len(r.Findings)-counted(r, finding.NotApplicable), counted(r, finding.Fail)
		if all.Tests != tests || all.Failures != failures || skipped != counted(r, finding.Unknown, finding.Excepted) {
			t.Errorf("%s: %d tests, %d failures, %d skipped; want %d tests, %d failures", name, all.Tests, all.Failures, skipped, tests, failures)
		}
	}
}

// Objects stay small whatever the report: a large one kills the cluster's store.
func TestOpenReportsIsCapped(t *testing.T) {
	r := load(t, "mixed")
	f := r.Findings[0]
	for range 5000 {
		r.Findings = append(r.Findings, f)
	}
	var o struct {
		Summary openSummary
		Results []any
	}
	for _, doc := range strings.Split(write(t, OpenReports{}, r), "---\n")[1:] {
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if len(doc) > 64<<10 || len(o.Results) > openReportsShown {
			t.Errorf("%d bytes, %d results", len(doc), len(o.Results))
		}
	}
	if o.Summary.Fail < 5000 {
		t.Errorf("the last report counts %d failures", o.Summary.Fail)
	}
}

func TestHTML(t *testing.T) {
	for _, name := range reports {
		r := load(t, name)
		r.Exceptions = []exception.Outcome{{Name: "legacy<b>", Owner: "team", Reason: "vendor", Expires: "2026-12-31", Accepted: 1}}
		text := write(t, HTML{Catalogue: catalogue(t), History: []*Report{load(t, name)}}, r)
		for _, bad := range []string{"<script", "http://", "https://", "<link", "<img", "legacy<b>", "ZgotmplZ", "<no value>"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: the page has %s", name, bad)
			}
		}
		for _, f := range r.Findings {
			if f.Status == finding.Fail && !strings.Contains(text, `id="`+f.Control+`"`) && f.Control != "" && known(t, f.Control) {
				t.Errorf("%s: no section for %s", name, f.Control)
			}
		}
	}
}

func known(t *testing.T, id string) bool {
	return slices.ContainsFunc(catalogue(t).Controls(), func(c control.Control) bool { return c.ID == id })
}

func TestBaseline(t *testing.T) {
	r := load(t, "mixed")
	all := r.Failures(finding.Low)
	earlier, err := Read("earlier.json", strings.NewReader(write(t, JSON{}, load(t, "mixed"))))
	if err != nil {
		t.Fatal(err)
	}
	earlier.Findings = slices.DeleteFunc(earlier.Findings, func(f finding.Finding) bool { return f.Control == "APP-IDN-01" })
	for i := range earlier.Findings { // lines move
		earlier.Findings[i].Subject.Source = strings.Replace(earlier.Findings[i].Subject.Source, ":12", ":99", 1)
	}
	r.Against(earlier)
	if have := r.Failures(finding.Low); have != 1 || all < 2 {
		t.Errorf("%d of %d failures are new, want 1", have, all)
	}
	if text := write(t, Text{}, r); !strings.Contains(text, "1 failure not in the baseline") {
		t.Errorf("the text does not say it:\n%s", text)
	}
	for text, want := range map[string]string{
		"": "f: not a report in JSON: EOF", "[]": "f: not a report", `{"schema":"x"}`: `f: schema "x" is not ` + Schema,
	} {
		if _, err := Read("f", strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"schema":"kubeguardian.dev/report/v1","findings":[{"control":"A"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := Read("f", strings.NewReader(text)); err == nil {
			r.Against(r)
			if n := r.Failures(finding.Low); n != 0 {
				t.Errorf("%d failures are new against themselves", n)
			}
		}
	})
}
