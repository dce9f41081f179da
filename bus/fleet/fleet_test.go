package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

var zero = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return zero.Add(time.Duration(seconds) * time.Second) }

func state(node string, change func(*State)) State {
	s := State{Node: node, Interval: 10 * time.Second, Started: at(-100), Time: zero}
	if change != nil {
		change(&s)
	}
	return s
}

func kinds(changes []Change) (out []string) {
	for _, c := range changes {
		out = append(out, fmt.Sprint(c.Kind, " ", c.Node))
		if c.Text == "" || c.Event == "" {
			out = append(out, "without a text")
		}
	}
	return out
}

func TestSilence(t *testing.T) {
	f := New(zero)
	f.Seen(state("n1", nil), at(-500)) // the last before the server started
	f.Seen(state("n2", nil), at(0))
	nodes := map[string]bool{"n1": true, "n2": true, "n3": true}
	judge := func(now int, want ...string) {
		t.Helper()
		if got := kinds(f.Judge(at(now), nodes)); !slices.Equal(got, want) {
			t.Errorf("after %d s: %q, want %q", now, got, want)
		}
	}
	judge(29)
	f.Seen(state("n2", nil), at(29))
	judge(31, "silent n1")
	judge(40)
	if a := f.Agents(at(40)); len(a) != 2 || a[0].Node != "n1" || a[0].Status != Silent || a[1].Status != OK {
		t.Errorf("%+v", a)
	}
	problems := strings.Join(f.Problems(at(40), nodes), "\n")
	if !strings.Contains(problems, "silent") || !strings.Contains(problems, ": n1.") || !strings.Contains(problems, "No agent watches these nodes: n3.") {
		t.Error(problems)
	}
	f.Seen(state("n1", nil), at(50))
	f.Seen(state("n2", nil), at(50))
	judge(51, "speaks n1")
	f.Blind(at(100)) // nobody could be heard until now
	if since := f.WaitedSince(); !since.Equal(at(100)) {
		t.Errorf("waited since %s", since)
	}
	judge(101)
	judge(131, "silent n1", "silent n2")
	delete(nodes, "n1") // the node is gone
	judge(132)
	if a := f.Agents(at(132)); len(a) != 1 || a[0].Node != "n2" {
		t.Errorf("%+v", a)
	}
}

func TestStopped(t *testing.T) {
	f := New(zero)
	f.Seen(state("n1", nil), zero)
	f.Seen(state("n2", nil), zero)
	f.Judge(zero, map[string]bool{"n1": true, "n2": true})
	stop := func(s *State) { s.Stopped = true }
	f.Seen(state("n1", stop), at(1))
	f.Seen(state("n2", stop), at(1))
	if a := f.Agents(at(2)); a[0].Status != Stopped {
		t.Errorf("%+v", a)
	}
	f.Seen(state("n1", nil), at(5)) // an update
	if got := kinds(f.Judge(at(20), map[string]bool{"n1": true})); got != nil {
		t.Errorf("%q", got)
	}
	if a := f.Agents(at(20)); len(a) != 1 || a[0].Status != OK { // n2 has left the cluster
		t.Errorf("%+v", a)
	}
}

// A host that never was a node of the cluster is not forgotten for that.
func TestHostOutsideTheCluster(t *testing.T) {
	f := New(zero)
	f.Seen(state("bastion", nil), zero)
	if got := kinds(f.Judge(at(100), map[string]bool{"n1": true})); !slices.Equal(got, []string{"silent bastion"}) || len(f.Agents(at(100))) != 1 {
		t.Errorf("%q", got)
	}
}

func TestWhatGetsWorse(t *testing.T) {
	f := New(zero)
	for i, step := range []struct {
		change func(*State)
		want   []string
	}{
		{nil, nil},
		{func(s *State) { s.Dropped = 5 }, []string{"dropped n1"}},
		{func(s *State) { s.Dropped = 5 }, nil},
		{func(s *State) { s.Dropped = 7; s.LostAlerts = 2 }, []string{"lost n1"}},                                          // drops are told of later
		{func(s *State) { s.Dropped = 1; s.LostAlerts = 2; s.Started = at(-1); s.Time = at(600) }, []string{"dropped n1"}}, // anew
		{func(s *State) { s.Dropped = 1; s.LostAlerts = 2; s.Started = at(-1); s.RulesError = "x" }, []string{"rules n1"}},
		{func(s *State) { s.Dropped = 1; s.LostAlerts = 2; s.Started = at(-1); s.RulesError = "x" }, nil},
	} {
		f.Seen(state("n1", step.change), at(i))
		if got := kinds(f.Judge(at(i), nil)); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	f.Seen(state("n1", nil), at(2))              // late
	if p := f.Problems(at(6), nil); len(p) > 0 { // what was dropped long ago is none
		t.Errorf("%q", p)
	}
	f.Seen(state("n2", func(s *State) { s.Dropped, s.Dropping, s.Problems = 1, true, []string{"1 events were dropped."} }), at(6))
	if p := f.Problems(at(6), nil); len(p) != 1 || !strings.Contains(p[0], "dropped events of the kernel on 1 nodes") {
		t.Errorf("%q", p)
	}
	if a := f.Agents(at(6)); a[0].Node != "n1" || a[0].Dropped != 1 || a[0].Status != Degraded {
		t.Errorf("%+v", a)
	}
}

// TestDropsThatGoOn: people hear at once that something is dropped, and every ten
// minutes, or when the agent ends or falls silent, how much it was since.
func TestDropsThatGoOn(t *testing.T) {
	f := New(zero)
	dropped, events := uint64(0), uint64(0)
	step := func(second int, n uint64, change func(*State), want ...string) {
		t.Helper()
		dropped, events = dropped+n, events+n
		f.Seen(state("n1", func(s *State) {
			s.Time, s.Dropped, s.Events, s.DroppedTypes = at(second), dropped, events, map[string]uint64{"openat": dropped}
			if change != nil {
				change(s)
			}
		}), at(second))
		var have []string
		for _, c := range f.Judge(at(second), nil) {
			text, _, _ := strings.Cut(c.Text, ", above all")
			text, _, _ = strings.Cut(text, ": ")
			have = append(have, strings.TrimPrefix(text, "The agent of node n1 "))
		}
		if !slices.Equal(have, want) {
			t.Errorf("at %d: %q, want %q", second, have, want)
		}
	}
	step(0, 0, nil)
	step(10, 12, nil, "dropped 12 events of the kernel, 50 % of those from 12:00:00 to 12:00:10")
	step(20, 1000, nil)
	step(30, 0, func(s *State) { s.LostAlerts = 3 }, "lost 3 alerts, as its spool or the disk of it was full, or damaged")
	step(40, 500, func(s *State) { s.LostAlerts = 5 })
	step(600, 0, func(s *State) { s.LostAlerts = 5 }, "dropped 1500 events of the kernel, 50 % of those from 12:00:10 to 12:10:00", "lost 2 alerts, as its spool or the disk of it was full, or damaged")
	step(610, 7, func(s *State) { s.LostAlerts = 5 })
	f.Seen(state("n1", func(s *State) {
		s.Time, s.Dropped, s.Events, s.LostAlerts, s.Stopped = at(620), dropped+1, events, 5, true
	}), at(620))
	if got := f.Judge(at(620), nil); len(got) != 1 || !strings.Contains(got[0].Text, "dropped 8 events") {
		t.Errorf("at its end: %+v", got)
	}
	f.Seen(state("n2", func(s *State) { s.Dropped = 1 }), at(620))
	f.Seen(state("n2", func(s *State) { s.Dropped = 5 }), at(621))
	if got := f.Judge(at(621), nil); len(got) != 1 {
		t.Errorf("the first: %+v", got)
	}
	if got := f.Judge(at(700), nil); !slices.Equal(kinds(got), []string{"silent n1", "dropped n2", "silent n2"}) || !strings.Contains(got[1].Text, "dropped 4 events") {
		t.Errorf("when it falls silent: %+v", got)
	}
}

// TestKnownBefore: a server that starts anew tells by the same events what it has told,
// also when agents have started since, and by others what was lost while it was away.
func TestKnownBefore(t *testing.T) {
	first := func(f *Fleet, change func(*State)) map[Kind]string {
		f.Seen(state("n1", change), zero)
		events := map[Kind]string{}
		for _, c := range f.Judge(zero, nil) {
			events[c.Kind] = c.Event
		}
		return events
	}
	lost := func(dropped, alerts uint64, started time.Time) func(*State) {
		return func(s *State) { s.Dropped, s.LostAlerts, s.Started = dropped, alerts, started }
	}
	f := New(zero)
	first(f, lost(0, 0, at(-10)))
	told := first(f, lost(7, 3, at(-10)))
	if len(told) != 2 {
		t.Fatalf("told %q", told)
	}
	if have := first(New(zero), lost(7, 3, at(-10))); !maps.Equal(have, told) {
		t.Errorf("have %q, want %q", have, told)
	}
	if have := first(New(zero), lost(0, 3, at(-5))); have[LosesAlerts] != told[LosesAlerts] || len(have) != 1 {
		t.Errorf("an agent has started: %q, want %q", have, told)
	}
	if have := first(New(zero), lost(9, 4, at(-10))); have[LosesAlerts] == told[LosesAlerts] || have[DropsEvents] == told[DropsEvents] || len(have) != 2 {
		t.Errorf("more was lost: %q, told was %q", have, told)
	}
	late := New(zero)
	late.Seen(state("n1", lost(0, 4, zero)), zero)
	if got := late.Judge(zero, nil); len(got) != 1 || !strings.Contains(got[0].Text, "lost 4 alerts in all, of which some may have been told of, as") {
		t.Errorf("of all time: %+v", got)
	}
	first(f, lost(0, 0, at(-5))) // of a new spool
	f.Seen(state("n1", func(s *State) { s.LostAlerts, s.Started, s.Time = 3, at(-5), at(600) }), at(600))
	if got := f.Judge(at(600), nil); len(got) != 1 || got[0].Event == told[LosesAlerts] {
		t.Errorf("a new spool: %+v, told was %q", got, told)
	}
}

// TestShare: a part is told in digits that people read.
func TestShare(t *testing.T) {
	for want, n := range map[string]uint64{"100": 1_000_000, "99": 990_000, "12": 120_000, "10": 99_990, "9.5": 95_000, "0.25": 2_500, "less than 0.001": 1} {
		if have := share(n, 1_000_000-n); have != want {
			t.Errorf("%d: %s, want %s", n, have, want)
		}
	}
}

// TestTextOfDrops: people hear how much was lost, when, and of what.
func TestTextOfDrops(t *testing.T) {
	f := New(zero)
	f.Seen(state("n1", func(s *State) {
		s.Time, s.Events, s.Dropped, s.DroppedTypes = at(-1), 900, 100, map[string]uint64{"openat": 100}
	}), zero)
	f.Judge(zero, nil)
	f.Seen(state("n1", func(s *State) {
		s.Time, s.Events, s.Dropped = at(10), 988, 112
		s.DroppedTypes = map[string]uint64{"openat": 101, "connect": 3, "chdir": 3, "execve": 4, "unlink": 1}
	}), at(10))
	changes := f.Judge(at(10), nil)
	want := "The agent of node n1 dropped 12 events of the kernel, 12 % of those from 11:59:59 to 12:00:10, above all execve, chdir, connect: what rules would have said of them is not known"
	if len(changes) != 1 || changes[0].Text != want {
		t.Errorf("%+v", changes)
	}
}

func TestNotCovered(t *testing.T) {
	f := New(zero)
	for i, rules := range [][]string{{"a", "b"}, {"b"}, nil} {
		f.Seen(state(fmt.Sprint("n", i), func(s *State) {
			s.NotCovered = map[string][]string{}
			for _, r := range rules {
				s.NotCovered[r] = []string{"read"}
			}
		}), zero)
	}
	f.Seen(state("n3", func(s *State) { s.NotCovered, s.Stopped = map[string][]string{"b": {"read"}}, true }), zero)
	f.Seen(state("n4", func(s *State) { s.NotCovered, s.Interval = map[string][]string{"b": {"read"}}, time.Millisecond }), zero)
	want := []string{"Agents are silent, and what happens on their nodes is not known: n4.", "Agents were stopped, and nobody watches their nodes: n3.", "Rules are not covered on nodes that do not show what they are about: b (on 2), a (on 1)."}
	if have := f.Problems(at(1), nil); !slices.Equal(have, want) {
		t.Errorf("%q", have)
	}
}

func TestManyAgents(t *testing.T) {
	f := New(zero)
	for i := range maxAgents + 10 {
		f.Seen(state(fmt.Sprint("n", i), nil), zero)
	}
	if n := len(f.Agents(zero)); n != maxAgents {
		t.Errorf("%d agents", n)
	}
	problems := f.Problems(at(1000), nil)
	if len(problems) != 1 || len(problems[0]) > 300 {
		t.Errorf("%q", problems)
	}
}
