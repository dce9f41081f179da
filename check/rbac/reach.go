package rbac

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// AdminReachers says for each workload whether its service account can become
// administrator of the cluster by its grants, or by those of the identities
// that it can take over with them, and so on. The evidence of a failure is the
// shortest chain.
//
// Each identity is judged by the rights it has itself: what only the rights of
// two identities taken over make possible together is not seen.
func (a *Access) AdminReachers() []finding.Verdict {
	g := a.newGraph()
	sure, maybe := g.search(false), g.search(true)
	var out []finding.Verdict
	for _, w := range a.inv.Workloads() {
		f := finding.Verdict{Subject: w.Subject()}
		if acc := a.accountOf(w); acc.namespace == system {
			f.Status, f.Reason = finding.NotApplicable, "components in kube-system are part of Kubernetes"
		} else {
			a.reaches(&f, g, acc, sure, maybe)
		}
		out = append(out, f)
	}
	return out
}

func (a *Access) reaches(f *finding.Verdict, g *graph, acc account, sure, maybe *paths) {
	from := g.of[acc.identity()]
	doubt := a.doubt(acc.namespace, "RoleBinding", "ClusterRoleBinding", "Role", "ClusterRole")
	for _, b := range a.held(acc.identity()) {
		if a.inv.Origin == inventory.Files && a.roles[b.role] == nil && !baseline[b.role.name] {
			doubt = b.role.kind() + " " + b.role.name + ", which it holds, is not among the files"
		}
	}
	switch {
	case sure.reached(from):
		f.Status = finding.Fail
		f.Message = "its service account can become administrator of the cluster"
		f.Evidence = g.chain(from, sure)
	case maybe.reached(from):
		f.Status = finding.Unknown
		f.Reason = "its service account may become administrator of the cluster: " + g.chain(from, maybe)
	case doubt != "":
		f.Status, f.Reason = finding.Unknown, doubt
	default:
		f.Status = finding.Pass
	}
}

// A vertex is an identity, or a set of identities of which one can be taken.
// The first one stands for identities that hold nothing.
type vertex int

const (
	nobody vertex = iota
	administrator
	anyAccount // of every namespace
	anyPod     // the accounts that some pod runs as, of every namespace
)

// A step leads from one identity to another.
type step struct {
	to     vertex
	how    string
	right  rights   // that lead there
	scope  string   // the namespace in which they are held; "" for everywhere
	by     *binding // the grant, where it is not found by the rights
	unsure bool     // depends on what is not in the inventory
}

// A graph has for each identity the identities that it can take over. The hubs
// of accounts keep the number of steps linear in that of bindings and accounts.
type graph struct {
	access *Access
	names  []string
	ids    []identity // of the vertices that are identities
	steps  [][]step
	of     map[identity]vertex
	hubs   map[hub]vertex
}

// A hub is all accounts of a namespace, or those that its pods run as.
type hub struct {
	namespace string
	pods      bool
}

func (a *Access) newGraph() *graph {
	g := &graph{access: a, of: map[identity]vertex{}, hubs: map[hub]vertex{}}
	for _, name := range []string{"", "administrator of the cluster", "any service account", "the service account of any pod"} {
		g.add(name, identity{})
	}
	g.hubs[hub{"", false}], g.hubs[hub{"", true}] = anyAccount, anyPod
	accounts, others := map[account]bool{}, map[identity]bool{}
	for acc := range a.accounts {
		accounts[acc] = true
	}
	for acc := range a.users {
		accounts[acc] = true
	}
	for id := range a.granted {
		if ns, name, ok := id.account(); ok {
			accounts[account{ns, name}] = true
		} else {
			others[id] = true
		}
	}
	for _, id := range inOrder(others) {
		g.vertex(id)
	}
	for _, acc := range inOrder(accounts) {
		v := g.vertex(acc.identity())
		h := g.hub(acc.namespace, false)
		g.steps[h] = append(g.steps[h], step{to: v})
		if len(a.users[acc]) > 0 {
			h = g.hub(acc.namespace, true)
			g.steps[h] = append(g.steps[h], step{to: v})
		}
	}
	g.connect()
	return g
}

// inOrder returns the keys of a map in a fixed order, so that of two chains of
// one length the same is found each time.
func inOrder[K comparable, V any](m map[K]V) []K {
	return slices.SortedFunc(maps.Keys(m), func(a, b K) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}

func (g *graph) add(name string, id identity) vertex {
	g.names, g.ids, g.steps = append(g.names, name), append(g.ids, id), append(g.steps, nil)
	return vertex(len(g.names) - 1)
}

func (g *graph) vertex(id identity) vertex {
	v, have := g.of[id]
	if !have {
		v = g.add(id.String(), id)
		g.of[id] = v
	}
	return v
}

// hub returns the hub of a namespace and connects a new one to that of every
// namespace.
func (g *graph) hub(namespace string, pods bool) vertex {
	h := hub{namespace, pods}
	v, have := g.hubs[h]
	if have {
		return v
	}
	name := "any service account of " + namespace
	if pods {
		name = "the service account of any pod of " + namespace
	}
	v = g.add(name, identity{})
	g.hubs[h] = v
	all := g.hubs[hub{"", pods}]
	g.steps[all] = append(g.steps[all], step{to: v})
	return v
}

// connect adds the steps of every identity, and what is known of namespaces
// that files leave out.
func (g *graph) connect() {
	if g.access.inv.Origin == inventory.Files {
		h := g.hub(system, false)
		g.steps[h] = append(g.steps[h], step{to: administrator, how: "what the accounts of kube-system may do is not among the files", unsure: true})
	}
	tokens := g.access.tokens()
	for v := vertex(0); int(v) < len(g.ids); v++ {
		if id := g.ids[v]; id != (identity{}) {
			g.steps[v] = append(g.steps[v], g.stepsOf(id, tokens)...)
		}
	}
	for _, h := range inOrder(g.hubs) {
		if v := g.hubs[h]; !h.pods {
			pods := g.hub(h.namespace, true)
			g.steps[v] = append(g.steps[v], step{to: pods})
		}
	}
}

// held returns the bindings of an identity and of its groups.
func (a *Access) held(id identity) []*binding {
	ids := []identity{id}
	if ns, name, ok := id.account(); ok {
		ids = account{ns, name}.identities()
	} else if !id.group && id != anonymous {
		ids = append(ids, authenticated)
	}
	var out []*binding
	for _, id := range ids {
		out = append(out, a.granted[id]...)
	}
	return out
}

// stepsOf returns where the rights of an identity lead.
func (g *graph) stepsOf(id identity, tokens []account) []step {
	everywhere, in := rights(0), map[string]rights{}
	var out []step
	for _, b := range g.access.held(id) {
		r := g.access.roles[b.role]
		if r == nil {
			continue
		}
		if b.namespace == "" {
			everywhere |= r.rights
		} else {
			in[b.namespace] |= r.rights
		}
		if r.rights&named != 0 {
			out = append(out, g.namedSteps(b, r)...)
		}
	}
	out = append(out, g.scopeSteps(everywhere, "")...)
	out = append(out, clusterSteps(everywhere, in)...)
	for _, ns := range inOrder(in) {
		out = append(out, g.scopeSteps(in[ns]|everywhere, ns)...)
	}
	for _, acc := range tokens {
		if (everywhere|in[acc.namespace])&readSecrets != 0 {
			out = append(out, step{to: g.vertex(acc.identity()), how: "read its token in a Secret", right: readSecrets, scope: acc.namespace})
		}
	}
	return out
}

// A way is what some rights together lead to.
type way struct {
	right rights
	how   string
}

// ways to administrator, for rights that are held everywhere.
var ways = []way{
	{everything, "hold every right"},
	{becomeAnyone, "impersonate an administrator"},
	{bindRoles | bindEverywhere, "bind cluster-admin"},
	{escalateAll | changeClusterRoles, "give a ClusterRole every right"},
	{requestCerts | approve | signClients, "sign a certificate of a component"},
}

func clusterSteps(everywhere rights, in map[string]rights) []step {
	var out []step
	for _, w := range ways {
		if everywhere&w.right == w.right {
			out = append(out, step{to: administrator, how: w.how, right: w.right})
		}
	}
	if everywhere&mutate != 0 {
		out = append(out, step{to: anyAccount, how: "change pods as they are admitted", right: mutate})
	}
	if everywhere&proxyNodes != 0 {
		out = append(out, step{to: anyPod, how: "run commands through the kubelets", right: proxyNodes})
	}
	pods := everywhere
	for _, r := range in {
		pods |= r
	}
	if everywhere&writeVolumes != 0 && pods&makePods != 0 {
		out = append(out, step{to: anyPod, how: "mount the disk of a node as a volume", right: writeVolumes})
	}
	return out
}

// local are the ways to every account of the namespace in which the rights are
// held.
var local = []way{
	{makePods, "run a pod"},
	{makeTokens, "make a token"},
	{becomeAccounts, "impersonate it"},
	{makeSecrets | readSecrets, "make a Secret for its token and read it"},
	{bindRoles | bindHere, "bind cluster-admin in the namespace"},
	{escalateRoles | changeRoles, "give a Role every right"},
}

func (g *graph) scopeSteps(r rights, namespace string) []step {
	if r == 0 {
		return nil
	}
	var out []step
	accounts := g.hub(namespace, false)
	for _, w := range local {
		if r&w.right == w.right {
			out = append(out, step{to: accounts, how: w.how, right: w.right, scope: namespace})
			break
		}
	}
	if r&enter != 0 {
		out = append(out, step{to: g.hub(namespace, true), how: "run a command in a pod", right: enter, scope: namespace})
	}
	if r&readSecrets != 0 {
		reason := "read a token in a Secret"
		if g.access.inv.Origin == inventory.Cluster {
			reason += ", of which it is not known whether there is one"
		}
		out = append(out, step{to: accounts, how: reason, right: readSecrets, scope: namespace, unsure: true})
	}
	return out
}

// namedSteps returns where rules lead that name their objects.
func (g *graph) namedSteps(b *binding, r *role) []step {
	var out []step
	for _, rule := range r.rules {
		for _, name := range rule.ResourceNames {
			for _, id := range g.targets(rule, b, name) {
				out = append(out, step{to: g.vertex(id), how: "impersonate it or make a token for it", by: b})
			}
			if allows(rule, rbacv1.GroupName, "clusterroles", "bind") {
				out = append(out, g.bound(b, name)...)
			}
		}
	}
	return out
}

// targets returns the identities of a name that a rule lets its holder become.
func (g *graph) targets(rule rbacv1.PolicyRule, b *binding, name string) []identity {
	var out []identity
	if allows(rule, "", "users", "impersonate") && b.namespace == "" {
		out = append(out, identity{name: name})
	}
	if allows(rule, "", "groups", "impersonate") && b.namespace == "" {
		out = append(out, identity{name, true})
	}
	if !allows(rule, "", "serviceaccounts", "impersonate") && !allows(rule, "", "serviceaccounts/token", "create") {
		return out
	}
	if b.namespace != "" {
		return append(out, account{b.namespace, name}.identity())
	}
	for _, acc := range inOrder(g.access.accounts) {
		if acc.name == name {
			out = append(out, acc.identity())
		}
	}
	return out
}

// bound returns where the rights of a ClusterRole lead that the holder may bind
// to itself.
func (g *graph) bound(b *binding, name string) []step {
	r := g.access.lookup(roleKey{name: name})
	if r == nil {
		return nil
	}
	binds := slices.ContainsFunc(b.subjects, func(id identity) bool {
		return slices.ContainsFunc(g.access.held(id), func(other *binding) bool {
			o := g.access.roles[other.role]
			return o != nil && (o.rights&bindEverywhere != 0 && other.namespace == "" ||
				o.rights&bindHere != 0 && b.namespace != "" && (other.namespace == "" || other.namespace == b.namespace))
		})
	})
	if !binds {
		return nil
	}
	var out []step
	for _, s := range slices.Concat(g.scopeSteps(r.rights, b.namespace), clusterSteps(r.rights, nil)) {
		if b.namespace == "" || s.scope != "" {
			s.how, s.by, s.right, s.scope = "bind ClusterRole "+name+" to itself and "+s.how, b, bindEverywhere|bindHere, b.namespace
			out = append(out, s)
		}
	}
	return out
}
