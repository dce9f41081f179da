package control_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

// lawStates is how many random states each law is tried on.
const lawStates = 2000

var (
	statuses  = []finding.Status{finding.Pass, finding.Pass, finding.Fail, finding.Unknown, finding.Excepted, finding.NotApplicable}
	exposures = []finding.Exposure{finding.Internet, finding.ExposureUnknown, finding.InCluster, finding.System}
)

func lawCatalogue(t testing.TB) *control.Catalogue {
	return load(t, map[string][]string{
		"infrastructure": {entry("INF-AAA-01", "high", "")},
		"cluster":        {entry("CLU-AAA-01", "critical", ""), entry("CLU-AAA-02", "low", "")},
		"container": {
			entry("CON-AAA-01", "critical", ""), entry("CON-AAA-02", "high", ""), entry("CON-AAA-03", "low", ""),
			entry("CON-FAM-01", "medium", "paths"), entry("CON-FAM-02", "critical", "paths"), entry("CON-FAM-03", "critical", "paths"),
		},
		"code": {entry("COD-AAA-01", "medium", "")},
	})
}

// states makes random findings: up to eight objects, each with one exposure,
// judged by random controls.
func states(c *control.Catalogue, r *rand.Rand) []finding.Finding {
	var out []finding.Finding
	for object := range r.IntN(9) {
		exposure := exposures[r.IntN(len(exposures))]
		for _, ctl := range c.Controls() {
			if r.IntN(3) > 0 {
				out = append(out, finding.Finding{
					Definition: &finding.Definition{Control: ctl.ID},
					Detail:     &finding.Detail{Reason: "because", ObservedAt: time.Unix(0, 0)},
					Exposure:   exposure, Status: statuses[r.IntN(len(statuses))], Subject: &finding.Subject{Kind: "Pod", Name: fmt.Sprint(object)},
				})
			}
		}
	}
	return out
}

// pick returns the place of a random finding with one of the statuses, or -1.
func pick(r *rand.Rand, findings []finding.Finding, of ...finding.Status) int {
	var places []int
	for i, f := range findings {
		if slices.Contains(of, f.Status) {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return -1
	}
	return places[r.IntN(len(places))]
}

// expose gives all findings of an object an exposure.
func expose(findings []finding.Finding, subject finding.Subject, e finding.Exposure) {
	for i := range findings {
		if *findings[i].Subject == subject {
			findings[i].Exposure = e
		}
	}
}

// value is a score as a number; no data is worth nothing.
func value(score *float64) float64 {
	if score == nil {
		return 0
	}
	return *score
}

// A law changes states, and says how scores may change.
type law struct {
	name   string
	change func(r *rand.Rand, findings []finding.Finding) []finding.Finding
	holds  func(before, after float64) bool
}

const rounding = 1e-9

func notLower(before, after float64) bool  { return after >= before-rounding }
func notHigher(before, after float64) bool { return after <= before+rounding }
func same(before, after float64) bool      { return near(before, after) }

func laws(c *control.Catalogue) []law {
	set := func(to finding.Status, of ...finding.Status) func(*rand.Rand, []finding.Finding) []finding.Finding {
		return func(r *rand.Rand, f []finding.Finding) []finding.Finding {
			if i := pick(r, f, of...); i >= 0 {
				f[i].Status = to
			}
			return f
		}
	}
	move := func(to finding.Exposure) func(*rand.Rand, []finding.Finding) []finding.Finding {
		return func(r *rand.Rand, f []finding.Finding) []finding.Finding {
			if len(f) > 0 {
				expose(f, *f[r.IntN(len(f))].Subject, to)
			}
			return f
		}
	}
	return []law{
		{"fixing a finding never lowers a score", set(finding.Pass, finding.Fail, finding.Excepted, finding.Unknown), notLower},
		{"closing an exposure never lowers a score", move(finding.InCluster), notLower},
		{"losing sight of an exposure never raises a score", move(finding.ExposureUnknown), notHigher},
		{"losing evidence never raises a score", set(finding.Unknown, finding.Pass), notHigher},
		{"breaking what passed never raises a score", set(finding.Fail, finding.Pass), notHigher},
		{"granting an exception changes no score", set(finding.Excepted, finding.Fail), same},
		{"ageing never raises a score", func(_ *rand.Rand, f []finding.Finding) []finding.Finding {
			return c.Aged(f, time.Unix(1e9, 0))
		}, notHigher},
		{"adding an object that passes everything never lowers a score", func(r *rand.Rand, f []finding.Finding) []finding.Finding {
			for _, ctl := range c.Controls() {
				if r.IntN(3) > 0 {
					f = append(f, finding.Finding{Definition: &finding.Definition{Control: ctl.ID}, Detail: &finding.Detail{}, Status: finding.Pass, Subject: &finding.Subject{Kind: "Pod", Name: "good"}})
				}
			}
			return f
		}, notLower},
		{"the order of evaluation changes no score", func(r *rand.Rand, f []finding.Finding) []finding.Finding {
			r.Shuffle(len(f), func(i, j int) { f[i], f[j] = f[j], f[i] })
			return f
		}, func(before, after float64) bool { return before == after }},
	}
}

func TestLaws(t *testing.T) {
	c := lawCatalogue(t)
	for _, law := range laws(c) {
		t.Run(law.name, func(t *testing.T) {
			for seed := range uint64(lawStates) {
				r := rand.New(rand.NewPCG(seed, 2026))
				before := states(c, r)
				after := law.change(r, slices.Clone(before))
				was, is := control.Summarize(c, before), control.Summarize(c, after)
				if !law.holds(value(was.Total), value(is.Total)) {
					t.Fatalf("seed %d: total %v became %v\nbefore %v\nafter %v", seed, value(was.Total), value(is.Total), before, after)
				}
				for i := range was.Levels {
					if a, b := was.Levels[i], is.Levels[i]; !law.holds(value(a.Score), value(b.Score)) || !law.holds(a.Pass, b.Pass) {
						t.Fatalf("seed %d: level %+v became %+v\nbefore %v\nafter %v", seed, a, b, before, after)
					}
				}
			}
		})
	}
}

func TestShares(t *testing.T) {
	c := lawCatalogue(t)
	for seed := range uint64(lawStates) {
		s := control.Summarize(c, states(c, rand.New(rand.NewPCG(seed, 2026))))
		if !reflect.DeepEqual(s, control.Summarize(c, states(c, rand.New(rand.NewPCG(seed, 2026))))) {
			t.Fatalf("seed %d: the same states give two scores", seed)
		}
		if s.Total != nil && (s.Low != *s.Total || s.High < s.Low-rounding || s.High > 100+rounding || *s.Total < 0) {
			t.Fatalf("seed %d: total %v in range %v to %v", seed, *s.Total, s.Low, s.High)
		}
		for _, l := range s.Levels {
			sum := l.Pass + l.Fail + l.Unknown + l.Accepted
			if l.Score != nil && (!near(sum, 1) || min(l.Pass, l.Fail, l.Unknown, l.Accepted) < 0 || !near(l.Coverage, 1-l.Unknown)) {
				t.Fatalf("seed %d: bar %+v has sum %v", seed, l, sum)
			}
		}
	}
}

func TestGoodObjectsCannotLiftAnOpenCriticalFailure(t *testing.T) {
	c := load(t, map[string][]string{"cluster": {entry("CLU-AAA-01", "critical", "")}})
	for _, status := range []finding.Status{finding.Fail, finding.Excepted} {
		for _, good := range []int{0, 1, 10, 100000} {
			l := control.Summarize(c, join(some(1, "CLU-AAA-01", status, finding.System), some(good, "CLU-AAA-01", finding.Pass, ""))).Levels[1]
			if l.Pass > 0.5 {
				t.Errorf("%s among %d good objects: pass share %v", status, good, l.Pass)
			}
		}
	}
}

// With every unknown settled, whichever way, no score is above the range.
func TestRangeHoldsTheTruth(t *testing.T) {
	c := lawCatalogue(t)
	for seed := range uint64(lawStates) {
		r := rand.New(rand.NewPCG(seed, 2027))
		before := states(c, r)
		after := slices.Clone(before)
		for i := range after {
			if after[i].Status == finding.Unknown {
				after[i].Status = []finding.Status{finding.Pass, finding.Fail}[r.IntN(2)]
			}
		}
		was, is := control.Summarize(c, before), control.Summarize(c, after)
		if value(is.Total) > was.High+rounding {
			t.Fatalf("seed %d: range to %v, truth %v\n%v\n%v", seed, was.High, value(is.Total), before, after)
		}
	}
}
