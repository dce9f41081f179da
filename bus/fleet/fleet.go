// Package fleet knows the agents of a cluster by what they say of themselves, and
// tells when one falls silent or does not see all it should.
package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// silentAfter is how many states in a row must be missing.
const silentAfter = 3

// maxAgents bounds how many agents are known.
const maxAgents = 20_000

// A Status sums up an agent.
type Status string

// The statuses.
const (
	OK       Status = "ok"
	Degraded Status = "degraded" // it runs, and does not see all it should
	Stopped  Status = "stopped"  // it was told to end
	Silent   Status = "silent"
)

// An Agent is what is known of one.
type Agent struct {
	State
	Status   Status    `json:"status"`
	LastSeen time.Time `json:"lastSeen"` // by the clock of the bus
	// Reasons are why the status is not ok, one sentence each.
	Reasons []string `json:"reasons"`
}

// A Kind says what has changed.
type Kind string

// The kinds of changes.
const (
	FellSilent   Kind = "silent"
	SpeaksAgain  Kind = "speaks"
	DropsEvents  Kind = "dropped"
	LosesAlerts  Kind = "lost"
	RefusesRules Kind = "rules"
)

// Rule returns the name of the rule of the alert about such a change.
func (k Kind) Rule() string {
	return map[Kind]string{
		FellSilent: "Agent is silent", SpeaksAgain: "Agent is no longer silent", DropsEvents: "Agent drops events",
		LosesAlerts: "Agent loses alerts", RefusesRules: "Agent refuses rules",
	}[k]
}

// Blinds lists the kinds that leave open what happened on a node meanwhile.
func Blinds() []Kind { return []Kind{FellSilent, SpeaksAgain, DropsEvents, LosesAlerts} }

// A Change is something that people should know at once.
type Change struct {
	Kind  Kind
	Node  string
	Event string // tells it from other changes of this kind, and node
	Text  string
}

// A Fleet has the last state of each agent. It is safe for concurrent use.
type Fleet struct {
	mu      sync.Mutex
	agents  map[string]*known
	blind   time.Time // until when nobody could be heard
	refused int       // agents that there was no room for
}

type known struct {
	state     State
	last      time.Time
	silent    time.Time // since when; zero: it is not
	inCluster bool      // a node of this name was seen
	changes   []Change  // not told yet

	drops, lost loss // of events, of alerts
	// anew tells the counts of lost alerts from those of before, if they were seen to
	// begin anew. Otherwise they go on when an agent or the server starts.
	anew string
}

// A loss is what an agent has lost that was not told of yet.
type loss struct {
	n, kept uint64 // since then
	since   time.Time
	types   map[string]uint64 // of events
	told    time.Time         // the begin of the time in which one was told of last
	whole   bool              // some may have been told of, before the server began
}

// New returns one that knows nobody yet. Nobody is silent for not having spoken
// before now.
func New(now time.Time) *Fleet { return &Fleet{agents: map[string]*known{}, blind: now} }

// Blind says that nobody could be heard until now.
func (f *Fleet) Blind(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blind = now
}

// WaitedSince returns since when nothing has kept agents from being heard.
func (f *Fleet) WaitedSince() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blind
}

// Seen takes a state in that was sent at a time. Old ones may come again.
func (f *Fleet) Seen(s State, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.agents[s.Node]
	if k == nil {
		if len(f.agents) >= maxAgents {
			f.refused++
			return
		}
		k = &known{state: s, last: at, lost: loss{whole: true}}
		f.agents[s.Node] = k
		k.compare(State{}, s)
		k.lost.whole = false
		return
	}
	if at.Before(k.last) {
		return
	}
	k.compare(k.state, s)
	k.state, k.last = s, at
}

// tellAgain is how often at most an alert says that an agent goes on to lose
// something, and how much since the last one.
const tellAgain = 10 * time.Minute

// compare notes what has become worse. Counts begin anew when an agent starts.
func (k *known) compare(before, now State) {
	if now.LostAlerts < before.LostAlerts {
		k.anew = " of " + now.Started.UTC().String()
	}
	if !before.Started.Equal(now.Started) {
		before = State{Time: now.Started, LostAlerts: min(before.LostAlerts, now.LostAlerts), RulesError: before.RulesError}
	}
	k.drops.add(before, now, before.Dropped, now.Dropped)
	k.lost.add(before, now, before.LostAlerts, now.LostAlerts)
	k.tellLosses(now, now.Stopped)
	if now.RulesError != "" && now.RulesError != before.RulesError {
		k.note(RefusesRules, now, now.RulesError, "The agent of node %s goes on with the rules it had, as those of the server cannot be used: %s", now.Node, now.RulesError)
	}
}

func (k *known) note(kind Kind, s State, event, format string, args ...any) {
	k.changes = append(k.changes, Change{kind, s.Node, event, fmt.Sprintf(format, args...)})
}

// add takes in what a count has grown by between two states.
func (l *loss) add(before, now State, from, to uint64) {
	if to > from {
		if l.n == 0 {
			l.since, l.types = before.Time, map[string]uint64{}
		}
		l.n += to - from
		for name, n := range now.DroppedTypes {
			l.types[name] += n - min(n, before.DroppedTypes[name])
		}
	}
	if l.n > 0 {
		l.kept += now.Events - min(now.Events, before.Events)
	}
}

// tellLosses notes what was lost until a state, if that was not told of in its ten
// minutes yet, or in any case.
func (k *known) tellLosses(s State, anyway bool) {
	while := s.Time.Truncate(tellAgain)
	due := func(l *loss) bool { return l.n > 0 && (anyway || !l.told.Equal(while)) }
	if l := &k.drops; due(l) {
		k.note(DropsEvents, s, fmt.Sprintf("%d of %s", s.Dropped, s.Started.UTC()), "The agent of node %s dropped %d events of the kernel, %s %% of those from %s to %s%s: what rules would have said of them is not known",
			s.Node, l.n, share(l.n, l.kept), l.since.UTC().Format(time.TimeOnly), s.Time.UTC().Format(time.TimeOnly), most(l.types))
		*l = loss{told: while}
	}
	if l := &k.lost; due(l) {
		all := ""
		if l.whole {
			all = " in all, of which some may have been told of"
		}
		k.note(LosesAlerts, s, fmt.Sprint(s.LostAlerts, k.anew), "The agent of node %s lost %d alerts%s, as its spool or the disk of it was full, or damaged", s.Node, l.n, all)
		*l = loss{told: while}
	}
}

// share returns n in percent of n and others.
func share(n, others uint64) string {
	p := 100 * float64(n) / float64(n+others)
	switch {
	case p < 0.001:
		return "less than 0.001"
	case p < 10:
		return fmt.Sprintf("%.2g", p)
	}
	return fmt.Sprintf("%.0f", p)
}

// most says of which types most was dropped.
func most(dropped map[string]uint64) string {
	const few = 3
	types := slices.DeleteFunc(slices.Collect(maps.Keys(dropped)), func(name string) bool { return dropped[name] == 0 })
	slices.SortFunc(types, func(a, b string) int {
		return cmp.Or(cmp.Compare(dropped[b], dropped[a]), strings.Compare(a, b))
	})
	if len(types) == 0 {
		return ""
	}
	return ", above all " + strings.Join(types[:min(few, len(types))], ", ")
}

// Judge returns what has changed since it was called last. nodes are those of the
// cluster, nil if they are not known: an agent that is silent because its node is
// gone is forgotten.
func (f *Fleet) Judge(now time.Time, nodes map[string]bool) []Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Change
	for _, name := range slices.Sorted(maps.Keys(f.agents)) {
		k := f.agents[name]
		k.inCluster = k.inCluster || nodes[name]
		silent := f.silent(k, now)
		if nodes != nil && k.inCluster && !nodes[name] && (silent || k.state.Stopped) {
			delete(f.agents, name)
			continue
		}
		if silent && k.silent.IsZero() {
			k.tellLosses(k.state, true)
		}
		out, k.changes = append(out, k.changes...), nil
		switch {
		case silent && k.silent.IsZero():
			k.silent = k.last
			text := fmt.Sprintf("The agent of node %s has said nothing since %s: whether anything happens there is not known", name, k.last.UTC().Format(time.RFC3339))
			if k.state.Stopped {
				text = fmt.Sprintf("The agent of node %s was stopped at %s: nobody watches what happens there", name, k.last.UTC().Format(time.RFC3339))
			}
			out = append(out, Change{FellSilent, name, k.last.String(), text})
		case !silent && !k.silent.IsZero():
			out = append(out, Change{SpeaksAgain, name, k.silent.String(), fmt.Sprintf("The agent of node %s speaks again; it did not from %s on", name, k.silent.UTC().Format(time.RFC3339))})
			k.silent = time.Time{}
		}
	}
	return out
}

// silent reports whether an agent should have spoken meanwhile.
func (f *Fleet) silent(k *known, now time.Time) bool {
	heard := k.last
	if f.blind.After(heard) {
		heard = f.blind
	}
	return now.Sub(heard) > silentAfter*k.state.Interval
}

// Agents returns all that are known, those first that need somebody.
func (f *Fleet) Agents(now time.Time) []Agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Agent, 0, len(f.agents))
	for _, k := range f.agents {
		out = append(out, f.agent(k, now))
	}
	order := []Status{Silent, Stopped, Degraded, OK}
	slices.SortFunc(out, func(a, b Agent) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Status), slices.Index(order, b.Status)), strings.Compare(a.Node, b.Node))
	})
	return out
}

func (f *Fleet) agent(k *known, now time.Time) Agent {
	a := Agent{State: k.state, Status: OK, LastSeen: k.last, Reasons: []string{}}
	say := func(format string, args ...any) { a.Reasons = append(a.Reasons, fmt.Sprintf(format, args...)) }
	switch {
	case k.state.Stopped:
		a.Status = Stopped
		say("It was stopped.")
		return a
	case f.silent(k, now):
		a.Status = Silent
		say("It has said nothing since %s.", k.last.UTC().Format(time.RFC3339))
		return a
	}
	if k.state.RulesError != "" {
		say("The rules of the server are not in force: %s.", k.state.RulesError)
		a.Misses = slices.Concat(a.Reasons, a.Misses)
	}
	a.Reasons = append(a.Reasons, k.state.Problems...)
	if len(a.Reasons) > 0 {
		a.Status = Degraded
	}
	return a
}

// Problems returns what is wrong with agents, one sentence each, and which of the
// nodes have none. nodes may be nil.
func (f *Fleet) Problems(now time.Time, nodes map[string]bool) []string {
	var out []string
	by := map[Status][]string{}
	dropping := 0
	have, uncovered := map[string]bool{}, map[string]int{}
	for _, a := range f.Agents(now) {
		if a.Status == OK || a.Status == Degraded {
			for rule := range a.NotCovered {
				uncovered[rule]++
			}
		}
		have[a.Node] = true
		by[a.Status] = append(by[a.Status], a.Node)
		if a.Status == Degraded && a.Dropping {
			dropping++
		}
	}
	var without []string
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		if !have[name] {
			without = append(without, name)
		}
	}
	for _, p := range []struct {
		nodes []string
		text  string
	}{{by[Silent], "Agents are silent, and what happens on their nodes is not known: %s."}, {by[Stopped], "Agents were stopped, and nobody watches their nodes: %s."}, {without, "No agent watches these nodes: %s."}} {
		if len(p.nodes) > 0 {
			out = append(out, fmt.Sprintf(p.text, some(p.nodes)))
		}
	}
	if dropping > 0 {
		out = append(out, fmt.Sprintf("Agents dropped events of the kernel on %d nodes.", dropping))
	}
	if len(uncovered) > 0 {
		rules := slices.SortedFunc(maps.Keys(uncovered), func(a, b string) int {
			return cmp.Or(cmp.Compare(uncovered[b], uncovered[a]), strings.Compare(a, b))
		})
		for i, rule := range rules {
			rules[i] = fmt.Sprintf("%s (on %d)", rule, uncovered[rule])
		}
		out = append(out, fmt.Sprintf("Rules are not covered on nodes that do not show what they are about: %s.", some(rules)))
	}
	return out
}

// some names a few of many.
func some(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}
