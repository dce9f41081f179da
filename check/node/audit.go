package node

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// auditable are requests that an audit log must show, by what they are called.
// They are made by nobody in particular, in no namespace of note.
var auditable = []struct {
	name, group, resource, subresource, verbs string
}{
	{"requests for secrets", "", "secrets", "", "get list watch create update patch delete"},
	{"commands in containers", "", "pods", "exec", "create get"},
	{"attaching to containers", "", "pods", "attach", "create get"},
	{"changes of roles", "rbac.authorization.k8s.io", "roles", "", "create update patch delete"},
	{"changes of cluster roles", "rbac.authorization.k8s.io", "clusterroles", "", "create update patch delete"},
	{"changes of role bindings", "rbac.authorization.k8s.io", "rolebindings", "", "create update patch delete"},
	{"changes of cluster role bindings", "rbac.authorization.k8s.io", "clusterrolebindings", "", "create update patch delete"},
}

// unaudited returns which of those requests a policy keeps out of the log, by
// the evaluation that the API server uses.
func unaudited(p *auditv1.Policy) []string {
	if p == nil {
		return []string{"everything: it is empty"}
	}
	scheme := runtime.NewScheme()
	internal := &audit.Policy{}
	if err := auditv1.AddToScheme(scheme); err != nil {
		return []string{err.Error()}
	}
	if err := scheme.Convert(p, internal, nil); err != nil {
		return []string{err.Error()}
	}
	evaluator := policy.NewPolicyRuleEvaluator(internal)
	var out []string
	for _, r := range auditable {
		var missing []string
		for verb := range strings.FieldsSeq(r.verbs) {
			decision := evaluator.EvaluatePolicyRule(authorizer.AttributesRecord{
				User: &user.DefaultInfo{Name: "someone", Groups: []string{user.AllAuthenticated}},
				Verb: verb, Namespace: "some", Name: "some", APIGroup: r.group, APIVersion: "v1",
				Resource: r.resource, Subresource: r.subresource, ResourceRequest: true,
			})
			if decision.Level == audit.LevelNone {
				missing = append(missing, verb)
			}
		}
		if len(missing) > 0 {
			out = append(out, r.name+" ("+strings.Join(missing, ", ")+")")
		}
	}
	return out
}
