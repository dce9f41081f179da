package incident

import (
	"slices"
	"strings"
	"time"
)

// take puts all signals of another incident into this one. What people have said
// of the other counts where nobody has said anything of this one.
func (i *Incident) take(other *Incident) {
	for _, s := range other.Signals {
		i.add(s)
	}
	i.Dropped += other.Dropped
	if !other.Paged.IsZero() && (i.Paged.IsZero() || other.Paged.Before(i.Paged)) {
		i.Paged = other.Paged
	}
	if i.State == New {
		i.State, i.By, i.Since = other.State, other.By, other.Since
	}
	if i.Assignee == "" {
		i.Assignee = other.Assignee
	}
	if other.MuteTill.After(i.MuteTill) {
		i.Mute = other.Mute
	}
	i.takeActs(other)
	i.Related, i.Apart = union(i.Related, other.Related), union(i.Apart, other.Apart)
	i.Tell()
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// apart reports whether a person has said that two incidents are not one.
func apart(a, b *Incident) bool {
	return slices.Contains(a.Apart, b.ID) || slices.Contains(b.Apart, a.ID)
}

// Merge takes in another incident, which is no more after it, or returns a
// [*ChangeError] and leaves both as they are.
func (i *Incident) Merge(other *Incident) error {
	switch {
	case i.ID == other.ID:
		return badChange("an incident is not merged with itself")
	case i.Cluster != other.Cluster:
		return badChange("incident %s is of cluster %q, this one of %q", other.ID, other.Cluster, i.Cluster)
	case i.State == Closed || other.State == Closed:
		return badChange("a closed incident stays as it is")
	}
	gone := func(id string) bool { return id == i.ID || id == other.ID }
	i.take(other)
	i.Apart = slices.DeleteFunc(i.Apart, gone)
	return nil
}

// Split gives alerts of the incident to a new one, and keeps both apart from now
// on. The new one is named by the first of them that does not name this one, and
// nobody has said anything of it yet. A [*ChangeError] leaves the incident as it
// is.
func (i *Incident) Split(alerts []string) (*Incident, error) {
	if i.State == Closed {
		return nil, badChange("a closed incident stays as it is")
	}
	var away, stay []Signal
	for _, s := range i.Signals {
		if slices.Contains(alerts, s.Alert) {
			away = append(away, s)
		} else {
			stay = append(stay, s)
		}
	}
	name := slices.IndexFunc(away, func(s Signal) bool { return s.Alert != i.ID })
	if len(alerts) == 0 {
		return nil, badChange("no alert to split off")
	}
	switch missing := slices.DeleteFunc(slices.Clone(alerts), func(id string) bool { return i.has(id) }); {
	case len(missing) > 0:
		return nil, badChange("alert %s is not one of the incident's", strings.Join(missing[:1], ""))
	case len(stay) == 0:
		return nil, badChange("an incident keeps one of its alerts")
	case name < 0:
		return nil, badChange("the incident is named by that alert: split off the others")
	}
	part := &Incident{ID: away[name].Alert, Cluster: i.Cluster, State: New, Apart: []string{i.ID}}
	part.restart(away)
	i.Apart = union(i.Apart, []string{part.ID})
	i.restart(stay)
	return part, nil
}

func (i *Incident) has(alert string) bool {
	return slices.ContainsFunc(i.Signals, func(s Signal) bool { return s.Alert == alert })
}

// restart concludes from signals alone what is said of the whole.
func (i *Incident) restart(signals []Signal) {
	i.Signals, i.Tactics, i.Entities, i.Owners, i.joined, i.saved = nil, nil, nil, nil, nil, 0
	i.First, i.Last, i.Paged, i.Worst = time.Time{}, time.Time{}, time.Time{}, signals[0].Priority
	for _, s := range signals {
		i.add(s)
	}
	i.Tell()
}
