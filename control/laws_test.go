package control_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
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

// hide puts up to all of the objects into a part that cannot be read and may
// hold as many, or more, or there is no telling.
func hide(c *control.Catalogue, r *rand.Rand, findings []finding.Finding) []finding.Finding {
	names := map[string]bool{}
	kept := slices.DeleteFunc(findings, func(f finding.Finding) bool {
		if gone, drawn := names[f.Subject.Name]; drawn {
			return gone
		}
		names[f.Subject.Name] = r.IntN(2) == 0
		return names[f.Subject.Name]
	})
	hides := r.IntN(3)
	for _, gone := range names {
		if gone {
			hides++
		}
	}
	if r.IntN(4) == 0 || hides == 0 {
		hides = finding.AnyNumber
	}
	for i := range kept {
		if kept[i].Exposure == finding.InCluster {
			kept[i].Exposure = finding.ExposureUnknown
		}
	}
	for _, ctl := range c.Controls() {
		kept = append(kept, finding.Finding{
			Definition: &finding.Definition{Control: ctl.ID}, Detail: &finding.Detail{Reason: "could not be read", Hides: hides},
			Status: finding.Unknown, Subject: &finding.Subject{Kind: "File", Source: "a.yaml"},
		})
	}
	return kept
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
		{"hiding what was seen never raises a score", func(r *rand.Rand, f []finding.Finding) []finding.Finding {
			return hide(c, r, f)
		}, notHigher},
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

// breaks are ways to make a document, or the file that it is in, unreadable.
var breaks = []func(document string) string{
	func(d string) string { return d + "broken: [\n" },
	func(d string) string { return "\tbroken: 1\n" + d },
	func(d string) string { return "broken: \"\n" + d },
	func(d string) string { return d + "kind: Double\n" },
	func(d string) string { return d + "\x00\n" },
	// The schemas of custom resources are not known, so these break no such one.
	func(d string) string { return d + "surplus: 1\n" },
	func(d string) string { return strings.Replace(d, "kind: ", "kind: Un", 1) },
	func(d string) string { return strings.Replace(d, "metadata:", "metadat:", 1) },
}

// surely is how many of the breaks break any document.
const surely = 5

// TestBreakingAnExampleNeverRaisesAScore breaks every document of the examples,
// each in another way; where objects refer to each other it is not only the
// broken one whose judgement changes.
func TestBreakingAnExampleNeverRaisesAScore(t *testing.T) {
	c, set := builtIn(t)
	const matcher = "../examples/internship-matcher/deploy/"
	turn := 0
	for _, folders := range [][]string{
		{matcher + "insecure"}, {matcher + "secured"}, {matcher + "insecure", "../content/testdata/hardened"},
	} {
		files, dir := exampleFiles(t, folders...)
		score := func() (scores, error) { return scoreOf(t, c, set, dir) }
		whole, err := score()
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range slices.Sorted(maps.Keys(files)) {
			documents := strings.Split(files[file], "---\n")
			for i := range documents {
				how := turn % len(breaks)
				turn++
				broken := slices.Clone(documents)
				broken[i] = breaks[how](broken[i])
				writeExample(t, file, strings.Join(broken, "---\n"))
				is, problems := score()
				if problems == nil && how < surely {
					t.Errorf("%s, document %d: way %d does not break it", file, i, how)
				}
				notRaised(t, fmt.Sprintf("%s, document %d, broken in way %d", filepath.Base(file), i, how), whole, is)
			}
			writeExample(t, file, files[file])
		}
	}
}

// TestBreakingManyFailuresNeverRaisesAScore breaks a file that is full of them,
// beside an application that is well.
func TestBreakingManyFailuresNeverRaisesAScore(t *testing.T) {
	c, set := builtIn(t)
	files, dir := exampleFiles(t, "../content/testdata/hardened")
	bad, _ := exampleFiles(t, "../examples/internship-matcher/deploy/insecure")
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		texts = append(texts, bad[name])
	}
	name := filepath.Join(dir, "bad.yaml")
	writeExample(t, name, strings.Join(texts, "---\n"))
	was, err := scoreOf(t, c, set, dir)
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for how, text := range map[string]string{
		"no text":     strings.Join(texts, "---\n") + "\x00",
		"one broken":  strings.ReplaceAll(strings.Join(texts, "---\n"), "---\n", "--\n"),
		"each broken": strings.ReplaceAll(strings.Join(texts, "---\n"), "---\n", "[\n---\n") + "[\n",
	} {
		writeExample(t, name, text)
		is, problems := scoreOf(t, c, set, dir)
		if problems == nil {
			t.Errorf("%s: it is not broken", how)
		}
		notRaised(t, how, was, is)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if is, err := scoreOf(t, c, set, dir, name); err == nil {
		t.Error("the file is not there, and nobody says so")
	} else {
		notRaised(t, "the file is not there", was, is)
	}
}

// scoreOf returns the score of manifests, and of each control alone.
func scoreOf(t *testing.T, c *control.Catalogue, set *policy.Set, paths ...string) (scores, error) {
	t.Helper()
	inv, err := inventory.Read(t.Context(), inventory.FileInput{Paths: paths})
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.Evaluate(t.Context(), control.Input{Inventory: inv, Policies: set, Now: exampleDay})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string][]finding.Finding{}
	for _, f := range found {
		of[f.Control] = append(of[f.Control], f)
	}
	s := scores{control.Summarize(c, found), map[string]float64{}}
	for id, findings := range of {
		s.alone[id] = value(control.Summarize(c, findings).Total)
	}
	return s, inv.Problems
}

// A scores is a score, and that of each control if there were no other.
type scores struct {
	control.Score
	alone map[string]float64
}

var exampleDay = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func notRaised(t *testing.T, what string, was, is scores) {
	t.Helper()
	if value(is.Total) > value(was.Total)+rounding || is.High < value(is.Total)-rounding {
		t.Errorf("%s: total %.2f became %.2f, range to %.2f", what, value(was.Total), value(is.Total), is.High)
	}
	for i, l := range is.Levels {
		if value(l.Score) > value(was.Levels[i].Score)+rounding {
			t.Errorf("%s: %s %.2f became %.2f", what, l.Level, value(was.Levels[i].Score), value(l.Score))
		}
	}
	for id, score := range is.alone {
		if score > was.alone[id]+rounding {
			t.Errorf("%s: %s alone %.2f became %.2f", what, id, was.alone[id], score)
		}
	}
}

// exampleFiles copies the manifests of some folders into one.
func exampleFiles(t *testing.T, folders ...string) (files map[string]string, dir string) {
	t.Helper()
	files, dir = map[string]string{}, t.TempDir()
	for i, folder := range folders {
		names, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
		if err != nil || len(names) == 0 {
			t.Fatal(folder, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(dir, fmt.Sprint(i, "-", filepath.Base(name)))
			files[to] = string(data)
			writeExample(t, to, files[to])
		}
	}
	return files, dir
}

func writeExample(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
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
