package enrichment

import (
	"encoding/json"
	"slices"
	"strings"
)

// A policyRule is one rule of a role.
type policyRule struct {
	Verbs     []string `json:"verbs"`
	APIGroups []string `json:"apiGroups"`
	Resources []string `json:"resources"`
}

// A power is what leads from the rights of a role to others. A rule has it that
// allows one of the verbs on one of the resources.
type power struct {
	name      string
	verbs     []string
	group     string
	resources []string
}

// powers are the powers that are not everything.
func powers() []power {
	writes := []string{"create", "update", "patch", "delete", "deletecollection"}
	return []power{
		{"escalate", []string{"escalate"}, "rbac.authorization.k8s.io", []string{"roles", "clusterroles"}},
		{"bind", []string{"bind"}, "rbac.authorization.k8s.io", []string{"roles", "clusterroles"}},
		{"impersonate", []string{"impersonate"}, "", []string{"users", "groups", "serviceaccounts"}},
		{"tokens", []string{"create"}, "", []string{"serviceaccounts/token"}},
		{"exec", []string{"create", "get"}, "", []string{"pods/exec", "pods/attach"}},
		{"exec", []string{"update", "patch"}, "", []string{"pods/ephemeralcontainers"}},
		{"nodes-proxy", []string{"get", "create", "update", "patch", "delete"}, "", []string{"nodes/proxy"}},
		{"approve", []string{"update", "patch"}, "certificates.k8s.io", []string{"certificatesigningrequests/approval"}},
		{"approve", []string{"approve", "sign"}, "certificates.k8s.io", []string{"signers"}},
		{"admission", writes, "admissionregistration.k8s.io", []string{
			"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "mutatingadmissionpolicies",
			"mutatingadmissionpolicybindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
		}},
		{"secrets", []string{"get", "list", "watch"}, "", []string{"secrets"}},
	}
}

// rolePowers lists the powers of the role that the request writes, sorted.
func rolePowers(r *record) []string {
	text := r.text(r.enricher.refs.request)
	if strings.HasPrefix(text, "[") && strings.Contains(text, "rules") {
		text = r.text(r.enricher.refs.response) // a JSON patch says only what is new
	}
	var role struct {
		Rules []policyRule `json:"rules"`
	}
	if json.Unmarshal([]byte(text), &role) != nil {
		return nil
	}
	var names []string
	for _, rule := range role.Rules {
		names = append(names, rule.powers()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (p policyRule) powers() []string {
	if slices.Contains(p.Verbs, "*") && slices.Contains(p.Resources, "*") && (slices.Contains(p.APIGroups, "*") || slices.Contains(p.APIGroups, "")) {
		return []string{"everything"}
	}
	var names []string
	for _, power := range powers() {
		if allows(p.APIGroups, power.group) && anyAllowed(p.Verbs, power.verbs) && anyAllowed(p.Resources, power.resources) {
			names = append(names, power.name)
		}
	}
	return names
}

func allows(given []string, wanted string) bool {
	return slices.Contains(given, wanted) || slices.Contains(given, "*")
}

func anyAllowed(given, wanted []string) bool {
	return slices.ContainsFunc(wanted, func(w string) bool { return allows(given, w) })
}
