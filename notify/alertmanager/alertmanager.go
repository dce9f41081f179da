// Package alertmanager sends notifications to Prometheus' Alertmanager, which
// then routes, groups and silences them.
package alertmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// URL is that of Alertmanager, or URLFile a file that has it; one is needed.
	// With several URLs, of a cluster without a common address, make a destination
	// of each.
	URL     string            `yaml:"url"`
	URLFile notify.SecretFile `yaml:"urlFile"`
	// Labels are fields, as routes name them, that become labels besides
	// alertname, severity, cluster, namespace, source and kubeguardian.
	Labels []string `yaml:"labels"`
	// ResolveAfter is how long after its last alert a message is resolved; if it is
	// not given, 1h, and 720h for an incident, which is resolved once it is closed.
	ResolveAfter time.Duration `yaml:"resolveAfter"`
	HTTP         post.Config   `yaml:"http"`
}

// longest is how long a message may stay unresolved.
const longest = 30 * 24 * time.Hour

type destination struct {
	Config
	options notify.Options
	client  *post.Client
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if err := post.CheckAddress(c.URL, c.URLFile); err != nil {
		return nil, err
	}
	if c.ResolveAfter != 0 && (c.ResolveAfter < time.Minute || c.ResolveAfter > longest) {
		return nil, fmt.Errorf("resolveAfter %s: want 1m to 720h", c.ResolveAfter)
	}
	client, err := post.New(c.HTTP, o)
	return &destination{c, o, client}, err
}

// Batch implements [notify.Batcher].
func (d *destination) Batch() int { return 50 }

// Send implements [notify.Destination].
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	to, err := post.Address(d.URL, d.URLFile)
	if err != nil {
		return fmt.Errorf("%s: %w", d.options.Name, err)
	}
	list := make([]message, len(batch))
	now := time.Now()
	for i := range batch {
		list[i] = d.message(&batch[i], now)
	}
	body, err := json.Marshal(list)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: encode alerts: %w", d.options.Name, err))
	}
	_, err = d.client.Send(ctx, post.Request{URL: strings.TrimRight(to, "/") + "/api/v2/alerts", Type: "application/json", Body: body})
	return err
}

// States implements [notify.Stateful].
func (d *destination) States() []incident.State { return []incident.State{incident.Closed} }

// Close implements [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// message is one alert of Alertmanager's API, version 2.
type message struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	URL         string            `json:"generatorURL,omitempty"`
}

// Bounds of texts, in characters.
const (
	maxLabel      = 200
	maxAnnotation = 4000
)

// resolveAfter is how long after its last alert a message is resolved.
func (d *destination) resolveAfter(n *notify.Notification) time.Duration {
	switch {
	case d.ResolveAfter != 0:
		return d.ResolveAfter
	case n.Incident != nil:
		return longest
	}
	return time.Hour
}

// message has as labels what tells messages apart: equal ones would be one alert.
// Its end is in the future also when it comes late, so that it is seen at all; but
// that of an incident that is closed is in the past.
func (d *destination) message(n *notify.Notification, now time.Time) message {
	a := &n.Alert
	m := message{
		Labels: map[string]string{
			"alertname": a.Rule, "severity": strings.ToLower(a.Priority.String()), "cluster": a.Cluster, "namespace": a.Subject.Namespace, "source": a.Source, "kubeguardian": n.Thread(),
		},
		Annotations: map[string]string{"summary": notify.Cut(n.Heading(), maxAnnotation), "description": n.Text(maxAnnotation)},
		StartsAt:    n.First, EndsAt: n.Last.Add(d.resolveAfter(n)), URL: n.URL,
	}
	if least := now.Add(d.resolveAfter(n)); m.EndsAt.Before(least) {
		m.EndsAt = least
	}
	if n.Incident != nil {
		m.Labels["alertname"], m.Labels["incident"] = "KubeGuardianIncident", n.Told()
	}
	if u := n.Update; u != nil {
		if m.EndsAt = u.Time; m.EndsAt.After(now) {
			m.EndsAt = now
		}
		if m.StartsAt.After(m.EndsAt) { // clocks differ
			m.StartsAt = m.EndsAt
		}
	}
	for _, f := range n.Facts() {
		m.Annotations[labelName(f.Name)] = f.Value
	}
	for _, field := range d.Labels {
		m.Labels[labelName(field)] = strings.Join(notify.Field(n, field), ",")
	}
	for name, value := range m.Labels {
		if m.Labels[name] = notify.Cut(notify.Clean(value), maxLabel); m.Labels[name] == "" {
			delete(m.Labels, name) // which is the same to Alertmanager
		}
	}
	return m
}

var notOfLabels = regexp.MustCompile(`[^a-zA-Z0-9_]+`)

// labelName makes a name of a label: dots become underscores.
func labelName(field string) string {
	name := notOfLabels.ReplaceAllString(field, "_")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}
