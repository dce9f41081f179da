// Package elasticsearch writes messages into an index or a data stream of
// Elasticsearch, OpenSearch or whatever else has their bulk API.
package elasticsearch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where documents are written.
type Config struct {
	// URL is that of the server, such as https://elasticsearch:9200.
	URL string `yaml:"url"`
	// Index is the name of an index, an alias or a data stream; empty means
	// kubeguardian-alerts.
	Index string `yaml:"index"`
	// Daily writes into an index for each day: the name is followed by the date of
	// the alert, as in kubeguardian-alerts-2026.11.26.
	Daily bool `yaml:"daily"`
	// Auth is a user, or a token that is an API key.
	Auth post.Auth   `yaml:"auth"`
	HTTP post.Config `yaml:"http"`
}

type destination struct {
	Config
	client *post.Client
	name   string
}

// batch is how many documents are written with one request.
const batch = 200

var indexName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,200}$`)

// New returns the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if c.Index == "" {
		c.Index = "kubeguardian-alerts"
	}
	if err := errors.Join(post.CheckURL(c.URL), c.Auth.Check()); err != nil {
		return nil, err
	}
	if !indexName.MatchString(c.Index) {
		return nil, fmt.Errorf("index: want lower-case letters, digits, dots and dashes, have %q", c.Index)
	}
	client, err := post.New(c.HTTP, o)
	if err != nil {
		return nil, err
	}
	return &destination{c, client, o.Name}, nil
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return batch }

// Close is [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// Send writes a batch. Each document is created by the key of its message, so
// that one which is sent again is there once: that it exists already is as good
// as that it was created.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	body, err := d.bulk(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.name, err))
	}
	header := http.Header{}
	if err := d.Auth.Add(header, "ApiKey"); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	answer, err := d.client.Send(ctx, post.Request{
		URL: post.Join(d.URL, "/_bulk?filter_path=errors,items.*.status,items.*.error.type"), Type: "application/x-ndjson", Header: header, Body: body,
	})
	if err != nil {
		return err
	}
	if err := judge(answer, len(batch)); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	return nil
}

// entry is a document. Names of fields have no dots: Elasticsearch would make
// objects of them, of which proc.pid and proc.pid.ts cannot both be. Values are
// texts: what a field first holds decides what it may hold.
type entry struct {
	*document.AlertDocument
	Timestamp    time.Time         `json:"@timestamp"`
	OutputFields map[string]string `json:"output_fields"`
}

func (d *destination) bulk(batch []notify.Notification) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	for i := range batch {
		n := &batch[i]
		type target struct {
			Index string `json:"_index"`
			ID    string `json:"_id"`
		}
		if err := e.Encode(map[string]target{"create": {d.index(&n.Alert), n.Key}}); err != nil {
			return nil, err
		}
		if err := e.Encode(entry{document.Alert(n), n.Alert.Time, flat(&n.Alert)}); err != nil {
			return nil, fmt.Errorf("encode alert %s: %w", n.Alert.ID, err)
		}
	}
	return out.Bytes(), nil
}

func (d *destination) index(a *alert.Alert) string {
	if d.Daily {
		return d.Index + a.Time.UTC().Format("-2006.01.02")
	}
	return d.Index
}

func flat(a *alert.Alert) map[string]string {
	names := strings.NewReplacer(".", "_", "[", "_", "]", "")
	out := make(map[string]string, len(a.OutputFields))
	for name, value := range a.OutputFields {
		if value != nil {
			out[names.Replace(name)] = document.Field(a, name)
		}
	}
	return out
}

var errNotBulk = errors.New("the answer is not that of a bulk API")

// judge reads what became of each document. One that may be taken later has the
// whole batch sent again; if there is none, one that is refused has the batch
// given up.
func judge(answer []byte, sent int) error {
	var result struct {
		Items []map[string]struct {
			Status int `json:"status"`
			Error  struct {
				Type string `json:"type"`
			} `json:"error"`
		} `json:"items"`
	}
	if err := json.Unmarshal(answer, &result); err != nil || len(result.Items) != sent {
		return errNotBulk
	}
	var later, refused int
	var why string
	for _, item := range result.Items {
		if len(item) != 1 {
			return errNotBulk
		}
		for _, r := range item {
			switch {
			case r.Status == 0:
				return errNotBulk
			case r.Status >= 200 && r.Status < 300, r.Status == http.StatusConflict:
				continue
			case post.Retryable(r.Status):
				later++
			default:
				refused++
			}
			if why == "" {
				why = fmt.Sprintf("status %d %s", r.Status, word(r.Error.Type))
			}
		}
	}
	switch {
	case later > 0:
		return fmt.Errorf("%d of %d documents cannot be written now: %s", later, sent, why)
	case refused > 0:
		return notify.Permanent(fmt.Errorf("%d of %d documents are refused: %s", refused, sent, why))
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[a-z_]{1,60}$`)

// word returns the name of an error, and nothing that the receiver may have
// repeated of what it was sent.
func word(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return ""
}
