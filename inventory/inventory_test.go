package inventory

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// objects reads documents separated by "---" without FromFiles, so that these
// tests can hold what no manifest may hold.
func objects(t *testing.T, text string) []*Object {
	t.Helper()
	var out []*Object
	for _, doc := range strings.Split(text, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		out = append(out, &Object{Unstructured: u})
	}
	return out
}

func build(t *testing.T, text string) *Inventory {
	t.Helper()
	inv, err := New(Cluster, objects(t, text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestOwner(t *testing.T) {
	owned := func(kind, name, uid, ownerVersion, ownerKind, owner, ownerUID string) string {
		version := map[string]string{"Pod": "v1", "ReplicaSet": "apps/v1", "Job": "batch/v1"}[kind]
		return "{apiVersion: " + version + ", kind: " + kind + ", metadata: {namespace: shop, name: " + name + ", uid: " + uid +
			", ownerReferences: [{apiVersion: " + ownerVersion + ", kind: " + ownerKind + ", name: " + owner + ", uid: " + ownerUID + ", controller: true}]}}"
	}
	deployment := "{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: shop, name: web, uid: d}}"
	tests := []struct {
		name      string
		objects   []string
		of        string // Pod/<name>
		want      string
		workloads int
	}{
		{"through a replica set", []string{deployment,
			owned("ReplicaSet", "web-1", "r", "apps/v1", "Deployment", "web", "d"),
			owned("Pod", "web-1-a", "p", "apps/v1", "ReplicaSet", "web-1", "r")}, "web-1-a", "Deployment/shop/web", 1},
		{"a pod alone", []string{"{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: p}}"}, "p", "Pod/shop/p", 1},
		{"owner not in the inventory", []string{
			owned("Pod", "p", "p", "argoproj.io/v1alpha1", "Rollout", "web", "x")}, "p", "Pod/shop/p", 1},
		{"owner that makes no pods", []string{
			"{apiVersion: v1, kind: Node, metadata: {name: node1, uid: u}}",
			owned("Pod", "etcd-n", "p", "v1", "Node", "node1", "u")}, "etcd-n", "Pod/shop/etcd-n", 1},
		{"owner of the same name with another uid", []string{deployment,
			owned("Pod", "p", "p", "apps/v1", "Deployment", "web", "other")}, "p", "Pod/shop/p", 2},
		{"circle of owners", []string{
			owned("ReplicaSet", "a", "a", "apps/v1", "ReplicaSet", "b", "b"),
			owned("ReplicaSet", "b", "b", "apps/v1", "ReplicaSet", "a", "a"),
			owned("Pod", "p", "p", "apps/v1", "ReplicaSet", "a", "a")}, "p", "ReplicaSet/shop/a", 2},
		{"chain that Kubernetes does not make", []string{deployment,
			owned("Pod", "p", "p", "apps/v1", "Deployment", "web", "d")}, "p", "Pod/shop/p", 2},
		{"pod under a pod", []string{"{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: a, uid: a}}",
			owned("Pod", "p", "p", "v1", "Pod", "a", "a")}, "p", "Pod/shop/p", 2},
		{"own owner", []string{owned("Pod", "p", "p", "v1", "Pod", "p", "p")}, "p", "Pod/shop/p", 1},
		{"owner with a broken version", []string{owned("Pod", "p", "p", "a/b/c", "Pod", "x", "x")}, "p", "Pod/shop/p", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inv := build(t, strings.Join(test.objects, "\n---\n"))
			owner := inv.Owner(inv.Get("", "Pod", "shop", test.of))
			if owner == nil || owner.Subject().String() != test.want {
				t.Errorf("Owner = %v, want %s", owner, test.want)
			}
			if got := len(inv.Workloads()); got != test.workloads {
				t.Errorf("%d workloads, want %d", got, test.workloads)
			}
		})
	}
}

// TestForgedOwner expects that a pod is judged itself if it has rights that the
// template of its controller does not give.
func TestForgedOwner(t *testing.T) {
	const (
		podMeta   = "metadata: {namespace: shop, name: p, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r, controller: true}]"
		templated = "securityContext: {runAsNonRoot: true}, volumes: [{name: v, hostPath: {path: /data}}], initContainers: [{name: init, image: i}], containers: [{name: web, image: w, securityContext: {allowPrivilegeEscalation: false}}]"
	)
	edit := func(old, new string) string {
		t.Helper()
		if !strings.Contains(templated, old) {
			t.Fatalf("%q is not in the template", old)
		}
		return strings.Replace(templated, old, new, 1)
	}
	const appArmor = "annotations: {container.apparmor.security.beta.kubernetes.io/web: runtime/default}"
	profiled := edit("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false, appArmorProfile: {type: RuntimeDefault}")
	tests := []struct {
		name, meta, spec, template string
		part                       bool
	}{
		{"copy", "", templated, "", true},
		{"what the API server fills in", "", templated + ", serviceAccountName: default, nodeName: n, tolerations: [{operator: Exists}]", "", true},
		{"other image and resources", "", edit("image: w", "image: mirror/w, resources: {limits: {cpu: 1}}"), "", true},
		{"injected sidecar", "", edit("containers: [{name: web", "containers: [{name: proxy, securityContext: {runAsUser: 1337, capabilities: {drop: [ALL]}}}, {name: web"), "", true},
		{"injected volume", "", edit("volumes: [", "volumes: [{name: token, emptyDir: {}}, "), "", true},
		{"profile from an annotation", appArmor, profiled, appArmor, true},
		{"profile from an annotation of its own", appArmor, profiled, "", false},
		{"host network", "", templated + ", hostNetwork: true", "", false},
		{"host PID", "", templated + ", hostPID: true", "", false},
		{"host IPC", "", templated + ", hostIPC: true", "", false},
		{"other account", "", templated + ", serviceAccountName: admin", "", false},
		{"host path", "", edit("volumes: [", "volumes: [{name: root, hostPath: {path: /}}, "), "", false},
		{"other host path", "", edit("/data", "/"), "", false},
		{"security context of the pod", "", edit("runAsNonRoot: true", "runAsUser: 0"), "", false},
		{"no security context of the pod", "", edit("securityContext: {runAsNonRoot: true}, ", ""), "", false},
		{"security context of a container", "", edit("allowPrivilegeEscalation: false", "privileged: true"), "", false},
		{"security context of an init container", "", edit("name: init", "name: init, securityContext: {privileged: true}"), "", false},
		{"container is missing", "", edit("initContainers: [{name: init, image: i}], ", ""), "", false},
		{"privileged sidecar", "", edit("containers: [{name: web", "containers: [{name: proxy, securityContext: {privileged: true}}, {name: web"), "", false},
		{"sidecar with capabilities", "", edit("initContainers: [", "initContainers: [{name: proxy, securityContext: {capabilities: {add: [NET_ADMIN]}}}, "), "", false},
		{"privileged debugging container", "", templated + ", ephemeralContainers: [{name: debug, securityContext: {privileged: true}}]", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inv := build(t, "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {namespace: shop, name: web-1, uid: r}, spec: {template: {metadata: {"+test.template+"}, spec: {"+templated+"}}}}\n---\n"+
				"{apiVersion: v1, kind: Pod, "+podMeta+", "+test.meta+"}, spec: {"+test.spec+"}}")
			want := map[bool]string{true: "ReplicaSet/shop/web-1", false: "Pod/shop/p"}[test.part]
			if owner := inv.Owner(inv.Get("", "Pod", "shop", "p")); owner == nil || owner.Subject().String() != want {
				t.Errorf("Owner = %v, want %s", owner, want)
			}
		})
	}
}

// TestForgedMaker expects the same of what makes pods, and that an ordinary
// rollout changes nothing.
func TestForgedMaker(t *testing.T) {
	owned := func(version, kind, name, ownerKind, rest string) string {
		return "{apiVersion: " + version + ", kind: " + kind + ", metadata: {namespace: shop, name: " + name + ", uid: " + name +
			", ownerReferences: [{apiVersion: " + version + ", kind: " + ownerKind + ", name: top, uid: top, controller: true}]}, " + rest + "}"
	}
	const (
		good       = "{spec: {containers: [{name: web, image: a}]}}"
		newer      = "{spec: {containers: [{name: web, image: b}]}}"
		bad        = "{spec: {containers: [{name: web, image: a, securityContext: {privileged: true}}]}}"
		deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: shop, name: top, uid: top}, spec: {template: " + good + "}}"
		cron       = "{apiVersion: batch/v1, kind: CronJob, metadata: {namespace: shop, name: top, uid: top}, spec: {jobTemplate: {spec: {template: " + good + "}}}}"
	)
	for _, test := range []struct {
		name, top, child string
		workloads        int
	}{
		{"ordinary rollout", deployment, owned("apps/v1", "ReplicaSet", "x", "Deployment", "spec: {replicas: 2, template: "+newer+"}"), 1},
		{"forged replica set", deployment, owned("apps/v1", "ReplicaSet", "x", "Deployment", "spec: {replicas: 2, template: "+bad+"}"), 2},
		{"forged replica set of one", deployment, owned("apps/v1", "ReplicaSet", "x", "Deployment", "spec: {template: "+bad+"}"), 2},
		{"old replica set", deployment, owned("apps/v1", "ReplicaSet", "x", "Deployment", "spec: {replicas: 0, template: "+bad+"}"), 1},
		{"job", cron, owned("batch/v1", "Job", "x", "CronJob", "spec: {template: "+newer+"}"), 1},
		{"forged job", cron, owned("batch/v1", "Job", "x", "CronJob", "spec: {template: "+bad+"}"), 2},
		{"old job", cron, owned("batch/v1", "Job", "x", "CronJob", "spec: {template: "+bad+"}, status: {conditions: [{type: Complete, status: 'True'}]}"), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := len(build(t, test.top+"\n---\n"+test.child).Workloads()); got != test.workloads {
				t.Errorf("%d workloads, want %d", got, test.workloads)
			}
		})
	}
}

func TestOwnerOfNoWorkload(t *testing.T) {
	inv := build(t, "{apiVersion: v1, kind: Service, metadata: {name: web}}")
	if owner := inv.Owner(inv.Objects()[0]); owner != nil {
		t.Errorf("Owner of a Service = %v", owner.Subject())
	}
}

func TestNewRefusesABrokenTemplate(t *testing.T) {
	for _, spec := range []string{"{template: text}", "{template: {spec: {containers: text}}}"} {
		inv, err := New(Cluster, objects(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: "+spec+"}"), nil)
		if inv != nil || err == nil || !strings.HasPrefix(err.Error(), "read pod template of Deployment/web: ") {
			t.Errorf("New = %v, %v", inv, err)
		}
	}
}

func TestNamespaceOf(t *testing.T) {
	inv := build(t, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: b, namespace: shop}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: c, namespace: nonsense}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: gates.example.com}, spec: {group: example.com, names: {kind: Gate}, scope: Cluster}}
---
{apiVersion: example.com/v1, kind: Gate, metadata: {name: d}}
---
{apiVersion: example.com/v1, kind: Door, metadata: {name: e}}`)
	want := map[string]string{"a": "default", "b": "shop", "c": "", "gates.example.com": "", "d": "", "e": "default"}
	for _, o := range inv.Objects() {
		if got := inv.NamespaceOf(o); got != want[o.GetName()] {
			t.Errorf("NamespaceOf(%s) = %q, want %q", o.Subject(), got, want[o.GetName()])
		}
	}
	for _, get := range []struct {
		group, kind, namespace, name string
		found                        bool
	}{
		{"", "ServiceAccount", "default", "a", true},
		{"", "ServiceAccount", "", "a", true},
		{"", "ServiceAccount", "", "b", false},
		{"rbac.authorization.k8s.io", "ClusterRole", "shop", "c", true},
		{"example.com", "Gate", "", "d", true},
	} {
		if o := inv.Get(get.group, get.kind, get.namespace, get.name); (o != nil) != get.found {
			t.Errorf("Get(%+v) = %v", get, o)
		}
	}
}

func TestOrderAndGaps(t *testing.T) {
	text := `{apiVersion: v1, kind: Pod, metadata: {name: b}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: z}}`
	inv, err := New(Files, objects(t, text), []Gap{secretsGap})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range inv.Objects() {
		got = append(got, o.Subject().String())
	}
	if want := "ConfigMap/z Pod/a Pod/b"; strings.Join(got, " ") != want {
		t.Errorf("order = %s, want %s", got, want)
	}
	if n := len(inv.Kind("", "Pod")); n != 2 {
		t.Errorf("%d pods", n)
	}
	if inv.Gap("", "Secret") == "" || inv.Gap("", "Pod") != "" {
		t.Errorf("Gaps = %v", inv.Gaps)
	}
}
