// Package webhook sends notifications to any URL, as JSON in the form of Falco's
// alerts, as CloudEvents, or as a template makes them.
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"text/template"
	"time"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// URL is where to send to, or URLFile a file that has it, if a part of it is a
	// secret; one of them is needed.
	URL     string            `yaml:"url"`
	URLFile notify.SecretFile `yaml:"urlFile"`
	// Method is POST, if it is not given, PUT or PATCH.
	Method string `yaml:"method"`
	// Format is falco, if it is not given, cloudevents or template.
	Format string `yaml:"format"`
	// Template makes the body, of what [notify.TemplateData] has, for the format
	// template.
	Template config.Text `yaml:"template"`
	// ContentType is that of the template; application/json if it is not given.
	ContentType string      `yaml:"contentType"`
	HTTP        post.Config `yaml:"http"`
}

type destination struct {
	Config
	client   *post.Client
	options  notify.Options
	template *template.Template
}

// New makes the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if err := post.CheckAddress(c.URL, c.URLFile); err != nil {
		return nil, err
	}
	switch c.Method {
	case "":
		c.Method = http.MethodPost
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return nil, fmt.Errorf("method %q: want POST, PUT or PATCH", c.Method)
	}
	d := &destination{Config: c, options: o}
	switch c.Format {
	case "", "falco", "cloudevents":
		if c.Template.Text != "" || c.ContentType != "" {
			return nil, errors.New("template and contentType are for the format template")
		}
	case "template":
		t, err := notify.ParseTemplate("body", c.Template.Text)
		if err != nil {
			return nil, c.Template.Wrap(err)
		}
		if c.Template.Text == "" {
			return nil, errors.New("the format template needs a template")
		}
		d.template = t
	default:
		return nil, fmt.Errorf("format %q: want falco, cloudevents or template", c.Format)
	}
	var err error
	d.client, err = post.New(c.HTTP, o)
	return d, err
}

// Send implements [notify.Destination].
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	to, err := post.Address(d.URL, d.URLFile)
	if err != nil {
		return fmt.Errorf("%s: %w", d.options.Name, err)
	}
	for i := range batch {
		body, kind, err := d.body(&batch[i])
		if err != nil {
			return notify.Permanent(fmt.Errorf("%s: %w", d.options.Name, err))
		}
		request := post.Request{Method: d.Method, URL: to, Type: kind, Body: body, Header: http.Header{"Idempotency-Key": {batch[i].Key}}}
		if _, err := d.client.Send(ctx, request); err != nil {
			return err
		}
	}
	return nil
}

func (d *destination) body(n *notify.Notification) (body []byte, kind string, err error) {
	switch {
	case d.template != nil:
		text, err := notify.Execute(d.template, notify.NewTemplateData(n))
		if d.ContentType != "" {
			return []byte(text), d.ContentType, err
		}
		return []byte(text), "application/json", err
	case d.Format == "cloudevents":
		body, err = json.Marshal(d.event(n))
		return body, "application/cloudevents+json; charset=utf-8", err
	}
	body, err = n.JSON()
	return body, "application/json", err
}

// event is a notification as CloudEvents 1.0 has it.
type event struct {
	SpecVersion string         `json:"specversion"`
	ID          string         `json:"id"`
	Source      string         `json:"source"`
	Type        string         `json:"type"`
	Subject     string         `json:"subject,omitempty"`
	Time        time.Time      `json:"time"`
	ContentType string         `json:"datacontenttype"`
	Data        notify.Payload `json:"data"`
}

func (d *destination) event(n *notify.Notification) event {
	e := event{
		SpecVersion: "1.0", ID: n.Key, Source: "/kubeguardian/" + d.options.Cluster, Type: "dev.kubeguardian.alert",
		Subject: n.Alert.Rule, Time: n.Last, ContentType: "application/json", Data: n.Payload(),
	}
	if n.Incident != nil {
		e.Type, e.Subject = "dev.kubeguardian.incident", n.Incident.ID
	}
	return e
}

// States implements [notify.Stateful].
func (d *destination) States() []incident.State { return []incident.State{incident.Closed} }

// Close implements [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }
