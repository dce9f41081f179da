package incident

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// How long after a signal another one with the same entity belongs to it. What
// one attacker holds for long, such as a user, joins over hours.
func window(k alert.EntityKind) time.Duration {
	switch k {
	case alert.Token, alert.Pod, alert.Container, alert.Session, alert.Workload, alert.Object:
		return 6 * time.Hour
	case alert.User:
		return 2 * time.Hour
	}
	return time.Hour
}

// Window is the longest of them: whatever is quiet for that long joins nothing.
const Window = 6 * time.Hour

// Bounds of what a correlator remembers.
const (
	maxIncidents = 10_000 // those that were quiet longest are let go
	maxKept      = 50_000 // signals, the same
	hubDegree    = 25     // other entities, from which on an entity ties nothing by itself
	commonplace  = 1000   // incidents, from which on an entity ties nothing with another one either
	sweepEvery   = time.Minute
)

// A Correlator joins signals into incidents. Signals may come late, by less than
// the windows. It belongs to one goroutine.
type Correlator struct {
	known   map[string]*Incident // by id; nothing that has been quiet for longer than the windows
	places  map[place]map[*Incident]time.Time
	degrees map[place]map[alert.Entity]bool // what was seen with it, up to hubDegree
	signals int                             // in all that are known
	swept   time.Time                       // of the signals, when it last let go of what is quiet
}

// A place is an entity of a cluster. What has the same name in two clusters is two
// things, and neither says anything about the other.
type place struct {
	cluster string
	alert.Entity
}

// NewCorrelator returns a correlator that goes on with incidents that it, or
// another one, has returned. It shares them with the caller.
func NewCorrelator(known []*Incident) *Correlator {
	c := &Correlator{known: map[string]*Incident{}, places: map[place]map[*Incident]time.Time{}, degrees: map[place]map[alert.Entity]bool{}}
	for _, i := range known {
		c.known[i.ID] = i
		c.signals += len(i.Signals)
		for _, s := range i.Signals {
			c.note(i, &s, true)
		}
	}
	return c
}

// note remembers where the entities of a signal were seen, and together with
// what. Of a signal that is not kept nothing new is, so that what is remembered
// goes with the incident.
func (c *Correlator) note(i *Incident, s *Signal, kept bool) {
	for _, e := range s.Entities {
		p := place{i.Cluster, e}
		if _, known := c.places[p][i]; !known && !kept {
			continue
		}
		if c.places[p] == nil {
			c.places[p] = map[*Incident]time.Time{}
		}
		if s.Time.After(c.places[p][i]) {
			c.places[p][i] = s.Time
		}
		for _, other := range s.Entities {
			if e == other || len(c.degrees[p]) >= hubDegree {
				continue
			}
			if c.degrees[p] == nil {
				c.degrees[p] = map[alert.Entity]bool{}
			}
			c.degrees[p][other] = true
		}
	}
}

// An Outcome is what became of a signal.
type Outcome struct {
	Incident *Incident   // that it is in now
	Merged   []*Incident // that are part of it since, and are no more
	New      bool
	Paged    bool // by this signal
}

// Add puts a signal into the incident that it belongs to: the oldest one that it
// is tied to, which takes in the others, or a new one. A signal that is known, by
// its alert, changes nothing; its outcome is the zero value.
func (c *Correlator) Add(cluster string, s Signal) Outcome {
	out := c.Join(cluster, s)
	if out.Incident != nil {
		out.Incident.Tell()
	}
	return out
}

// Join is Add for many signals: what [Incident.Tell] says of an incident is to be
// brought up to date once all are in.
func (c *Correlator) Join(cluster string, s Signal) Outcome {
	ties := c.ties(cluster, &s)
	for i := range ties {
		if i.has(s.Alert) {
			return Outcome{}
		}
	}
	var out Outcome
	var related []string
	for _, i := range slices.SortedFunc(maps.Keys(ties), older) {
		if i.State == Closed {
			related = append(related, i.ID)
			continue
		}
		if out.Incident != nil && apart(out.Incident, i) {
			continue
		}
		s.Links = append(s.Links, ties[i]...)
		if out.Incident == nil {
			out.Incident = i
			continue
		}
		c.join(out.Incident, i)
		out.Merged = append(out.Merged, i)
	}
	if out.Incident == nil {
		out = Outcome{Incident: &Incident{ID: s.Alert, Cluster: cluster, State: New, Worst: s.Priority, Related: related}, New: true}
		c.known[s.Alert] = out.Incident
	}
	paged := !out.Incident.Paged.IsZero()
	before := len(out.Incident.Signals)
	out.Incident.add(s)
	out.Paged = !paged && !out.Incident.Paged.IsZero()
	c.signals += len(out.Incident.Signals) - before
	c.note(out.Incident, &s, len(out.Incident.Signals) > before)
	c.sweep(out.Incident.Last)
	return out
}

func older(a, b *Incident) int { return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.ID, b.ID)) }

// join takes an incident into an older one.
func (c *Correlator) join(into, i *Incident) {
	before := len(into.Signals)
	into.take(i)
	c.signals += len(into.Signals) - before
	c.drop(i)
	kept := len(into.Signals) - before // the first ones
	for n, s := range i.Signals {
		c.note(into, &s, n < kept)
	}
}

// ties returns the incidents that a signal belongs to, with what ties it: one
// entity that stands for one attacker or victim, or two that many share.
func (c *Correlator) ties(cluster string, s *Signal) map[*Incident][]Link {
	var shared []alert.Entity
	out := map[*Incident][]Link{}
	for _, e := range s.Entities {
		if !c.tells(place{cluster, e}) {
			shared = append(shared, e)
			continue
		}
		for i := range c.places[place{cluster, e}] {
			if _, ok := c.link(cluster, s, e, i); ok {
				out[i] = nil
			}
		}
	}
	// Whatever is tied by two is also in the places of one that is not the most
	// common of all.
	slices.SortFunc(shared, func(a, b alert.Entity) int {
		return len(c.places[place{cluster, a}]) - len(c.places[place{cluster, b}])
	})
	for _, e := range shared[:max(len(shared)-1, 0)] {
		common := c.places[place{cluster, e}]
		if len(common) > commonplace {
			continue
		}
		for i := range common {
			if _, known := out[i]; !known && len(c.links(cluster, s, shared, i)) > 1 {
				out[i] = nil
			}
		}
	}
	for i := range out {
		out[i] = c.links(cluster, s, s.Entities, i)
	}
	return out
}

// links returns what ties a signal to an incident, of some of its entities.
func (c *Correlator) links(cluster string, s *Signal, entities []alert.Entity, i *Incident) (out []Link) {
	for _, e := range entities {
		if l, ok := c.link(cluster, s, e, i); ok {
			out = append(out, l)
		}
	}
	return out
}

func (c *Correlator) link(cluster string, s *Signal, e alert.Entity, i *Incident) (Link, bool) {
	last, ok := c.places[place{cluster, e}][i]
	return Link{e, last}, ok && s.Time.Sub(last).Abs() <= window(e.Kind)
}

// tells reports whether an entity is enough to tie signals. Addresses, nodes and
// images are shared by many; so is a user of the system, and whatever was seen
// with many others.
func (c *Correlator) tells(p place) bool {
	switch p.Kind {
	case alert.Address, alert.Node, alert.Image:
		return false
	case alert.User:
		if Hub(p.Name) {
			return false
		}
	}
	return len(c.degrees[p]) < hubDegree
}

// Incident returns the incident with an id, or nil if the correlator does not
// have it. Who changes it by [Incident.Apply] need not tell.
func (c *Correlator) Incident(id string) *Incident { return c.known[id] }

// sweep lets go of what has been quiet for longer than anything joins, and of
// the quietest when there are too many.
func (c *Correlator) sweep(now time.Time) {
	full := len(c.known) > maxIncidents || c.signals > maxKept
	if now.Sub(c.swept) < sweepEvery && !full {
		return
	}
	c.swept = now
	for _, i := range c.known {
		if now.Sub(i.Last) > Window {
			c.drop(i)
		}
	}
	if !full {
		return
	}
	for _, i := range slices.SortedFunc(maps.Values(c.known), func(a, b *Incident) int { return a.Last.Compare(b.Last) }) {
		if len(c.known) <= maxIncidents*9/10 && c.signals <= maxKept*9/10 {
			break
		}
		c.drop(i)
	}
}

// drop forgets an incident and what only it has to do with.
func (c *Correlator) drop(i *Incident) {
	delete(c.known, i.ID)
	c.signals -= len(i.Signals)
	for _, s := range i.Signals {
		for _, e := range s.Entities {
			p := place{i.Cluster, e}
			if delete(c.places[p], i); len(c.places[p]) == 0 {
				delete(c.places, p)
				delete(c.degrees, p)
			}
		}
	}
}
