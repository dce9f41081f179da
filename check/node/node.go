// Package node judges nodes and the control plane on them: by what a node shows
// of itself, and by the static pods of the control plane that the API shows.
//
// What is not given on a command line has the default of Kubernetes 1.34 to
// 1.37, which the demands here do not differ in. Where a provider runs the
// control plane, it is out of sight, and its duty.
package node

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A View is what is known of the nodes of one input. It is safe for concurrent
// use.
type View struct {
	inv      *inventory.Inventory
	members  []*member // by name
	provider string    // who runs the control plane, "" for nobody else
	now      time.Time
}

// A member is one node.
type member struct {
	finding.Subject
	record   *evidence.NodeRecord // nil if nobody looked
	programs map[string]*evidence.Program
	plane    bool // the API calls it a part of the control plane
}

// planePrograms make a node a part of the control plane.
var planePrograms = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// New joins the records of nodes, of each the newest, with the nodes of a live
// inventory.
func New(inv *inventory.Inventory, records []evidence.NodeRecord, now time.Time) *View {
	v := &View{inv: inv, now: now}
	members := map[string]*member{}
	if inv.Origin == inventory.Cluster {
		for _, o := range inv.Kind("", "Node") {
			_, plane := o.GetLabels()["node-role.kubernetes.io/control-plane"]
			members[o.GetName()] = &member{Subject: o.Subject(), plane: plane, programs: map[string]*evidence.Program{}}
			v.provider = cmp.Or(v.provider, provider(o))
		}
	}
	names := machines(inv)
	for i := range records {
		r := &records[i]
		name := cmp.Or(names[r.MachineID], r.Name)
		m := members[name]
		if m == nil {
			m = &member{Subject: finding.Subject{APIVersion: "v1", Kind: "Node", Name: name}, programs: map[string]*evidence.Program{}}
			members[name] = m
		}
		if m.record == nil || r.SeenAt.After(m.record.SeenAt) {
			m.record = r
		}
	}
	for _, m := range members {
		if m.record == nil {
			continue
		}
		for i := range m.record.Programs {
			m.programs[m.record.Programs[i].Name] = &m.record.Programs[i]
		}
	}
	v.staticPods(members)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		v.members = append(v.members, members[name])
	}
	return v
}

// machines returns the names of nodes by their machine id: a host may call
// itself something else.
func machines(inv *inventory.Inventory) map[string]string {
	out := map[string]string{}
	for _, o := range inv.Kind("", "Node") {
		if id, _, _ := unstructured.NestedString(o.Object, "status", "nodeInfo", "machineID"); id != "" {
			out[id] = o.GetName()
		}
	}
	return out
}

// provider returns who runs the control plane of a node's cluster, or "".
func provider(o *inventory.Object) string {
	version, _, _ := unstructured.NestedString(o.Object, "status", "nodeInfo", "kubeletVersion")
	for _, p := range []struct{ name, label, version string }{
		{"Amazon EKS", "eks.amazonaws.com/", "-eks-"},
		{"Azure AKS", "kubernetes.azure.com/", "-aks"},
		{"Google GKE", "cloud.google.com/gke-", "-gke."},
	} {
		if strings.Contains(version, p.version) {
			return p.name
		}
		for label := range o.GetLabels() {
			if strings.HasPrefix(label, p.label) {
				return p.name
			}
		}
	}
	return ""
}

// mirror is on pods that a kubelet runs from a file.
const mirror = "kubernetes.io/config.mirror"

// staticPods adds the programs that the API shows to those that nodes show.
func (v *View) staticPods(members map[string]*member) {
	if v.inv.Origin != inventory.Cluster {
		return
	}
	for _, w := range v.inv.Workloads() {
		if w.GetKind() != "Pod" || w.GetNamespace() != "kube-system" || w.GetAnnotations()[mirror] == "" {
			continue
		}
		m := members[w.Template.Spec.NodeName]
		if m == nil {
			name := w.Template.Spec.NodeName
			m = &member{Subject: finding.Subject{APIVersion: "v1", Kind: "Node", Name: name}, programs: map[string]*evidence.Program{}}
			members[name] = m
		}
		m.pod(w.GetName(), &w.Template.Spec)
	}
}

func (m *member) pod(name string, spec *corev1.PodSpec) {
	for i := range spec.Containers {
		p := evidence.ProgramOf(spec, &spec.Containers[i])
		if p == nil || m.programs[p.Name] != nil {
			continue
		}
		p.Source = "pod " + name
		p.Settings, p.Unread = map[string]string{}, map[string]string{}
		for _, flag := range []string{"audit-policy-file", "authentication-config", "authorization-config", "config", "config-file", "encryption-provider-config"} {
			if p.Flags.Has(flag) {
				p.Unread[flag] = "only the node shows it; " + wanted
			}
		}
		m.programs[p.Name] = p
	}
}

// wanted says how evidence of a node is had.
const wanted = "run kubeguardian scan --node on it and give the result by --evidence"

func (m *member) inPlane() bool {
	return m.plane || slices.ContainsFunc(planePrograms, func(name string) bool { return m.programs[name] != nil })
}

// gap returns what could not be seen of a part of the node, or "".
func (m *member) gap(part evidence.Part) string {
	if m.record == nil {
		return "nobody looked at the node; " + wanted
	}
	return m.record.Gap(part)
}

// A check adds what it finds of a node to a verdict.
type check func(m *member, out *verdict)

// planes judges each part of the control plane. Without any in sight it is the
// provider's, or nothing is known of it. For what the provider lets its
// customer choose, duty is false: then it may still be seen elsewhere.
func (v *View) planes(duty bool, judge check) []finding.Verdict {
	var out []finding.Verdict
	for _, m := range v.members {
		if !m.inPlane() {
			continue
		}
		f := m.judge(judge)
		f.Subject = finding.Subject{Kind: "ControlPlane", Name: m.Name}
		out = append(out, v.observed(m, f))
	}
	if len(out) == 0 && v.provider != "" && duty {
		out = append(out, finding.Verdict{
			Status: finding.NotApplicable, Reason: v.duty(), Subject: finding.Subject{Kind: "ControlPlane"},
			EvidenceKind: string(evidence.API), ObservedAt: v.now,
		})
	}
	return out
}

func (v *View) duty() string {
	return "managed control plane (" + v.provider + "): the provider's duty"
}

// nodes judges each node by its record. What belongs to the control plane is
// the provider's where it runs that.
func (v *View) nodes(plane bool, judge check) []finding.Verdict {
	var out []finding.Verdict
	for _, m := range v.members {
		f := finding.Verdict{Status: finding.Unknown, Reason: "no evidence of this node; " + wanted}
		switch {
		case m.record != nil:
			f = m.judge(judge)
		case plane && v.provider != "":
			f = finding.Verdict{Status: finding.NotApplicable, Reason: v.duty()}
		}
		f.Subject = m.Subject
		out = append(out, v.observed(m, f))
	}
	return out
}

func (m *member) judge(judge check) finding.Verdict {
	var out verdict
	judge(m, &out)
	return out.finding()
}

// observed says by what a node was judged, and when that was seen.
func (v *View) observed(m *member, f finding.Verdict) finding.Verdict {
	f.EvidenceKind, f.ObservedAt = string(evidence.API), v.now
	if m.record != nil {
		f.EvidenceKind, f.ObservedAt = string(evidence.Node), m.record.SeenAt
	}
	return f
}
