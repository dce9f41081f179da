// Package splunk sends messages to the HTTP Event Collector of Splunk.
package splunk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where events are sent.
type Config struct {
	// URL is that of the collector, such as https://splunk:8088.
	URL string `yaml:"url"`
	// TokenFile has the token of the collector.
	TokenFile notify.SecretFile `yaml:"tokenFile"`
	// Index and SourceType are those of the events; empty means the index of the
	// token, and kubeguardian:alert.
	Index      string `yaml:"index"`
	SourceType string `yaml:"sourceType"`
	// Format is that of the events; empty means falco.
	Format string      `yaml:"format"`
	HTTP   post.Config `yaml:"http"`
}

type destination struct {
	Config
	client *post.Client
	events document.Writer
	name   string
}

// New returns the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if err := post.CheckURL(c.URL); err != nil {
		return nil, err
	}
	if c.TokenFile == "" {
		return nil, errors.New("tokenFile is missing")
	}
	if c.SourceType == "" {
		c.SourceType = "kubeguardian:alert"
	}
	events, err := document.New(c.Format, o)
	if err != nil {
		return nil, err
	}
	client, err := post.New(c.HTTP, o)
	if err != nil {
		return nil, err
	}
	return &destination{c, client, events, o.Name}, nil
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 100 }

// Close is [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// Send sends a batch. The collector takes all of it or nothing; one that is sent
// again, because its answer was lost, is there twice, with the same
// notification.key.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	body, err := d.body(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.name, err))
	}
	header := http.Header{}
	if err := (post.Auth{TokenFile: d.TokenFile}).Add(header, "Splunk"); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	_, err = d.client.Send(ctx, post.Request{URL: post.Join(d.URL, "/services/collector/event"), Type: "application/json", Header: header, Body: body})
	return err
}

func (d *destination) body(batch []notify.Notification) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	for i := range batch {
		n := &batch[i]
		event, err := d.events.JSON(n)
		if err != nil {
			return nil, err
		}
		at := n.Alert.Time
		err = e.Encode(struct {
			Time       json.Number     `json:"time"` // seconds
			Host       string          `json:"host,omitempty"`
			Source     string          `json:"source"`
			SourceType string          `json:"sourcetype"`
			Index      string          `json:"index,omitempty"`
			Event      json.RawMessage `json:"event"`
		}{json.Number(fmt.Sprintf("%d.%03d", at.Unix(), at.Nanosecond()/1e6)), n.Alert.Hostname, "kubeguardian", d.SourceType, d.Index, event})
		if err != nil {
			return nil, fmt.Errorf("encode alert %s: %w", n.Alert.ID, err)
		}
	}
	return out.Bytes(), nil
}
