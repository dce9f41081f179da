package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// live reads a cluster that has the namespace shop.
func live(t testing.TB, gaps []inventory.Gap, documents ...string) *Network {
	t.Helper()
	documents = append(documents, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = inventory.New(inventory.Cluster, inv.Objects(), gaps); err != nil {
		t.Fatal(err)
	}
	n, err := New(inv)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func daemon(image, args, sidecar string) string {
	return fmt.Sprintf("{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: net, namespace: kube-system}, spec: {selector: {matchLabels: {app: net}}, template: {metadata: {labels: {app: net}}, spec: {containers: [{name: a, image: %q, args: [%s]}%s]}}}}", image, args, sidecar)
}

func simplePod(name, labels string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop, labels: {%s}}, spec: {containers: [{name: c, image: i}]}}", name, labels)
}

func shopPolicy(spec string) string {
	return "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: " + spec + "}"
}

func TestPlugins(t *testing.T) {
	never := "{apiVersion: v1, kind: ConfigMap, metadata: {name: cilium-config, namespace: kube-system}, data: {enable-policy: never}}"
	tests := []struct {
		name      string
		documents []string
		want      finding.Status
	}{
		{"Calico", []string{daemon("docker.io/calico/node:v3", "", "")}, finding.Pass},
		{"Calico of a mirror", []string{daemon("mirror.example:5000/quay/calico/node@sha256:00", "", "")}, finding.Pass},
		{"a node of somebody else", []string{daemon("example/node:v3", "", "")}, finding.Unknown},
		{"Cilium", []string{daemon("quay.io/cilium/cilium:v1", "", "")}, finding.Pass},
		{"Cilium that enforces nothing", []string{daemon("quay.io/cilium/cilium:v1", "", ""), never}, finding.Fail},
		{"the operator of Cilium alone", []string{daemon("quay.io/cilium/operator-generic:v1", "", "")}, finding.Unknown},
		{"Antrea", []string{daemon("antrea/antrea-agent-ubuntu:v2", "", "")}, finding.Pass},
		{"kube-router", []string{daemon("cloudnativelabs/kube-router:v2", `"--run-router=true"`, "")}, finding.Pass},
		{"kube-router without its firewall", []string{daemon("cloudnativelabs/kube-router:v2", `"--run-firewall=false"`, "")}, finding.Fail},
		{"Weave", []string{daemon("weaveworks/weave-kube:2", "", ", {name: npc, image: weaveworks/weave-npc:2}")}, finding.Pass},
		{"AWS", []string{daemon("amazon/amazon-k8s-cni:v1", "", "")}, finding.Fail},
		{"AWS with its agent off", []string{daemon("amazon/amazon-k8s-cni:v1", "", ", {name: agent, image: amazon/aws-network-policy-agent:v1}")}, finding.Fail},
		{"AWS with its agent", []string{daemon("amazon/amazon-k8s-cni:v1", "", ", {name: agent, image: amazon/aws-network-policy-agent:v1, args: ['--enable-network-policy=true']}")}, finding.Pass},
		{"flannel", []string{daemon("flannel/flannel:v0", "", "")}, finding.Fail},
		{"flannel and Calico", []string{daemon("flannel/flannel:v0", "", ", {name: b, image: calico/node}")}, finding.Pass},
		{"none", nil, finding.Unknown},
		{"a Deployment is no plugin", []string{strings.Replace(daemon("calico/node", "", ""), "DaemonSet", "Deployment", 1)}, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := live(t, nil, tt.documents...).Enforcement()
			if len(got) != 1 || got[0].Status != tt.want || got[0].Subject.Kind != "Cluster" {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
	gap := []inventory.Gap{{Kind: schema.GroupKind{Group: "apps", Kind: "DaemonSet"}, Reason: "forbidden"}}
	if got := live(t, gap).Enforcement(); got[0].Status != finding.Unknown || !strings.Contains(got[0].Reason, "forbidden") {
		t.Errorf("DaemonSets that may not be read: %+v", got)
	}
}

// Where nothing enforces policies they count as absent.
func TestNothingEnforces(t *testing.T) {
	deny := shopPolicy("{podSelector: {}, policyTypes: [Ingress, Egress]}")
	web, flannel := simplePod("web", "app: web"), daemon("flannel/flannel", "", "")
	status := func(findings []finding.Verdict) finding.Status {
		for _, f := range findings {
			if f.Subject.Name == "web" {
				return f.Status
			}
		}
		return ""
	}
	port := func(*inventory.Workload) []corev1.ContainerPort { return []corev1.ContainerPort{{ContainerPort: 5432}} }
	for name, check := range map[string]func(*Network) []finding.Verdict{
		"metadata": (*Network).Metadata, "nodes": (*Network).NodeAccess, "data stores": func(n *Network) []finding.Verdict { return n.DataStores(port) },
	} {
		if got := status(check(live(t, nil, web, deny))); got != finding.Pass {
			t.Errorf("%s behind a policy: %s", name, got)
		}
		if got := status(check(live(t, nil, web, deny, flannel))); got != finding.Fail {
			t.Errorf("%s behind a policy that nothing enforces: %s", name, got)
		}
	}
}

func TestBlocks(t *testing.T) {
	metadata, node, other := netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("203.0.113.9")
	tests := []struct {
		cidr, except                      string
		ok, metadata, everything, mayHold bool
		known, unknown                    cover // of two nodes, 10.1.2.3 and 203.0.113.9, and of some
	}{
		{"0.0.0.0/0", "", true, true, true, true, cover{true, true, true}, cover{true, true, true}},
		{"0.0.0.0/0", "169.254.169.254/32", true, false, true, true, cover{true, true, true}, cover{true, true, true}},
		{"0.0.0.0/0", "10.0.0.0/8", true, true, false, true, cover{true, false, true}, cover{false, false, true}},
		{"0.0.0.0/0", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10", true, true, false, false, cover{true, false, true}, cover{false, false, true}},
		{"10.0.0.0/8", "", true, false, false, true, cover{true, false, true}, cover{false, false, true}},
		{"10.1.0.0/16", "10.1.0.0/16", true, false, false, false, cover{}, cover{false, false, true}},
		{"192.0.2.7/32", "", true, false, false, false, cover{}, cover{}},
		{"::/0", "", true, false, false, true, cover{}, cover{false, false, true}},
		{"10.0.0.0", "", false, false, false, false, cover{}, cover{}},
		{"all", "", false, false, false, false, cover{}, cover{}},
	}
	for _, tt := range tests {
		t.Run(tt.cidr+" "+tt.except, func(t *testing.T) {
			b, ok := parseBlock(tt.cidr, strings.Fields(tt.except))
			if ok != tt.ok {
				t.Fatalf("ok = %v", ok)
			}
			if !ok {
				return
			}
			if b.contains(metadata) != tt.metadata || b.everything() != tt.everything || b.mayHold() != tt.mayHold {
				t.Errorf("metadata %v, everything %v, may hold pods %v", b.contains(metadata), b.everything(), b.mayHold())
			}
			if got := b.nodes([]netip.Addr{node, other}); got != tt.known {
				t.Errorf("known nodes %+v, want %+v", got, tt.known)
			}
			if got := b.nodes(nil); got != tt.unknown {
				t.Errorf("unknown nodes %+v, want %+v", got, tt.unknown)
			}
		})
	}
}

// Policies over the whole cluster that deny by default do what a NetworkPolicy
// in each namespace would.
func TestClosedByTheAdministrator(t *testing.T) {
	baseline := func(rules string) string {
		return "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}, spec: {subject: {namespaces: {}}, " + rules + "}}"
	}
	cluster := func(tier, subject, rules string) string {
		return fmt.Sprintf("{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: %s, priority: 5, subject: %s, %s}}", tier, subject, rules)
	}
	denyIn := "ingress: [{action: Deny, from: [{namespaces: {}}]}]"
	denyOut := "egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}, {nodes: {}}]}]"
	tests := []struct {
		name, policy    string
		ingress, egress finding.Status
	}{
		{"none", "", finding.Fail, finding.Fail},
		{"baseline", baseline(denyIn), finding.Pass, finding.Fail},
		{"baseline of the newer form", cluster("Baseline", "{namespaces: {}}", denyIn), finding.Pass, finding.Fail},
		{"pods only, but not what is outside", baseline("egress: [{action: Deny, to: [{namespaces: {}}]}]"), finding.Fail, finding.Fail},
		{"some ports", baseline("ingress: [{action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {protocol: TCP, port: 80}}]}]"), finding.Fail, finding.Fail},
		{"some namespaces", baseline("ingress: [{action: Deny, from: [{namespaces: {matchLabels: {a: b}}}]}]"), finding.Fail, finding.Fail},
		{"for others", cluster("Baseline", "{namespaces: {matchLabels: {a: b}}}", denyIn), finding.Fail, finding.Fail},
		{"allows", baseline("ingress: [{action: Allow, from: [{namespaces: {}}]}]"), finding.Fail, finding.Fail},
		{"a form to come fails closed", cluster("Admin", "{namespaces: {}}", "ingress: [{action: Deny, from: [{services: {}}]}]"), finding.Pass, finding.Fail},
		{"an action to come fails closed", cluster("Admin", "{namespaces: {}}", "ingress: [{action: Ask, from: [{namespaces: {}}]}]"), finding.Pass, finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			documents := []string{simplePod("web", "app: web")}
			if tt.policy != "" {
				documents = append(documents, tt.policy)
			}
			n := live(t, nil, documents...)
			if got := n.DefaultDenyIngress(); got[0].Status != tt.ingress {
				t.Errorf("ingress: %+v, want %s", got, tt.ingress)
			}
			if got := n.DefaultDenyEgress(); got[0].Status != tt.egress {
				t.Errorf("egress: %+v, want %s", got, tt.egress)
			}
		})
	}
	n := live(t, nil, simplePod("web", "app: web"), baseline(denyIn+", "+denyOut))
	if got := n.Coverage(); got[0].Status != finding.Pass {
		t.Errorf("coverage by a baseline in both directions: %+v", got)
	}
	if got := n.Metadata(); got[0].Status != finding.Pass {
		t.Errorf("metadata behind it: %+v", got)
	}
}

// A policy that may not be read can close what looks open, never open what is
// closed.
func TestUnreadPolicies(t *testing.T) {
	gap := []inventory.Gap{{Kind: schema.GroupKind{Group: policyGroup, Kind: "AdminNetworkPolicy"}, Reason: "forbidden"}}
	web := simplePod("web", "app: web")
	if got := live(t, gap, web).Metadata(); got[0].Status != finding.Unknown || !strings.Contains(got[0].Reason, "forbidden") {
		t.Errorf("open: %+v", got)
	}
	deny := shopPolicy("{podSelector: {}, policyTypes: [Egress]}")
	if got := live(t, gap, web, deny).Metadata(); got[0].Status != finding.Pass {
		t.Errorf("closed: %+v", got)
	}
}

func TestInstanceMetadata(t *testing.T) {
	node := func(id string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %q}, spec: {providerID: %q}}", strings.NewReplacer("/", "", ":", "").Replace("n"+id), id)
	}
	calico, web := daemon("calico/node", "", ""), simplePod("web", "app: web")
	deny := shopPolicy("{podSelector: {}, policyTypes: [Egress]}")
	tests := []struct {
		name      string
		documents []string
		want      finding.Status
	}{
		{"closed and enforced", []string{calico, web, deny, node("aws://z/i")}, finding.Pass},
		{"closed, enforcement not known", []string{web, deny, node("aws://z/i")}, finding.Unknown},
		{"open where a hop limit may do", []string{calico, web, node("aws://z/i")}, finding.Unknown},
		{"open where nothing else does", []string{calico, web, node("hcloud://7")}, finding.Fail},
		{"open in two clouds", []string{calico, web, node("hcloud://7"), node("azure://s/n")}, finding.Unknown},
		{"open, nothing enforced", []string{daemon("flannel/flannel", "", ""), web, deny, node("gce://p/z/n")}, finding.Fail},
		{"no cloud", []string{calico, web, node("k3s://n")}, finding.NotApplicable},
		{"one node in a cloud", []string{calico, web, node("k3s://n"), node("hcloud://7")}, finding.Unknown},
		{"no nodes read", []string{calico, web}, finding.Unknown},
		{"no ordinary pod", []string{calico, node("hcloud://7")}, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := live(t, nil, tt.documents...).InstanceMetadata()
			if len(got) != 1 || got[0].Status != tt.want || got[0].Subject.Kind != "Node" {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

func TestManagement(t *testing.T) {
	service := func(name, spec string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: shop}, spec: {%s}}", name, spec)
	}
	podOf := func(image string) string {
		return strings.Replace(simplePod("web", "app: web"), "image: i", "image: "+image, 1)
	}
	open := "type: NodePort, selector: {app: web}, ports: [{port: 80}]"
	tests := []struct {
		name      string
		documents []string
		want      finding.Status
	}{
		{"by the image", []string{podOf("docker.io/portainer/portainer-ce:2"), service("s", open)}, finding.Fail},
		{"by the image of the dashboard", []string{podOf("kubernetesui/dashboard:v2"), service("s", open)}, finding.Fail},
		{"a dashboard of somebody else", []string{podOf("example/dashboard:v2"), service("s", open)}, finding.Pass},
		{"by its name", []string{podOf("i"), service("grafana", open)}, finding.Fail},
		{"by a port", []string{podOf("i"), service("s", "type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 15672}]")}, finding.Fail},
		{"the name only resembles", []string{podOf("i"), service("grafana-docs", open)}, finding.Pass},
		{"inside", []string{podOf("grafana/grafana"), service("s", "selector: {app: web}, ports: [{port: 80}]")}, finding.Pass},
		{"inside and ordinary", []string{podOf("i"), service("s", "selector: {app: web}, ports: [{port: 80}]")}, finding.NotApplicable},
		{"some sources", []string{podOf("grafana/grafana"), service("s", "loadBalancerSourceRanges: [192.0.2.0/24], type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]")}, finding.Pass},
		{"every source", []string{podOf("grafana/grafana"), service("s", "loadBalancerSourceRanges: [192.0.2.0/24, 0.0.0.0/0], type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]")}, finding.Fail},
		{"source ranges do not bind a NodePort", []string{podOf("grafana/grafana"), service("s", "loadBalancerSourceRanges: [192.0.2.0/24], "+open)}, finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := live(t, nil, tt.documents...).Management()
			if len(got) != 1 || got[0].Status != tt.want {
				t.Fatalf("%+v, want %s", got, tt.want)
			}
			if got[0].Status == finding.Fail && got[0].Exposure != finding.Internet {
				t.Errorf("exposure %q", got[0].Exposure)
			}
		})
	}
}

func TestSelectorTexts(t *testing.T) {
	tests := []struct{ spec, want string }{
		{"{podSelector: {matchLabels: {app: db}}}", "podSelector app=db matches no pod"},
		{"{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}}]}]}", "namespaceSelector a=b matches no pod"},
		{"{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {app: db}}}]}]}", "namespaceSelector a=b with podSelector app=db matches no pod"},
		{"{podSelector: {}, egress: [{to: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}]}]}", "podSelector app notin (web) matches no pod"},
		{"{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}", ""},
	}
	for _, tt := range tests {
		got := live(t, nil, simplePod("web", "app: web"), shopPolicy(tt.spec)).Selectors()
		if len(got) != 1 || got[0].Message != tt.want {
			t.Errorf("%s: %+v, want %q", tt.spec, got, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	n := live(t, nil, simplePod("a", "app: web"), simplePod("b", "app: web"), simplePod("c", "app: web"), simplePod("d", "app: db"))
	if len(n.reach.classes) != 3 {
		t.Fatalf("%d classes, want web, db and strangers", len(n.reach.classes))
	}
	for column, want := range map[int]string{n.reach.of[n.inv.Workloads()[0]]: "Pod/shop/a and Pod/shop/b and 1 more", n.reach.stranger: "pods of any other namespace"} {
		if got := n.reach.name(column); got != want {
			t.Errorf("name = %q, want %q", got, want)
		}
	}
}

// Whatever a policy holds, it is read or refused, and nothing crashes.
func FuzzPolicies(f *testing.F) {
	f.Add("podSelector: {}\nedgy: 1\ningress: [{from: [{ipBlock: {cidr: x, except: [y]}}], ports: [{port: -1, endPort: 70000}, {port: http}]}]")
	f.Add("subject: {pods: {}}\ntier: Admin\ningress: [{action: Deny, from: [{}], protocols: [{tcp: {destinationPort: {range: {start: 9, end: 1}}}}]}]")
	f.Add("subject: {namespaces: {matchExpressions: [{key: a, operator: Near}]}}\negress: [{action: Pass, to: [{nodes: {}}, {domainNames: [a]}], ports: [{namedPort: x}]}]")
	f.Fuzz(func(t *testing.T, text string) {
		var spec map[string]any
		if yaml.Unmarshal([]byte(text), &spec) != nil {
			return
		}
		base := live(t, nil, simplePod("web", "app: web"))
		for _, kind := range []schema.GroupVersionKind{
			{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"}, {Group: policyGroup, Version: "v1alpha1", Kind: "AdminNetworkPolicy"},
			{Group: policyGroup, Version: "v1alpha2", Kind: "ClusterNetworkPolicy"},
		} {
			o := base.inv.Kind("", "Namespace")[0].DeepCopy()
			o.SetGroupVersionKind(kind)
			o.SetNamespace("shop")
			o.Object["spec"] = spec
			inv, err := inventory.New(inventory.Cluster, append(base.inv.Objects(), &inventory.Object{Unstructured: o}), nil)
			if err != nil {
				t.Fatal(err)
			}
			n, err := New(inv)
			if err != nil {
				continue
			}
			for _, findings := range [][]finding.Verdict{n.Metadata(), n.NodeAccess(), n.Selectors(), n.DefaultDenyIngress(), n.DefaultDenyEgress(), n.Coverage()} {
				for _, f := range findings {
					if f.Status == "" {
						t.Errorf("%s: a finding without a status", kind.Kind)
					}
				}
			}
		}
	})
}
