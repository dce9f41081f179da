package node_test

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/node"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// live returns the inventory of a cluster with these objects.
func live(t testing.TB, manifests ...string) *inventory.Inventory {
	t.Helper()
	if len(manifests) == 0 {
		inv, err := inventory.New(inventory.Cluster, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return inv
	}
	files, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(manifests, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	var objects []*inventory.Object
	for _, o := range files.Objects() {
		objects = append(objects, &inventory.Object{Unstructured: o.Unstructured})
	}
	inv, err := inventory.New(inventory.Cluster, objects, nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func object(name, labels string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {%s}}, status: {nodeInfo: {machineID: id-of-%s}}}", name, labels, name)
}

// record is of a node that runs programs, each written as its command line.
func record(name string, commands ...string) evidence.NodeRecord {
	r := evidence.NodeRecord{Origin: evidence.Origin{Kind: evidence.Node}, Name: name, SeenAt: now.Add(-time.Hour)}
	for _, command := range commands {
		words := strings.Fields(command)
		r.Programs = append(r.Programs, evidence.Program{Name: words[0], Source: "process 1", Flags: evidence.ParseFlags(words[1:])})
	}
	return r
}

// states returns "Kind/name status" of each finding.
func states(findings []finding.Verdict) []string {
	var out []string
	for _, f := range findings {
		out = append(out, f.Subject.String()+" "+string(f.Status))
	}
	return out
}

func expect(t *testing.T, findings []finding.Verdict, want ...string) {
	t.Helper()
	if got := states(findings); !slices.Equal(got, want) {
		t.Errorf("states %q, want %q", got, want)
	}
}

const config = "kubelet --config=/var/lib/kubelet/config.yaml"

// A record settles the node that it is of, and no other.
func TestOneOfThree(t *testing.T) {
	inv := live(t, object("a", `node-role.kubernetes.io/control-plane: ""`), object("b", ""), object("c", ""))
	v := node.New(inv, []evidence.NodeRecord{record("b", config)}, now)
	found := v.KubeletAnonymous()
	expect(t, found, "Node/a unknown", "Node/b pass", "Node/c unknown")
	if f := found[1]; f.EvidenceKind != "node" || !f.ObservedAt.Equal(now.Add(-time.Hour)) {
		t.Errorf("judged by %s at %v", f.EvidenceKind, f.ObservedAt)
	}
	if !strings.Contains(found[0].Reason, "kubeguardian scan --node") {
		t.Errorf("reason %q", found[0].Reason)
	}
	expect(t, v.Authorization(), "ControlPlane/a unknown")
	expect(t, v.ControlPlaneFiles(), "Node/a unknown", "Node/b not-applicable", "Node/c unknown")
}

func TestNames(t *testing.T) {
	renamed, elsewhere := record("localhost", config), record("d", config)
	renamed.MachineID = "id-of-b"
	v := node.New(live(t, object("b", "")), []evidence.NodeRecord{renamed, elsewhere}, now)
	expect(t, v.KubeletAnonymous(), "Node/b pass", "Node/d pass")
}

func TestNewestRecordCounts(t *testing.T) {
	old, fresh := record("a", "kubelet --anonymous-auth=true"), record("a", config)
	old.SeenAt = now.Add(-2 * time.Hour)
	for _, records := range [][]evidence.NodeRecord{{old, fresh}, {fresh, old}} {
		expect(t, node.New(live(t), records, now).KubeletAnonymous(), "Node/a pass")
	}
}

func TestNothing(t *testing.T) {
	inv, err := inventory.New(inventory.Files, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := node.New(inv, nil, now)
	for name, found := range every(v) {
		if len(found) > 0 {
			t.Errorf("%s: %q", name, states(found))
		}
	}
}

// every runs all checks.
func every(v *node.View) map[string][]finding.Verdict {
	out := map[string][]finding.Verdict{}
	for i := range reflect.TypeOf(v).NumMethod() {
		out[reflect.TypeOf(v).Method(i).Name] = reflect.ValueOf(v).Method(i).Call(nil)[0].Interface().([]finding.Verdict)
	}
	return out
}

func TestManaged(t *testing.T) {
	for _, labels := range []string{"eks.amazonaws.com/nodegroup: a", "kubernetes.azure.com/cluster: a", "cloud.google.com/gke-nodepool: a"} {
		v := node.New(live(t, object("a", labels)), nil, now)
		expect(t, v.Authorization(), "ControlPlane not-applicable")
		expect(t, v.Keys(), "Node/a not-applicable")
		expect(t, v.KubeletAnonymous(), "Node/a unknown")
		// What customers choose themselves may be seen elsewhere.
		expect(t, v.EncryptionAtRest())
		expect(t, v.Auditing())
	}
	kops := node.New(live(t, object("a", "topology.kubernetes.io/zone: eu-central-1a")), nil, now)
	expect(t, kops.Authorization())
}

func staticPod(name, node, namespace, annotations, command string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s-%s, namespace: %s, annotations: {%s}}, spec: {nodeName: %[2]s, containers: [{name: a, image: a, command: [%[5]s]}]}}`,
		name, node, namespace, annotations, command)
}

func TestStaticPods(t *testing.T) {
	const mirror = "kubernetes.io/config.mirror: abc"
	inv := live(t, object("a", ""),
		staticPod("api", "a", "kube-system", mirror, "kube-apiserver, --authorization-mode=AlwaysAllow, --authentication-config=/c"),
		staticPod("cm", "a", "kube-system", mirror, "kube-controller-manager, --bind-address=127.0.0.1"),
		staticPod("forged", "b", "default", mirror, "kube-apiserver"),
		staticPod("forged", "c", "kube-system", "", "kube-apiserver"))
	v := node.New(inv, nil, now)
	found := v.Authorization()
	expect(t, found, "ControlPlane/a fail")
	if f := found[0]; f.EvidenceKind != "api" || !f.ObservedAt.Equal(now) || !strings.Contains(f.Evidence, "pod api-a") {
		t.Errorf("finding %+v", f)
	}
	expect(t, v.AnonymousRequests(), "ControlPlane/a unknown") // the file is on the node
	expect(t, v.LoopbackOnly(), "ControlPlane/a unknown")      // the scheduler is nowhere to be seen
	// The node itself knows better than the API.
	v = node.New(inv, []evidence.NodeRecord{record("a", "kube-apiserver --authorization-mode=Node,RBAC")}, now)
	expect(t, v.Authorization(), "ControlPlane/a pass")
}

// A program that may be hidden is not taken for absent.
func TestHidden(t *testing.T) {
	r := record("a", "kube-apiserver --profiling=false")
	expect(t, node.New(live(t), []evidence.NodeRecord{r}, now).Profiling(), "ControlPlane/a pass")
	r.Gaps = []evidence.NodeGap{{Part: evidence.PartPrograms, Path: "/proc", Reason: "processes of others are hidden"}}
	v := node.New(live(t), []evidence.NodeRecord{r}, now)
	expect(t, v.Profiling(), "ControlPlane/a unknown")
	expect(t, v.KubeletAnonymous(), "Node/a unknown")
	r.Programs[0].Flags = evidence.Flags{}
	expect(t, v.Profiling(), "ControlPlane/a fail") // what is seen decides
}

func TestEtcdOnItsOwnHost(t *testing.T) {
	const api = "kube-apiserver --etcd-certfile=/c --etcd-keyfile=/k --etcd-cafile=/a --client-ca-file=/b"
	const etcd = "etcd --cert-file=/c --key-file=/k --client-cert-auth --trusted-ca-file=/a"
	expect(t, node.New(live(t), []evidence.NodeRecord{record("a", api)}, now).EtcdClients(), "ControlPlane/a unknown")
	v := node.New(live(t), []evidence.NodeRecord{record("a", api), record("e", etcd)}, now)
	expect(t, v.EtcdClients(), "ControlPlane/a pass", "ControlPlane/e pass")
	plain := record("a", strings.Replace(api, "--etcd-certfile=/c", "--etcd-servers=http://e:2379", 1))
	found := node.New(live(t), []evidence.NodeRecord{plain, record("e", etcd)}, now).EtcdClients()
	expect(t, found, "ControlPlane/a fail", "ControlPlane/e pass")
	if !strings.Contains(found[0].Message, "without TLS") || !strings.Contains(found[0].Message, "runs without --etcd-certfile") {
		t.Errorf("message %q", found[0].Message)
	}
	variables := record("e", "etcd")
	variables.Programs[0].Unread = map[string]string{"environment": "permission denied"}
	expect(t, node.New(live(t), []evidence.NodeRecord{variables}, now).EtcdClients(), "ControlPlane/e unknown")
}

func TestReadOnlyPortInUse(t *testing.T) {
	r := record("a", config)
	r.Listeners = []evidence.Listener{{Address: "0.0.0.0:10255", Process: "nginx"}}
	v := node.New(live(t), []evidence.NodeRecord{r}, now)
	expect(t, v.ReadOnlyPort(), "Node/a pass")
	r.Listeners[0].Process = "kubelet"
	expect(t, v.ReadOnlyPort(), "Node/a fail")
}

// TestLosingEvidenceNeverHelps takes parts of a record away: no failure may
// become a pass.
func TestLosingEvidenceNeverHelps(t *testing.T) {
	full := record("a", "kubelet --config=/c", "kube-apiserver --authorization-mode=RBAC", "etcd", "kube-proxy --metrics-bind-address=0.0.0.0", "kube-scheduler", "kube-controller-manager")
	full.Files = []evidence.NodeFile{{Path: "/m", Role: evidence.FileManifest, Mode: "0644"}, {Path: "/e", Role: evidence.FileEtcdData, Mode: "0755"}, {Path: "/c", Role: evidence.FileCNI, Mode: "0644"}}
	full.SSH = &evidence.SSHServer{PermitRootLogin: "yes"}
	full.Updates = &evidence.NodeUpdates{Lists: now, Security: []string{"a"}}
	before := every(node.New(live(t), []evidence.NodeRecord{full}, now))
	less := full
	less.Programs, less.Files, less.SSH, less.Updates = nil, nil, nil, nil
	for _, part := range []evidence.Part{evidence.PartPrograms, evidence.PartFiles, evidence.PartSSH, evidence.PartUpdates, evidence.PartAutomatic} {
		less.Gaps = append(less.Gaps, evidence.NodeGap{Part: part, Reason: "permission denied"})
	}
	after := every(node.New(live(t), []evidence.NodeRecord{less}, now))
	failures := 0
	for _, name := range slices.Sorted(maps.Keys(before)) {
		for _, f := range before[name] {
			if f.Status == finding.Fail {
				failures++
			}
		}
		for _, f := range after[name] {
			if f.Status != finding.Unknown {
				t.Errorf("%s: %s, %s %s", name, f.Status, f.Message, f.Reason)
			}
		}
	}
	if failures < 15 {
		t.Errorf("%d failures before", failures)
	}
}

// FuzzChecks runs all checks over any record that can be read.
func FuzzChecks(f *testing.F) {
	f.Add([]byte(`{"apiVersion": "kubeguardian.dev/evidence/v1", "kind": "Node", "seenAt": "2026-11-26T06:00:00Z", "name": "a",
 "programs": [{"name": "kube-apiserver", "auditPolicy": {"rules": [{"level": "None"}]}, "flags": {"audit-policy-file": ["/a"], "audit-log-path": ["/b"]}}, {"name": "etcd"}],
 "files": [{"path": "/a", "role": "manifest", "mode": "x"}], "ssh": {}, "updates": {}}`))
	inv := live(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := evidence.Read("f.json", data)
		if err != nil {
			return
		}
		for name, found := range every(node.New(inv, set.Nodes, now)) {
			for _, v := range found {
				if v.Status == finding.Fail && v.Message == "" || v.Status == finding.Unknown && v.Reason == "" {
					t.Errorf("%s: %+v says nothing", name, v)
				}
			}
		}
	})
}
