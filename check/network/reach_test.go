package network

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A world is a small cluster that is made by chance.
type world struct {
	pods     []string // as YAML, one object each
	policies []string
}

var spaces = []string{"a", "b", "c"}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func randomWorld(r *rand.Rand) world {
	var w world
	for i := range 3 + r.IntN(6) {
		host := pick(r, "", "", "", ", hostNetwork: true")
		port := pick(r, "", "ports: [{name: web, containerPort: 80}]", "ports: [{name: web, containerPort: 8080}, {name: dns, protocol: UDP, containerPort: 53}]")
		w.pods = append(w.pods, fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: %s, labels: {app: %s, tier: %s}}, spec: {containers: [{name: c, image: i, %s}]%s}}",
			i, pick(r, spaces...), pick(r, "front", "back"), pick(r, "gold", "tin"), port, host))
	}
	for i := range r.IntN(5) {
		w.policies = append(w.policies, networkPolicy(fmt.Sprintf("n%d", i), pick(r, spaces...), randomSelector(r), pick(r, "", ", policyTypes: [Ingress]", ", policyTypes: [Egress]", ", policyTypes: [Ingress, Egress]"), randomRules(r, "from"), randomRules(r, "to")))
	}
	for i := range r.IntN(4) {
		w.policies = append(w.policies, randomClusterPolicy(r, i))
	}
	return w
}

func networkPolicy(name, ns, selector, types, ingress, egress string) string {
	return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: %s}, spec: {podSelector: %s%s%s%s}}", name, ns, selector, types, ingress, egress)
}

func randomSelector(r *rand.Rand) string {
	return pick(r, "{}", "{matchLabels: {app: front}}", "{matchLabels: {app: back, tier: gold}}", "{matchExpressions: [{key: tier, operator: NotIn, values: [gold]}]}")
}

func randomSpaces(r *rand.Rand) string {
	return pick(r, "{}", "{matchLabels: {kubernetes.io/metadata.name: a}}", "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [b, c]}]}")
}

func randomRules(r *rand.Rand, side string) string {
	var rules []string
	for range r.IntN(3) {
		var peers []string
		for range r.IntN(3) {
			peers = append(peers, pick(r, "{podSelector: "+randomSelector(r)+"}", "{namespaceSelector: "+randomSpaces(r)+"}",
				"{namespaceSelector: "+randomSpaces(r)+", podSelector: "+randomSelector(r)+"}", "{ipBlock: {cidr: 0.0.0.0/0}}"))
		}
		var fields []string
		if len(peers) > 0 {
			fields = append(fields, side+": ["+strings.Join(peers, ", ")+"]")
		}
		if ports := pick(r, "", "{port: 80}", "{port: web}", "{protocol: UDP}", "{port: 8000, endPort: 9000}, {port: dns, protocol: UDP}"); ports != "" {
			fields = append(fields, "ports: ["+ports+"]")
		}
		rules = append(rules, "{"+strings.Join(fields, ", ")+"}")
	}
	key := map[string]string{"from": "ingress", "to": "egress"}[side]
	if len(rules) == 0 {
		return pick(r, "", ", "+key+": []")
	}
	return ", " + key + ": [" + strings.Join(rules, ", ") + "]"
}

// randomClusterPolicy writes the same rules in the older form or in the newer.
func randomClusterPolicy(r *rand.Rand, i int) string {
	older := r.IntN(2) == 0
	rules := func(side string) string {
		var out []string
		for range r.IntN(3) {
			peer := pick(r, "{namespaces: "+randomSpaces(r)+"}", "{pods: {namespaceSelector: "+randomSpaces(r)+", podSelector: "+randomSelector(r)+"}}")
			action, ports := pick(r, "Accept", "Deny", "Pass"), pick(r, "", ", protocols: [{tcp: {destinationPort: {number: 80}}}]", ", protocols: [{udp: {}}, {destinationNamedPort: web}]")
			if older {
				action = strings.Replace(action, "Accept", "Allow", 1)
				ports = pick(r, "", ", ports: [{portNumber: {protocol: TCP, port: 80}}]", ", ports: [{portRange: {protocol: UDP, start: 0, end: 65535}}, {namedPort: web}]")
			}
			out = append(out, fmt.Sprintf("{action: %s, %s: [%s]%s}", action, side, peer, ports))
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	subject := pick(r, "{namespaces: "+randomSpaces(r)+"}", "{pods: {namespaceSelector: "+randomSpaces(r)+", podSelector: "+randomSelector(r)+"}}")
	head := fmt.Sprintf("apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c%d}, spec: {tier: %s, priority: %d", i, pick(r, "Admin", "Baseline"), i)
	if older {
		kind := pick(r, "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
		head = fmt.Sprintf("apiVersion: policy.networking.k8s.io/v1alpha1, kind: %s, metadata: {name: c%d}, spec: {priority: %d", kind, i, i)
	}
	return fmt.Sprintf("{%s, subject: %s, ingress: %s, egress: %s}}", head, subject, rules("from"), rules("to"))
}

func settle(t testing.TB, objects ...string) *Network {
	t.Helper()
	for _, ns := range spaces {
		objects = append(objects, "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+"}}")
	}
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(objects, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(inv)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tried are the ports that the tests connect to.
var tried = []span{tcp(80), tcp(8080), tcp(8500), {1<<16 | 53, 1<<16 | 53}}

// pairs lists all connections between different pods.
func pairs(n *Network) map[string]bool {
	out := map[string]bool{}
	for _, from := range n.inv.Workloads() {
		for _, to := range n.inv.Workloads() {
			if from == to {
				continue
			}
			open := n.reach.between(n.reach.of[from], n.reach.of[to])
			for _, p := range tried {
				if includes(open, p.from) {
					out[fmt.Sprintf("%s → %s %s", from.GetName(), to.GetName(), format([]span{p}))] = true
				}
			}
		}
	}
	return out
}

// TestReachAgreesWithTheRules compares the rows with the rules of the standards,
// applied to one connection at a time.
func TestReachAgreesWithTheRules(t *testing.T) {
	total, open := 0, 0
	for seed := range uint64(400) {
		w := randomWorld(rand.New(rand.NewPCG(seed, 1)))
		n := settle(t, slices.Concat(w.pods, w.policies)...)
		got := pairs(n)
		for _, from := range n.inv.Workloads() {
			for _, to := range n.inv.Workloads() {
				for _, p := range tried {
					if from == to {
						continue
					}
					name := fmt.Sprintf("%s → %s %s", from.GetName(), to.GetName(), format([]span{p}))
					want := from.Template.Spec.HostNetwork || admitted(t, n, from, to, egress, p.from) && admitted(t, n, to, from, ingress, p.from)
					total++
					if want {
						open++
					}
					if got[name] != want {
						t.Fatalf("seed %d: %s is %v, want %v\n%s", seed, name, got[name], want, strings.Join(slices.Concat(w.pods, w.policies), "\n"))
					}
				}
			}
		}
	}
	if open == 0 || open == total {
		t.Errorf("%d of %d connections are open: the worlds show nothing", open, total)
	}
}

// admitted applies the rules of the standards to what one pod says of one
// connection, in the order in which they are written.
func admitted(t *testing.T, n *Network, self, other *inventory.Workload, d direction, port uint32) bool {
	if self.Template.Spec.HostNetwork {
		return true
	}
	cluster, err := clusterPolicies(n.inv)
	if err != nil {
		t.Fatal(err)
	}
	server := self
	if d == egress {
		server = other
	}
	if verdict := inTier(t, n, cluster, false, self, other, server, d, port); verdict != pass {
		return verdict == allow
	}
	isolated := false
	for _, p := range n.policies[n.inv.NamespaceOf(self.Object)] {
		if !matchesLabels(t, &p.spec.PodSelector, self.Template.Labels) || p.direction&d == 0 {
			continue
		}
		isolated = true
		for _, r := range p.rules(d) {
			peer := len(r.peers) == 0
			for _, q := range r.peers {
				peer = peer || peerMatches(t, n, p, q.NamespaceSelector, q.PodSelector, q.IPBlock != nil, other)
			}
			on := len(r.ports) == 0
			for _, q := range r.ports {
				protocol := corev1.ProtocolTCP
				if q.Protocol != nil {
					protocol = *q.Protocol
				}
				switch {
				case q.Port == nil:
					on = on || protocols[port>>16] == protocol
				case q.Port.StrVal != "":
					on = on || hasNamed(server, q.Port.StrVal, protocol, port)
				default:
					end := q.Port.IntVal
					if q.EndPort != nil {
						end = *q.EndPort
					}
					on = on || protocols[port>>16] == protocol && int32(port&maxPort) >= q.Port.IntVal && int32(port&maxPort) <= end
				}
			}
			if peer && on {
				return true
			}
		}
	}
	return !isolated && inTier(t, n, cluster, true, self, other, server, d, port) != deny
}

func peerMatches(t *testing.T, n *Network, p *policy, spaces, pods *metav1.LabelSelector, everyAddress bool, other *inventory.Workload) bool {
	if everyAddress {
		return true
	}
	ns := n.inv.NamespaceOf(other.Object)
	inSpace := ns == n.inv.NamespaceOf(p.Object)
	if spaces != nil {
		inSpace = matchesLabels(t, spaces, map[string]string{corev1.LabelMetadataName: ns})
	}
	return inSpace && !other.Template.Spec.HostNetwork && (pods == nil || matchesLabels(t, pods, other.Template.Labels))
}

func inTier(t *testing.T, n *Network, policies []ranked, baseline bool, self, other, server *inventory.Workload, d direction, port uint32) action {
	matches := func(p clusterPeer, w *inventory.Workload) bool {
		ns := map[string]string{corev1.LabelMetadataName: n.inv.NamespaceOf(w.Object)}
		if p.Namespaces != nil {
			return !w.Template.Spec.HostNetwork && matchesLabels(t, p.Namespaces, ns)
		}
		return !w.Template.Spec.HostNetwork && matchesLabels(t, &p.Pods.NamespaceSelector, ns) && matchesLabels(t, &p.Pods.PodSelector, w.Template.Labels)
	}
	for _, p := range policies {
		if p.baseline != baseline || !matches(p.Spec.Subject, self) {
			continue
		}
		rules := p.Spec.Ingress
		if d == egress {
			rules = p.Spec.Egress
		}
		for _, r := range rules {
			on := (r.Ports == nil) && len(r.Protocols) == 0
			for _, q := range r.Protocols {
				on = on || q.TCP != nil && port == 80 || q.UDP != nil && port>>16 == 1 || q.NamedPort != "" && hasNamed(server, q.NamedPort, "", port)
			}
			if r.Ports != nil {
				for _, q := range *r.Ports {
					on = on || q.PortNumber != nil && port == 80 || q.PortRange != nil && port>>16 == 1 || q.NamedPort != nil && hasNamed(server, *q.NamedPort, "", port)
				}
			}
			if on && matches(slices.Concat(r.From, r.To)[0], other) {
				return actions[r.Action]
			}
		}
	}
	return pass
}

func hasNamed(w *inventory.Workload, name string, protocol corev1.Protocol, port uint32) bool {
	for _, p := range w.Template.Spec.Containers[0].Ports {
		if p.Name == name && (protocol == "" || protocolOf(p.Protocol) == protocol) && protocolOf(p.Protocol) == protocols[port>>16] && uint32(p.ContainerPort) == port&maxPort {
			return true
		}
	}
	return false
}

func matchesLabels(t *testing.T, s *metav1.LabelSelector, set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(set))
}

// TestLaws holds for every world: a default deny never adds a connection, and a
// policy that allows never takes one from pods that are isolated already.
func TestLaws(t *testing.T) {
	closed, opened := 0, 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := randomWorld(r)
		objects := slices.Concat(w.pods, w.policies)
		before := pairs(settle(t, objects...))
		deny := networkPolicy("deny", pick(r, spaces...), "{}", ", policyTypes: [Ingress, Egress]", "", "")
		after := pairs(settle(t, append(slices.Clone(objects), deny)...))
		for pair := range after {
			if !before[pair] {
				t.Fatalf("seed %d: a default deny adds %s", seed, pair)
			}
		}
		closed += len(before) - len(after)
		for _, ns := range spaces {
			objects = append(objects, networkPolicy("deny", ns, "{}", ", policyTypes: [Ingress, Egress]", "", ""))
		}
		isolated := pairs(settle(t, objects...))
		more := networkPolicy("more", pick(r, spaces...), randomSelector(r), ", policyTypes: [Ingress, Egress]", randomRules(r, "from"), randomRules(r, "to"))
		allowed := pairs(settle(t, append(objects, more)...))
		for pair := range isolated {
			if !allowed[pair] {
				t.Fatalf("seed %d: %s takes away %s", seed, more, pair)
			}
		}
		opened += len(allowed) - len(isolated)
	}
	if closed == 0 || opened == 0 {
		t.Errorf("%d connections closed, %d opened: the worlds show nothing", closed, opened)
	}
}

func TestPortSets(t *testing.T) {
	table := newPortTable()
	r := rand.New(rand.NewPCG(1, 1))
	random := func() []span {
		var out []span
		for range r.IntN(5) {
			from := uint32(r.IntN(60))
			out = append(out, span{from, from + uint32(r.IntN(20))})
		}
		return out
	}
	for range 2000 {
		x, y := random(), random()
		in := func(spans []span, p uint32) bool {
			return slices.ContainsFunc(spans, func(s span) bool { return s.from <= p && p <= s.to })
		}
		a, b := table.name(slices.Clone(x)), table.name(slices.Clone(y))
		and, or, minus := table.sets[table.and(a, b)], table.sets[table.or(a, b)], table.sets[table.andNot(a, b)]
		for p := range uint32(90) {
			one, other := in(x, p), in(y, p)
			if includes(and, p) != (one && other) || includes(or, p) != (one || other) || includes(minus, p) != (one && !other) {
				t.Fatalf("%v and %v at %d: %v, %v, %v", x, y, p, and, or, minus)
			}
		}
		if slices.Reverse(x); table.name(x) != a {
			t.Fatalf("%v has two names", x)
		}
		if table.or(table.and(a, b), table.andNot(a, b)) != a {
			t.Fatalf("%v is not the sum of its parts", x)
		}
	}
	if table.name([]span{{0, maxPort}, {1 << 16, 3<<16 - 1}}) != everyPort || table.name(nil) != noPort {
		t.Error("the whole and the empty set have other names")
	}
	if got := format(table.sets[everyPort]); got != "every TCP port, every UDP port, every SCTP port" {
		t.Errorf("format = %q", got)
	}
	if got := format([]span{tcp(80), {443, 445}, {1<<16 | 53, 1<<16 | 53}}); got != "80/TCP, 443-445/TCP, 53/UDP" {
		t.Errorf("format = %q", got)
	}
}

func TestSets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var members [2][]int
		for i := range members {
			at := r.IntN(300)
			for range r.IntN(6) {
				members[i] = append(members[i], at+r.IntN(200))
			}
		}
		a, b := setOf(members[0]), setOf(members[1])
		from := r.IntN(200)
		window := between(from, from+r.IntN(150))
		for n := range 520 {
			one, other := slices.Contains(members[0], n), slices.Contains(members[1], n)
			if a.has(n) != one || a.and(b).has(n) != (one && other) || a.or(b).has(n) != (one || other) || a.andNot(b).has(n) != (one && !other) {
				t.Fatalf("%v and %v at %d", members[0], members[1], n)
			}
			if a.and(window).has(n) != (one && window.has(n)) {
				t.Fatalf("%v in a window from %d at %d", members[0], from, n)
			}
		}
		slices.Sort(members[0])
		if got := slices.Collect(a.all); !slices.Equal(got, slices.Compact(members[0])) {
			t.Fatalf("all = %v, want %v", got, members[0])
		}
		if !a.andNot(a).empty() || a.empty() != (len(members[0]) == 0) {
			t.Fatalf("empty is wrong for %v", members[0])
		}
	}
}

// TestExplain names the rule that lets a connection through.
func TestExplain(t *testing.T) {
	pod := "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: front}}, spec: {containers: [{name: c, image: i, ports: [{name: web, containerPort: 80}]}]}}"
	deny := networkPolicy("deny", "a", "{}", "", "", "")
	tests := []struct{ name, policy, want string }{
		{"nothing", "", "no policy isolates its pods for ingress"},
		{"a number", networkPolicy("open", "a", "{}", "", ", ingress: [{ports: [{port: 80}]}]", ""), "NetworkPolicy open at "},
		{"a name", networkPolicy("open", "a", "{}", "", ", ingress: [{ports: [{port: web}]}]", ""), "NetworkPolicy open at "},
		{"an admin", "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: open}, spec: {priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]}}", "AdminNetworkPolicy open at "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects := []string{pod}
			if tt.policy != "" {
				objects = append(objects, deny, tt.policy)
			}
			n := settle(t, objects...)
			if got := n.reach.explain(0, ingress, n.reach.stranger, 80); !strings.HasPrefix(got, tt.want) {
				t.Errorf("explain = %q, want %q", got, tt.want)
			}
		})
	}
}

// town is a cluster with one default deny for each namespace and one policy for
// each of its workloads, every one of which has five pods.
func town(b *testing.B, workloads, perNamespace int) *inventory.Inventory {
	b.Helper()
	var text strings.Builder
	for i := range workloads {
		ns, name := fmt.Sprintf("ns%d", i/perNamespace), fmt.Sprintf("w%d", i)
		if i%perNamespace == 0 {
			fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Namespace, metadata: {name: %s}}\n---\n%s\n", ns, networkPolicy("deny", ns, "{}", ", policyTypes: [Ingress, Egress]", "", ""))
		}
		for p := range 5 {
			fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Pod, metadata: {name: %s-%d, namespace: %s, labels: {app: %s}}, spec: {containers: [{name: c, image: postgres, ports: [{name: web, containerPort: 80}]}]}}\n", name, p, ns, name)
		}
		peer := fmt.Sprintf("{matchLabels: {app: w%d}}", i/perNamespace*perNamespace+(i+1)%perNamespace)
		fmt.Fprintf(&text, "---\n%s\n", networkPolicy(name, ns, "{matchLabels: {app: "+name+"}}", "", ", ingress: [{from: [{podSelector: "+peer+"}], ports: [{port: web}]}]", ", egress: [{to: [{podSelector: "+peer+"}], ports: [{port: web}]}]"))
	}
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	return inv
}

// BenchmarkReach has 10,000 pods in 2,000 classes and 2,200 policies: "rows"
// computes what every class may exchange with every other, "all" reads the
// objects too and asks who reaches each of 2,000 data stores.
func BenchmarkReach(b *testing.B) {
	inv := town(b, 2000, 10)
	n, err := New(inv)
	if err != nil {
		b.Fatal(err)
	}
	if got := len(n.reach.classes); got != 2001 {
		b.Fatalf("%d classes", got)
	}
	b.Run("rows", func(b *testing.B) {
		for b.Loop() {
			if _, err := newReach(n); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			n, err := New(inv)
			if err != nil {
				b.Fatal(err)
			}
			n.DataStores(func(w *inventory.Workload) []corev1.ContainerPort { return w.Template.Spec.Containers[0].Ports })
		}
	})
}
