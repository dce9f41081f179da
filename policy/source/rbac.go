package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// An rbac answers for the authorizer by the roles and bindings that are known.
type rbac struct {
	roles    map[roleName][]rbacv1.PolicyRule
	clusters []rbacv1.ClusterRole
	bindings []grant
}

// A roleName names a Role, or without a namespace a ClusterRole.
type roleName struct{ namespace, name string }

// A grant is a RoleBinding, or without a namespace a ClusterRoleBinding.
type grant struct {
	name, namespace string
	subjects        []rbacv1.Subject
	role            roleName
}

func (r *rbac) add(u *unstructured.Unstructured) error {
	if r.roles == nil {
		r.roles = map[roleName][]rbacv1.PolicyRule{}
	}
	read := func(into any) error { return runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into) }
	switch u.GetKind() {
	case "Role", "ClusterRole": // the fields of a Role are among those of the other
		var role rbacv1.ClusterRole
		if err := read(&role); err != nil {
			return err
		}
		name := roleName{role.Namespace, role.Name}
		if u.GetKind() == "ClusterRole" {
			name.namespace = ""
			r.clusters = append(r.clusters, role)
		}
		r.roles[name] = role.Rules
	case "RoleBinding", "ClusterRoleBinding":
		var binding rbacv1.RoleBinding
		if err := read(&binding); err != nil {
			return err
		}
		g := grant{binding.Name, binding.Namespace, binding.Subjects, roleName{binding.Namespace, binding.RoleRef.Name}}
		if u.GetKind() == "ClusterRoleBinding" {
			g.namespace = ""
		}
		if binding.RoleRef.Kind == "ClusterRole" {
			g.role.namespace = ""
		}
		r.bindings = append(r.bindings, g)
	}
	return nil
}

// aggregate gives ClusterRoles the rules of those that they select, as the
// controller of a cluster does.
func (r *rbac) aggregate() {
	for _, role := range r.clusters {
		if role.AggregationRule == nil {
			continue
		}
		var rules []rbacv1.PolicyRule
		for _, s := range role.AggregationRule.ClusterRoleSelectors {
			selector, err := metav1.LabelSelectorAsSelector(&s)
			for _, other := range r.clusters {
				if err == nil && other.Name != role.Name && selector.Matches(labels.Set(other.Labels)) {
					rules = append(rules, other.Rules...)
				}
			}
		}
		name := roleName{name: role.Name}
		r.roles[name] = append(slices.Clone(r.roles[name]), rules...)
	}
}

// Authorize implements [policy.Authorizer]. Where no binding is known nothing is, and
// a binding to a role that is not known leaves the answer open unless another
// allows.
func (r *rbac) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if len(r.bindings) == 0 {
		return authorizer.DecisionNoOpinion, "", errors.New("no RBAC bindings are given")
	}
	who := a.GetUser()
	if slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	var missing error
	for _, g := range r.bindings {
		if g.namespace != "" && g.namespace != a.GetNamespace() || !g.covers(who) {
			continue
		}
		rules, known := r.roles[g.role]
		if !known && g.role == (roleName{name: "cluster-admin"}) {
			return authorizer.DecisionAllow, "RBAC: allowed by cluster-admin", nil
		}
		if !known {
			missing = fmt.Errorf("binding %q gives a role that is not given: %q", g.name, g.role.name)
		}
		if slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return allows(&rule, a) }) {
			return authorizer.DecisionAllow, fmt.Sprintf("RBAC: allowed by %q", g.name), nil
		}
	}
	return authorizer.DecisionNoOpinion, "", missing
}

// covers reports whether a user is one of the subjects.
func (g *grant) covers(who user.Info) bool {
	return slices.ContainsFunc(g.subjects, func(s rbacv1.Subject) bool {
		switch s.Kind {
		case rbacv1.UserKind:
			return s.Name == who.GetName()
		case rbacv1.GroupKind:
			return slices.Contains(who.GetGroups(), s.Name)
		case rbacv1.ServiceAccountKind:
			namespace := s.Namespace
			if namespace == "" {
				namespace = g.namespace
			}
			return namespace != "" && serviceaccount.MatchesUsername(namespace, s.Name, who.GetName())
		}
		return false
	})
}

// allows reports whether a rule allows what is asked, as the API server's RBAC
// has it.
func allows(rule *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	has := func(list []string, value string) bool {
		return slices.Contains(list, "*") || slices.Contains(list, value)
	}
	if !has(rule.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool {
			prefix, wild := strings.CutSuffix(url, "*")
			return url == a.GetPath() || wild && strings.HasPrefix(a.GetPath(), prefix)
		})
	}
	resource := a.GetResource()
	if sub := a.GetSubresource(); sub != "" {
		resource += "/" + sub
		if slices.Contains(rule.Resources, "*/"+sub) {
			resource = "*/" + sub
		}
	}
	return has(rule.APIGroups, a.GetAPIGroup()) && has(rule.Resources, resource) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName()))
}
