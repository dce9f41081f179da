package image

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A workload is a resource whose objects hold a pod or its template.
type workload struct {
	group, resource string
	subresource     string
	pod             []string // where the PodSpec is
}

// workloads returns all of them. Other subresources of these cannot change an
// image, and other kinds end in pods.
func workloads() []workload {
	template := []string{"spec", "template", "spec"}
	return []workload{
		{"", "pods", "", []string{"spec"}},
		{"", "pods", "ephemeralcontainers", []string{"spec"}},
		{"", "podtemplates", "", []string{"template", "spec"}},
		{"", "replicationcontrollers", "", template},
		{"apps", "daemonsets", "", template},
		{"apps", "deployments", "", template},
		{"apps", "replicasets", "", template},
		{"apps", "statefulsets", "", template},
		{"batch", "cronjobs", "", []string{"spec", "jobTemplate", "spec", "template", "spec"}},
		{"batch", "jobs", "", template},
	}
}

// workloadOf returns what a request writes, or nil if that has no images.
func workloadOf(req *policy.Request) *workload {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update || req.Object == nil {
		return nil
	}
	for _, w := range workloads() {
		if (schema.GroupResource{Group: w.group, Resource: w.resource}) == req.Resource.GroupResource() && w.subresource == req.Subresource {
			return &w
		}
	}
	return nil
}

// WebhookRules returns the rules for the registration of a webhook that serves
// the set: all that can name an image.
func (s *Set) WebhookRules() []admissionregistrationv1.RuleWithOperations {
	if len(s.policies) == 0 {
		return nil
	}
	return imageRules()
}

// MutatingWebhookRules returns the same for what pins tags.
func (s *Set) MutatingWebhookRules() []admissionregistrationv1.RuleWithOperations {
	if !slices.ContainsFunc(s.policies, func(p *Policy) bool { return p.mutate }) {
		return nil
	}
	return imageRules()
}

func imageRules() []admissionregistrationv1.RuleWithOperations {
	var rules []admissionregistrationv1.RuleWithOperations
	for _, w := range workloads() {
		resource := strings.TrimSuffix(w.resource+"/"+w.subresource, "/")
		if last := len(rules) - 1; last >= 0 && rules[last].APIGroups[0] == w.group {
			rules[last].Resources = append(rules[last].Resources, resource)
			continue
		}
		rules = append(rules, admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{w.group}, APIVersions: []string{"*"}, Resources: []string{resource},
				Scope: new(admissionregistrationv1.NamespacedScope),
			},
		})
	}
	return rules
}

// A usage is one place of an object that names an image.
type usage struct {
	id     string // of the container or volume, the same before and after an update
	path   string // of the field
	image  string
	holder map[string]any // has the image under key
	key    string
}

// usages returns the images of an object: those of all containers, and those
// mounted as volumes. A template may leave an image out; such a place is none.
func (w *workload) usages(object *unstructured.Unstructured) ([]usage, error) {
	if object == nil {
		return nil, nil
	}
	spec, _, err := unstructured.NestedFieldNoCopy(object.Object, w.pod...)
	if err != nil {
		return nil, fmt.Errorf("read images of %s %q: %w", object.GetKind(), object.GetName(), err)
	}
	pod, ok := spec.(map[string]any)
	if !ok && spec != nil {
		return nil, fmt.Errorf("read images of %s %q: %s is not an object", object.GetKind(), object.GetName(), strings.Join(w.pod, "."))
	}
	var out []usage
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers", "volumes"} {
		found, err := listed(pod, list, strings.Join(w.pod, "."))
		if err != nil {
			return nil, fmt.Errorf("read images of %s %q: %w", object.GetKind(), object.GetName(), err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// listed returns the images of one list of a PodSpec.
func listed(pod map[string]any, list, at string) ([]usage, error) {
	items, ok := pod[list].([]any)
	if !ok && pod[list] != nil {
		return nil, fmt.Errorf("%s.%s is not a list", at, list)
	}
	var out []usage
	for i, item := range items {
		u := usage{path: fmt.Sprintf("%s.%s[%d].image", at, list, i), key: "image"}
		holder, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s.%s[%d] is not an object", at, list, i)
		}
		u.id = fmt.Sprintf("%s/%v", list, holder["name"])
		if list == "volumes" {
			source, ok := holder["image"].(map[string]any)
			if !ok {
				continue
			}
			holder, u.key, u.path = source, "reference", u.path+".reference"
		}
		u.holder = holder
		u.image, ok = holder[u.key].(string)
		if !ok && holder[u.key] != nil {
			return nil, fmt.Errorf("%s is not text", u.path)
		}
		if u.image != "" {
			out = append(out, u)
		}
	}
	return out, nil
}

// changed returns the images that a request brings in: on an update, a container
// that keeps its image is left alone, so that a policy that came later does not
// keep anybody from changing, or ending, what runs.
func (w *workload) changed(req *policy.Request) ([]usage, error) {
	images, err := w.usages(req.Object)
	if err != nil || req.Operation != admissionv1.Update {
		return images, err
	}
	before, err := w.usages(req.OldObject)
	if err != nil {
		return nil, err
	}
	kept := map[[2]string]bool{}
	for _, u := range before {
		kept[[2]string{u.id, u.image}] = true
	}
	return slices.DeleteFunc(images, func(u usage) bool { return kept[[2]string{u.id, u.image}] }), nil
}
