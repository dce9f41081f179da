package rbac

import (
	"slices"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A secretGrant is that a workload may read Secrets.
type secretGrant struct {
	workload *inventory.Workload
	names    []string // none for all
}

// ReadersOf returns a function that returns the workloads whose service accounts
// may read a Secret through the API; some may come twice.
func (a *Access) ReadersOf() func(namespace, name string) []*inventory.Workload {
	grants := map[string][]secretGrant{} // by namespace; "" for all
	for acc, workloads := range a.users {
		for _, id := range acc.identities() {
			for _, b := range a.granted[id] {
				for _, names := range a.secretsOf(b) {
					for _, w := range workloads {
						grants[b.namespace] = append(grants[b.namespace], secretGrant{w, names})
					}
				}
			}
		}
	}
	return func(namespace, name string) []*inventory.Workload {
		var out []*inventory.Workload
		for _, scope := range []string{"", namespace} {
			for _, g := range grants[scope] {
				if len(g.names) == 0 || slices.Contains(g.names, name) {
					out = append(out, g.workload)
				}
			}
		}
		return out
	}
}

// secretsOf returns the names of the Secrets that each rule of a binding's role
// lets its holder read.
func (a *Access) secretsOf(b *binding) [][]string {
	var out [][]string
	if r := a.roles[b.role]; r != nil {
		for _, rule := range r.rules {
			if allows(rule, "", "secrets", "get", "list", "watch") {
				out = append(out, rule.ResourceNames)
			}
		}
	}
	return out
}
