package roster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var zero = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return zero.Add(time.Duration(seconds) * time.Second) }

func report(name string, seconds int, change func(*State)) Report {
	s := State{Version: "v1", Interval: 10 * time.Second}
	if change != nil {
		change(&s)
	}
	return Report{name, at(seconds), s}
}

func statuses(clusters []Cluster) (out []string) {
	for _, c := range clusters {
		out = append(out, fmt.Sprintf("%s %s %d", c.Name, c.Status, len(c.Reasons)))
	}
	return out
}

func TestClusters(t *testing.T) {
	reports := []Report{
		report("a", 0, nil), report("b", 50, nil), report("gone", 50, nil), report("e", 50, func(s *State) { s.Stopped = true }),
		report("d", 50, func(s *State) { s.Problems = []string{"x"}; s.Waiting, s.Oldest = 7, at(-1000) }),
	}
	members := []string{"a", "b", "c", "d", "e"}
	clusters := Clusters(at(61), zero, members, reports)
	if have, want := statuses(clusters), []string{"a silent 1", "e stopped 1", "d degraded 2", "c absent 1", "b ok 0"}; !slices.Equal(have, want) {
		t.Errorf("%q, want %q", have, want)
	}
	if have := statuses(Clusters(at(61), at(2), members[:1], reports)); have[0] != "a ok 0" { // the hub was not there
		t.Errorf("%q", have)
	}
	for _, c := range clusters {
		if unknown := c.Name == "a" || c.Name == "c" || c.Name == "e"; c.Unknown() != unknown {
			t.Errorf("that nobody says what happens in %s is %t", c.Name, c.Unknown())
		}
		if want := map[string]time.Duration{"d": 1061 * time.Second}[c.Name]; c.Lag(at(61)) != want {
			t.Errorf("the lag of %s is %s, want %s", c.Name, c.Lag(at(61)), want)
		}
	}
	problems := strings.Join(Problems(clusters), "\n")
	for _, want := range []string{"silent, and what happens there is not known: a.", "stopped, and nobody watches these: e.", "never have: c.", "come late: d."} {
		if !strings.Contains(problems, want) {
			t.Errorf("%q does not say %q", problems, want)
		}
	}
}

func TestWatch(t *testing.T) {
	var w Watch
	judge := func(now int, r Report, want string) {
		t.Helper()
		have := ""
		for _, c := range w.Judge(Clusters(at(now), zero, []string{"a"}, []Report{r})) {
			have += fmt.Sprint(c.Cluster, c.Silent, c.Event)
			if c.Text == "" {
				t.Error("no text")
			}
		}
		if have != want {
			t.Errorf("after %d s: %q, want %q", now, have, want)
		}
	}
	judge(10, report("a", 0, nil), "")
	judge(61, report("a", 0, nil), "atrue2026-03-01T12:00:00Z")
	judge(62, report("a", 0, nil), "")
	judge(70, report("a", 69, nil), "afalse2026-03-01T12:00:00Z")
	judge(71, report("a", 70, func(s *State) { s.Stopped = true }), "atrue2026-03-01T12:01:10Z")
	w = Watch{} // the hub starts again: the same event
	judge(200, report("a", 70, func(s *State) { s.Stopped = true }), "atrue2026-03-01T12:01:10Z")
}

func TestBound(t *testing.T) {
	s := State{Version: strings.Repeat("v", 1000), Agents: map[string]int{}, Score: &Score{Levels: make([]Level, 100)}}
	for i := range 100 {
		s.Problems = append(s.Problems, strings.Repeat("ä", 1000))
		s.Agents[fmt.Sprint(i)] = i
	}
	s.Bound()
	if len(s.Problems) != maxProblems || len(s.Problems[0]) > maxProblem+4 || len(s.Version) > maxVersion+4 || s.Agents != nil || len(s.Score.Levels) != maxNames || s.Interval != time.Second {
		t.Errorf("%+v", s)
	}
}
