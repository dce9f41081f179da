package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A generator writes audit events as an API server with the built-in audit
// policy does: mostly small ones of controllers that read, and some with the
// bodies of workloads. The same seed gives the same events.
type generator struct {
	*rand.Rand
	n int
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
}

func (g *generator) pick(choices ...string) string { return choices[g.IntN(len(choices))] }

// A request is what an event is about.
type request struct {
	verb, resource, group, version, subresource, user, groups, agent string
	code                                                             int
	level                                                            string
	request, response                                                string // bodies
}

// event returns one event. Most raise no alert of any sensible rule.
func (g *generator) event() []byte {
	r := g.request()
	g.n++
	namespace, name := fmt.Sprintf("team-%d", g.IntN(50)), fmt.Sprintf("%s-%x", r.resource, g.Uint32())
	path := "/api/v1"
	if r.group != "" {
		path = "/apis/" + r.group + "/" + r.version
	}
	uri := fmt.Sprintf("%s/namespaces/%s/%s/%s", path, namespace, r.resource, name)
	switch r.verb {
	case "list", "watch":
		uri = path + "/" + r.resource + "?allowWatchBookmarks=true\\u0026fieldSelector=metadata.name%3D" + name + "\\u0026resourceVersion=" + fmt.Sprint(100000+g.n) + "\\u0026timeoutSeconds=" + fmt.Sprint(300+g.IntN(300))
	}
	if r.subresource != "" {
		uri += "/" + r.subresource
	}
	at := fmt.Sprintf("2026-11-26T%02d:%02d:%02d.%06dZ", g.IntN(24), g.IntN(60), g.IntN(60), g.IntN(1e6))
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":%q,"auditID":"%08x-0000-4000-8000-%012x","stage":"ResponseComplete","requestURI":"%s","verb":%q,`, r.level, g.Uint32(), g.n, uri, r.verb)
	fmt.Fprintf(&b, `"user":{"username":%q,"uid":"%08x-aaaa","groups":[%s],"extra":{"authentication.kubernetes.io/credential-id":["JTI=%08x-1111-2222-3333-444444444444"],"authentication.kubernetes.io/node-name":["node-%d"],"authentication.kubernetes.io/pod-name":["controller-%x"]}},`, r.user, g.Uint32(), r.groups, g.Uint32(), g.IntN(200), g.Uint32())
	fmt.Fprintf(&b, `"sourceIPs":["10.0.%d.%d"],"userAgent":%q,"objectRef":{"resource":%q,"namespace":%q,"name":%q`, g.IntN(256), g.IntN(256), r.agent, r.resource, namespace, name)
	for _, member := range [][2]string{{"apiGroup", r.group}, {"apiVersion", r.version}, {"subresource", r.subresource}} {
		if member[1] != "" {
			fmt.Fprintf(&b, `,%q:%q`, member[0], member[1])
		}
	}
	fmt.Fprintf(&b, `},"responseStatus":{"metadata":{},"code":%d}`, r.code)
	for _, body := range [][2]string{{"requestObject", r.request}, {"responseObject", r.response}} {
		if body[1] != "" {
			fmt.Fprintf(&b, `,%q:%s`, body[0], body[1])
		}
	}
	fmt.Fprintf(&b, `,"requestReceivedTimestamp":%q,"stageTimestamp":%q,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"system:%s\" of ClusterRole \"system:%s\" to Group \"system:authenticated\""}}`, at, at, r.resource, r.resource)
	b.WriteByte('\n')
	return b.Bytes()
}

const serviceAccountGroups = `"system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated"`

func (g *generator) request() request {
	r := request{
		verb: g.pick("get", "get", "list", "watch", "watch", "update", "patch"), version: "v1", level: "Metadata", code: 200,
		user: g.pick("system:serviceaccount:kube-system:replicaset-controller", "system:serviceaccount:kube-system:generic-garbage-collector", "system:kube-scheduler",
			"system:serviceaccount:monitoring:prometheus", "system:serviceaccount:argocd:argocd-application-controller", "system:apiserver"),
		groups: serviceAccountGroups, agent: g.pick("kube-controller-manager/v1.37.1 (linux/amd64) kubernetes/abc1234/leader-election", "kube-scheduler/v1.37.1 (linux/amd64) kubernetes/abc1234/scheduler", "prometheus/3.5.0", "argocd/v3.1.0 (linux/amd64)"),
		resource: g.pick("pods", "nodes", "endpoints", "services", "namespaces", "persistentvolumeclaims", "limitranges", "resourcequotas"),
	}
	switch n := g.IntN(1000); {
	case n < 50: // a kubelet asks about a caller
		r = request{verb: "create", resource: "subjectaccessreviews", group: "authorization.k8s.io", version: "v1", level: "Request", code: 201,
			user: fmt.Sprintf("system:node:node-%d", g.IntN(200)), groups: `"system:nodes","system:authenticated"`, agent: "kubelet/v1.37.1 (linux/amd64) kubernetes/abc1234",
			request: `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{"creationTimestamp":null},"spec":{"resourceAttributes":{"verb":"get","version":"v1","resource":"nodes","subresource":"metrics","name":"node-7"},"user":"system:serviceaccount:monitoring:prometheus","groups":["system:serviceaccounts","system:authenticated"]},"status":{"allowed":false}}`}
	case n < 110: // a controller makes a pod
		r.verb, r.resource, r.level, r.code = "create", "pods", "RequestResponse", 201
		r.request = g.pod(1 + g.IntN(3))
		r.response = strings.Replace(r.request, `"spec"`, `"status":{"phase":"Pending","qosClass":"Burstable"},"spec"`, 1)
	case n < 145: // a deployment is changed
		r.verb, r.resource, r.group, r.level = g.pick("update", "patch", "create"), "deployments", "apps", "RequestResponse"
		r.request = `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"replicas":3,"template":` + g.pod(2+g.IntN(4)) + `}}`
		r.response = r.request
	case n < 149:
		r.verb, r.resource, r.user, r.groups, r.agent = "list", "secrets", "ann@example.com", `"developers","system:authenticated"`, "kubectl/v1.37.1 (linux/amd64) kubernetes/abc1234"
	case n < 150:
		r.verb, r.resource, r.subresource, r.code, r.user, r.groups, r.agent = "get", "pods", "exec", 101, "ann@example.com", `"developers","system:authenticated"`, "kubectl/v1.37.1 (linux/amd64) kubernetes/abc1234"
	}
	return r
}

// pod returns the JSON of a pod with some containers.
func (g *generator) pod(containers int) string {
	var list []any
	for i := range containers {
		var env []any
		for j := range 4 + g.IntN(12) {
			env = append(env, map[string]any{"name": fmt.Sprintf("SETTING_%d", j), "value": fmt.Sprintf("value-%x.svc.cluster.local:%d", g.Uint64(), 8000+j)})
		}
		list = append(list, map[string]any{
			"name": fmt.Sprintf("c%d", i), "image": fmt.Sprintf("registry.example.com/team/app:%d.%d", g.IntN(5), g.IntN(50)), "env": env, "imagePullPolicy": "IfNotPresent",
			"ports":     []any{map[string]any{"name": "http", "containerPort": 8080, "protocol": "TCP"}},
			"resources": map[string]any{"requests": map[string]any{"cpu": "100m", "memory": "128Mi"}, "limits": map[string]any{"memory": "256Mi"}},
			"securityContext": map[string]any{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
				"capabilities": map[string]any{"drop": []string{"ALL"}}, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
			"livenessProbe": map[string]any{"httpGet": map[string]any{"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1},
			"volumeMounts":  []any{map[string]any{"name": "tmp", "mountPath": "/tmp"}, map[string]any{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}},
		})
	}
	text, err := json.Marshal(map[string]any{
		"kind": "Pod", "apiVersion": "v1",
		"metadata": map[string]any{"generateName": "web-", "namespace": "team-1", "labels": map[string]string{"app": "web", "pod-template-hash": fmt.Sprintf("%x", g.Uint32())},
			"ownerReferences": []any{map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": fmt.Sprintf("%x", g.Uint64()), "controller": true}}},
		"spec": map[string]any{"containers": list, "serviceAccountName": "web", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
			"volumes": []any{map[string]any{"name": "tmp", "emptyDir": map[string]any{}}, map[string]any{"name": "token", "projected": map[string]any{"defaultMode": 420}}}},
	})
	if err != nil {
		panic(err) // plain values
	}
	return string(text)
}

// log returns so many events as JSON lines.
func (g *generator) log(events int) []byte {
	var b bytes.Buffer
	for range events {
		b.Write(g.event())
	}
	return b.Bytes()
}

// ruleSet returns as many rules as asked for. They ask what published rules
// for audit events ask: the stage, a verb, a resource, who is not meant, and
// for some a look into the body.
func ruleSet(rules int) []byte {
	var b bytes.Buffer
	b.WriteString(`
- list: known_users
  items: ["system:apiserver", "system:kube-scheduler", "system:kube-controller-manager"]
- macro: complete
  condition: jevt.value[/stage] = ResponseComplete
- macro: happened
  condition: ka.response.code startswith "2"
- macro: by_the_system
  condition: ka.user.name in (known_users) or ka.user.name startswith "system:node:" or ka.user.name startswith "system:serviceaccount:kube-system:"
`)
	resources := []string{"pods", "configmaps", "secrets", "services", "namespaces", "serviceaccounts", "roles", "clusterroles", "rolebindings", "clusterrolebindings", "deployments", "daemonsets", "ingresses", "networkpolicies", "nodes", "jobs"}
	verbs := []string{"create", "delete", "patch", "update"}
	bodies := []string{
		`ka.req.pod.containers.privileged intersects (true)`, `ka.req.pod.host_network = true`, `ka.req.pod.volumes.hostpath intersects (/proc, /etc, /root)`,
		`ka.req.binding.role = cluster-admin`, `ka.req.role.rules.verbs intersects ("*")`, `not ka.req.pod.containers.image.repository in (registry.example.com/team/app)`,
	}
	for i := range rules {
		resource, verb := resources[i%len(resources)], verbs[i/len(resources)%len(verbs)]
		condition := fmt.Sprintf("complete and happened and ka.verb = %s and ka.target.resource = %s and not by_the_system", verb, resource)
		switch i % 8 {
		case 0:
			condition = fmt.Sprintf("complete and ka.verb in (create, update, patch) and ka.target.resource = %s and ka.target.subresource != status and %s", resource, bodies[i/8%len(bodies)])
		case 3:
			condition = fmt.Sprintf("complete and ka.target.resource = %s and ka.target.name contains \"forbidden-%d\" and not ka.user.name in (known_users)", resource, i)
		case 5:
			condition = fmt.Sprintf("complete and ka.uri contains \"/%s/exec-%d\" and ka.auth.decision = allow", resource, i)
		}
		fmt.Fprintf(&b, "- rule: Rule %d\n  desc: a rule\n  condition: %s\n  output: something happened (user=%%ka.user.name verb=%%ka.verb resource=%%ka.target.resource name=%%ka.target.name ns=%%ka.target.namespace resp=%%ka.response.code uri=%%ka.uri)\n  priority: WARNING\n  source: k8s_audit\n  tags: [k8s]\n", i, condition)
	}
	return b.Bytes()
}
