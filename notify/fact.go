package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Fact is one thing that a message for people says, in a table or list.
type Fact struct{ Name, Value string }

// Bounds of what messages for people say.
const (
	maxFacts     = 20
	maxFactName  = 60
	maxFactValue = 200
)

// Facts returns what people want to know of a notification besides its heading
// and text, the most important first: at most 20, clean and cut to 200
// characters each. Of an update it is only what tells where.
func (n *Notification) Facts() []Fact {
	a := &n.Alert
	var out []Fact
	add := func(name, value string) {
		if value = strings.TrimSpace(Clean(value)); value != "" && len(out) < maxFacts {
			out = append(out, Fact{Cut(Clean(name), maxFactName), Cut(value, maxFactValue)})
		}
	}
	add("Cluster", a.Cluster)
	if n.Update != nil { // all else was told before
		return out
	}
	if a.Subject.Name != "" {
		add(a.Subject.Kind, strings.TrimPrefix(a.Subject.Namespace+"/"+a.Subject.Name, "/"))
	}
	if n.Incident != nil {
		add("Score", fmt.Sprint(n.Incident.Score))
		add("Rule", a.Rule)
	}
	add("Owner", strings.Join(Field(n, "owner"), ", "))
	add("Tactics", strings.Join(a.Tactics, ", "))
	if n.Count > 1 {
		add("Alerts", fmt.Sprintf("%d, from %s to %s", n.Count, n.First.UTC().Format(time.DateTime), n.Last.UTC().Format(time.DateTime)+" UTC"))
	} else {
		add("Time", n.First.UTC().Format(time.DateTime)+" UTC")
	}
	names := make([]string, 0, len(a.OutputFields))
	for name, value := range a.OutputFields {
		if value != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		add(name, fmt.Sprint(a.OutputFields[name]))
	}
	return out
}

// Text returns what happened in the words of the rule, or of the incident, or what
// became of it: clean, and at most max characters.
func (n *Notification) Text(max int) string {
	text := n.Alert.Output
	switch {
	case n.Update != nil:
		text = n.Update.text()
	case n.Incident != nil:
		text = n.Incident.Story
	}
	return Cut(Clean(text), max)
}
