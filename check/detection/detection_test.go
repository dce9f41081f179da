package detection_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/detection"
	"github.com/kubeguardian/kubeguardian/evidence"
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
	} {
		if got := show(detection.Sensors(nodes, &evidence.Set{Heartbeats: tt.beats}, now)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestAlerts(t *testing.T) {
	const manifests = `
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web, namespace: shop, uid: u}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, creationTimestamp: "2026-11-20T00:00:00Z", ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {containers: [{name: c, image: i}]}}
`
	inv := live(t, manifests)
	alert := func(pod string, age, respond time.Duration, drift bool) evidence.Alert {
		return evidence.Alert{Origin: evidence.Origin{SeenAt: now}, Rule: "r", At: ago(age), Respond: respond, Drift: drift, Subject: finding.Subject{Kind: "Pod", Namespace: "shop", Name: pod}}
	}
	audit, sensor := beat("audit", "", now, ago(time.Hour), ago(time.Minute)), beat("sensor", "a", now, ago(time.Hour), ago(time.Minute))
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
