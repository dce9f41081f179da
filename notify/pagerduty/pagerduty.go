// Package pagerduty opens incidents in PagerDuty by its Events API, version 2.
package pagerduty

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
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

type destination struct {
	Config
	options notify.Options
	client  *post.Client
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if c.KeyFile == "" {
		return nil, errors.New("keyFile is missing")
	}
	if c.URL == "" {
		c.URL = "https://events.pagerduty.com/v2/enqueue"
	}
	if err := post.CheckAddress(c.URL, ""); err != nil {
		return nil, err
	}
	client, err := post.New(c.HTTP, o)
	return &destination{c, o, client}, err
}

// Send implements [notify.Destination].
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	key, err := d.KeyFile.Read()
	if err != nil {
		return fmt.Errorf("%s: %w", d.options.Name, err)
	}
	for i := range batch {
		e := d.event(&batch[i])
		e.RoutingKey = string(key)
		body, err := json.Marshal(e)
		if err != nil {
			return notify.Permanent(fmt.Errorf("%s: encode event: %w", d.options.Name, err))
		}
		if _, err := d.client.Send(ctx, post.Request{URL: d.URL, Type: "application/json", Body: body}); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// States implements [notify.Stateful].
func (d *destination) States() []incident.State { return incident.States()[1:] }

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

func (d *destination) event(n *notify.Notification) event {
	if u := n.Update; u != nil {
		if u.State == incident.Closed {
			return event{Action: "resolve", DedupKey: n.Thread()}
		}
		return event{Action: "acknowledge", DedupKey: n.Thread()}
	}
	cluster := n.Alert.Cluster
	if cluster == "" {
		cluster = d.options.Cluster
	}
	p := &payload{
		Summary: notify.Cut(n.Heading(), maxSummary), Source: "kubernetes/" + notify.Clean(cluster), Severity: severity(n.Alert.Priority), Timestamp: n.Last,
		Component: d.Component, Group: notify.Cut(notify.Clean(n.Alert.Subject.Namespace), 200), Class: d.Class, Details: map[string]string{"text": n.Text(maxDetails)},
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
