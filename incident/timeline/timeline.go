// Package timeline tells what happened around an incident, in the order of time:
// alerts of the audit log and of nodes, what agents did about them and what they did
// not see, decisions of admission, findings that appeared or were resolved, what
// people did, and who was told.
package timeline

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// A Kind says what an entry is.
type Kind string

// The kinds, in the order of what has the same time.
const (
	Alert    Kind = "alert"
	Response Kind = "response" // what an agent did because of an alert
	Blind    Kind = "blind"    // what a node did not show
	Decision Kind = "admission"
	Posture  Kind = "posture" // a finding that appeared or was resolved
	Act      Kind = "action"  // what a person did to the incident
	Message  Kind = "message" // who was told
)

// Kinds lists the kinds, in the order of what has the same time.
func Kinds() []Kind { return []Kind{Alert, Response, Blind, Decision, Posture, Act, Message} }

// An Entry is one thing that happened.
type Entry struct {
	Time   time.Time `json:"time"`
	Kind   Kind      `json:"kind"`
	Source string    `json:"source"`          // who has seen it: audit, runtime, agent, admission, posture, people, deliveries, or the source of an alert
	Grade  string    `json:"grade,omitempty"` // priority of an alert, severity of a finding, else the outcome
	Title  string    `json:"title"`
	Text   string    `json:"text,omitempty"`
	// Cluster is where it was, in what is put together from several clusters.
	Cluster string `json:"-"`
	// ID is that of the alert or decision, the control of a finding, the number of a
	// message; empty for what a person did.
	ID    string          `json:"id,omitempty"`
	URL   string          `json:"url,omitempty"`   // path of the page that has more of it
	Links []incident.Link `json:"links,omitempty"` // what ties an alert to the incident
}

// Around is for how long before and after an incident what others have seen is
// part of its timeline.
const Around = 30 * time.Minute

// Bounds returns from when to when a timeline goes: of an incident that is not
// closed, up to now.
func Bounds(i *incident.Incident, now time.Time) (since, until time.Time) {
	until = i.Last.Add(Around)
	switch {
	case i.State != incident.Closed && now.After(until):
		until = now
	case i.State == incident.Closed && i.Since.Add(Around).After(until):
		until = i.Since.Add(Around)
	}
	return i.First.Add(-Around), until
}

// Sources are what is known besides the incident itself. They may have more than
// belongs to its time.
type Sources struct {
	Blind     []alert.Record // of nodes whose agents were silent, or lost something
	Silent    []alert.Record // of before, since when agents of its nodes were silent as it began
	Decisions []finding.Decision
	Spans     []finding.Span // of [Subjects]
	Messages  []delivery.Message
}

// A Timeline is all of it. Make it with [New].
type Timeline struct {
	Entries []Entry
	// Standing are the findings that failed when the incident began, the worst
	// first, and of those the oldest.
	Standing []finding.Span
}

// New merges what is known of an incident and of its time.
func New(i *incident.Incident, s Sources, now time.Time) Timeline {
	since, until := Bounds(i, now)
	within := func(at time.Time) bool { return !at.Before(since) && !at.After(until) }
	var t Timeline
	for n := range i.Signals {
		t.Entries = append(t.Entries, ofSignal(&i.Signals[n])...)
	}
	nodes := Nodes(i)
	for n := range s.Blind {
		if a := &s.Blind[n].Alert; within(a.Time) && a.Subject.Kind == "Node" && slices.Contains(nodes, a.Subject.Name) {
			t.Entries = append(t.Entries, ofBlind(a))
		}
	}
	for n := range s.Silent {
		t.Entries = append(t.Entries, ofBlind(&s.Silent[n].Alert))
	}
	known := map[string]bool{}
	for n := range s.Decisions {
		if d := &s.Decisions[n]; within(d.Time) && !known[d.ID] {
			known[d.ID] = true
			t.Entries = append(t.Entries, OfDecision(d))
		}
	}
	for n := range s.Spans {
		span := &s.Spans[n]
		appeared := span.New && !span.Found.Before(since)
		if !appeared && !span.Found.After(until) && (span.Resolved.IsZero() || !span.Resolved.Before(since)) {
			t.Standing = append(t.Standing, *span)
		}
		if appeared && within(span.Found) {
			t.Entries = append(t.Entries, found(span))
		}
		if !span.Resolved.IsZero() && within(span.Resolved) {
			t.Entries = append(t.Entries, resolved(span))
		}
	}
	for n := range i.Acts {
		t.Entries = append(t.Entries, ofAct(&i.Acts[n]))
	}
	for n := range s.Messages {
		t.Entries = append(t.Entries, ofMessage(&s.Messages[n]))
	}
	slices.SortStableFunc(t.Entries, inOrder)
	slices.SortStableFunc(t.Standing, func(a, b finding.Span) int {
		return cmp.Or(cmp.Compare(b.Finding.Severity.Weight(), a.Finding.Severity.Weight()), a.Found.Compare(b.Found))
	})
	return t
}

func inOrder(a, b Entry) int {
	rank := func(k Kind) int { return slices.Index(Kinds(), k) }
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(rank(a.Kind), rank(b.Kind)), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Title, b.Title))
}

// Page returns at most n entries after a place, the first ones after the zero one,
// and the place to go on at, which is zero after the last. A place is the time of
// an entry and how many entries of that time come before it, with it.
func (t *Timeline) Page(after finding.Cursor, n int) (page []Entry, next finding.Cursor) {
	rest := t.After(after)
	if len(rest) <= n {
		return rest, finding.Cursor{}
	}
	return rest[:n], t.place(len(t.Entries) - len(rest) + n)
}

// After returns all entries after a place.
func (t *Timeline) After(place finding.Cursor) []Entry {
	if place == (finding.Cursor{}) {
		return t.Entries
	}
	at, _ := slices.BinarySearchFunc(t.Entries, place.Time, func(e Entry, at time.Time) int { return e.Time.Compare(at) })
	for skip := place.Seq; skip > 0 && at < len(t.Entries) && t.Entries[at].Time.Equal(place.Time); skip-- {
		at++
	}
	return t.Entries[at:]
}

// Last returns the place of the last page of n entries; zero if it is the first.
func (t *Timeline) Last(n int) finding.Cursor {
	if len(t.Entries) <= n {
		return finding.Cursor{}
	}
	return t.place(len(t.Entries) - n)
}

// place is the one after the first n entries.
func (t *Timeline) place(n int) finding.Cursor {
	last := t.Entries[n-1].Time
	same := 0
	for n-same > 0 && t.Entries[n-same-1].Time.Equal(last) {
		same++
	}
	return finding.Cursor{Time: last, Seq: int64(same)}
}

// ofSignal returns an alert, and what was done because of it.
func ofSignal(s *incident.Signal) []Entry {
	page := "/alerts/" + url.PathEscape(s.Alert)
	out := []Entry{{
		Time: s.Time, Kind: Alert, Source: SourceName(s.Source), Grade: s.Priority.String(), Title: s.Rule, Text: s.Output,
		ID: s.Alert, URL: page, Links: s.Links,
	}}
	for _, r := range s.Responses {
		e := Entry{Time: s.Time, Kind: Response, Source: "agent", Grade: r.Outcome, Title: r.Action, Text: s.Rule, ID: s.Alert, URL: page}
		if r.By != "" {
			e.Text += ", by the " + r.By
		}
		if r.Reason != "" {
			e.Text += ": " + r.Reason
		}
		if r.DryRun() {
			e.Title += ", dry run"
		}
		out = append(out, e)
	}
	return out
}

// ofBlind returns an alert which says that something on a node was not seen.
func ofBlind(a *alert.Alert) Entry {
	return Entry{Time: a.Time, Kind: Blind, Source: "agent", Grade: a.Priority.String(), Title: a.Rule, Text: a.Output, ID: a.ID, URL: "/alerts/" + url.PathEscape(a.ID)}
}

// OfAlert returns an alert, and what was done because of it.
func OfAlert(a *alert.Alert) []Entry {
	s := incident.FromAlert(a)
	entries := ofSignal(&s)
	for i := range entries {
		entries[i].Cluster = a.Cluster
	}
	return entries
}

// OfDecision returns a decision of admission as an entry.
func OfDecision(d *finding.Decision) Entry {
	e := Entry{
		Time: d.Time, Kind: Decision, Source: "admission", Grade: string(d.Outcome()), Title: strings.ToLower(d.Operation) + " " + d.Subject.String(),
		Text: "by " + d.User, ID: d.ID, URL: "/decisions?" + url.Values{"text": {d.ID}}.Encode(),
	}
	if d.DryRun {
		e.Title += ", dry run"
	}
	worst, less := strictest(d.Violations), 0
	for _, v := range d.Violations {
		if v.Enforcement != worst {
			less++
			continue
		}
		e.Text += "; " + v.Policy + ": " + v.Message
	}
	if less > 0 {
		e.Text += fmt.Sprintf("; %d more by policies that enforce less", less)
	}
	return e
}

// strictest returns the enforcement that a decision is due to.
func strictest(violations []finding.Violation) string {
	for _, enforcement := range []string{"deny", "warn"} {
		if slices.ContainsFunc(violations, func(v finding.Violation) bool { return v.Enforcement == enforcement }) {
			return enforcement
		}
	}
	return "audit"
}

func ofFinding(f *finding.Finding, at time.Time) Entry {
	return Entry{
		Time: at, Kind: Posture, Source: "posture", Grade: string(f.Severity), Text: f.Subject.String(), ID: f.Control, URL: PageOf(f),
	}
}

// PageOf returns the path of the page of a finding.
func PageOf(f *finding.Finding) string {
	return "/findings?" + url.Values{"control": {f.Control}, "text": {f.Subject.String()}}.Encode()
}

// Before returns findings as entries of when they were found, for what has no place
// of its own for what stood open.
func Before(standing []finding.Span) (out []Entry) {
	for n := range standing {
		out = append(out, found(&standing[n]))
	}
	slices.SortStableFunc(out, inOrder)
	return out
}

func found(s *finding.Span) Entry {
	e := ofFinding(&s.Finding, s.Found)
	e.Title = "found: " + s.Finding.Title
	if s.Finding.Message != "" {
		e.Text += ": " + s.Finding.Message
	}
	return e
}

func resolved(s *finding.Span) Entry {
	e := ofFinding(&s.Finding, s.Resolved)
	e.Title = "resolved: " + s.Finding.Title
	switch s.Became {
	case finding.Pass:
		e.Text += ": it passes"
	case finding.Excepted:
		e.Title, e.Text = "accepted: "+s.Finding.Title, e.Text+": an exception accepts it"
	case "":
		e.Text += ": it is there no more"
	default:
		e.Text += ": it is " + string(s.Became)
	}
	return e
}

func ofAct(a *incident.Act) Entry {
	return Entry{Time: a.Time, Kind: Act, Source: "people", Title: cmp.Or(a.By, "somebody"), Text: a.Did}
}

func ofMessage(m *delivery.Message) Entry {
	e := Entry{
		Time: m.Created, Kind: Message, Source: "deliveries", Grade: string(m.State), Title: "message to " + m.Destination, Text: m.Title,
		ID: strconv.FormatInt(m.Seq, 10), URL: "/deliveries?" + url.Values{"destination": {m.Destination}}.Encode(),
	}
	if !m.Done.IsZero() {
		e.Time = m.Done
	}
	if m.State == delivery.Waiting && m.Attempts > 0 {
		e.Text += fmt.Sprintf("; tried %d times", m.Attempts)
	}
	if m.Reason != "" {
		e.Text += "; " + m.Reason
	}
	return e
}

// SourceName says what has seen an alert.
func SourceName(source string) string {
	switch source {
	case "k8s_audit":
		return "audit"
	case "syscall":
		return "runtime"
	}
	return source
}

// Nodes returns the nodes that an incident involves.
func Nodes(i *incident.Incident) (out []string) {
	for _, e := range i.Entities {
		if e.Kind == alert.Node {
			out = append(out, e.Name)
		}
	}
	return out
}

// maxSubjects bounds what findings are looked up of.
const maxSubjects = 100

// Subjects returns the names that findings of what an incident involves have, as
// [finding.Finding.Concerns] says them.
func Subjects(i *incident.Incident) (out []string) {
	add := func(parts ...string) {
		name := strings.Join(parts, "/")
		if !slices.Contains(strings.Split(name, "/"), "") && len(out) < maxSubjects && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, e := range i.Entities {
		switch e.Kind {
		case alert.Pod:
			namespace, _, _ := strings.Cut(e.Name, "/")
			add("Pod", e.Name)
			add("Namespace", namespace)
		case alert.Node:
			add("Node", e.Name)
		case alert.Workload:
			add(e.Name)
			if parts := strings.Split(e.Name, "/"); len(parts) == 3 {
				add("Namespace", parts[1])
			}
		case alert.User:
			add(userSubject(e.Name))
		}
	}
	for n := range i.Signals {
		if s := i.Signals[n].Subject; s.Kind != "" && s.Name != "" {
			add(s.String())
			add("Namespace", s.Namespace)
		}
	}
	return out
}

// userSubject is what a finding calls a user.
func userSubject(name string) string {
	account, isAccount := strings.CutPrefix(name, "system:serviceaccount:")
	namespace, name2, _ := strings.Cut(account, ":")
	node, isNode := strings.CutPrefix(name, "system:node:")
	switch {
	case name == "":
		return ""
	case isAccount:
		return "ServiceAccount/" + namespace + "/" + name2
	case isNode:
		return "Node/" + node
	}
	return "User/" + name
}
