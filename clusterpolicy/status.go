package clusterpolicy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// uidFields are what the entries of status call the uid of their object. Kinds
// that are not here have no status.
func uidField(r resource) string {
	switch {
	case r.Group == constraintGroup:
		return "constraintUID"
	case r.kind == "ConstraintTemplate", r.kind == "ExpansionTemplate":
		return "templateUID"
	case r.Group == "mutations.gatekeeper.sh":
		return "mutatorUID"
	case r.kind == "Provider":
		return "providerUID"
	case r.kind == "Config":
		return "configUID"
	case r.Group == policyGroup:
		return "policyUID"
	}
	return ""
}

// writeStatus writes what this replica says of an object, if that is news, and
// removes what replicas said that are gone. Other fields of the status stay.
func (w *writer) writeStatus(ctx context.Context, o judged, next work, living map[string]bool) error {
	if uidField(o.resource) == "" || o.source.GetUID() != o.UID || o.source.GetGeneration() != o.Generation {
		return nil
	}
	status := map[string]any{}
	before, _, _ := unstructured.NestedSlice(o.source.Object, "status", "byPod")
	if entries := merge(before, entryOf(o, w.own), living); !reflect.DeepEqual(before, entries) {
		status["byPod"] = entries
	}
	if o.Group == templateGroup {
		created := next.crds[o.Name+"."+constraintGroup] != nil
		if was, ok, _ := unstructured.NestedBool(o.source.Object, "status", "created"); !ok || was != created {
			status["created"] = created
		}
	}
	if len(status) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": o.source.GetResourceVersion()}, "status": status})
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", o.String(), err)
	}
	if _, err := at(w.client, o).Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: ourselves}, "status"); err != nil {
		return fmt.Errorf("write the status of %s: %w", o.String(), err)
	}
	return nil
}

func at(client dynamic.Interface, o judged) dynamic.ResourceInterface {
	if o.Namespace != "" {
		return client.Resource(o.GroupVersionResource).Namespace(o.Namespace)
	}
	return client.Resource(o.GroupVersionResource)
}

// entryOf returns what a replica says of an object.
func entryOf(o judged, replica string) map[string]any {
	entry := map[string]any{
		"id": replica, uidField(o.resource): string(o.UID), "observedGeneration": o.Generation, "operations": []any{"audit", "webhook"},
	}
	switch {
	case o.Group == "mutations.gatekeeper.sh":
		entry["operations"] = []any{"mutation-webhook"}
		entry["enforced"] = o.InForce
	case o.Group == constraintGroup, o.Group == policyGroup:
		entry["enforced"] = o.InForce
	}
	var errs []any
	for _, p := range o.Problems {
		e := map[string]any{"message": p.Message}
		if o.Stale {
			e["message"] = p.Message + " (the last good version stays in force)"
		}
		switch o.kind {
		case "ExpansionTemplate", "Config", "Assign", "AssignMetadata", "AssignImage", "ModifySet":
			e["type"] = p.Code
		default:
			e["code"] = p.Code
			if p.Location != "" {
				e["location"] = p.Location
			}
		}
		errs = append(errs, e)
	}
	if len(errs) > 0 {
		entry["errors"] = errs
	}
	return entry
}

// merge puts the entry of a replica among those of others that live, one for each.
// Where it is not known who lives, all stay.
func merge(before []any, own map[string]any, living map[string]bool) []any {
	out := []any{own}
	seen := map[string]bool{own["id"].(string): true}
	for _, e := range before {
		entry, _ := e.(map[string]any)
		id, _ := entry["id"].(string)
		if id == "" || seen[id] || living != nil && !living[id] {
			continue
		}
		seen[id] = true
		out = append(out, entry)
	}
	slices.SortFunc(out, func(a, b any) int {
		x, _ := a.(map[string]any)["id"].(string)
		y, _ := b.(map[string]any)["id"].(string)
		return cmp.Compare(x, y)
	})
	return out
}

// IsConstraint reports whether objects of a kind are constraints.
func IsConstraint(kind schema.GroupVersionKind) bool { return kind.Group == constraintGroup }

// OwnsGatekeeperKinds reports whether the status of Gatekeeper's kinds is ours to
// write: Gatekeeper was not there when that was looked at last.
func (w *Watcher) OwnsGatekeeperKinds() bool {
	w.writer.mu.Lock()
	defer w.writer.mu.Unlock()
	return w.writer.owner
}

// ApplyConstraintStatus writes fields of the status of a constraint by server-side
// apply, as an owner of their own: what the watcher writes stays as it is, and what
// the owner wrote before and leaves out now is removed.
func ApplyConstraintStatus(ctx context.Context, client dynamic.Interface, kind, name, owner string, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{
		"apiVersion": constraintGroup + "/v1beta1", "kind": kind, "metadata": map[string]any{"name": name}, "status": status,
	})
	if err == nil {
		_, err = client.Resource(constraints(strings.ToLower(kind))).Patch(ctx, name, types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: owner, Force: new(true)}, "status")
	}
	if err != nil {
		return fmt.Errorf("write the status of %s %q: %w", kind, name, err)
	}
	return nil
}
