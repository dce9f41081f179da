package main

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// variables are those of every policy.
const variables = `
  - {name: pod, expression: "object.kind == 'Pod' ? object.spec : object.kind == 'Deployment' ? object.spec.template.spec : dyn({})"}
  - {name: containers, expression: "(has(variables.pod.containers) ? variables.pod.containers : []) + (has(variables.pod.initContainers) ? variables.pod.initContainers : [])"}`

// A rule is an expression with a constant, %s, for which there are three values,
// and the message.
type rule struct {
	expression string
	constants  [3]string
	message    string // an expression
}

var rules = []rule{
	{`['app', %s].all(k, k in object.metadata.?labels.orValue({}))`, [3]string{"'team'", "'owner'", "'tier'"}, "'labels are missing on ' + object.metadata.name"},
	{`variables.containers.all(c, %s.exists(r, c.image.startsWith(r)))`, [3]string{"['registry.example.com/']", "['registry.example.com/', 'ghcr.io/acme']", "['docker.io/', 'ghcr.io/']"}, "'images: ' + variables.containers.map(c, c.image).join(', ')"},
	{`variables.containers.all(c, c.image in %s || !c.?securityContext.privileged.orValue(false))`, [3]string{"['a']", "['b']", "['c']"}, "'a container is privileged'"},
	{`!variables.pod.?%s.orValue(false)`, [3]string{"hostPID", "hostIPC", "hostNetwork"}, "'a namespace of the host is shared'"},
	{`variables.containers.all(c, c.image.startsWith(%s) || c.?securityContext.readOnlyRootFilesystem.orValue(false))`, [3]string{"'a/'", "'b/'", "'c/'"}, "'a root file system is writable'"},
	{`variables.containers.all(c, has(c.resources) && has(c.resources.limits) && quantity(c.resources.limits.memory).compareTo(quantity(%s)) <= 0)`, [3]string{"'256Mi'", "'1Gi'", "'2Gi'"}, "'a limit is too high'"},
	{`variables.containers.all(c, %s in c.?securityContext.capabilities.drop.orValue([]))`, [3]string{"'ALL'", "'NET_RAW'", "'ALL'"}, "'capabilities are kept'"},
	{`variables.containers.all(c, c.image.startsWith(%s) || c.image.matches('@[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$'))`, [3]string{"'registry.example.com/'", "'ghcr.io/'", "'quay.io/'"}, "'an image has no digest'"},
	{`variables.containers.all(c, has(c.%s))`, [3]string{"livenessProbe", "readinessProbe", "startupProbe"}, "'a probe is missing'"},
	{`variables.pod.?volumes.orValue([]).all(v, !has(v.%s))`, [3]string{"hostPath", "nfs", "iscsi"}, "'a volume is not allowed'"},
}

// policies are 30 documents with their bindings.
func policies() string {
	var out strings.Builder
	for i, r := range rules {
		for j, constant := range r.constants {
			fmt.Fprintf(&out, `---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: p%d-%d}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: ["", apps], apiVersions: [v1], operations: [CREATE], resources: [pods, deployments, configmaps]}
  variables:%s
  validations:
  - expression: "%s"
    messageExpression: "%s"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: p%[1]d-%[2]d}
spec: {policyName: p%[1]d-%[2]d, validationActions: [Deny]}
`, i, j, variables, fmt.Sprintf(r.expression, constant), r.message)
		}
	}
	return out.String()
}

// A sample is a kind of objects.
type sample struct {
	name     string
	kind     schema.GroupVersionKind
	resource string
	make     func(serial int) *unstructured.Unstructured
}

func samples() []sample {
	data := map[string]any{} // shared by all, as nobody changes it
	for i := range 100 {
		data[fmt.Sprintf("key-%d.conf", i)] = strings.Repeat("0123456789abcdef", 64)
	}
	core, apps := schema.GroupVersion{Version: "v1"}, schema.GroupVersion{Group: "apps", Version: "v1"}
	return []sample{
		{"pod", core.WithKind("Pod"), "pods", func(n int) *unstructured.Unstructured { return object("v1", "Pod", n, "spec", podSpec(n)) }},
		{"deployment", apps.WithKind("Deployment"), "deployments", func(n int) *unstructured.Unstructured {
			return object("apps/v1", "Deployment", n, "spec", map[string]any{"replicas": int64(3), "template": map[string]any{"spec": podSpec(n)}})
		}},
		{"configmap", core.WithKind("ConfigMap"), "configmaps", func(n int) *unstructured.Unstructured { return object("v1", "ConfigMap", n, "data", data) }},
	}
}

func object(apiVersion, kind string, serial int, field string, value any) *unstructured.Unstructured {
	labels := map[string]any{"app": "web", "team": "shop", "tier": "web", "owner": "jane"}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind, field: value,
		"metadata": map[string]any{"name": fmt.Sprintf("web-%d", serial), "namespace": "shop", "labels": labels},
	}}
}

func podSpec(serial int) map[string]any {
	container := func(name, image string) map[string]any {
		return map[string]any{
			"name": name, "image": fmt.Sprintf("%s:1.4.%d", image, serial), "args": []any{"--serve", "--port=8080"},
			"resources":       map[string]any{"limits": map[string]any{"cpu": "500m", "memory": "512Mi"}, "requests": map[string]any{"cpu": "100m", "memory": "256Mi"}},
			"securityContext": map[string]any{"readOnlyRootFilesystem": true, "runAsNonRoot": true, "capabilities": map[string]any{"drop": []any{"ALL"}}},
			"livenessProbe":   map[string]any{"httpGet": map[string]any{"path": "/healthz", "port": int64(8080)}},
			"readinessProbe":  map[string]any{"httpGet": map[string]any{"path": "/ready", "port": int64(8080)}},
			"volumeMounts":    []any{map[string]any{"name": "data", "mountPath": "/data"}},
		}
	}
	return map[string]any{
		"automountServiceAccountToken": false,
		"containers":                   []any{container("web", "registry.example.com/shop/web"), container("proxy", "ghcr.io/acme/proxy")},
		"volumes":                      []any{map[string]any{"name": "data", "emptyDir": map[string]any{}}},
	}
}
