package inventory

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Owner returns the workload that o is part of, following controllers to the
// top, or nil.
//
// Anybody who may create a pod may claim any controller for it, so an object
// counts as part of its controller only if Kubernetes makes such chains and if
// nothing that matters to security sets it apart from the controller's pod
// template; else it is a workload of its own and judged itself. A pod is held to
// the template of the ReplicaSet, not to that of the Deployment, and old
// ReplicaSets and finished Jobs are not held to anything, so that an ordinary
// rollout changes nothing. Where an admission plugin rewrites the security
// contexts of pods, as that of OpenShift does, each pod is judged itself.
func (inv *Inventory) Owner(o *Object) *Workload { return inv.workload[o] }

// Controller returns the object that controls o, or nil if there is none or it
// is not in the inventory. An owner reference counts only with the owner's uid:
// a name alone would let an object hide behind any other.
func (inv *Inventory) Controller(o *Object) *Object {
	for _, ref := range o.GetOwnerReferences() {
		if ref.Controller == nil || !*ref.Controller {
			continue
		}
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			return nil
		}
		owner := inv.Get(gv.Group, ref.Kind, inv.NamespaceOf(o), ref.Name)
		if owner == nil || owner.GetUID() != ref.UID {
			return nil
		}
		return owner
	}
	return nil
}

// makers says which kinds Kubernetes lets make which. It has no circle.
var makers = map[schema.GroupKind][]schema.GroupKind{
	{Kind: "Pod"}: {
		{Kind: "ReplicationController"}, {Group: "apps", Kind: "ReplicaSet"}, {Group: "apps", Kind: "StatefulSet"},
		{Group: "apps", Kind: "DaemonSet"}, {Group: "batch", Kind: "Job"},
	},
	{Group: "apps", Kind: "ReplicaSet"}: {{Group: "apps", Kind: "Deployment"}},
	{Group: "batch", Kind: "Job"}:       {{Group: "batch", Kind: "CronJob"}},
}

// top follows controllers as long as o may be their work. A static pod, which
// its Node controls, is its own top.
func (inv *Inventory) top(o *Object) *Object {
	for {
		parent := inv.Controller(o)
		if parent == nil || !slices.Contains(makers[o.GroupVersionKind().GroupKind()], parent.GroupVersionKind().GroupKind()) {
			return o
		}
		if !idle(o) && !agrees(rawTemplate(o), rawTemplate(parent)) {
			return o
		}
		o = parent
	}
}

// idle reports whether o makes no more pods: a ReplicaSet that was rolled over,
// or a finished Job. Its template may be of the past.
func idle(o *Object) bool {
	switch o.GetKind() {
	case "ReplicaSet":
		replicas, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas")
		return fmt.Sprint(replicas) == "0" // whatever type of number
	case "Job":
		conditions, _, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "conditions")
		for _, c := range mappings(conditions) {
			if (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True" {
				return true
			}
		}
	}
	return false
}

// rawTemplate returns the pod template of o as it stands there; it is nil if
// there is none. The typed form is made for workloads only: pods are many.
func rawTemplate(o *Object) map[string]any {
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, templatePath[o.GroupVersionKind().GroupKind()]...)
	return mapping(value)
}

// agrees reports whether a pod has no more rights than the template that it is
// said to be made from. Images, commands and resources may differ: they are
// rewritten by many, and changed in place.
func agrees(pod, template map[string]any) bool {
	have, want := mapping(pod["spec"]), mapping(template["spec"])
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace", "securityContext"} {
		if !same(have[field], want[field]) {
			return false
		}
	}
	if account(have) != account(want) {
		return false
	}
	allowed := hostPaths(want)
	for path := range hostPaths(have) {
		if !allowed[path] {
			return false
		}
	}
	return containersAgree(pod, template)
}

// containersAgree compares the containers of the template. Others may have been
// injected, if they are not privileged and add no capabilities.
func containersAgree(pod, template map[string]any) bool {
	have, want := mapping(pod["spec"]), mapping(template["spec"])
	models := map[string]map[string]any{} // containers of the template that are still to be found, by name
	for _, list := range []string{"initContainers", "containers"} {
		for _, c := range mappings(want[list]) {
			models[text(c["name"])] = c
		}
	}
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
		for _, c := range mappings(have[list]) {
			name, context := text(c["name"]), mapping(c["securityContext"])
			model, known := models[name]
			if known {
				delete(models, name)
				if !same(withoutOldProfile(context, name, pod, template), model["securityContext"]) {
					return false
				}
			} else if context["privileged"] == true || !empty(mapping(context["capabilities"])["add"]) {
				return false
			}
		}
	}
	return len(models) == 0
}

// withoutOldProfile leaves out the AppArmor profile that the API server copies
// from an annotation of old to the pod, and to the pod only, if the template
// has the same annotation.
func withoutOldProfile(context map[string]any, container string, pod, template map[string]any) map[string]any {
	key := "container.apparmor.security.beta.kubernetes.io/" + container
	profile := text(mapping(mapping(pod["metadata"])["annotations"])[key])
	if profile == "" || profile != text(mapping(mapping(template["metadata"])["annotations"])[key]) {
		return context
	}
	out := map[string]any{}
	for field, value := range context {
		if field != "appArmorProfile" {
			out[field] = value
		}
	}
	return out
}

// account returns the service account of a pod, which the API server fills in.
func account(spec map[string]any) string {
	return cmp.Or(text(spec["serviceAccountName"]), "default")
}

func hostPaths(spec map[string]any) map[string]bool {
	out := map[string]bool{}
	for _, volume := range mappings(spec["volumes"]) {
		if source, ok := volume["hostPath"].(map[string]any); ok {
			out[text(source["path"])] = true
		}
	}
	return out
}

// same compares two values as read from JSON; nothing and an empty mapping are
// the same.
func same(a, b any) bool { return empty(a) && empty(b) || reflect.DeepEqual(a, b) }

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// text returns v if it is one, else none.
func text(v any) string {
	s, _ := v.(string)
	return s
}

// mapping returns v if it is one, else an empty one.
func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// mappings returns the mappings in a list.
func mappings(v any) []map[string]any {
	list, _ := v.([]any)
	var out []map[string]any
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
