package rbac

import (
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Reads reports whether the service account of a workload may read a Secret
// through the API.
func (a *Access) Reads(w *inventory.Workload, namespace, name string) bool {
	for _, id := range a.accountOf(w).identities() {
		for _, b := range a.granted[id] {
			r := a.roles[b.role]
			if r == nil || b.namespace != "" && b.namespace != namespace {
				continue
			}
			for _, rule := range r.rules {
				if allows(rule, "", "secrets", "get", "list", "watch") && named(rule, func(n string) bool { return n == name }) {
					return true
				}
			}
		}
	}
	return false
}
