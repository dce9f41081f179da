package oracle

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
)

// An object is JSON.
type object = map[string]any

func raw(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // JSON values only
	}
	return data
}

// A generator makes random requests that policies find something in.
type generator struct{ *rand.Rand }

func pick[T any](g generator, values ...T) T { return values[g.IntN(len(values))] }

func (g generator) half() bool { return g.IntN(2) == 0 }

// some returns an object with about half of the fields.
func (g generator) some(fields object) object {
	out := object{}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if g.half() {
			out[key] = fields[key]
		}
	}
	return out
}

// request makes an AdmissionRequest of any operation.
func (g generator) request() []byte {
	kind, resource, o := g.object()
	meta := o["metadata"].(object)
	namespace, _ := meta["namespace"].(string)
	name, _ := meta["name"].(string)
	if kind["kind"] == "Namespace" {
		namespace = name
	}
	req := object{
		"uid": "", "kind": kind, "resource": resource, "name": name, "namespace": namespace, "dryRun": g.IntN(4) == 0,
		"userInfo": object{"username": pick(g, "jane", "system:serviceaccount:kube-system:x"), "groups": []any{"dev"}},
		"options":  object{"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
	}
	_, _, old := g.object()
	old["apiVersion"], old["kind"] = o["apiVersion"], o["kind"]
	old["metadata"].(object)["name"] = name
	old["metadata"].(object)["namespace"] = meta["namespace"]
	switch g.IntN(8) {
	case 0:
		req["operation"], req["oldObject"] = "DELETE", o
		if g.IntN(8) == 0 {
			delete(req, "oldObject")
		}
	case 1, 2:
		req["operation"], req["object"], req["oldObject"] = "UPDATE", o, old
		req["subResource"] = pick(g, "", "status")
	case 3:
		req["operation"], req["subResource"] = "CONNECT", "exec"
		req["namespace"] = pick(g, "shop", "team-a", "kube-system") // the object names none
		req["kind"] = object{"group": "", "version": "v1", "kind": "PodExecOptions"}
		req["object"] = object{"apiVersion": "v1", "kind": "PodExecOptions", "command": []any{"sh"}, "stdin": true}
		if g.IntN(8) == 0 {
			delete(req, "object")
		}
	default:
		req["operation"], req["object"] = "CREATE", o
	}
	return raw(req)
}

func gvk(group, version, kind string) object {
	return object{"group": group, "version": version, "kind": kind}
}

func gvr(group, version, resource string) object {
	return object{"group": group, "version": version, "resource": resource}
}

func (g generator) object() (kind, resource, o object) {
	switch g.IntN(11) {
	case 10:
		return gvk("batch", "v1", "CronJob"), gvr("batch", "v1", "cronjobs"), object{
			"apiVersion": "batch/v1", "kind": "CronJob", "metadata": g.meta(true),
			"spec": object{"jobTemplate": object{"spec": object{"parallelism": g.number(), "template": object{"metadata": object{"labels": object{"team": "x"}}, "spec": g.podSpec()}}}},
		}
	case 0:
		return gvk("apps", "v1", "Deployment"), gvr("apps", "v1", "deployments"), object{
			"apiVersion": "apps/v1", "kind": "Deployment", "metadata": g.meta(true),
			"spec": object{"replicas": g.number(), "template": object{"spec": g.podSpec()}},
		}
	case 1:
		return gvk("", "v1", "Namespace"), gvr("", "v1", "namespaces"), object{"apiVersion": "v1", "kind": "Namespace", "metadata": g.meta(false)}
	case 2:
		return gvk("networking.k8s.io", "v1", "Ingress"), gvr("networking.k8s.io", "v1", "ingresses"), g.ingress()
	case 3:
		return gvk("", "v1", "Node"), gvr("", "v1", "nodes"), object{"apiVersion": "v1", "kind": "Node", "metadata": g.meta(false), "spec": object{"n": g.number()}}
	}
	return gvk("", "v1", "Pod"), gvr("", "v1", "pods"), object{"apiVersion": "v1", "kind": "Pod", "metadata": g.meta(true), "spec": g.podSpec()}
}

func (g generator) meta(namespaced bool) object {
	m := object{"name": pick(g, "a1", "a2", "web", "db-0")}
	if g.IntN(6) == 0 {
		delete(m, "name")
		m["generateName"] = pick(g, "a", "web-")
	}
	if namespaced {
		m["namespace"] = pick(g, "shop", "team-a", "kube-system", "lost")
	}
	if g.IntN(4) > 0 {
		m["labels"] = g.some(object{
			"team": pick(g, "web", "x", "X1"), "owner": pick(g, "web", "me"), "tier": pick(g, "web", "db", "cache"), "zone": "a", "env": "prod",
		})
	}
	if g.IntN(6) == 0 {
		m["ownerReferences"] = []any{object{"kind": "ReplicaSet", "name": "r"}}
	}
	return m
}

func (g generator) number() any {
	return pick[any](g, 0, 5, 1001, 4096, 65535, 99999, 1000000, 1234567, 123456789, -7, 1.5, 0.00001, 2e9)
}

func (g generator) podSpec() object {
	spec := g.some(object{
		"hostPID": g.half(), "hostIPC": g.half(), "hostNetwork": g.half(), "terminationGracePeriodSeconds": g.number(),
		"initContainers": g.containers(), "ephemeralContainers": g.containers(),
	})
	if g.IntN(8) > 0 {
		spec["containers"] = g.containers()
	}
	return spec
}

func (g generator) containers() []any {
	var out []any
	for range g.IntN(4) {
		out = append(out, g.container())
	}
	return out
}

func (g generator) container() object {
	c := g.some(object{
		"securityContext": g.some(object{
			"privileged": g.half(), "readOnlyRootFilesystem": g.half(), "runAsUser": g.number(),
			"capabilities": object{"add": []any{"NET_RAW"}},
		}),
		"resources": g.some(object{"limits": g.some(object{
			"cpu":    pick[any](g, "100m", "200m", "1", "1.5", 2, "", "x", "0.1", nil),
			"memory": pick[any](g, "1Gi", "2Gi", "3Gi", "512Mi", 1073741824, "1e3", "128974848", "100M", "4G", "", "x"),
		})}),
	})
	c["name"] = pick(g, "c", "d", "e", "<b>")
	c["image"] = pick(g, "nginx:1", "registry.example.com/agent:2", "ghcr.io/acme/x:1", "docker.io/y")
	return c
}

func (g generator) ingress() object {
	spec := object{"rules": []any{object{"host": pick(g, "a.example.com", "b.example.com", "c.example.com")}}}
	if g.half() {
		spec["ingressClassName"] = pick(g, "nginx", "other")
	}
	return object{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": g.meta(true), "spec": spec}
}

// inventory makes objects that referential policies see.
func (g generator) inventory() []json.RawMessage {
	out := []json.RawMessage{raw(object{"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": object{"name": "nginx"}})}
	for range 12 {
		o := g.ingress()
		o["metadata"].(object)["name"] = pick(g, "i1", "i2", "web", "a1")
		if g.half() {
			o["apiVersion"] = "extensions/v1beta1"
		}
		out = append(out, raw(o))
	}
	return out
}
