package network

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// The ports that controls ask about.
var (
	metadataPort = tcp(80)
	// nodePorts are the kubelet, its read-only port, and the ports that Services
	// of type NodePort get.
	nodePorts = []span{tcp(10250), tcp(10255), {30000, 32767}}
)

// ordinary says why policies cannot be asked of a workload, or "".
func (n *Network) ordinary(w *inventory.Workload) string {
	switch {
	case w.Template.Spec.HostNetwork:
		return "pods on the host's network stand outside NetworkPolicies"
	case System(n.inv.NamespaceOf(w.Object)):
		return "part of Kubernetes, which may need it"
	}
	return ""
}

// eachOrdinary judges the workloads that policies can be asked of by their
// class. A failure that a policy which is not seen could undo is unknown.
func (n *Network) eachOrdinary(judge func(w *inventory.Workload, class int) finding.Verdict) []finding.Verdict {
	var out []finding.Verdict
	for _, w := range n.inv.Workloads() {
		var f finding.Verdict
		if reason := n.ordinary(w); reason != "" {
			f = finding.Verdict{Status: finding.NotApplicable, Reason: reason}
		} else {
			f = judge(w, n.reach.of[w])
		}
		if f.Status == finding.Fail && n.plugin.enforces != no {
			if reason := n.uncertain(n.inv.NamespaceOf(w.Object)); reason != "" {
				f = finding.Verdict{Status: finding.Unknown, Reason: reason}
			}
		}
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

// uncertain says why a policy that is not seen may close what is open in ns.
func (n *Network) uncertain(ns string) string {
	for _, gap := range n.inv.Gaps {
		if gap.Kind.Group == policyGroup {
			return gap.Kind.Kind + " objects could not be read: " + gap.Reason
		}
	}
	return n.doubt(ns)
}

// Metadata says for each workload whether policies keep its pods from the
// metadata service of the cloud, which hands out credentials of the node.
func (n *Network) Metadata() []finding.Verdict {
	outside := n.outsideClouds()
	return n.eachOrdinary(func(_ *inventory.Workload, class int) finding.Verdict {
		switch {
		case outside != "":
			return finding.Verdict{Status: finding.NotApplicable, Reason: outside}
		case !n.reachesMetadata(class):
			return finding.Verdict{Status: finding.Pass}
		}
		return finding.Verdict{
			Status: finding.Fail, Message: "its pods can reach the metadata service at 169.254.169.254",
			Evidence: n.why(class, egress, n.reach.metadata, metadataPort.from),
		}
	})
}

func (n *Network) reachesMetadata(class int) bool {
	return includes(n.reach.admits(n.reach.rows[class][1], n.reach.metadata), metadataPort.from)
}

// why explains what lets a class connect.
func (n *Network) why(class int, d direction, column int, port uint32) string {
	if n.plugin.enforces == no {
		return "nothing enforces policies: " + n.plugin.seen
	}
	return n.reach.explain(class, d, column, port)
}

// local are the providers of nodes that run on no cloud with a metadata
// service.
var local = []string{"", "kind", "k3s", "k3d", "minikube", "rke2", "vagrant", "libvirt", "baremetalhost", "metal3", "vsphere", "harvester", "kwok"}

// outsideClouds says that no node runs in a cloud, or "" if one does or that is
// not known.
func (n *Network) outsideClouds() string {
	nodes := n.inv.Kind("", "Node")
	if n.inv.Origin == inventory.Files || len(nodes) == 0 {
		return ""
	}
	for _, o := range nodes {
		if !slices.Contains(local, provider(o)) {
			return ""
		}
	}
	return "no node runs in a cloud: none has the providerID of one"
}

// provider returns the name of the cloud that a node runs in, as its providerID
// gives it.
func provider(node *inventory.Object) string {
	spec, _ := node.Object["spec"].(map[string]any)
	id, _ := spec["providerID"].(string)
	name, _, _ := strings.Cut(id, "://")
	return strings.ToLower(name)
}

// NodeAccess says for each workload whether policies keep its pods from the
// kubelets and from the ports that nodes open for Services.
func (n *Network) NodeAccess() []finding.Verdict {
	open := func(class, column int) []span {
		return combine(n.reach.admits(n.reach.rows[class][1], column), nodePorts, both)
	}
	return n.eachOrdinary(func(_ *inventory.Workload, class int) finding.Verdict {
		if got := open(class, n.reach.node); len(got) > 0 {
			return finding.Verdict{
				Status: finding.Fail, Message: "its pods can reach nodes on " + format(got),
				Evidence: n.why(class, egress, n.reach.node, got[0].from),
			}
		}
		if len(open(class, n.reach.maybeNode)) > 0 {
			return finding.Verdict{
				Status: finding.Unknown,
				Reason: "policies allow some addresses, and those of the nodes are not known; scan the cluster: kubeguardian scan --cluster",
			}
		}
		return finding.Verdict{Status: finding.Pass}
	})
}

// DataStores says for each data store whether workloads outside its application
// reach it, other than such as a policy of its namespace names one by one. ports returns the ports on which a workload serves data, and none
// for what is no data store.
func (n *Network) DataStores(ports func(*inventory.Workload) []corev1.ContainerPort) []finding.Verdict {
	return n.eachOrdinary(func(w *inventory.Workload, class int) finding.Verdict {
		serves := spansOf(ports(w))
		if len(serves) == 0 {
			return finding.Verdict{Status: finding.NotApplicable, Reason: "no data store is known by its image"}
		}
		for from, on := range n.reach.sources(class, serves) {
			if !n.foreign(from, w) || n.reach.invited(class, from, on[0].from) {
				continue
			}
			return finding.Verdict{
				Status:   finding.Fail,
				Message:  fmt.Sprintf("%s can reach it on %s", n.reach.name(from), format(on)),
				Evidence: n.why(class, ingress, from, on[0].from),
			}
		}
		if vague := n.reach.vague(class, serves); vague != "" {
			return finding.Verdict{
				Status: finding.Unknown, Reason: vague + ", and whether that holds pods depends on the network; select pods by their labels",
			}
		}
		return finding.Verdict{Status: finding.Pass}
	})
}

func spansOf(ports []corev1.ContainerPort) []span {
	var out []span
	for _, p := range ports {
		if s, ok := spanOf(protocolOf(p.Protocol), p.ContainerPort, p.ContainerPort); ok {
			out = append(out, s)
		}
	}
	return canonical(out)
}

// foreign reports whether a class is of another application than w: of another
// namespace or another app.kubernetes.io/part-of.
func (n *Network) foreign(from int, w *inventory.Workload) bool {
	const partOf = "app.kubernetes.io/part-of"
	c := n.reach.classes[from]
	if System(c.namespace) {
		return false // part of Kubernetes
	}
	one, other := c.labels[partOf], w.Template.Labels[partOf]
	if one != "" && other != "" {
		return one != other
	}
	return c.namespace != n.inv.NamespaceOf(w.Object)
}

// invited reports whether a NetworkPolicy lets a class in by the labels of its
// pods and of its namespace: who writes that means these pods.
func (r *reach) invited(class, from int, port uint32) bool {
	return slices.ContainsFunc(r.stances[class][ingress.index()].rules, func(cl *clause) bool {
		return cl.byName.has(from) && r.covers(cl, class, ingress, from, port)
	})
}

// vague names a rule that admits a block of addresses to some ports of a class
// and so perhaps pods, or "".
func (r *reach) vague(class int, on []span) string {
	s := r.stances[class][ingress.index()]
	for _, cl := range slices.Concat(s.admin, s.rules, s.baseline) {
		if cl.vague == "" || cl.action != allow {
			continue
		}
		if slices.ContainsFunc(on, func(p span) bool { return r.covers(cl, class, ingress, class, p.from) }) {
			return evidence(cl.policy) + " allows " + cl.vague
		}
	}
	return ""
}

// InstanceMetadata says whether ordinary pods of a live cluster are kept from
// the metadata service, as far as policies show it. Where a setting of the cloud
// may do it as well, an open policy alone does not fail.
func (n *Network) InstanceMetadata() []finding.Verdict {
	if n.inv.Origin == inventory.Files {
		return nil
	}
	f := finding.Verdict{Status: finding.Pass, Evidence: "policies deny it to every ordinary pod", Subject: finding.Subject{Kind: "Node"}}
	if o := n.inv.Get("apps", "DaemonSet", "kube-system", "gke-metadata-server"); o != nil {
		f.Evidence = o.Subject().String() + " stands in for it"
		return []finding.Verdict{f}
	}
	if reason := n.outsideClouds(); reason != "" {
		f.Status, f.Reason, f.Evidence = finding.NotApplicable, reason, ""
		return []finding.Verdict{f}
	}
	open, judged := 0, 0
	for _, w := range n.inv.Workloads() {
		if n.ordinary(w) == "" {
			judged++
			if n.reachesMetadata(n.reach.of[w]) {
				open++
			}
		}
	}
	const show = "; show what your cloud sets: give the output of terraform show -json by --evidence, or attest it"
	missing := cmp.Or(n.uncertain(""), n.hops())
	switch {
	case open == 0 && judged > 0 && n.plugin.enforces == yes:
		return []finding.Verdict{f}
	case n.plugin.enforces == unsure:
		missing = "it is not known that policies are enforced (CLU-NET-01)"
	case open > 0 && missing == "":
		f.Status, f.Evidence = finding.Fail, ""
		f.Message = fmt.Sprintf("pods of %d of %d workloads can reach it, and these nodes have nothing else that keeps them from it", open, judged)
		return []finding.Verdict{f}
	case open > 0:
		missing = fmt.Sprintf("policies let %d of %d workloads reach it, and %s", open, judged, missing)
	default:
		missing = "no ordinary pod is seen"
	}
	f.Status, f.Evidence, f.Reason = finding.Unknown, "", missing+show
	return []finding.Verdict{f}
}

// hops says that the cloud may bound how far metadata travels, which nothing in
// the cluster shows, or "" where the clouds of the nodes have no such setting.
func (n *Network) hops() string {
	nodes := n.inv.Kind("", "Node")
	for _, o := range nodes {
		switch p := provider(o); p {
		case "gce", "openstack", "digitalocean", "hcloud":
		default:
			return "the hop limit of the nodes is not known"
		}
	}
	if len(nodes) == 0 {
		return "the nodes are not known"
	}
	return ""
}
