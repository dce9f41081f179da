// Package incident joins what was seen of one attack: alerts that share a user,
// token, pod or other entity within a time become one incident, which tells its
// story, so that a person on call reads one page in place of forty.
//
// The package holds types and pure functions; a [Correlator] is the only thing
// in it with a state.
package incident

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

// A State says how far people are with an incident.
type State string

// The states.
const (
	New          State = "new"
	Acknowledged State = "acknowledged" // somebody looks at it
	Contained    State = "contained"    // it does not go on
	Closed       State = "closed"       // nothing joins it any more
)

// States lists the states in the order that an incident goes through.
func States() []State { return []State{New, Acknowledged, Contained, Closed} }

// An Incident is what was seen of one attack, or of something that looks like
// one.
type Incident struct {
	ID       string    `json:"id"` // of its first signal
	Cluster  string    `json:"cluster,omitempty"`
	Story    string    `json:"story"` // one sentence
	State    State     `json:"state"`
	Reason   string    `json:"reason,omitempty"` // why it is closed
	By       string    `json:"by,omitempty"`     // who has brought it into its state; "": nobody, or not known
	Since    time.Time `json:"since,omitzero"`   // when; zero: not known
	Assignee string    `json:"assignee,omitempty"`
	Mute
	First    time.Time      `json:"first"`
	Last     time.Time      `json:"last"`
	Paged    time.Time      `json:"paged,omitzero"` // time of the signal that made it page; zero: none did
	Score    int            `json:"score"`          // 0 to 100
	Worst    alert.Priority `json:"worst"`
	Tactics  []string       `json:"tactics"` // of ATT&CK, in the order of the kill chain
	Entities []alert.Entity `json:"entities"`
	Owners   []string       `json:"owners,omitempty"`  // teams to which what the signals are about belongs, sorted
	Signals  []Signal       `json:"signals"`           // by time
	Dropped  int            `json:"dropped,omitempty"` // signals beyond MaxSignals, which only count
	Related  []string       `json:"related,omitempty"` // closed incidents that it would have joined
	Apart    []string       `json:"apart,omitempty"`   // incidents that a person has split from it: nothing joins them to it again
	Acts     []Act          `json:"acts,omitempty"`    // what people did to it, by time

	saved  int      // signals that there were when it was saved; 0: it never was
	joined []Signal // since then
}

// Unsaved returns the signals that joined since the incident was saved, and how many
// were saved then: 0 says that they are all it has, in place of any that were.
func (i *Incident) Unsaved() (signals []Signal, before int) {
	if len(i.Signals) != i.saved+len(i.joined) {
		return i.Signals, 0
	}
	return i.joined, i.saved
}

// Saved says that the incident was saved as it is.
func (i *Incident) Saved() { i.saved, i.joined = len(i.Signals), nil }

// MaxSignals bounds the signals of one incident that are kept; what is beyond
// them is counted.
const MaxSignals = 500

// A Signal is one alert in an incident, and what ties it to the others.
type Signal struct {
	Alert    string          `json:"alert"` // id
	Time     time.Time       `json:"time"`
	Rule     string          `json:"rule"`
	Priority alert.Priority  `json:"priority"`
	Source   string          `json:"source"`
	Output   string          `json:"output"`
	Subject  finding.Subject `json:"subject"`
	Owner    string          `json:"owner,omitempty"` // of the subject
	Tactics  []string        `json:"tactics,omitempty"`
	Entities []alert.Entity  `json:"entities,omitempty"`
	Links    []Link          `json:"links,omitempty"` // none for the first one
	Pages    bool            `json:"pages,omitempty"` // by itself
	// Responses are what was done on the node because of it.
	Responses []Response `json:"responses,omitempty"`
}

// A Link says by what a signal has joined its incident.
type Link struct {
	Entity alert.Entity `json:"entity"`
	Before time.Time    `json:"before"` // when it was last seen in the incident
}

// FromAlert returns an alert as a signal without links.
func FromAlert(a *alert.Alert) Signal {
	s := Signal{
		Alert: a.ID, Time: a.Time, Rule: a.Rule, Priority: a.Priority, Source: a.Source, Output: a.Output,
		Subject: a.Subject, Owner: a.Owner, Tactics: a.Tactics, Pages: a.Priority <= alert.Critical,
		Responses: responses(a),
	}
	for _, e := range a.Entities {
		if e.Name != "" && !slices.Contains(s.Entities, e) {
			s.Entities = append(s.Entities, e)
		}
	}
	if slices.Contains(s.Entities, alert.Entity{Kind: alert.User, Name: anonymous}) {
		s.Pages = a.Priority <= alert.Warning // nobody is to be asked
	}
	return s
}

// killChain is the order of ATT&CK's tactics.
var killChain = []string{
	"reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
	"defense-evasion", "credential-access", "discovery", "lateral-movement", "collection", "command-and-control",
	"exfiltration", "impact",
}

func byKillChain(a, b string) int {
	ia, ib := slices.Index(killChain, a), slices.Index(killChain, b)
	if ia == ib { // unknown ones come first, by name
		return strings.Compare(a, b)
	}
	return ia - ib
}

// add puts a signal into the incident and concludes anew, but for what [Incident.Tell]
// says.
func (i *Incident) add(s Signal) {
	if len(i.Signals) >= MaxSignals {
		i.Dropped++
	} else {
		at, _ := slices.BinarySearchFunc(i.Signals, s.Time, func(o Signal, t time.Time) int {
			if o.Time.After(t) {
				return 1
			}
			return -1 // after those of the same time
		})
		i.Signals = slices.Insert(i.Signals, at, s)
		if i.saved > 0 {
			i.joined = append(i.joined, s)
		}
	}
	i.conclude(&s)
}

// conclude brings what is said of the whole up to date with one signal.
func (i *Incident) conclude(s *Signal) {
	if i.First.IsZero() || s.Time.Before(i.First) {
		i.First = s.Time
	}
	if s.Time.After(i.Last) {
		i.Last = s.Time
	}
	i.Worst = min(i.Worst, s.Priority)
	for _, t := range s.Tactics {
		if at, known := slices.BinarySearchFunc(i.Tactics, t, byKillChain); !known {
			i.Tactics = slices.Insert(i.Tactics, at, t)
		}
	}
	for _, e := range s.Entities {
		if len(i.Entities) < maxEntities && !slices.Contains(i.Entities, e) {
			i.Entities = append(i.Entities, e)
		}
	}
	if at, known := slices.BinarySearch(i.Owners, s.Owner); s.Owner != "" && !known && len(i.Owners) < maxOwners {
		i.Owners = slices.Insert(i.Owners, at, s.Owner)
	}
	if i.Paged.IsZero() && (s.Pages || len(i.Tactics) > 1 && i.progressed()) {
		i.Paged = s.Time
	}
}

// Tell brings score and story up to date with the signals.
func (i *Incident) Tell() {
	i.Score = i.score()
	i.Story = i.story()
}

// Bounds of what is kept of one incident.
const (
	maxEntities = 200
	maxOwners   = 50
)

// weight is what a signal of a priority says of a tactic, in points of the score.
func weight(p alert.Priority) int {
	switch {
	case p <= alert.Critical:
		return 30
	case p <= alert.Warning:
		return 12
	case p == alert.Notice:
		return 4
	}
	return 1
}

// protected are namespaces in which an attacker has more than one application.
func protected(namespace string) bool { return namespace == "kube-system" }

// score adds up the tactics, each with its heaviest signal: what repeats adds
// nothing. In a namespace of the system a signal weighs twice.
func (i *Incident) score() int {
	heaviest := map[string]int{}
	for _, s := range i.Signals {
		w := weight(s.Priority)
		if protected(s.Subject.Namespace) {
			w *= 2
		}
		tactics := s.Tactics
		if len(tactics) == 0 {
			tactics = []string{""}
		}
		for _, t := range tactics {
			heaviest[t] = max(heaviest[t], w)
		}
	}
	sum := 0
	for _, w := range heaviest {
		sum += w
	}
	return min(sum, 100)
}

// progressed reports whether an attacker got so far that the incident pages though
// no signal of it does: two tactics that were warned of, or three with a warning
// of one.
func (i *Incident) progressed() bool {
	warned := map[string]bool{}
	for _, s := range i.Signals {
		for _, t := range s.Tactics {
			warned[t] = warned[t] || s.Priority <= alert.Warning
		}
	}
	n := 0
	for _, w := range warned {
		if w {
			n++
		}
	}
	return n >= 2 || n == 1 && len(warned) >= 3
}

// Pages reports whether the incident is to be brought to a person at a time.
func (i *Incident) Pages(now time.Time) bool {
	return i.State == New && !i.Paged.IsZero() && !i.Muted(now)
}

// story says what happened in one sentence.
func (i *Incident) story() string {
	var b strings.Builder
	b.WriteString(i.actor())
	b.WriteString(": ")
	if len(i.Tactics) == 0 {
		b.WriteString(i.worst().Rule)
	}
	for n, t := range i.Tactics {
		switch {
		case n > 0 && n == len(i.Tactics)-1:
			b.WriteString(" and ")
		case n > 0:
			b.WriteString(", ")
		}
		b.WriteString(strings.ReplaceAll(t, "-", " "))
	}
	total := len(i.Signals) + i.Dropped
	if total == 1 {
		fmt.Fprintf(&b, ", by %q", i.Signals[0].Rule)
	} else {
		fmt.Fprintf(&b, " in %d alerts within %s, from %q to %q", total, within(i.Last.Sub(i.First)), i.Signals[0].Rule, i.Signals[len(i.Signals)-1].Rule)
		if worst := i.worst(); worst.Rule != i.Signals[0].Rule && worst.Rule != i.Signals[len(i.Signals)-1].Rule {
			fmt.Fprintf(&b, ", the worst %q", worst.Rule)
		}
	}
	return b.String() + "."
}

// worst returns the first signal of the most urgent priority.
func (i *Incident) worst() *Signal {
	at := slices.IndexFunc(i.Signals, func(s Signal) bool { return s.Priority == i.Worst })
	return &i.Signals[max(at, 0)] // the worst may be beyond those that are kept
}

// actor names who or what most of the worst signals have in common, who before
// where: controllers follow in great numbers what one person began.
func (i *Incident) actor() string {
	worst := i.worst().Priority
	for _, kind := range []alert.EntityKind{alert.User, alert.Workload, alert.Pod, alert.Container, alert.Session, alert.Node, alert.Address} {
		count := map[string]int{}
		best := ""
		for _, s := range i.Signals {
			for _, e := range s.Entities {
				if e.Kind != kind || s.Priority != worst {
					continue
				}
				if count[e.Name]++; best == "" || count[e.Name] > count[best] {
					best = e.Name
				}
			}
		}
		if best != "" {
			return best
		}
	}
	if subject := i.worst().Subject.String(); subject != "" {
		return subject
	}
	return "somebody"
}

func within(d time.Duration) string {
	switch {
	case d < 1500*time.Millisecond:
		return "a second"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour).Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// A Change is what a person does to an incident. Empty fields stay as they are.
type Change struct {
	State    State      `json:"state,omitempty"`
	Reason   string     `json:"reason,omitempty"`   // needed to close
	Assignee *string    `json:"assignee,omitempty"` // empty: nobody
	MuteTill *time.Time `json:"muteTill,omitempty"` // zero: not muted
	MuteAll  bool       `json:"muteAll,omitempty"`  // with MuteTill: also when it escalates
	Merge    []string   `json:"merge,omitempty"`    // incidents that it takes in, by [Incident.Merge]
	Split    []string   `json:"split,omitempty"`    // alerts that it gives to a new one, by [Incident.Split]
	By       string     `json:"-"`                  // who does it, and when; they cannot say so themselves
	At       time.Time  `json:"-"`
}

// Bounds of what people write.
const (
	maxReason   = 1000
	maxAssignee = 200
	maxTogether = 100 // incidents that are merged at once
)

// A ChangeError says what is wrong with a change.
type ChangeError struct{ text string }

// Error says what is wrong.
func (e *ChangeError) Error() string { return e.text }

func badChange(format string, args ...any) error { return &ChangeError{fmt.Sprintf(format, args...)} }

// Missing says that there is no incident with an id to merge.
func Missing(id string) *ChangeError { return &ChangeError{fmt.Sprintf("there is no incident %q", id)} }

// Apply changes the incident, or returns a [*ChangeError] and leaves it as it is.
// What is to be merged and split is not done: that is about other incidents, too.
func (i *Incident) Apply(c Change) error {
	switch {
	case c.State != "" && !slices.Contains(States(), c.State):
		return badChange("state %q is not known: want one of %q", c.State, States())
	case c.State == Closed && strings.TrimSpace(c.Reason) == "":
		return badChange("an incident is closed with a reason")
	case c.Reason != "" && c.State != Closed:
		return badChange("a reason is for closing")
	case i.State == Closed && c.State != "" && c.State != Closed:
		return badChange("a closed incident stays closed: what happens from now on is a new one")
	case len(c.Reason) > maxReason:
		return badChange("the reason has %d bytes, more than %d", len(c.Reason), maxReason)
	case c.MuteAll && (c.MuteTill == nil || c.MuteTill.IsZero()):
		return badChange("muteAll needs muteTill")
	case len(c.Merge) > maxTogether:
		return badChange("%d incidents to merge, more than %d", len(c.Merge), maxTogether)
	case c.Assignee != nil && len(*c.Assignee) > maxAssignee:
		return badChange("the assignee has %d bytes, more than %d", len(*c.Assignee), maxAssignee)
	}
	was := *i
	if c.State != "" && c.State != i.State {
		i.By, i.Since = c.By, c.At
	}
	if c.State != "" {
		i.State, i.Reason = c.State, c.Reason
	}
	if c.Assignee != nil {
		i.Assignee = *c.Assignee
	}
	if c.MuteTill != nil {
		i.Mute = Mute{}
		if !c.MuteTill.IsZero() {
			i.Mute = Mute{c.MuteTill.UTC(), c.MuteAll, i.Level()}
		}
	}
	i.note(&c, &was)
	return nil
}
