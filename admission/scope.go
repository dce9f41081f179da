package admission

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// This file says for what the API server asks the webhook.

// matchConditions leave out what must never wait for a webhook, nor be refused
// by one, whatever rules policies bring. The API server evaluates them itself.
func matchConditions(rules []admissionregistrationv1.RuleWithOperations) []admissionregistrationv1.MatchCondition {
	const groups, name = `request.userInfo.?groups.orValue([])`, `request.userInfo.?username.orValue("")`
	return []admissionregistrationv1.MatchCondition{
		// Kubelets mirror static pods, the control plane among them, and report
		// on nodes and pods. What they may write is bounded by NodeRestriction,
		// which goes by group and name: one of them alone exempts nobody.
		{Name: "not-a-kubelet", Expression: `!("system:nodes" in ` + groups + ` && ` + name + `.startsWith("system:node:"))`},
		// A kubelet that joins has no name yet and asks for its certificate.
		{Name: "not-a-joining-kubelet", Expression: `!(request.resource.group == "certificates.k8s.io" && "system:bootstrappers" in ` + groups + `)`},
		// When the API server starts it writes its own roles and namespaces. Who
		// can take on its group may do anything already.
		{Name: "not-the-api-server", Expression: `!(` + name + ` == "system:apiserver" && "system:masters" in ` + groups + `)`},
		// Without nodes there is nowhere to run the webhook.
		{Name: "not-a-node", Expression: `!(request.resource.group == "" && request.resource.resource == "nodes")`},
		// Leases are heartbeats and leader elections.
		{Name: "not-a-lease", Expression: `request.resource.group != "coordination.k8s.io"`},
		// Events are many, change nothing, and tell what went wrong.
		{Name: "not-an-event", Expression: `!(request.resource.resource == "events" && request.resource.group in ["", "events.k8s.io"])`},
		// Reviews are how components learn who calls and what is allowed.
		{Name: "not-a-review", Expression: `!(request.resource.group in ["authentication.k8s.io", "authorization.k8s.io"])`},
		// Status is what controllers see, not what users ask for, and finalize
		// lets namespaces end. Only a policy that names one is asked.
		{Name: "not-a-status", Expression: fmt.Sprintf(`!(request.?subResource.orValue("") in ["status", "finalize"]) || (request.resource.resource + "/" + request.subResource) in %s`, list(namedStatus(rules)))},
	}
}

// namedStatus returns the status subresources that rules name without a
// wildcard. A namespace can always end.
func namedStatus(rules []admissionregistrationv1.RuleWithOperations) []string {
	var out []string
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			if base, sub, _ := strings.Cut(resource, "/"); sub == "status" && base != "*" {
				out = append(out, resource)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// list writes strings as a CEL list. They are names of resources, or quoted.
func list(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = strconv.Quote(item)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// elsewhere leaves out resources that another webhook is asked for.
func elsewhere(resources []schema.GroupResource) []admissionregistrationv1.MatchCondition {
	if len(resources) == 0 {
		return nil
	}
	var names []string
	for _, r := range resources {
		names = append(names, r.Resource+"."+r.Group)
	}
	slices.Sort(names)
	return []admissionregistrationv1.MatchCondition{{
		Name: "not-fail-closed", Expression: fmt.Sprintf(`!((request.resource.resource + "." + request.resource.group) in %s)`, list(slices.Compact(names))),
	}}
}

// restrict returns what rules say about resources and their subresources, with
// the wildcards that stand for them spelled out.
func restrict(rules []admissionregistrationv1.RuleWithOperations, resources []schema.GroupResource) []admissionregistrationv1.RuleWithOperations {
	var out []admissionregistrationv1.RuleWithOperations
	for _, rule := range rules {
		for _, r := range resources {
			if !slices.Contains(rule.APIGroups, r.Group) && !slices.Contains(rule.APIGroups, "*") {
				continue
			}
			var names []string
			for _, resource := range rule.Resources {
				base, sub, has := strings.Cut(resource, "/")
				if base != r.Resource && base != "*" {
					continue
				}
				name := r.Resource
				if has {
					name += "/" + sub
				}
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			if len(names) > 0 {
				narrow := *rule.DeepCopy()
				narrow.APIGroups, narrow.Resources = []string{r.Group}, names
				out = append(out, narrow)
			}
		}
	}
	return out
}
