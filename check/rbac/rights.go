package rbac

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// rights is a set of rights that deserve attention.
type rights uint8

const (
	wildcard    rights = 1 << iota // "*" among the verbs, resources or groups of a rule
	everything                     // every verb on every resource of every group
	readSecrets                    // secrets that the rule does not name
	escalate                       // bind, escalate or impersonate
	execute                        // commands in, or connections to, any pod
)

func rightsOf(rules []rbacv1.PolicyRule) rights {
	var r rights
	for _, rule := range rules {
		r |= rightsIn(rule)
	}
	return r
}

func rightsIn(rule rbacv1.PolicyRule) rights {
	var r rights
	set := func(right rights, holds bool) {
		if holds {
			r |= right
		}
	}
	star := func(list []string) bool { return slices.Contains(list, "*") }
	set(wildcard, star(rule.Verbs) || star(rule.APIGroups) || star(rule.Resources))
	set(everything, star(rule.Verbs) && star(rule.APIGroups) && star(rule.Resources) && len(rule.ResourceNames) == 0)
	set(readSecrets, len(rule.ResourceNames) == 0 && allows(rule, "", "secrets", "get", "list", "watch"))
	set(escalate, allowsBinding(rule) || allowsImpersonation(rule))
	set(execute,
		allows(rule, "", "pods/exec", "create", "get") ||
			allows(rule, "", "pods/attach", "create", "get") ||
			allows(rule, "", "pods/portforward", "create", "get") ||
			allows(rule, "", "pods/ephemeralcontainers", "create", "update", "patch"))
	return r
}

// allowsBinding reports whether a rule lets its holder bind roles that it does
// not name, or that take other rights themselves, or escalate any: to escalate
// a named role is to give it every right.
func allowsBinding(rule rbacv1.PolicyRule) bool {
	on := func(verb string) bool {
		return allows(rule, rbacv1.GroupName, "roles", verb) || allows(rule, rbacv1.GroupName, "clusterroles", verb)
	}
	return on("escalate") || on("bind") && named(rule, func(name string) bool { return userFacing[name]&escalate != 0 })
}

// allowsImpersonation reports whether a rule lets its holder become someone
// whom it does not name, or a component or administrator of Kubernetes.
func allowsImpersonation(rule rbacv1.PolicyRule) bool {
	may := func(resource string, privileged func(string) bool) bool {
		return allows(rule, "", resource, "impersonate") && named(rule, privileged)
	}
	systemUser := func(name string) bool { return identity{name: name}.system() }
	systemGroup := func(name string) bool { return identity{name, true}.system() || strings.HasPrefix(name, "system:") }
	if may("users", systemUser) || may("groups", systemGroup) || may("serviceaccounts", func(string) bool { return false }) {
		return true
	}
	if !overlap(rule.Verbs, "impersonate") || !overlap(rule.APIGroups, "authentication.k8s.io") {
		return false
	}
	return slices.ContainsFunc(rule.Resources, func(r string) bool {
		return r == "*" || r == "uids" || r == "userextras" || strings.HasPrefix(r, "userextras/")
	})
}

// named reports whether a rule names no object, or one that counts.
func named(rule rbacv1.PolicyRule, counts func(name string) bool) bool {
	return len(rule.ResourceNames) == 0 || slices.ContainsFunc(rule.ResourceNames, counts)
}

// allows reports whether a rule allows any of the verbs on a resource.
func allows(rule rbacv1.PolicyRule, group, resource string, verbs ...string) bool {
	return overlap(rule.APIGroups, group) && covers(rule.Resources, resource) && overlap(rule.Verbs, verbs...)
}

func overlap(list []string, any ...string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return s == "*" || slices.Contains(any, s) })
}

// covers reports whether the resources of a rule include one. "*" includes
// subresources, "*/exec" is exec of every resource, "pods/*" is nothing.
func covers(list []string, resource string) bool {
	if overlap(list, resource) {
		return true
	}
	_, sub, ok := strings.Cut(resource, "/")
	return ok && slices.Contains(list, "*/"+sub)
}

// show writes the first rule that gives a right, as evidence.
func show(rules []rbacv1.PolicyRule, right rights) string {
	for i, rule := range rules {
		if rightsIn(rule)&right == 0 {
			continue
		}
		return fmt.Sprintf("rule %d: verbs %s on %s in groups %s", i+1, list(rule.Verbs), list(rule.Resources), list(rule.APIGroups))
	}
	return ""
}

// maxShown bounds a list in a finding.
const maxShown = 8

func list(items []string) string {
	quoted := make([]string, 0, maxShown)
	for _, item := range items[:min(len(items), maxShown)] {
		quoted = append(quoted, fmt.Sprintf("%q", item))
	}
	text := strings.Join(quoted, ", ")
	if more := len(items) - maxShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// userFacing are the ClusterRoles that every cluster has for its users, and
// the rights they are meant to have.
var userFacing = map[string]rights{
	"cluster-admin": wildcard | everything | readSecrets | escalate | execute,
	"admin":         readSecrets | escalate | execute,
	"edit":          readSecrets | escalate | execute,
	"view":          0,
}

// internal are the other roles of Kubernetes' own components that are meant to
// have rights that deserve attention.
var internal = map[roleKey]rights{
	{"", "system:aggregate-to-edit"}:                              readSecrets | escalate | execute,
	{"", "system:kube-controller-manager"}:                        wildcard | readSecrets,
	{"", "system:kubelet-api-admin"}:                              wildcard,
	{"", "system:node"}:                                           readSecrets,
	{"", "system:controller:clusterrole-aggregation-controller"}:  escalate,
	{"", "system:controller:disruption-controller"}:               wildcard,
	{"", "system:controller:generic-garbage-collector"}:           wildcard | readSecrets | execute,
	{"", "system:controller:horizontal-pod-autoscaler"}:           wildcard,
	{"", "system:controller:namespace-controller"}:                wildcard | readSecrets | execute,
	{"", "system:controller:resourcequota-controller"}:            wildcard | readSecrets | execute,
	{"", "system:controller:storage-version-migrator-controller"}: wildcard | readSecrets | execute,
	{"kube-system", "system:controller:bootstrap-signer"}:         readSecrets,
	{"kube-system", "system:controller:token-cleaner"}:            readSecrets,
}

// The label of the roles and bindings that the API server creates when it
// starts.
const (
	bootstrap         = "kubernetes.io/bootstrapping"
	bootstrapDefaults = "rbac-defaults"
)

// known reports whether Kubernetes creates a role for itself, and the rights
// it is meant to have. The label alone excuses nothing: anyone can set it, so
// rights that deserve attention are excused by name.
func known(r *role) (meant rights, ours bool) {
	if r.object.GetLabels()[bootstrap] != bootstrapDefaults {
		return 0, false
	}
	meant = internal[r.roleKey]
	if r.namespace == "" {
		meant |= userFacing[r.name]
	}
	return meant, true
}

// deviates reports whether a role has a right that Kubernetes did not give it.
func (r *role) deviates(right rights) bool { return !r.ours || r.rights&^r.meant&right != 0 }
