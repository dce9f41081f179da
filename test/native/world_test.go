package native

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// world is what policies can ask about besides the object: it is created in the
// cluster and given to our evaluator.
const world = `
apiVersion: v1
kind: Namespace
metadata: {name: ns-a, labels: {team: a}, annotations: {tier: gold}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ns-b, labels: {team: b}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: ns-a, labels: {use: limit}}
data: {max: "1", word: alpha}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: more, namespace: ns-a, labels: {use: limit, only: one}}
data: {max: "2", word: beta}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: ns-b, labels: {use: limit}}
data: {max: "5", word: gamma}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: default}
data: {max: "7", word: delta}
---
apiVersion: example.org/v1
kind: Limit
metadata: {name: all, labels: {use: limit}}
data: {max: "3", word: epsilon}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: devs}
rules:
- {apiGroups: ["", apps, example.org], resources: [configmaps, pods, pods/exec, deployments, deployments/scale, things, namespaces], verbs: ["*"]}
- {apiGroups: [autoscaling], resources: [horizontalpodautoscalers], verbs: [create, update, delete]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [create, update, patch, delete, escalate]}
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: devs}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: devs}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: devs}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: secrets, namespace: ns-a}
rules: [{apiGroups: [""], resources: [secrets], resourceNames: [one], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: secrets, namespace: ns-a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: secrets}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ann}, {kind: ServiceAccount, name: bot, namespace: ns-b}]
`

// definitions are the custom kinds.
const definitions = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: limits.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Limit, plural: limits, singular: limit, listKind: LimitList}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {data: {type: object, additionalProperties: {type: string}}}}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Thing, plural: things, singular: thing, listKind: ThingList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer}
              words: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              loose: {type: array, items: {type: string}}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, size: {type: integer}, port: {x-kubernetes-int-or-string: true}}}
`

// objectsOf are the objects that requests carry, by resource.
var objectsOf = map[string]string{
	"configmaps": `
apiVersion: v1
kind: ConfigMap
data: {max: "4", word: alpha}`,
	"pods": `
apiVersion: v1
kind: Pod
spec:
  automountServiceAccountToken: false # else the API server adds a volume to each container
  hostNetwork: true
  containers: [{name: main, image: "registry.example.com/a:1", ports: [{containerPort: 80}]}, {name: side, image: nginx}]`,
	"deployments": `
apiVersion: apps/v1
kind: Deployment
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "registry.example.com/a:1"}]}`,
	"things": `
apiVersion: example.org/v1
kind: Thing
spec: {size: 2, words: [a, b], loose: [x], parts: [{name: a, size: 1, port: http}, {name: b, port: 80}]}`,
	"horizontalpodautoscalers": `
apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
spec: {maxReplicas: 5, targetCPUUtilizationPercentage: 70, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}`,
	"clusterroles": `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]`,
}

var resources = map[string]schema.GroupVersionResource{
	"configmaps":               {Version: "v1", Resource: "configmaps"},
	"pods":                     {Version: "v1", Resource: "pods"},
	"deployments":              {Group: "apps", Version: "v1", Resource: "deployments"},
	"things":                   {Group: "example.org", Version: "v1", Resource: "things"},
	"horizontalpodautoscalers": {Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers"},
	"clusterroles":             {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
}

func documents(t *testing.T, text string) (out []*unstructured.Unstructured) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "---\n") {
		u := &unstructured.Unstructured{}
		data, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if err := u.UnmarshalJSON(data); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		out = append(out, u)
	}
	return out
}

func resourceOf(u *unstructured.Unstructured) schema.GroupVersionResource {
	r, _ := meta.UnsafeGuessKindToResource(u.GroupVersionKind())
	return r
}

// populate creates the world, and returns its objects as the cluster has them.
func (c *cluster) populate(t *testing.T) (known []*unstructured.Unstructured) {
	t.Helper()
	for _, u := range documents(t, definitions) {
		known = append(known, c.create(t, resourceOf(u), u))
	}
	await(t, "custom kinds are served", func() error {
		for _, name := range []string{"limits", "things"} {
			_, err := c.admin.Resource(schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: name}).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, u := range documents(t, world) {
		known = append(known, c.create(t, resourceOf(u), u))
	}
	await(t, "service accounts are there", func() error { // without them no pod is admitted
		for _, ns := range []string{"ns-a", "ns-b"} {
			if _, err := c.kube.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	return append(known, c.rights(t)...)
}

// rights returns the roles and bindings that the cluster has of its own.
func (c *cluster) rights(t *testing.T) (known []*unstructured.Unstructured) {
	t.Helper()
	for _, name := range []string{"clusterroles", "clusterrolebindings"} {
		list, err := c.admin.Resource(schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: name}).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			if u := &list.Items[i]; strings.HasPrefix(u.GetName(), "system:") {
				known = append(known, u)
			}
		}
	}
	return known
}
