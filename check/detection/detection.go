// Package detection says whether what watches a cluster is alive, and whether
// its critical alerts are answered. It goes by signs of life, never by what is
// installed.
package detection

import (
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// alive is how old the last sign of life may be.
const alive = 15 * time.Minute

// Audit says whether audit events arrive. Without a record it says nothing.
func Audit(seen *evidence.Set, now time.Time) []finding.Verdict {
	h := newest(seen, evidence.AuditStream, "")
	if h == nil {
		return nil
	}
	f := beat(h, now, "audit events")
	f.Subject = finding.Subject{Kind: "Cluster"}
	return []finding.Verdict{f}
}

// newest returns the latest record of a stream, of one node or of any, or nil.
func newest(seen *evidence.Set, stream, node string) *evidence.Heartbeat {
	if seen == nil {
		return nil
	}
	var last *evidence.Heartbeat
	for i := range seen.Heartbeats {
		h := &seen.Heartbeats[i]
		if h.Stream == stream && (node == "" || h.Node == node) && (last == nil || h.SeenAt.After(last.SeenAt) || h.SeenAt.Equal(last.SeenAt) && h.At.After(last.At)) {
			last = h
		}
	}
	return last
}

// beat judges the last sign of life of a stream. Silence counts only once it
// was waited for.
func beat(h *evidence.Heartbeat, now time.Time, what string) finding.Verdict {
	f := finding.Verdict{EvidenceKind: string(evidence.Runtime), ObservedAt: h.SeenAt, Evidence: h.Tool + " in " + h.Source}
	switch {
	case now.Sub(h.At) <= alive:
		f.Status, f.ObservedAt = finding.Pass, h.At
		f.Evidence = fmt.Sprintf("the last at %s; %s", h.At.UTC().Format(time.RFC3339), f.Evidence)
	case h.At.IsZero() && h.SeenAt.Sub(h.Since) < alive:
		f.Status, f.Reason, f.Evidence = finding.Unknown, "no "+what+" yet, waited for "+h.SeenAt.Sub(h.Since).Round(time.Second).String(), ""
	case h.At.IsZero():
		f.Status, f.Message = finding.Fail, "no "+what+" have arrived"
	case now.Sub(h.SeenAt) > alive:
		f.Status, f.Reason, f.Evidence = finding.Unknown, "nobody has looked for "+what+" since "+h.SeenAt.UTC().Format(time.RFC3339), ""
	default:
		f.Status, f.Message = finding.Fail, "no "+what+" have arrived since "+h.At.UTC().Format(time.RFC3339)
	}
	return f
}

// Sensors says for each node whether a runtime sensor on it is alive. Where no
// sensor reports at all it says nothing.
func Sensors(inv *inventory.Inventory, seen *evidence.Set, now time.Time) []finding.Verdict {
	any := newest(seen, evidence.SensorStream, "")
	if any == nil {
		return nil
	}
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Node") {
		h := newest(seen, evidence.SensorStream, o.GetName())
		var f finding.Verdict
		switch {
		case h == nil && serverless(o):
			f = finding.Verdict{Status: finding.Unknown, Reason: "no sensor can run on a serverless node; attest what watches it"}
		case h == nil && now.Sub(any.SeenAt) > alive:
			f = finding.Verdict{Status: finding.Unknown, Reason: "no sensor has reported since " + any.SeenAt.UTC().Format(time.RFC3339)}
		case h == nil:
			f = finding.Verdict{
				Status: finding.Fail, Message: "no sensor on the node has reported, though others have", Evidence: any.Tool + " in " + any.Source,
				EvidenceKind: string(evidence.Runtime), ObservedAt: any.SeenAt,
			}
		default:
			f = beat(h, now, "heartbeats of the sensor")
		}
		f.Subject = o.Subject()
		out = append(out, f)
	}
	return out
}

// serverless reports whether a node is none that anybody can log on to.
func serverless(o *inventory.Object) bool {
	labels := o.GetLabels()
	return labels["eks.amazonaws.com/compute-type"] == "fargate" || labels["type"] == "virtual-kubelet"
}

// defaultRespond is how long a critical alert may wait where nobody agreed on
// another time.
const defaultRespond = 24 * time.Hour

// Answered says for each workload whether a critical alert about it, or about
// one of its pods, waits for longer than agreed. An alert is open while the
// object that it speaks of is there: to answer it is to remove or replace that.
// Without a stream that is alive it says nothing.
func Answered(inv *inventory.Inventory, seen *evidence.Set, now time.Time) []finding.Verdict {
	h := newest(seen, evidence.AuditStream, "")
	if sensor := newest(seen, evidence.SensorStream, ""); h == nil || sensor != nil && sensor.At.After(h.At) {
		h = sensor
	}
	return judge(inv, seen, h, now, func(a *evidence.Alert) string {
		limit := a.Respond
		if limit == 0 {
			limit = defaultRespond
		}
		if age := now.Sub(a.At); age > limit {
			return fmt.Sprintf("a critical alert is open for %s, agreed are %s", age.Round(time.Hour), limit)
		}
		return ""
	})
}

// Drift says for each workload whether a program ran in it that is not part of
// its image.
func Drift(inv *inventory.Inventory, seen *evidence.Set, now time.Time) []finding.Verdict {
	return judge(inv, seen, newest(seen, evidence.SensorStream, ""), now, func(a *evidence.Alert) string {
		if a.Drift {
			return "a program ran that is not part of the image"
		}
		return ""
	})
}

// judge looks at the open alerts of each workload; wrong says what is wrong with
// one, or "". A pass takes a stream that is alive.
func judge(inv *inventory.Inventory, seen *evidence.Set, h *evidence.Heartbeat, now time.Time, wrong func(*evidence.Alert) string) []finding.Verdict {
	if seen == nil || h == nil && len(seen.Alerts) == 0 || inv.Origin != inventory.Cluster {
		return nil
	}
	failed := map[*inventory.Workload]finding.Verdict{}
	here := present(inv)
	for i := range seen.Alerts {
		a := &seen.Alerts[i]
		if w, message := open(inv, here, a), wrong(a); w != nil && message != "" {
			failed[w] = finding.Verdict{
				Status: finding.Fail, Message: message,
				Evidence:     fmt.Sprintf("%s, %s at %s; %s", a.Rule, a.Subject, a.At.UTC().Format(time.RFC3339), a.Source),
				EvidenceKind: string(evidence.Runtime), ObservedAt: a.SeenAt,
			}
		}
	}
	rest := finding.Verdict{Status: finding.Unknown, Reason: "nothing that watches the cluster is alive"}
	if h != nil && now.Sub(h.At) <= alive {
		rest = finding.Verdict{Status: finding.Pass, EvidenceKind: string(evidence.Runtime), ObservedAt: h.At}
	}
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f, ok := failed[w]
		if !ok {
			f = rest
		}
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

// A name is how alerts name an object.
type name struct{ kind, namespace, name string }

// present returns the objects that are workloads or parts of one.
func present(inv *inventory.Inventory) map[name]*inventory.Object {
	out := map[name]*inventory.Object{}
	for _, o := range inv.Objects() {
		if inv.Owner(o) != nil {
			out[name{o.GetKind(), inv.NamespaceOf(o), o.GetName()}] = o
		}
	}
	return out
}

// open returns the workload that an alert speaks of, if the object that it
// names is still there and was there then; else nil.
func open(inv *inventory.Inventory, here map[name]*inventory.Object, a *evidence.Alert) *inventory.Workload {
	o := here[name{a.Subject.Kind, a.Subject.Namespace, a.Subject.Name}]
	if o == nil {
		return nil
	}
	if created := o.GetCreationTimestamp(); created.After(a.At) {
		return nil
	}
	return inv.Owner(o)
}
