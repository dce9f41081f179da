package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A policySet is what one row of the table is about.
type policySet struct {
	name     string
	policies string
}

// templates are the ten of the benchmark, with three sets of parameters each.
var parameters = map[string][3]string{
	"MustLabel":      {`{labels: [{key: app}, {key: team, allowed: "^[a-z]+$"}]}`, `{labels: [{key: owner}]}`, `{labels: [{key: tier, allowed: "web|db"}], message: label it}`},
	"Repos":          {`{repos: [registry.example.com/]}`, `{repos: [registry.example.com/, ghcr.io/acme]}`, `{repos: [docker.io/]}`},
	"Privileged":     {`{}`, `{exemptImages: [registry.example.com/agent*]}`, `{exemptImages: ["nginx:1"]}`},
	"HostNamespaces": {`null`, `null`, `null`},
	"ReadOnlyRoot":   {`{}`, `{exemptImages: ["ghcr.io/*/*"]}`, `{exemptImages: ["registry.example.com/*"]}`},
	"Limits":         {`{cpu: 200m, memory: 1Gi}`, `{cpu: "2"}`, `{cpu: 4, memory: 16Gi}`},
	"Capabilities":   {`{allowed: [NET_BIND_SERVICE], dropped: [ALL]}`, `{dropped: [ALL, NET_RAW]}`, `{allowed: [CHOWN]}`},
	"Digests":        {`{}`, `{exempt: [registry.example.com/]}`, `{exempt: [ghcr.io/]}`},
	"Probes":         {`{probes: [livenessProbe, readinessProbe], types: [httpGet, tcpSocket, exec]}`, `{probes: [startupProbe], types: [httpGet]}`, `{probes: [livenessProbe], types: [exec]}`},
	"Tokens":         {`null`, `null`, `null`},
}

var order = []string{"MustLabel", "Repos", "Privileged", "HostNamespaces", "ReadOnlyRoot", "Limits", "Capabilities", "Digests", "Probes", "Tokens"}

func constraint(kind, name, match, parameters string) string {
	text := fmt.Sprintf("---\napiVersion: constraints.gatekeeper.sh/v1beta1\nkind: %s\nmetadata: {name: %s}\nspec:\n  match: %s\n", kind, name, match)
	if parameters != "null" {
		text += "  parameters: " + parameters + "\n"
	}
	return text
}

// thirty returns three constraints for each template.
func thirty(match string) string {
	var out strings.Builder
	for _, kind := range order {
		for i, p := range parameters[kind] {
			out.WriteString(constraint(kind, fmt.Sprintf("c%d", i), match, p))
		}
	}
	return out.String()
}

// many returns so many constraints that differ in name alone.
func many(n int, match string) string {
	var out strings.Builder
	for i := range n {
		kind := order[i%len(order)]
		out.WriteString(constraint(kind, fmt.Sprintf("m%d", i), match, parameters[kind][i%3]))
	}
	return out.String()
}

func policySets() ([]policySet, error) {
	var texts [3]string
	for i, name := range []string{"rego.yaml", "more.yaml", "cel.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	rego := texts[0] + "---\n" + texts[1]
	cel := strings.Split(texts[2], "---\napiVersion: constraints")[0]
	var thirtyCEL strings.Builder
	for i := range 30 {
		thirtyCEL.WriteString(constraint("CelPrivileged", fmt.Sprintf("c%d", i), "{}", fmt.Sprintf(`{exemptImages: ["nginx:%d", busybox]}`, i)))
	}
	const none = "{kinds: [{apiGroups: [networking.k8s.io], kinds: [Ingress]}]}"
	const workloads = `{kinds: [{apiGroups: ["", apps], kinds: [Pod, Deployment, ConfigMap]}]}`
	alone := ""
	for i, kind := range order {
		alone += constraint(kind, fmt.Sprintf("match%d", i), workloads, parameters[kind][0])
	}
	ten := many(290, none) + alone
	return []policySet{
		{"30 constraints in Rego, all match", rego + thirty(workloads)},
		{"300 constraints, none matches", rego + many(300, none)},
		{"1000 constraints, none matches", rego + many(1000, none)},
		{"300 constraints, 10 match", rego + ten},
		{"the 10 of them that match", rego + alone},
		{"30 constraints in CEL, all match", cel + thirtyCEL.String()},
	}, nil
}

// serial stands for a number in the requests: in names and tags of images, which
// are what differs between the objects of a cluster.
const serial = "0000000"

// requests are those of the benchmark, in JSON.
func requests() map[string][]byte {
	container := func(name, image string) map[string]any {
		return map[string]any{
			"name": name, "image": image, "args": []any{"--serve", "--port=8080"},
			"resources":       map[string]any{"limits": map[string]any{"cpu": "500m", "memory": "512Mi"}, "requests": map[string]any{"cpu": "100m", "memory": "256Mi"}},
			"securityContext": map[string]any{"readOnlyRootFilesystem": true, "runAsNonRoot": true, "capabilities": map[string]any{"drop": []any{"ALL"}}},
			"livenessProbe":   map[string]any{"httpGet": map[string]any{"path": "/healthz", "port": 8080}},
			"readinessProbe":  map[string]any{"httpGet": map[string]any{"path": "/ready", "port": 8080}},
			"env":             []any{map[string]any{"name": "A", "value": "b"}, map[string]any{"name": "C", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "s", "key": "k"}}}},
			"volumeMounts":    []any{map[string]any{"name": "data", "mountPath": "/data"}},
		}
	}
	spec := map[string]any{
		"automountServiceAccountToken": false,
		"containers":                   []any{container("web", "registry.example.com/shop/web:1.4."+serial), container("proxy", "ghcr.io/acme/proxy:2."+serial)},
		"volumes":                      []any{map[string]any{"name": "data", "emptyDir": map[string]any{}}},
	}
	labels := map[string]any{"app": "web", "team": "shop", "tier": "web", "owner": "jane"}
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web-" + serial, "namespace": "shop", "labels": labels}, "spec": spec}
	deployment := map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web-" + serial, "namespace": "shop", "labels": labels},
		"spec": map[string]any{"replicas": 3, "selector": map[string]any{"matchLabels": labels}, "template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": spec}},
	}
	data := map[string]any{}
	for i := range 100 {
		data[fmt.Sprintf("key-%d.conf", i)] = strings.Repeat("0123456789abcdef", 64)
	}
	configMap := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "web-" + serial, "namespace": "shop", "labels": labels}, "data": data}
	return map[string][]byte{
		"pod":        request("", "v1", "Pod", "pods", pod),
		"deployment": request("apps", "v1", "Deployment", "deployments", deployment),
		"configmap":  request("", "v1", "ConfigMap", "configmaps", configMap),
	}
}

func request(group, version, kind, resource string, object map[string]any) []byte {
	data, err := json.Marshal(map[string]any{
		"uid": "", "kind": map[string]any{"group": group, "version": version, "kind": kind},
		"resource":  map[string]any{"group": group, "version": version, "resource": resource},
		"operation": "CREATE", "namespace": "shop", "userInfo": map[string]any{"username": "jane", "groups": []any{"dev"}}, "object": object, "dryRun": false,
	})
	if err != nil {
		panic(err) // JSON values only
	}
	return data
}
