// Package rbac says which rights roles hold and who is granted them.
//
// It judges what rules allow, never how a role is called, and matches rules as
// the API server does: "*" covers subresources, "*/exec" covers that
// subresource of every resource, "pods/*" covers nothing. A service account
// holds its own bindings and those of its groups. The roles that every API
// server creates for itself are known, with the rights they are meant to have;
// only deviation from them is reported.
//
// A live inventory is whole. A file inventory speaks for a namespace only if
// it holds the Namespace object; for other namespaces, bindings and workloads
// that are missing may exist elsewhere, and what depends on them is unknown.
package rbac

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Access is the RBAC view of one inventory, safe for concurrent use.
type Access struct {
	inv      *inventory.Inventory
	roles    map[roleKey]*role
	order    []*role
	bindings []*binding
	granted  map[identity][]*binding           // by subject
	accounts map[account]*accountObject        // that have an object
	users    map[account][]*inventory.Workload // the workloads of each account
	byGet    bool                              // the API server may take get for commands in pods
}

// A roleKey names a Role, or a ClusterRole when namespace is empty.
type roleKey struct{ namespace, name string }

func (k roleKey) kind() string {
	if k.namespace == "" {
		return "ClusterRole"
	}
	return "Role"
}

// A role is a Role or a ClusterRole with the rules it has once aggregated.
type role struct {
	roleKey
	object  *inventory.Object // nil for a known ClusterRole that is not in the inventory
	rules   []rbacv1.PolicyRule
	rights  rights
	ours    bool   // Kubernetes creates it for itself
	meant   rights // and gives it these
	open    bool   // aggregates roles that may not be in the inventory
	granted []*binding
}

// A binding grants a role to its subjects, in one namespace or everywhere.
type binding struct {
	*inventory.Object
	namespace string // "" for a ClusterRoleBinding
	role      roleKey
	subjects  []identity
}

// An account is a service account.
type account struct{ namespace, name string }

type accountObject struct {
	*inventory.Object
	automount *bool
}

// An identity is a user or a group. A service account is a user.
type identity struct {
	name  string
	group bool
}

func (a account) identity() identity {
	return identity{name: "system:serviceaccount:" + a.namespace + ":" + a.name}
}

// identities returns who an account is: itself and its groups.
func (a account) identities() []identity {
	return []identity{
		a.identity(),
		{"system:serviceaccounts:" + a.namespace, true},
		{"system:serviceaccounts", true},
		{"system:authenticated", true},
	}
}

func (id identity) String() string {
	if ns, name, ok := id.account(); ok {
		return "service account " + ns + "/" + name
	}
	if id.group {
		return "group " + id.name
	}
	return "user " + id.name
}

// grantees writes identities as the subjects of a binding.
func grantees(ids ...identity) []finding.Grantee {
	var out []finding.Grantee
	for _, id := range ids {
		g := finding.Grantee{Kind: "User", Name: id.name}
		if ns, name, ok := id.account(); ok {
			g = finding.Grantee{Kind: "ServiceAccount", Namespace: ns, Name: name}
		} else if id.group {
			g.Kind = "Group"
		}
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// account returns the service account that the identity is.
func (id identity) account() (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(id.name, "system:serviceaccount:")
	if !ok || id.group {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// system reports whether the identity is a component of Kubernetes or the
// group of its administrators, and not a workload, everyone or nobody. The API
// server lets no one else use the prefix system:.
func (id identity) system() bool {
	if id.group {
		return id.name == "system:masters" || id.name == "kubeadm:cluster-admins"
	}
	if namespace, _, ok := id.account(); ok {
		return namespace == metav1.NamespaceSystem
	}
	return strings.HasPrefix(id.name, "system:") && id.name != "system:anonymous"
}

// execNeedsCreate is the first version of the API server that takes a command
// in a pod only with the verb create, whatever the method of the request.
var execNeedsCreate = version.MajorMinor(1, 35)

// New reads the roles, bindings and service accounts of inv. It fails on an
// object that is not of its kind's shape.
func New(inv *inventory.Inventory) (*Access, error) {
	a := &Access{
		inv:      inv,
		roles:    map[roleKey]*role{},
		granted:  map[identity][]*binding{},
		accounts: map[account]*accountObject{},
		users:    map[account][]*inventory.Workload{},
		byGet:    true,
	}
	if v := inv.ServerAtLeast(); v != nil {
		a.byGet = v.LessThan(execNeedsCreate)
	}
	for _, read := range []func() error{a.readRoles, a.readBindings, a.readAccounts} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	for _, w := range inv.Workloads() {
		acc := a.accountOf(w)
		a.users[acc] = append(a.users[acc], w)
	}
	return a, nil
}

func (a *Access) kind(kind string) []*inventory.Object {
	return a.inv.Kind(rbacv1.GroupName, kind)
}

func (a *Access) readRoles() error {
	selectors := map[*role][]labels.Selector{}
	for _, o := range slices.Concat(a.kind("ClusterRole"), a.kind("Role")) {
		var c rbacv1.ClusterRole // a Role has the same rules and no aggregation
		if err := convert(o, &c); err != nil {
			return err
		}
		r := &role{roleKey: roleKey{a.inv.NamespaceOf(o), c.Name}, object: o, rules: c.Rules}
		if c.AggregationRule != nil {
			r.open = a.inv.Origin == inventory.Files
			for _, s := range c.AggregationRule.ClusterRoleSelectors {
				selector, err := metav1.LabelSelectorAsSelector(&s)
				if err != nil {
					return fmt.Errorf("read aggregationRule of %s: %w", o.Subject(), err)
				}
				selectors[r] = append(selectors[r], selector)
			}
		}
		a.roles[r.roleKey] = r
		a.order = append(a.order, r)
	}
	a.aggregate(selectors)
	for _, r := range a.order {
		r.rights = rightsOf(r.rules, a.byGet)
		r.meant, r.ours = known(r)
	}
	return nil
}

// aggregate adds the rules of the ClusterRoles that aggregating ones select, as
// a controller does in a live cluster, until nothing changes.
func (a *Access) aggregate(selectors map[*role][]labels.Selector) {
	parts := map[*role][]*role{}
	for r := range selectors {
		for _, part := range a.order {
			matches := func(s labels.Selector) bool { return s.Matches(labels.Set(part.object.GetLabels())) }
			if part != r && part.namespace == "" && slices.ContainsFunc(selectors[r], matches) {
				parts[r] = append(parts[r], part)
			}
		}
	}
	own := map[*role][]rbacv1.PolicyRule{}
	for _, r := range a.order {
		own[r] = r.rules
	}
	for r := range parts {
		seen := map[*role]bool{r: true}
		for queue := slices.Clone(parts[r]); len(queue) > 0; queue = queue[1:] {
			if part := queue[0]; !seen[part] {
				seen[part] = true
				r.rules = append(r.rules[:len(r.rules):len(r.rules)], own[part]...)
				queue = append(queue, parts[part]...)
			}
		}
	}
}

func (a *Access) readBindings() error {
	for _, o := range slices.Concat(a.kind("ClusterRoleBinding"), a.kind("RoleBinding")) {
		var rb rbacv1.RoleBinding // a ClusterRoleBinding has the same shape
		if err := convert(o, &rb); err != nil {
			return err
		}
		b := &binding{Object: o, namespace: a.inv.NamespaceOf(o), role: roleKey{name: rb.RoleRef.Name}}
		if rb.RoleRef.Kind == "Role" {
			b.role.namespace = b.namespace
		}
		for _, s := range rb.Subjects {
			id := identify(s, b.namespace)
			b.subjects = append(b.subjects, id)
			a.granted[id] = append(a.granted[id], b)
		}
		a.bindings = append(a.bindings, b)
		if r := a.lookup(b.role); r != nil {
			r.granted = append(r.granted, b)
		}
	}
	return nil
}

// lookup returns a role, or nil. The ClusterRoles that every cluster has for
// its users are known even where they are not in the inventory.
func (a *Access) lookup(key roleKey) *role {
	if r := a.roles[key]; r != nil {
		return r
	}
	meant, ok := userFacing[key.name]
	if key.namespace != "" || !ok || a.inv.Origin == inventory.Cluster {
		return nil
	}
	r := &role{roleKey: key, rights: meant, meant: meant, ours: true}
	a.roles[key] = r
	a.order = append(a.order, r)
	return r
}

func identify(s rbacv1.Subject, namespace string) identity {
	if s.Kind == rbacv1.ServiceAccountKind {
		return account{cmp.Or(s.Namespace, namespace), s.Name}.identity()
	}
	return identity{s.Name, s.Kind == rbacv1.GroupKind}
}

func (a *Access) readAccounts() error {
	for _, o := range a.inv.Kind("", "ServiceAccount") {
		var sa corev1.ServiceAccount
		if err := convert(o, &sa); err != nil {
			return err
		}
		a.accounts[account{a.inv.NamespaceOf(o), sa.Name}] = &accountObject{o, sa.AutomountServiceAccountToken}
	}
	return nil
}

// defaultAccount is what a pod runs as that names no other account.
const defaultAccount = "default"

func (a *Access) accountOf(w *inventory.Workload) account {
	spec := w.Template.Spec
	return account{
		a.inv.NamespaceOf(w.Object),
		cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount, defaultAccount),
	}
}

// Workloads returns the workloads that a role or binding gives its rights to,
// or that run as a service account.
func (a *Access) Workloads(s finding.Subject) []*inventory.Workload {
	namespace := cmp.Or(s.Namespace, metav1.NamespaceDefault)
	if s.Kind == "ClusterRole" || s.Kind == "ClusterRoleBinding" {
		namespace = ""
	}
	var held []*binding
	switch s.Kind {
	case "ServiceAccount":
		return a.users[account{namespace, s.Name}]
	case "Role", "ClusterRole":
		if r := a.roles[roleKey{namespace, s.Name}]; r != nil {
			held = r.granted
		}
	default:
		held = slices.DeleteFunc(slices.Clone(a.bindings), func(b *binding) bool {
			return b.namespace != namespace || b.GetName() != s.Name
		})
	}
	subjects := map[identity]bool{}
	for _, b := range held {
		for _, id := range b.subjects {
			subjects[id] = true
		}
	}
	var out []*inventory.Workload
	for _, w := range a.inv.Workloads() {
		if slices.ContainsFunc(a.accountOf(w).identities(), func(id identity) bool { return subjects[id] }) {
			out = append(out, w)
		}
	}
	return out
}

// doubt says why objects of these RBAC kinds that are missing for a namespace
// may exist all the same, or "".
func (a *Access) doubt(namespace string, kinds ...string) string {
	if reason := a.unread(kinds...); reason != "" {
		return reason
	}
	if a.inv.Origin == inventory.Files && a.inv.Get("", "Namespace", "", namespace) == nil {
		return "the Namespace is not among the files; what is not here may exist elsewhere"
	}
	return ""
}

// unread says why objects of some RBAC kinds could not be read, or "".
func (a *Access) unread(kinds ...string) string {
	for _, kind := range kinds {
		if reason := a.inv.Gap(rbacv1.GroupName, kind); reason != "" {
			return kind + " objects could not be read: " + reason
		}
	}
	return ""
}

func convert(o *inventory.Object, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		return fmt.Errorf("read %s: %w", o.Subject(), err)
	}
	return nil
}
