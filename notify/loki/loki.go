// Package loki pushes messages to Grafana Loki as lines of JSON.
package loki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where lines are pushed, and which labels they have.
type Config struct {
	// URL is that of the server, such as https://loki:3100.
	URL string `yaml:"url"`
	// Tenant is the value of X-Scope-OrgID, for servers with several.
	Tenant string `yaml:"tenant"`
	// Labels are added to job, cluster, source and priority: of rule, namespace,
	// hostname and incident. Each value of one makes a stream of its own.
	Labels []string `yaml:"labels"`
	// Format is that of the lines; empty means falco.
	Format string      `yaml:"format"`
	Auth   post.Auth   `yaml:"auth"`
	HTTP   post.Config `yaml:"http"`
}

type destination struct {
	Config
	client *post.Client
	lines  document.Writer
	o      notify.Options
}

// New returns the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if err := errors.Join(post.CheckURL(c.URL), c.Auth.Check()); err != nil {
		return nil, err
	}
	for _, l := range c.Labels {
		if known := []string{"rule", "namespace", "hostname", "incident"}; !slices.Contains(known, l) {
			return nil, fmt.Errorf("labels: unknown label %q: want one of %s", l, strings.Join(known, ", "))
		}
	}
	if strings.ContainsAny(c.Tenant, "\r\n\x00") {
		return nil, errors.New("tenant: want one line")
	}
	lines, err := document.New(c.Format, o)
	if err != nil {
		return nil, err
	}
	client, err := post.New(c.HTTP, o)
	if err != nil {
		return nil, err
	}
	return &destination{c, client, lines, o}, nil
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 200 }

// Close is [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// stream is the lines that have the same labels.
type stream struct {
	Labels map[string]string `json:"stream"`
	Values [][2]string       `json:"values"` // nanoseconds and line
}

// Send pushes a batch. A line has the time of its alert, so one that is pushed
// again is equal to the first, and Loki keeps it once.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	streams, err := d.streams(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.o.Name, err))
	}
	body, err := json.Marshal(map[string][]*stream{"streams": streams})
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: encode lines: %w", d.o.Name, err))
	}
	header := http.Header{}
	if err := d.Auth.Add(header, "Bearer"); err != nil {
		return fmt.Errorf("%s: %w", d.o.Name, err)
	}
	if d.Tenant != "" {
		header.Set("X-Scope-OrgID", d.Tenant)
	}
	_, err = d.client.Send(ctx, post.Request{URL: post.Join(d.URL, "/loki/api/v1/push"), Type: "application/json", Header: header, Body: body})
	return err
}

func (d *destination) streams(batch []notify.Notification) ([]*stream, error) {
	var out []*stream
	for i := range batch {
		n := &batch[i]
		line, err := d.lines.JSON(n)
		if err != nil {
			return nil, err
		}
		labels := d.labels(n)
		at := slices.IndexFunc(out, func(s *stream) bool { return maps.Equal(s.Labels, labels) })
		if at < 0 {
			at, out = len(out), append(out, &stream{Labels: labels})
		}
		out[at].Values = append(out[at].Values, [2]string{strconv.FormatInt(n.Alert.Time.UnixNano(), 10), string(line)})
	}
	return out, nil
}

func (d *destination) labels(n *notify.Notification) map[string]string {
	a := &n.Alert
	cluster := a.Cluster
	if cluster == "" {
		cluster = d.o.Cluster
	}
	out := map[string]string{"job": "kubeguardian", "cluster": cluster, "source": a.Source, "priority": a.Priority.String()}
	for _, l := range d.Labels {
		switch l {
		case "rule":
			out[l] = a.Rule
		case "namespace":
			out[l] = a.Subject.Namespace
		case "hostname":
			out[l] = a.Hostname
		case "incident":
			out[l] = strconv.FormatBool(n.Incident != nil)
		}
	}
	for name, value := range out {
		if out[name] = document.Clean(value, 512); value == "" {
			delete(out, name)
		}
	}
	return out
}
