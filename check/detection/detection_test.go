package detection_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/detection"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func beat(stream, node string, seen, since, at time.Time) evidence.Heartbeat {
	return evidence.Heartbeat{Origin: evidence.Origin{Kind: evidence.Runtime, Source: "f", SeenAt: seen}, Stream: stream, Node: node, Since: since, At: at}
}

func live(t *testing.T, manifests string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = inventory.New(inventory.Cluster, inv.Objects(), nil); err != nil {
		t.Fatal(err)
	}
	return inv
}

func show(findings []finding.Verdict) string {
	var out []string
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s", f.Subject, f.Status))
	}
	return strings.Join(out, ", ")
}

func TestAudit(t *testing.T) {
	for name, tt := range map[string]struct {
		beats []evidence.Heartbeat
		want  string
	}{
		"alive":             {[]evidence.Heartbeat{beat("audit", "", now, ago(time.Hour), ago(time.Minute))}, "Cluster pass"},
		"silent":            {[]evidence.Heartbeat{beat("audit", "", now, ago(time.Hour), ago(20*time.Minute))}, "Cluster fail"},
		"never heard":       {[]evidence.Heartbeat{beat("audit", "", now, ago(time.Hour), time.Time{})}, "Cluster fail"},
		"just started":      {[]evidence.Heartbeat{beat("audit", "", now, ago(time.Minute), time.Time{})}, "Cluster unknown"},
		"an old sign":       {[]evidence.Heartbeat{beat("audit", "", now, ago(time.Minute), ago(20*time.Minute))}, "Cluster unknown"},
		"an old look":       {[]evidence.Heartbeat{beat("audit", "", ago(time.Hour), ago(9*time.Hour), ago(time.Hour))}, "Cluster unknown"},
		"the newest counts": {[]evidence.Heartbeat{beat("audit", "", now, ago(time.Hour), ago(time.Minute)), beat("audit", "", ago(time.Hour), ago(2*time.Hour), time.Time{})}, "Cluster pass"},
		"another stream":    {[]evidence.Heartbeat{beat("sensor", "a", now, ago(time.Hour), ago(time.Minute))}, ""},
		"nothing":           {nil, ""},
	} {
		if got := show(detection.Audit(&evidence.Set{Heartbeats: tt.beats}, now)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	if got := detection.Audit(nil, now); got != nil {
		t.Errorf("no evidence: %v", got)
	}
}

func TestSensors(t *testing.T) {
	nodes := live(t, "{apiVersion: v1, kind: Node, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: b}}\n---\n"+
		"{apiVersion: v1, kind: Node, metadata: {name: c, labels: {eks.amazonaws.com/compute-type: fargate}}}\n")
	for name, tt := range map[string]struct {
		beats []evidence.Heartbeat
		want  string
	}{
		"one of them":   {[]evidence.Heartbeat{beat("sensor", "a", now, time.Time{}, ago(time.Minute))}, "Node/a pass, Node/b fail, Node/c unknown"},
		"one is silent": {[]evidence.Heartbeat{beat("sensor", "a", now, time.Time{}, ago(time.Minute)), beat("sensor", "b", now, time.Time{}, ago(time.Hour))}, "Node/a pass, Node/b fail, Node/c unknown"},
		"nobody looked": {[]evidence.Heartbeat{beat("sensor", "a", ago(time.Hour), time.Time{}, ago(time.Hour))}, "Node/a unknown, Node/b unknown, Node/c unknown"},
		"no sensor":     {[]evidence.Heartbeat{beat("audit", "", now, time.Time{}, now)}, ""},
		"not well": {
			[]evidence.Heartbeat{unwell(beat("sensor", "a", now, time.Time{}, ago(time.Minute))), beat("sensor", "b", now, time.Time{}, ago(time.Minute))},
			"Node/a fail, Node/b pass, Node/c unknown",
		},
		"not well, and silent": {[]evidence.Heartbeat{unwell(beat("sensor", "a", now, ago(time.Minute), ago(time.Hour)))}, "Node/a unknown, Node/b fail, Node/c unknown"},
		"nothing can be heard": {
			[]evidence.Heartbeat{beat("sensor", "a", now, time.Time{}, ago(time.Minute)), unheard(beat("sensor", "b", now, ago(time.Hour), time.Time{}))},
			"Node/a pass, Node/b unknown, Node/c unknown",
		},
		"none, though waited for": {
			[]evidence.Heartbeat{beat("sensor", "a", now, ago(time.Hour), time.Time{}), beat("sensor", "b", now, ago(time.Minute), time.Time{}), beat("sensor", "c", now, ago(time.Hour), time.Time{})},
			"Node/a fail, Node/b unknown, Node/c unknown",
		},
	} {
		if got := show(detection.Sensors(nodes, &evidence.Set{Heartbeats: tt.beats}, now)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// unwell has a sensor say what is wrong with it.
func unwell(h evidence.Heartbeat) evidence.Heartbeat {
	h.Problems = []string{"7 events were dropped."}
	return h
}

// unheard has nobody know whether a sensor lives.
func unheard(h evidence.Heartbeat) evidence.Heartbeat {
	h.Unheard = "it says nothing of itself"
	return h
}

// Of a sensor that is not well, the verdict says why.
func TestUnwellSensor(t *testing.T) {
	inv := live(t, "{apiVersion: v1, kind: Node, metadata: {name: a}}\n")
	got := detection.Sensors(inv, &evidence.Set{Heartbeats: []evidence.Heartbeat{unwell(beat("sensor", "a", now, time.Time{}, ago(time.Minute)))}}, now)
	if len(got) != 1 || got[0].Status != finding.Fail || !strings.Contains(got[0].Message, "7 events were dropped.") || got[0].EvidenceKind != "runtime" || !got[0].ObservedAt.Equal(ago(time.Minute)) {
		t.Errorf("%+v", got)
	}
}

// What is said of a stream that goes on as it did stays the same: a store writes what
// has changed.
func TestNothingNew(t *testing.T) {
	inv := live(t, "{apiVersion: v1, kind: Node, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {nodeName: a, containers: [{name: c, image: i}]}}\n")
	at := func(later time.Duration) []finding.Verdict {
		now := now.Add(later)
		seen := &evidence.Set{
			Heartbeats: []evidence.Heartbeat{beat("audit", "", now, ago(time.Hour), now.Add(-time.Second)), unwell(beat("sensor", "a", now, ago(time.Hour), now.Add(-2*time.Second)))},
			Alerts:     []evidence.Alert{{Origin: evidence.Origin{SeenAt: now}, Rule: "r", At: ago(48 * time.Hour), Critical: true, Drift: true, Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: "web"}}},
		}
		out := slices.Concat(detection.Audit(seen, now), detection.Sensors(inv, seen, now), detection.Answered(inv, seen, now), detection.Drift(inv, seen, now))
		for i := range out {
			if out[i].ObservedAt.Before(now.Add(-time.Minute)) {
				t.Errorf("%s: observed at %s", out[i].Subject, out[i].ObservedAt)
			}
			out[i].ObservedAt = time.Time{}
		}
		return out
	}
	if before, after := at(0), at(3*time.Hour); len(before) != 4 || !reflect.DeepEqual(before, after) {
		t.Errorf("%+v\nthen\n%+v", before, after)
	}
}

// No program that is not part of an image was told of: what that is worth depends on
// the sensors where the pods are.
func TestDriftIsWatched(t *testing.T) {
	inv := live(t, `
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web, namespace: shop, uid: u}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {nodeName: b, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-3, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-4, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {nodeName: gone, containers: [{name: c, image: i}]}, status: {phase: Failed}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-5, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {nodeName: gone, containers: [{name: c, image: i}]}, status: {phase: Succeeded}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: idle, namespace: shop}, spec: {replicas: 0, selector: {matchLabels: {a: c}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}}
`)
	sensor := func(node string, age time.Duration, drift fact.Fact) evidence.Heartbeat {
		h := beat("sensor", node, now, time.Time{}, ago(age))
		h.Drift = drift
		return h
	}
	for name, tt := range map[string]struct {
		beats []evidence.Heartbeat
		web   string
	}{
		"both nodes":            {[]evidence.Heartbeat{sensor("a", time.Minute, fact.Yes), sensor("b", 2*time.Minute, fact.Yes)}, "pass"},
		"one node":              {[]evidence.Heartbeat{sensor("a", time.Minute, fact.Yes)}, "unknown"},
		"one is silent":         {[]evidence.Heartbeat{sensor("a", time.Minute, fact.Yes), sensor("b", time.Hour, fact.Yes)}, "unknown"},
		"one would not tell":    {[]evidence.Heartbeat{sensor("a", time.Minute, fact.Yes), sensor("b", time.Minute, fact.No)}, "unknown"},
		"one does not say":      {[]evidence.Heartbeat{sensor("a", time.Minute, fact.Unknown), sensor("b", time.Minute, fact.Yes)}, "unknown"},
		"the sensor of another": {[]evidence.Heartbeat{sensor("c", time.Minute, fact.Yes)}, "unknown"},
	} {
		got := detection.Drift(inv, &evidence.Set{Heartbeats: tt.beats}, now)
		if want := "ReplicaSet/shop/idle not-applicable, ReplicaSet/shop/web " + tt.web; show(got) != want {
			t.Errorf("%s: %s, want %s", name, show(got), want)
		}
		if tt.web == "pass" && !got[1].ObservedAt.Equal(ago(2*time.Minute)) {
			t.Errorf("observed at %s, want the oldest", got[1].ObservedAt)
		}
	}
}

// What runs in a sandbox no sensor of the node sees.
func TestDriftInSandboxes(t *testing.T) {
	inv := live(t, `
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: strict}, handler: kata-qemu}
---
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: gpu}, handler: nvidia}
---
{apiVersion: v1, kind: Pod, metadata: {name: plain, namespace: shop}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: strict, namespace: shop}, spec: {nodeName: a, runtimeClassName: strict, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gpu, namespace: shop}, spec: {nodeName: a, runtimeClassName: gpu, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: lost, namespace: shop}, spec: {nodeName: a, runtimeClassName: gvisor, containers: [{name: c, image: i}]}}
`)
	sensor := beat("sensor", "a", now, time.Time{}, ago(time.Minute))
	sensor.Drift = fact.Yes
	got := detection.Drift(inv, &evidence.Set{Heartbeats: []evidence.Heartbeat{sensor}}, now)
	if want := "Pod/shop/gpu pass, Pod/shop/lost unknown, Pod/shop/plain pass, Pod/shop/strict unknown"; show(got) != want {
		t.Errorf("%s, want %s", show(got), want)
	}
	for _, v := range got {
		if v.Status == finding.Unknown && v.Reason != fmt.Sprintf("pod %s is of runtime class %s, in which the sensor of node a is not known to see programs", v.Subject.Name, map[string]string{"strict": "strict", "lost": "gvisor"}[v.Subject.Name]) {
			t.Errorf("reason %q", v.Reason)
		}
	}
	if answered := show(detection.Answered(inv, &evidence.Set{Heartbeats: []evidence.Heartbeat{sensor}}, now)); answered != show(got) {
		t.Errorf("critical alerts: %s", answered)
	}
}

// Nobody waits for an answer, as far as anybody watches: the audit log, or a sensor that
// is well on each node where the workload is.
func TestAnsweredIsWatched(t *testing.T) {
	inv := live(t, `
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {nodeName: b, containers: [{name: c, image: i}]}}
`)
	audit, a, b := beat("audit", "", now, ago(time.Hour), ago(time.Minute)), beat("sensor", "a", now, ago(time.Hour), ago(time.Minute)), beat("sensor", "b", now, ago(time.Hour), ago(2*time.Minute))
	silent := beat("audit", "", now, ago(time.Hour), ago(time.Hour))
	for name, tt := range map[string]struct {
		beats []evidence.Heartbeat
		want  string
	}{
		"the audit log":       {[]evidence.Heartbeat{audit}, "Pod/shop/db pass, Pod/shop/web pass"},
		"both nodes":          {[]evidence.Heartbeat{silent, a, b}, "Pod/shop/db pass, Pod/shop/web pass"},
		"one node":            {[]evidence.Heartbeat{silent, a}, "Pod/shop/db pass, Pod/shop/web unknown"},
		"one is not well":     {[]evidence.Heartbeat{a, unwell(b)}, "Pod/shop/db pass, Pod/shop/web unknown"},
		"one says nothing":    {[]evidence.Heartbeat{a, unheard(b)}, "Pod/shop/db pass, Pod/shop/web unknown"},
		"one, and the log":    {[]evidence.Heartbeat{audit, a}, "Pod/shop/db pass, Pod/shop/web pass"},
		"all of it is silent": {[]evidence.Heartbeat{silent}, "Pod/shop/db unknown, Pod/shop/web unknown"},
	} {
		if got := show(detection.Answered(inv, &evidence.Set{Heartbeats: tt.beats}, now)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// Alerts that nobody has looked at may be about what is older than they are.
func TestUnreadAlerts(t *testing.T) {
	inv := live(t, `
{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: shop, creationTimestamp: "2026-11-26T11:00:00Z"}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: shop, creationTimestamp: "2026-11-20T00:00:00Z"}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
`)
	sensor := beat("sensor", "a", now, ago(time.Hour), ago(time.Minute))
	sensor.Drift = fact.Yes
	const pass, unknown = "Pod/shop/new pass, Pod/shop/old pass", "Pod/shop/new pass, Pod/shop/old unknown"
	for name, tt := range map[string]struct {
		unread          evidence.Unread
		answered, drift string
	}{
		"none":     {evidence.Unread{}, pass, pass},
		"critical": {evidence.Unread{Critical: ago(2 * time.Hour)}, unknown, pass},
		"drift":    {evidence.Unread{Drift: ago(2 * time.Hour)}, pass, unknown},
	} {
		seen := &evidence.Set{Heartbeats: []evidence.Heartbeat{sensor}, Unread: tt.unread}
		if got := show(detection.Answered(inv, seen, now)); got != tt.answered {
			t.Errorf("%s: answered %s, want %s", name, got, tt.answered)
		}
		if got := show(detection.Drift(inv, seen, now)); got != tt.drift {
			t.Errorf("%s: drift %s, want %s", name, got, tt.drift)
		}
	}
}

func TestAlerts(t *testing.T) {
	const manifests = `
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web, namespace: shop, uid: u}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, creationTimestamp: "2026-11-20T00:00:00Z", ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
`
	inv := live(t, manifests)
	alert := func(pod string, age, respond time.Duration, drift bool) evidence.Alert {
		return evidence.Alert{Origin: evidence.Origin{SeenAt: now}, Rule: "r", At: ago(age), Critical: true, Respond: respond, Drift: drift, Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: pod}}
	}
	audit, sensor := beat("audit", "", now, ago(time.Hour), ago(time.Minute)), beat("sensor", "a", now, ago(time.Hour), ago(time.Minute))
	sensor.Drift = fact.Yes
	minor := alert("db", 2*24*time.Hour, 0, true)
	minor.Critical = false
	const hour, day = time.Hour, 24 * time.Hour
	for name, tt := range map[string]struct {
		beats           []evidence.Heartbeat
		alerts          []evidence.Alert
		answered, drift string
	}{
		"none":                  {[]evidence.Heartbeat{audit, sensor}, nil, "Pod/shop/db pass, ReplicaSet/shop/web pass", "Pod/shop/db pass, ReplicaSet/shop/web pass"},
		"a new one":             {[]evidence.Heartbeat{audit}, []evidence.Alert{alert("web-1", hour, 0, false)}, "Pod/shop/db pass, ReplicaSet/shop/web pass", "Pod/shop/db unknown, ReplicaSet/shop/web unknown"},
		"an old one":            {[]evidence.Heartbeat{audit}, []evidence.Alert{alert("web-1", 2*day, 0, false)}, "Pod/shop/db pass, ReplicaSet/shop/web fail", "Pod/shop/db unknown, ReplicaSet/shop/web unknown"},
		"another time agreed":   {[]evidence.Heartbeat{audit}, []evidence.Alert{alert("web-1", 2*hour, hour, false)}, "Pod/shop/db pass, ReplicaSet/shop/web fail", "Pod/shop/db unknown, ReplicaSet/shop/web unknown"},
		"of a pod that is gone": {[]evidence.Heartbeat{audit}, []evidence.Alert{alert("web-0", 2*day, 0, false)}, "Pod/shop/db pass, ReplicaSet/shop/web pass", "Pod/shop/db unknown, ReplicaSet/shop/web unknown"},
		"of one replaced since": {[]evidence.Heartbeat{audit}, []evidence.Alert{alert("web-1", 9*day, 0, false)}, "Pod/shop/db pass, ReplicaSet/shop/web pass", "Pod/shop/db unknown, ReplicaSet/shop/web unknown"},
		"drift":                 {[]evidence.Heartbeat{sensor}, []evidence.Alert{alert("db", hour, 0, true)}, "Pod/shop/db pass, ReplicaSet/shop/web pass", "Pod/shop/db fail, ReplicaSet/shop/web pass"},
		"drift, not critical":   {[]evidence.Heartbeat{sensor}, []evidence.Alert{minor}, "Pod/shop/db pass, ReplicaSet/shop/web pass", "Pod/shop/db fail, ReplicaSet/shop/web pass"},
		"the watch is over":     {nil, []evidence.Alert{alert("db", 2*day, 0, false)}, "Pod/shop/db fail, ReplicaSet/shop/web unknown", "Pod/shop/db unknown, ReplicaSet/shop/web unknown"},
		"nothing":               {nil, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			seen := &evidence.Set{Heartbeats: tt.beats, Alerts: tt.alerts}
			if got := show(detection.Answered(inv, seen, now)); got != tt.answered {
				t.Errorf("answered: %s, want %s", got, tt.answered)
			}
			if got := show(detection.Drift(inv, seen, now)); got != tt.drift {
				t.Errorf("drift: %s, want %s", got, tt.drift)
			}
		})
	}
}
