// Package pagerduty opens incidents in PagerDuty by its Events API, version 2.
package pagerduty

import (
	"cmp"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// KeyFile has the integration key of a service ("routing key").
	KeyFile notify.SecretFile `yaml:"keyFile"`
	// URL is https://events.pagerduty.com/v2/enqueue if it is not given; accounts in
	// the EU have another one.
	URL string `yaml:"url"`
	// Component and Class are those of the events; none if they are not given.
	Component string      `yaml:"component"`
	Class     string      `yaml:"class"`
	HTTP      post.Config `yaml:"http"`
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if c.URL == "" {
		c.URL = "https://events.pagerduty.com/v2/enqueue"
	}
	return post.Keyed(c.KeyFile, c.URL, c.HTTP, o, func(key config.Secret, n *notify.Notification) post.Piece {
		e := c.event(n, o.Cluster)
		e.RoutingKey = string(key)
		return post.Piece{URL: c.URL, Document: e}
	}, incident.States()[1:]...)
}

type event struct {
	RoutingKey string   `json:"routing_key"`
	Action     string   `json:"event_action"`
	DedupKey   string   `json:"dedup_key"`
	Payload    *payload `json:"payload,omitempty"` // of what triggers
	Client     string   `json:"client,omitempty"`
	ClientURL  string   `json:"client_url,omitempty"`
}

type payload struct {
	Summary   string            `json:"summary"`
	Source    string            `json:"source"`
	Severity  string            `json:"severity"`
	Timestamp time.Time         `json:"timestamp"`
	Component string            `json:"component,omitempty"`
	Group     string            `json:"group,omitempty"`
	Class     string            `json:"class,omitempty"`
	Details   map[string]string `json:"custom_details"`
}

// Bounds of PagerDuty, in characters.
const (
	maxSummary = 1024
	maxDetails = 20_000
)

// event is what becomes of an incident. cluster is said where the alert does not.
func (c Config) event(n *notify.Notification, cluster string) event {
	if u := n.Update; u != nil {
		if u.State == incident.Closed {
			return event{Action: "resolve", DedupKey: n.Thread()}
		}
		return event{Action: "acknowledge", DedupKey: n.Thread()}
	}
	cluster = cmp.Or(n.Alert.Cluster, cluster)
	p := &payload{
		Summary: notify.Cut(n.Heading(), maxSummary), Source: "kubernetes/" + notify.Clean(cluster), Severity: severity(n.Alert.Priority), Timestamp: n.Last,
		Component: c.Component, Group: notify.Cut(notify.Clean(n.Alert.Subject.Namespace), 200), Class: c.Class, Details: map[string]string{"text": n.Text(maxDetails)},
	}
	for _, f := range n.Facts() {
		p.Details[f.Name] = f.Value
	}
	return event{Action: "trigger", DedupKey: n.Key, Payload: p, Client: "KubeGuardian", ClientURL: n.URL}
}

func severity(p alert.Priority) string {
	switch {
	case p <= alert.Critical:
		return "critical"
	case p == alert.Error:
		return "error"
	case p == alert.Warning:
		return "warning"
	}
	return "info"
}
