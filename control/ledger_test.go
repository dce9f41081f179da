package control

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/kubeguardian/kubeguardian/finding"
)

// gainCatalogue has a capped control, a family and a plain control.
func gainCatalogue(t *testing.T) *Catalogue {
	t.Helper()
	var text string
	for _, c := range []struct{ id, severity, family string }{
		{"CON-AAA-01", "critical", ""}, {"CON-AAA-02", "low", ""},
		{"CON-FAM-01", "medium", "paths"}, {"CON-FAM-02", "critical", "paths"}, {"CON-FAM-03", "critical", "paths"},
	} {
		text += fmt.Sprintf("\n- {id: %s, title: t, severity: %s, subjects: [workload], definition: d, why: w, "+
			"fix: {class: auto, text: f}, evidence: [api], evaluator: policy, family: %q}", c.id, c.severity, c.family)
	}
	c, err := LoadCatalogue(fstest.MapFS{
		"catalogue.yaml": {Data: []byte("version: test\n")},
		"container.yaml": {Data: []byte("level: container\ncontrols:" + text)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func randomFindings(c *Catalogue, r *rand.Rand) []finding.Finding {
	var out []finding.Finding
	statuses := []finding.Status{finding.Pass, finding.Fail, finding.Fail, finding.Unknown, finding.Excepted, finding.NotApplicable}
	exposures := []finding.Exposure{finding.Internet, finding.InCluster}
	for object := range 1 + r.IntN(6) {
		exposure := exposures[r.IntN(2)]
		for _, ctl := range c.controls {
			out = append(out, finding.Finding{
				Definition: &finding.Definition{Control: ctl.ID},
				Detail:     &finding.Detail{},
				Status:     statuses[r.IntN(len(statuses))], Exposure: exposure, Subject: &finding.Subject{Kind: "Pod", Name: fmt.Sprint(object)},
			})
		}
	}
	return out
}

// totalOf scores findings from scratch.
func totalOf(c *Catalogue, findings []finding.Finding) float64 {
	s := Summarize(c, findings)
	if s.Total == nil {
		return 0
	}
	return *s.Total
}

// What a fix is said to give is what scoring everything again gives.
func TestGainsAreReevaluations(t *testing.T) {
	c := gainCatalogue(t)
	positive := 0
	for seed := range uint64(1000) {
		findings := randomFindings(c, rand.New(rand.NewPCG(seed, 1)))
		now := totalOf(c, findings)
		newLedger(c, findings).gains()
		for i, f := range findings {
			if f.Status != finding.Fail {
				if f.Gain != 0 {
					t.Fatalf("seed %d: %s finding has gain %v", seed, f.Status, f.Gain)
				}
				continue
			}
			fixed := slices.Clone(findings)
			fixed[i].Status = finding.Pass
			if want := totalOf(c, fixed) - now; math.Abs(f.Gain-want) > 1e-9 || f.Gain < 0 {
				t.Fatalf("seed %d: gain of %s %s is %v, want %v", seed, f.Control, f.Subject, f.Gain, want)
			}
			if f.Gain > 0 {
				positive++
			}
		}
		for _, fix := range Fixes(c, findings) {
			fixed, count := slices.Clone(findings), 0
			for i := range fixed {
				if fixed[i].Control == fix.Control && fixed[i].Status == finding.Fail {
					fixed[i].Status = finding.Pass
					count++
				}
			}
			if want := totalOf(c, fixed) - now; math.Abs(fix.Gain-want) > 1e-9 || fix.Count != count {
				t.Fatalf("seed %d: fix %+v, want gain %v for %d failures", seed, fix, want, count)
			}
		}
	}
	if positive == 0 {
		t.Error("no fix ever gave a point")
	}
}

func TestFixesAreOrdered(t *testing.T) {
	c := gainCatalogue(t)
	on := func(id string, status finding.Status, names ...string) []finding.Finding {
		var out []finding.Finding
		for _, name := range names {
			out = append(out, finding.Finding{Definition: &finding.Definition{Control: id}, Detail: &finding.Detail{}, Status: status, Exposure: finding.InCluster, Subject: &finding.Subject{Kind: "Pod", Name: name}})
		}
		return out
	}
	fixes := Fixes(c, slices.Concat(
		on("CON-AAA-02", finding.Fail, "a"), on("CON-AAA-01", finding.Fail, "a", "b"), on("CON-FAM-01", finding.Fail, "a"), on("CON-FAM-01", finding.Pass, "b"),
	))
	var got []string
	for _, f := range fixes {
		got = append(got, fmt.Sprintf("%s×%d", f.Control, f.Count))
	}
	// The last two give the same.
	if want := "[CON-AAA-01×2 CON-FAM-01×1 CON-AAA-02×1]"; fmt.Sprint(got) != want {
		t.Errorf("Fixes = %v, want %v", got, want)
	}
	if len(Fixes(c, on("CON-AAA-01", finding.Pass, "a"))) != 0 {
		t.Error("a fix without a failure")
	}
}
