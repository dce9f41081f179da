// Package detection says whether what watches a cluster is alive, whether its
// critical alerts are answered, and whether it saw programs that are not part of
// their image. It goes by signs of life, never by what is installed.
package detection

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// alive is how old the last sign of life may be.
const alive = 15 * time.Minute

// Audit says whether audit events arrive. Without a record it says nothing.
func Audit(seen *evidence.Set, now time.Time) []finding.Verdict {
	h := newest(seen, evidence.AuditStream)
	if h == nil {
		return nil
	}
	f := beat(h, now, "audit events")
	f.Subject = finding.Subject{Kind: "Cluster"}
	return []finding.Verdict{f}
}

// newest returns the latest record of a stream, or nil.
func newest(seen *evidence.Set, stream string) *evidence.Heartbeat {
	var last *evidence.Heartbeat
	for _, h := range byNode(seen, stream) {
		if later(h, last) {
			last = h
		}
	}
	return last
}

// byNode returns the latest record of a stream of each node.
func byNode(seen *evidence.Set, stream string) map[string]*evidence.Heartbeat {
	out := map[string]*evidence.Heartbeat{}
	if seen == nil {
		return out
	}
	for i := range seen.Heartbeats {
		if h := &seen.Heartbeats[i]; h.Stream == stream && later(h, out[h.Node]) {
			out[h.Node] = h
		}
	}
	return out
}

// later reports whether a record says more of now than another, which may be nil.
func later(a, b *evidence.Heartbeat) bool {
	return b == nil || a.SeenAt.After(b.SeenAt) || a.SeenAt.Equal(b.SeenAt) && a.At.After(b.At)
}

// beat judges the last sign of life of a stream. Silence counts only once it
// was waited for.
func beat(h *evidence.Heartbeat, now time.Time, what string) finding.Verdict {
	f := finding.Verdict{EvidenceKind: string(evidence.Runtime), ObservedAt: h.SeenAt, Evidence: h.Tool + " in " + h.Source}
	switch {
	case h.Unheard != "":
		f.Status, f.Reason, f.Evidence = finding.Unknown, h.Unheard, ""
	case now.Sub(h.At) <= alive:
		f.Status, f.ObservedAt = finding.Pass, h.At
	case h.SeenAt.Sub(h.Since) < alive:
		f.Status, f.Reason, f.Evidence = finding.Unknown, "no "+what+" yet, waited for "+h.SeenAt.Sub(h.Since).Round(time.Second).String(), ""
	case !h.At.IsZero() && now.Sub(h.SeenAt) > alive:
		f.Status, f.Reason, f.Evidence = finding.Unknown, "nobody has looked for "+what+" since "+h.SeenAt.UTC().Format(time.RFC3339), ""
	case h.At.IsZero():
		f.Status, f.Message = finding.Fail, "no "+what+" have arrived"
	default:
		f.Status, f.Message = finding.Fail, "no "+what+" have arrived since "+h.At.UTC().Format(time.RFC3339)
	}
	return f
}

// Sensors says for each node whether a runtime sensor on it is alive and sound.
// Where no sensor reports, and none is waited for, it says nothing.
func Sensors(inv *inventory.Inventory, seen *evidence.Set, now time.Time) []finding.Verdict {
	any := newest(seen, evidence.SensorStream)
	if any == nil {
		return nil
	}
	nodes := byNode(seen, evidence.SensorStream)
	var out []finding.Verdict
	for _, o := range inv.Kind("", "Node") {
		h := nodes[o.GetName()]
		var f finding.Verdict
		switch {
		case (h == nil || h.At.IsZero()) && serverless(o):
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
			if f.Status == finding.Pass && len(h.Problems) > 0 {
				f.Status, f.Message = finding.Fail, "not all is well with the sensor: "+strings.Join(h.Problems, " ")
			}
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
// A pass takes audit events that arrive, or a sensor that is well on the node of
// each of its pods. Where nothing reports it says nothing.
func Answered(inv *inventory.Inventory, seen *evidence.Set, now time.Time) []finding.Verdict {
	audit := newest(seen, evidence.AuditStream)
	h := audit
	if sensor := newest(seen, evidence.SensorStream); h == nil || sensor != nil && sensor.At.After(h.At) {
		h = sensor
	}
	watch := newWatch(inv, seen, now)
	rest := func(w *inventory.Workload) finding.Verdict {
		if heard(audit, now) {
			return finding.Verdict{Status: finding.Pass, EvidenceKind: string(evidence.Runtime), ObservedAt: audit.At}
		}
		return watch.over(w, func(h *evidence.Heartbeat) string {
			if len(h.Problems) > 0 {
				return "is not well"
			}
			return ""
		})
	}
	return judge(inv, seen, h, unread(seen).Critical, rest, func(a *evidence.Alert) string {
		limit := a.Respond
		if limit == 0 {
			limit = defaultRespond
		}
		if !a.Critical || now.Sub(a.At) <= limit {
			return ""
		}
		return fmt.Sprintf("a critical alert is open for longer than %s, as agreed", limit)
	})
}

// Drift says for each workload whether a program ran in it that is not part of
// its image. A pass takes a sensor that would tell of one, alive on the node of
// each of its pods; what ran before the sensor began is not judged.
func Drift(inv *inventory.Inventory, seen *evidence.Set, now time.Time) []finding.Verdict {
	watch := newWatch(inv, seen, now)
	rest := func(w *inventory.Workload) finding.Verdict {
		return watch.over(w, func(h *evidence.Heartbeat) string {
			if h.Drift != fact.Yes {
				return "is not known to tell of every program that is not part of an image"
			}
			return ""
		})
	}
	return judge(inv, seen, newest(seen, evidence.SensorStream), unread(seen).Drift, rest, func(a *evidence.Alert) string {
		if a.Drift {
			return "a program ran that is not part of the image"
		}
		return ""
	})
}

// A watch knows which sensors are where workloads run.
type watch struct {
	inv     *inventory.Inventory
	pods    map[*inventory.Workload][]*inventory.Object // that are on a node, and have not ended
	sensors map[string]*evidence.Heartbeat              // by node
	now     time.Time
}

func newWatch(inv *inventory.Inventory, seen *evidence.Set, now time.Time) *watch {
	w := &watch{inv, map[*inventory.Workload][]*inventory.Object{}, byNode(seen, evidence.SensorStream), now}
	for _, o := range inv.Kind("", "Pod") {
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		if nodeOf(o) != "" && phase != "Succeeded" && phase != "Failed" {
			owner := inv.Owner(o)
			w.pods[owner] = append(w.pods[owner], o)
		}
	}
	return w
}

func nodeOf(pod *inventory.Object) string {
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	return node
}

// over says whether a sensor that is good enough is alive on each node where a
// workload runs; wrong says what is missing of one, or "".
func (w *watch) over(of *inventory.Workload, wrong func(*evidence.Heartbeat) string) finding.Verdict {
	if gap := w.inv.Gap("", "Pod"); gap != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: "where its pods run is not known: " + gap}
	}
	v := finding.Verdict{Status: finding.NotApplicable, Reason: "no pod of it runs on a node"}
	for _, o := range w.pods[of] {
		node := nodeOf(o)
		h := w.sensors[node]
		if !heard(h, w.now) {
			return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("no sensor is alive on node %s, where pod %s is", node, o.GetName())}
		}
		if class := hidden(w.inv, o); class != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("pod %s is of runtime class %s, in which the sensor of node %s is not known to see programs", o.GetName(), class, node)}
		}
		if reason := wrong(h); reason != "" {
			return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("the sensor of node %s, where pod %s is, %s", node, o.GetName(), reason)}
		}
		if v.Status != finding.Pass || h.At.Before(v.ObservedAt) {
			v = finding.Verdict{Status: finding.Pass, EvidenceKind: string(evidence.Runtime), ObservedAt: h.At}
		}
	}
	return v
}

// shared are the handlers of runtime classes whose containers are processes of the
// node. In sandboxes and virtual machines the node sees no programs.
var shared = []string{"runc", "crun", "youki", "nvidia", "nvidia-cdi", "nvidia-legacy"}

// hidden returns the runtime class of a pod, unless that is known to run its programs
// on the kernel of the node.
func hidden(inv *inventory.Inventory, pod *inventory.Object) string {
	name, _, _ := unstructured.NestedString(pod.Object, "spec", "runtimeClassName")
	if name == "" {
		return ""
	}
	if class := inv.Get("node.k8s.io", "RuntimeClass", "", name); class != nil {
		if handler, _, _ := unstructured.NestedString(class.Object, "handler"); slices.Contains(shared, handler) {
			return ""
		}
	}
	return name
}

// heard reports whether a stream is known to be alive.
func heard(h *evidence.Heartbeat, now time.Time) bool {
	return h != nil && h.Unheard == "" && now.Sub(h.At) <= alive
}

// unread returns up to when alerts were not looked at.
func unread(seen *evidence.Set) evidence.Unread {
	if seen == nil {
		return evidence.Unread{}
	}
	return seen.Unread
}

// judge looks at the open alerts of each workload; wrong says what is wrong with
// one, or "". Of a workload of which nothing is wrong, rest says what is known; h
// is the last sign of life of what would have said so. Alerts up to unread, if there
// are such, nobody has looked at: nothing passes that was there then.
func judge(inv *inventory.Inventory, seen *evidence.Set, h *evidence.Heartbeat, unread time.Time, rest func(*inventory.Workload) finding.Verdict, wrong func(*evidence.Alert) string) []finding.Verdict {
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
	var out []finding.Verdict
	for _, w := range inv.Workloads() {
		f, ok := failed[w]
		if !ok {
			f = rest(w)
		}
		if f.Status == finding.Pass && !unread.IsZero() && !w.GetCreationTimestamp().After(unread) {
			f = finding.Verdict{Status: finding.Unknown, Reason: "there are too many alerts to look at all, and some that nobody has looked at may be about it"}
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
