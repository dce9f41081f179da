// Package limits says which resources a namespace gives to containers that ask
// for none.
package limits

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// Memory returns the LimitRange that gives every container of a namespace a
// memory limit, or nil.
func Memory(inv *inventory.Inventory, namespace string) *inventory.Object {
	return find(inv, namespace, "memory", "default")
}

// CPU returns the LimitRange that gives every container of a namespace a CPU
// request or limit, or nil.
func CPU(inv *inventory.Inventory, namespace string) *inventory.Object {
	return find(inv, namespace, "cpu", "default", "defaultRequest")
}

// EphemeralStorage returns the LimitRange that gives every container of a
// namespace an ephemeral-storage limit, or nil.
func EphemeralStorage(inv *inventory.Inventory, namespace string) *inventory.Object {
	return find(inv, namespace, "ephemeral-storage", "default")
}

func find(inv *inventory.Inventory, namespace, resource string, fields ...string) *inventory.Object {
	for _, o := range inv.Kind("", "LimitRange") {
		if inv.NamespaceOf(o) == namespace && gives(o, resource, fields) {
			return o
		}
	}
	return nil
}

func gives(o *inventory.Object, resource string, fields []string) bool {
	limits, _, _ := unstructured.NestedSlice(o.Object, "spec", "limits")
	for _, item := range limits {
		limit, _ := item.(map[string]any)
		if limit["type"] != "Container" {
			continue
		}
		for _, field := range fields {
			if amounts, _ := limit[field].(map[string]any); amounts[resource] != nil {
				return true
			}
		}
	}
	return false
}
