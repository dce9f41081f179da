// Package openreports keeps the latest messages of each namespace in a Report of
// openreports.io, or a PolicyReport of the working group for policies, where
// dashboards of clusters look.
package openreports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says which objects are written.
type Config struct {
	// Kinds are reports, the default, and policyreports.
	Kinds []string `yaml:"kinds"`
	// Results is how many an object has at most: the latest ones. 0 means 50, at
	// most 200. Whole reports as objects have filled etcd.
	Results int `yaml:"results"`
}

// A kind is one of the two forms of the same.
type kind struct {
	api, name, plural, clusterName, clusterPlural string
	text, about                                   string // keys of results
}

func kinds() map[string]kind {
	return map[string]kind{
		"reports":       {"openreports.io/v1alpha1", "Report", "reports", "ClusterReport", "clusterreports", "description", "subjects"},
		"policyreports": {"wgpolicyk8s.io/v1alpha2", "PolicyReport", "policyreports", "ClusterPolicyReport", "clusterpolicyreports", "message", "resources"},
	}
}

const (
	objectName = "kubeguardian-alerts"
	source     = "kubeguardian"
	maxText    = 2000
)

type destination struct {
	kinds   []kind
	results int
	client  *post.Client
	url     string
	o       notify.Options
}

// New returns the destination, for the cluster whose API server is at a URL and
// knows us by the client.
func New(c Config, o notify.Options, api *http.Client, url string) (notify.Destination, error) {
	d := &destination{results: c.Results, url: url, o: o}
	if d.results == 0 {
		d.results = 50
	}
	if d.results < 1 || d.results > 200 {
		return nil, fmt.Errorf("results: want 1 to 200, have %d", d.results)
	}
	if len(c.Kinds) == 0 {
		c.Kinds = []string{"reports"}
	}
	for i, name := range c.Kinds {
		k, known := kinds()[name]
		if !known || slices.Contains(c.Kinds[:i], name) {
			return nil, fmt.Errorf("kinds: want reports, policyreports or both, have %q", c.Kinds)
		}
		d.kinds = append(d.kinds, k)
	}
	var err error
	d.client, err = post.Over(api, o)
	return d, err
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 50 }

// Close is [notify.Destination].
func (d *destination) Close() error { return d.client.Close() }

// Send adds a batch to the objects of its namespaces. A message that an object
// has already is not added again.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	var namespaces []string
	byNamespace := map[string][]notify.Notification{}
	for _, n := range batch {
		if cluster := n.Alert.Cluster; cluster != "" && d.o.Cluster != "" && cluster != d.o.Cluster {
			return notify.Permanent(fmt.Errorf("%s: the alert is of cluster %q, and reports are written in this one: lead it elsewhere by a route", d.o.Name, cluster))
		}
		ns := n.Alert.Subject.Namespace
		if !post.IsLabel(ns) {
			ns = ""
		}
		if byNamespace[ns] == nil {
			namespaces = append(namespaces, ns)
		}
		byNamespace[ns] = append(byNamespace[ns], n)
	}
	for _, k := range d.kinds {
		for _, ns := range namespaces {
			if err := d.add(ctx, k, ns, byNamespace[ns]); err != nil {
				return err
			}
		}
	}
	return nil
}

// object is a report of either kind, with what others have put into it.
type object map[string]any

func (d *destination) add(ctx context.Context, k kind, namespace string, batch []notify.Notification) error {
	list := post.Join(d.url, "/apis/"+k.api+"/"+k.clusterPlural)
	if namespace != "" {
		list = post.Join(d.url, "/apis/"+k.api+"/namespaces/"+namespace+"/"+k.plural)
	}
	report, err := d.read(ctx, list+"/"+objectName)
	if err != nil {
		return err
	}
	method, to := http.MethodPut, list+"/"+objectName
	if report == nil {
		method, to, report = http.MethodPost, list, k.fresh(namespace)
	}
	d.merge(k, report, batch)
	body, err := json.Marshal(report)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: encode report: %w", d.o.Name, err))
	}
	_, err = d.client.Send(ctx, post.Request{Method: method, URL: to, Type: "application/json", Body: body})
	var answer *post.AnswerError
	if errors.As(err, &answer) && answer.Status == http.StatusConflict {
		return fmt.Errorf("%s: somebody else has changed the report of namespace %q meanwhile", d.o.Name, namespace)
	}
	return err
}

// read returns an object, nil if it is not there.
func (d *destination) read(ctx context.Context, url string) (object, error) {
	body, err := d.client.Send(ctx, post.Request{Method: http.MethodGet, URL: url})
	var answer *post.AnswerError
	if errors.As(err, &answer) && answer.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(body, &o); err != nil || o["metadata"] == nil {
		return nil, fmt.Errorf("%s: read report: the answer is no object", d.o.Name)
	}
	return o, nil
}

func (k kind) fresh(namespace string) object {
	name, meta := k.clusterName, map[string]any{"name": objectName, "labels": map[string]any{"app.kubernetes.io/managed-by": source}}
	if namespace != "" {
		name, meta["namespace"] = k.name, namespace
	}
	o := object{"apiVersion": k.api, "kind": name, "metadata": meta}
	if k.name == "Report" {
		o["source"] = source
	}
	return o
}

// merge adds results, drops the oldest beyond the bound, and counts what is left.
func (d *destination) merge(k kind, o object, batch []notify.Notification) {
	old, _ := o["results"].([]any)
	results := slices.DeleteFunc(old, func(r any) bool {
		key := keyOf(r)
		return key != "" && slices.ContainsFunc(batch, func(n notify.Notification) bool { return n.Key == key })
	})
	for i := range batch {
		results = append(results, d.result(k, &batch[i]))
	}
	results = results[max(len(results)-d.results, 0):]
	summary := map[string]int{"pass": 0, "fail": 0, "warn": 0, "error": 0, "skip": 0}
	for _, r := range results {
		if m, ok := r.(map[string]any); ok {
			verdict, _ := m["result"].(string)
			if _, known := summary[verdict]; known {
				summary[verdict]++
			}
		}
	}
	o["results"], o["summary"] = results, summary
}

func keyOf(result any) string {
	m, _ := result.(map[string]any)
	properties, _ := m["properties"].(map[string]any)
	key, _ := properties["kubeguardian.dev/key"].(string)
	return key
}

func (d *destination) result(k kind, n *notify.Notification) map[string]any {
	a := &n.Alert
	verdict := "fail"
	if a.Priority > alert.Warning {
		verdict = "warn"
	}
	properties := map[string]any{
		"kubeguardian.dev/key": n.Key, "kubeguardian.dev/alert": a.ID, "kubeguardian.dev/count": fmt.Sprint(n.Count), "kubeguardian.dev/priority": a.Priority.String(),
	}
	if n.Incident != nil {
		properties["kubeguardian.dev/incident"] = n.Incident.ID
	}
	if n.URL != "" {
		properties["kubeguardian.dev/url"] = n.URL
	}
	out := map[string]any{
		"policy": document.Clean(a.Rule, 253), "category": "runtime", "severity": severity(a.Priority), "result": verdict, "source": source,
		"timestamp": map[string]any{"seconds": a.Time.Unix(), "nanos": a.Time.Nanosecond()}, "properties": properties,
		k.text: document.Text(n, maxText),
	}
	if s := a.Subject; s.Kind != "" {
		out[k.about] = []any{reference(s)}
	}
	return out
}

func reference(s finding.Subject) map[string]any {
	out := map[string]any{"kind": s.Kind}
	for key, value := range map[string]string{"apiVersion": s.APIVersion, "namespace": s.Namespace, "name": s.Name} {
		if value != "" {
			out[key] = document.Clean(value, 253)
		}
	}
	return out
}

func severity(p alert.Priority) string {
	switch {
	case p <= alert.Critical:
		return "critical"
	case p == alert.Error:
		return "high"
	case p == alert.Warning:
		return "medium"
	case p == alert.Notice:
		return "low"
	}
	return "info"
}
