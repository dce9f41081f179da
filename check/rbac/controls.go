package rbac

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// AdminBindings says for each ClusterRoleBinding whether it gives every right
// to anyone but Kubernetes' own components and administrators.
func (a *Access) AdminBindings() []finding.Verdict {
	var out []finding.Verdict
	for _, b := range a.bindings {
		if b.namespace == "" {
			f := a.adminBinding(b)
			f.Subject = b.Subject()
			out = append(out, f)
		}
	}
	return out
}

func (a *Access) adminBinding(b *binding) finding.Verdict {
	r := a.roles[b.role]
	outsiders := slices.DeleteFunc(slices.Clone(b.subjects), identity.system)
	ours := b.GetLabels()[bootstrap] == bootstrapDefaults && r != nil && r.rights&everything == 0
	switch {
	case ours || len(outsiders) == 0 && len(b.subjects) > 0:
		return finding.Verdict{Status: finding.NotApplicable, Reason: "binds only components and administrators of Kubernetes"}
	case len(b.subjects) == 0:
		return finding.Verdict{Status: finding.Pass, Evidence: "binds nobody"}
	case r == nil && a.inv.Gap("rbac.authorization.k8s.io", "ClusterRole") != "":
		return finding.Verdict{Status: finding.Unknown, Reason: "ClusterRole objects could not be read"}
	case r == nil && a.inv.Origin == inventory.Files && !baseline[b.role.name]:
		return finding.Verdict{Status: finding.Unknown, Reason: "the ClusterRole it refers to is not among the files"}
	case r == nil || r.rights&everything == 0:
		return finding.Verdict{Status: finding.Pass}
	}
	return finding.Verdict{
		Status:   finding.Fail,
		Message:  fmt.Sprintf("gives every right in the cluster to %s", join(outsiders)),
		Evidence: "roleRef ClusterRole/" + b.role.name,
		Grantees: grantees(outsiders...),
	}
}

// baseline are the ClusterRoles that the API server binds to every identity,
// or to every service account. They grant discovery, and count as no right.
var baseline = map[string]bool{
	"system:basic-user":                       true,
	"system:cluster-trust-bundle-discovery":   true,
	"system:discovery":                        true,
	"system:public-info-viewer":               true,
	"system:service-account-issuer-discovery": true,
}

func (r *role) subject() finding.Subject {
	if r.object != nil {
		return r.object.Subject()
	}
	return finding.Subject{
		APIVersion: "rbac.authorization.k8s.io/v1", Kind: r.kind(), Namespace: r.namespace, Name: r.name,
		Source: r.granted[0].Source,
	}
}

// BuiltInReason is why a role that [Access.BuiltIn] knows is not judged.
const BuiltInReason = "Kubernetes creates this role for itself, and it is unchanged"

// BuiltIn reports whether o is a role that Kubernetes creates for itself, with
// no other wildcards than it is meant to have.
func (a *Access) BuiltIn(o *inventory.Object) bool {
	r := a.roles[roleKey{a.inv.NamespaceOf(o), o.GetName()}]
	return r != nil && r.object == o && !r.deviates(wildcard)
}

// DefaultAccounts says for each workload whether it runs as the default service
// account of its namespace, and for each default account whether a role is
// bound to it.
func (a *Access) DefaultAccounts() []finding.Verdict {
	var out []finding.Verdict
	for _, w := range a.inv.Workloads() {
		f := finding.Verdict{Status: finding.Pass, Subject: w.Subject()}
		if a.accountOf(w).name == defaultAccount {
			f.Status = finding.Fail
			f.Message = "runs as the default service account of its namespace"
			f.Evidence = "serviceAccountName is not set"
			if w.Template.Spec.ServiceAccountName == defaultAccount {
				f.Evidence = "serviceAccountName: default"
			}
		}
		out = append(out, f)
	}
	accounts := map[account]finding.Subject{}
	for acc, o := range a.accounts {
		accounts[acc] = o.Subject()
	}
	for id, bs := range a.granted {
		ns, name, ok := id.account()
		if _, have := accounts[account{ns, name}]; ok && !have {
			accounts[account{ns, name}] = finding.Subject{
				APIVersion: "v1", Kind: "ServiceAccount", Namespace: ns, Name: name, Source: bs[0].Source,
			}
		}
	}
	for _, acc := range slices.SortedFunc(maps.Keys(accounts), func(a, b account) int {
		return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name)
	}) {
		if acc.name == defaultAccount {
			f := a.defaultAccount(acc)
			f.Subject = accounts[acc]
			out = append(out, f)
		}
	}
	return out
}

func (a *Access) defaultAccount(acc account) finding.Verdict {
	if bound := a.rightsOf(acc); len(bound) > 0 {
		return finding.Verdict{
			Status:   finding.Fail,
			Message:  "the default service account, which any pod of the namespace may use, has a role",
			Evidence: bound[0].Subject().String() + " grants " + bound[0].role.kind() + "/" + bound[0].role.name,
		}
	}
	if reason := a.doubt(acc.namespace, "RoleBinding", "ClusterRoleBinding"); reason != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: reason}
	}
	return finding.Verdict{Status: finding.Pass}
}

// rightsOf returns the bindings that give an account more than every identity
// has. In files a binding to a role that is not there counts: the role exists
// elsewhere. In a live cluster it grants nothing.
func (a *Access) rightsOf(acc account) []*binding {
	var out []*binding
	for _, id := range acc.identities() {
		for _, b := range a.granted[id] {
			r := a.roles[b.role]
			missing := r == nil && (a.inv.Origin == inventory.Files || a.inv.Gap("rbac.authorization.k8s.io", b.role.kind()) != "")
			if !baseline[b.role.name] && (missing || r != nil && (len(r.rules) > 0 || r.object == nil)) {
				out = append(out, b)
			}
		}
	}
	return out
}

// NeedlessTokens says for each workload whether a token for the API is mounted
// into its pods although its account has no right there.
func (a *Access) NeedlessTokens() []finding.Verdict {
	var out []finding.Verdict
	for _, w := range a.inv.Workloads() {
		f := a.needlessToken(w)
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func (a *Access) needlessToken(w *inventory.Workload) finding.Verdict {
	acc := a.accountOf(w)
	o, setting := a.accounts[acc], w.Template.Spec.AutomountServiceAccountToken
	if setting == nil && o != nil {
		setting = o.automount
	}
	if requestsToken(w) {
		setting = new(true)
	}
	switch {
	case setting != nil && !*setting:
		return finding.Verdict{Status: finding.Pass, Evidence: "automountServiceAccountToken: false"}
	case len(a.rightsOf(acc)) > 0:
		return finding.Verdict{Status: finding.Pass, Evidence: "the account has a role"}
	case setting == nil && o == nil && a.inv.Gap("", "ServiceAccount") != "":
		return finding.Verdict{Status: finding.Unknown, Reason: "ServiceAccount objects could not be read: " + a.inv.Gap("", "ServiceAccount")}
	case setting == nil && o == nil && acc.name != defaultAccount && a.inv.Origin == inventory.Files:
		return finding.Verdict{Status: finding.Unknown, Reason: "its ServiceAccount is not among the files"}
	}
	if reason := a.doubt(acc.namespace, "RoleBinding", "ClusterRoleBinding"); reason != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: reason}
	}
	return finding.Verdict{
		Status:   finding.Fail,
		Message:  "mounts an API token although its service account has no right",
		Evidence: "service account " + acc.namespace + "/" + acc.name,
	}
}

// requestsToken reports whether a volume of the workload holds a token for the
// API. One for another audience is of no use there.
func requestsToken(w *inventory.Workload) bool {
	return slices.ContainsFunc(w.Template.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil &&
				(s.ServiceAccountToken.Audience == "" || strings.Contains(s.ServiceAccountToken.Audience, "kubernetes.default"))
		})
	})
}

// SharedAccounts says for each workload whether another application runs as the
// same service account.
func (a *Access) SharedAccounts() []finding.Verdict {
	apps := map[account]map[string]bool{}
	for acc, ws := range a.users {
		apps[acc] = map[string]bool{}
		for _, w := range ws {
			apps[acc][application(w)] = true
		}
	}
	var out []finding.Verdict
	for _, w := range a.inv.Workloads() {
		f := a.sharedAccount(w, apps[a.accountOf(w)])
		f.Subject = w.Subject()
		out = append(out, f)
	}
	return out
}

func (a *Access) sharedAccount(w *inventory.Workload, apps map[string]bool) finding.Verdict {
	if len(apps) > 1 {
		return finding.Verdict{
			Status:   finding.Fail,
			Message:  fmt.Sprintf("shares service account %s with %d other applications", a.accountOf(w).name, len(apps)-1),
			Evidence: "applications " + list(slices.Sorted(maps.Keys(apps))),
		}
	}
	for _, gap := range a.inv.Gaps {
		if inventory.IsWorkload(gap.Kind) {
			return finding.Verdict{Status: finding.Unknown, Reason: gap.Kind.Kind + " objects could not be read: " + gap.Reason}
		}
	}
	if reason := a.doubt(a.inv.NamespaceOf(w.Object)); reason != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: reason}
	}
	return finding.Verdict{Status: finding.Pass}
}

// application names what a workload is part of: its recommended labels, else
// its app label, else itself.
func application(w *inventory.Workload) string {
	label := func(key string) string {
		if v := w.GetLabels()[key]; v != "" {
			return v
		}
		return w.Template.Labels[key]
	}
	if name := label("app.kubernetes.io/name"); name != "" {
		return strings.TrimPrefix(label("app.kubernetes.io/instance")+"/"+name, "/")
	}
	if app := label("app"); app != "" {
		return app
	}
	return w.GetName()
}

func join(ids []identity) string {
	var names []string
	for _, id := range ids[:min(len(ids), maxShown)] {
		names = append(names, id.String())
	}
	text := strings.Join(names, ", ")
	if more := len(ids) - maxShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
