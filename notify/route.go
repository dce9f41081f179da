package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// A router makes messages of what happened: for whom, and in which group.
type router struct {
	url     string
	cluster string
	fields  map[string]*template.Template
	tags    []string
	routes  []route
	floors  map[string]alert.Priority // of destinations
}

type route struct {
	to       []string
	alerts   bool // else incidents
	match    []Matcher
	priority alert.Priority
	by       []string
	wait     time.Duration
	window   time.Duration
	stop     bool
	number   int
}

// newRouter reads the routes and templates of the configuration. Errors have the
// place in the file.
func newRouter(c *config.Notify, cluster string) (*router, error) {
	r := &router{url: c.URL, cluster: cluster, tags: c.Tags, fields: map[string]*template.Template{}, floors: map[string]alert.Priority{}}
	all := route{priority: alert.Debug}
	for _, d := range c.Destinations {
		floor, err := priority(d.Priority)
		if err != nil {
			return nil, fmt.Errorf("destination %s: %w", d.Name, err)
		}
		r.floors[d.Name] = floor
		all.to = append(all.to, d.Name)
	}
	for name, text := range c.Fields {
		t, err := ParseTemplate(name, text.Text)
		if err != nil {
			return nil, text.Wrap(err)
		}
		r.fields[name] = t
	}
	for i, rc := range c.Routes {
		one, err := newRoute(i, rc)
		if err != nil {
			return nil, err
		}
		r.routes = append(r.routes, one)
	}
	if len(c.Routes) == 0 {
		r.routes = []route{all}
	}
	return r, nil
}

func priority(name string) (alert.Priority, error) {
	if name == "" {
		return alert.Debug, nil
	}
	return alert.ParsePriority(name)
}

func newRoute(i int, c config.Route) (route, error) {
	floor, err := priority(c.Priority)
	if err != nil {
		return route{}, fmt.Errorf("route %d: %w", i, err)
	}
	r := route{to: c.To, alerts: c.Of == "alerts", priority: floor, by: c.GroupBy, wait: c.GroupWait, window: c.GroupWindow, stop: c.Stop, number: i}
	for _, text := range c.Match {
		m, err := ParseMatcher(text.Text)
		if err != nil {
			return route{}, text.Wrap(err)
		}
		r.match = append(r.match, m)
	}
	return r, nil
}

// wantsAlerts reports whether anything but incidents is sent.
func (r *router) wantsAlerts() bool {
	return slices.ContainsFunc(r.routes, func(one route) bool { return one.alerts })
}

// A draft is a message of which the body is still to be written.
type draft struct {
	delivery.Message
	of Notification
}

// messages returns what goes out for one alert or incident: one message for each
// destination, whatever number of routes lead there.
func (r *router) messages(n Notification, now time.Time) ([]delivery.Message, error) {
	return write(r.drafts(n, now))
}

// drafts is messages without their bodies.
func (r *router) drafts(n Notification, now time.Time) (out []draft) {
	r.enrich(&n)
	to := map[string]bool{}
	for i := range r.routes {
		one := &r.routes[i]
		if one.alerts != (n.Incident == nil) || n.Alert.Priority > one.priority ||
			slices.ContainsFunc(one.match, func(m Matcher) bool { return !m.Match(&n) }) {
			continue
		}
		for _, name := range one.to {
			if to[name] || n.Alert.Priority > r.floors[name] {
				continue
			}
			to[name] = true
			out = append(out, one.draft(n, name, now))
		}
		if one.stop {
			break
		}
	}
	return out
}

// draft is a notification for the queue of one destination.
func (r *route) draft(n Notification, to string, now time.Time) draft {
	m := delivery.Message{
		Destination: to, State: delivery.Waiting, Title: title(&n), Count: n.Count, First: n.First, Last: n.Last,
		Created: now, Due: now, Next: now, Until: now,
	}
	if n.Incident != nil {
		m.Incident = toldAs(n.Incident, n.Escalated)
		n.Key = digest("incident", to, m.Incident)
	} else {
		n.Key = digest("alert", to, n.Alert.ID)
		m.Group = r.group(&n)
		m.Due, m.Next = now.Add(r.wait), now.Add(r.wait)
		m.Until = m.Due.Add(r.window)
	}
	m.Key = n.Key
	return draft{m, n}
}

// together counts drafts in the first of their group: in a flood one message is
// written for all of them.
func together(drafts []draft) (out []draft) {
	type group struct{ destination, name string }
	at := map[group]int{}
	for _, d := range drafts {
		g := group{d.Destination, d.Group}
		i, known := at[g]
		if d.Group == "" || !known {
			at[g] = len(out)
			out = append(out, d)
			continue
		}
		first := &out[i]
		first.Count += d.Count
		if d.First.Before(first.First) {
			first.First = d.First
		}
		if d.Last.After(first.Last) {
			first.Last = d.Last
		}
	}
	return out
}

// write returns drafts as messages.
func write(drafts []draft) ([]delivery.Message, error) {
	var out []delivery.Message
	for _, d := range drafts {
		body, err := json.Marshal(d.of)
		if err != nil {
			return nil, fmt.Errorf("encode message %s to %s: %w", d.Key, d.Destination, err)
		}
		d.Body = body
		out = append(out, d.Message)
	}
	return out, nil
}

// group is equal for alerts that become one message.
func (r *route) group(n *Notification) string {
	parts := []string{fmt.Sprint(r.number), n.Alert.Cluster}
	for _, field := range r.by {
		values := Field(n, field)
		if field == "workload" && len(values) == 0 { // as far as it is known
			values = Field(n, "subject")
		}
		parts = append(parts, field+"\x01"+strings.Join(values, "\x01"))
	}
	return digest(parts...)
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:12])
}

// enrich adds the configured fields and tags to an alert, whose own it leaves as
// they are for others that have it.
func (r *router) enrich(n *Notification) {
	a := &n.Alert
	if a.Cluster == "" {
		a.Cluster = r.cluster
	}
	if len(r.fields) > 0 {
		fields := make(map[string]any, len(a.OutputFields)+len(r.fields))
		for name, value := range a.OutputFields {
			fields[name] = value
		}
		data := NewTemplateData(n)
		for name, t := range r.fields {
			text, err := Execute(t, data)
			if err != nil {
				text = "<" + err.Error() + ">"
			}
			fields[name] = text
		}
		a.OutputFields = fields
	}
	if len(r.tags) > 0 {
		a.Tags = slices.Concat(a.Tags, r.tags)
		slices.Sort(a.Tags)
		a.Tags = slices.Compact(a.Tags)
	}
}

// ofAlert is what is said of an alert by itself.
func (r *router) ofAlert(a alert.Alert) Notification {
	n := Notification{Alert: a, Count: 1, First: a.Time, Last: a.Time}
	if r.url != "" {
		n.URL = r.url + "/alerts/" + a.ID
	}
	return n
}

// ofIncident is what is said of an incident. Its alert is made of the worst
// signal that is known, so that what reads alerts reads it, too.
func (r *router) ofIncident(i *incident.Incident) Notification {
	var worst incident.Signal
	for n, s := range i.Signals {
		if n == 0 || s.Priority < worst.Priority {
			worst = s
		}
	}
	a := alert.Alert{
		ID: worst.Alert, Time: worst.Time, Rule: worst.Rule, Priority: i.Worst, Source: worst.Source, Output: worst.Output,
		OutputFields: map[string]any{}, Cluster: i.Cluster, Subject: worst.Subject, Owner: worst.Owner, Tactics: i.Tactics, Entities: i.Entities,
	}
	if worst.Subject.Namespace != "" {
		a.OutputFields["k8s.ns.name"] = worst.Subject.Namespace
	}
	if worst.Subject.Kind == "Pod" {
		a.OutputFields["k8s.pod.name"] = worst.Subject.Name
	}
	for _, t := range i.Tactics {
		a.Tags = append(a.Tags, "mitre_"+strings.ReplaceAll(t, "-", "_"))
	}
	n := Notification{Alert: a, Count: len(i.Signals) + i.Dropped, First: i.First, Last: i.Last, Incident: i}
	if r.url != "" {
		n.URL = r.url + "/incidents/" + i.ID
	}
	return n
}

// maxTitle bounds the title of a message, in characters.
const maxTitle = 200

func title(n *Notification) string {
	text := n.Alert.Rule
	switch {
	case n.Update != nil:
		text = string(n.Update.State) + ": " + n.Incident.Story
	case n.Escalated > 0:
		text = "escalated: " + n.Incident.Story
	case n.Incident != nil:
		text = n.Incident.Story
	}
	return Cut(strings.Join(strings.Fields(Clean(text)), " "), maxTitle)
}
