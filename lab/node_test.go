package main

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// realNode returns the directory of the programs of a node, on a machine that
// can have one.
func realNode(t *testing.T) string {
	t.Helper()
	programs := realPrograms(t)
	reason := ""
	if err := nodePossible(); err != nil {
		reason = err.Error()
	} else if _, err := hierarchies(); err != nil {
		reason = err.Error()
	} else if cache, err := cacheDir(); err != nil {
		reason = err.Error()
	} else if names := missing(cache, nodePrograms()); len(names) > 0 {
		reason = fmt.Sprintf("%s lacks %s: build them by `lab build --node`", cache, strings.Join(names, ", "))
	}
	if reason != "" && os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal(reason)
	} else if reason != "" {
		t.Skip(reason)
	}
	return programs
}

// A trace is all of a machine that a node could leave something in, one line
// for each thing.
type trace map[string]bool

// machine looks at it.
func machine(t *testing.T) trace {
	t.Helper()
	seen := trace{}
	add := func(kind, text string) {
		for line := range strings.Lines(text) {
			seen[kind+": "+strings.TrimSpace(line)] = true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	add("mount", string(mounts))
	for _, args := range []string{"-o link", "-o addr", "-o route show table all", "rule", "netns"} {
		out, err := exec.Command("ip", strings.Fields(args)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		add("ip "+args, string(out))
	}
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	add("nft", string(rules))
	for _, pattern := range []string{"/sys/fs/cgroup/*/*", "/var/lib/*", "/opt/*", "/run/*", "/run/netns/*", "/var/log/*"} {
		found, _ := filepath.Glob(pattern)
		add("file", strings.Join(found, "\n"))
	}
	filepath.WalkDir("/proc/sys", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !changing(path) {
			value, _ := os.ReadFile(path)
			add("sysctl", path+" = "+strings.ReplaceAll(string(value), "\n", " "))
		}
		return nil
	})
	return seen
}

// changing reports whether a value below /proc/sys counts or measures
// something, and so changes by itself.
func changing(path string) bool {
	return slices.ContainsFunc([]string{"/random/", "-state", "-nr", "_nr", "/ns_last_pid", "_count", "/pty/", "/cad_pid", "_seq", "/route/", "/quota/"},
		func(part string) bool { return strings.Contains(path, part) })
}

// wantTrace waits until the machine is as it was. That others unmount or remove
// something meanwhile is no matter of the node.
func wantTrace(t *testing.T, before trace) {
	t.Helper()
	var differs []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		after := machine(t)
		differs = nil
		for line := range after {
			if !before[line] {
				differs = append(differs, "new  "+line)
			}
		}
		for line := range before {
			if !after[line] && !strings.HasPrefix(line, "file: ") && !strings.HasPrefix(line, "mount: ") {
				differs = append(differs, "gone "+line)
			}
		}
		if len(differs) == 0 {
			return
		}
	}
	slices.Sort(differs)
	t.Errorf("the machine is not as it was:\n%s", strings.Join(differs, "\n"))
}

func TestNode(t *testing.T) {
	programs := realNode(t)
	before := machine(t)
	dirs := []string{tempLab(t), tempLab(t)}
	results := make([]result, 2)
	done := make(chan int)
	for i, dir := range dirs {
		go func() {
			results[i] = finish(t, command("up", "--node", "--dir="+dir, "--binaries="+programs))
			done <- i
		}()
	}
	<-done
	<-done
	winner := slices.IndexFunc(results, func(r result) bool { return r.code == 0 })
	if winner < 0 {
		t.Fatalf("none is up:\n%s\n%s", results[0].stderr, results[1].stderr)
	}
	t.Log(strings.TrimSpace(results[winner].stderr))
	n := node{t, programs, dirs[winner]}
	t.Run("one at a time", func(t *testing.T) {
		other := results[1-winner]
		if want := "the lab in " + n.dir + " has the node of this machine"; other.code != 2 || !strings.Contains(other.stderr, want) {
			t.Errorf("the other start: exit code %d, %s", other.code, other.stderr)
		}
		if got := finish(t, command("status", "--dir="+n.dir)); got.code != 0 || strings.Count(got.stdout, " pid ") != 8 {
			t.Errorf("status: exit code %d, %s", got.code, got.stdout)
		}
	})
	n.importProbe()
	kubectl(t, programs, n.dir, "admin", "", "apply", "-f", "testdata/pods.yaml")
	kubectl(t, programs, n.dir, "admin", "", "wait", "--for=condition=Available", "--timeout=5m", "-n=shop", "deployment/server")
	for _, pod := range []string{"shop customer", "street stranger"} {
		namespace, name, _ := strings.Cut(pod, " ")
		kubectl(t, programs, n.dir, "admin", "", "wait", "--for=condition=Ready", "--timeout=5m", "-n="+namespace, "pod/"+name)
	}
	t.Run("pods", func(t *testing.T) { testPods(t, n) })
	t.Run("network policies", func(t *testing.T) { testNetworkPolicies(t, n) })
	t.Run("down", func(t *testing.T) {
		if got := finish(t, command("down", "--dir="+n.dir)); got.code != 0 {
			t.Errorf("exit code %d, %s", got.code, got.stderr)
		}
		wantNothingRunning(t, n.dir)
		wantTrace(t, before)
	})
}

// A node is a lab with one that is up.
type node struct {
	t             *testing.T
	programs, dir string
}

// importProbe gives the node the image of the tests' pods.
func (n node) importProbe() {
	n.t.Helper()
	cache, err := cacheDir()
	if err != nil {
		n.t.Fatal(err)
	}
	dir := n.t.TempDir()
	program, image := filepath.Join(dir, "probe"), filepath.Join(dir, "probe.tar")
	build := exec.Command("go", "build", "-o", program, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{
		build,
		exec.Command(filepath.Join(cache, "image"), image, "localhost/probe:test="+program),
		command("node", "--dir="+n.dir, "ctr", "images", "import", image),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			n.t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
}

// exec runs the probe in a pod and returns what it prints.
func (n node) exec(namespace, pod string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(n.programs, "kubectl"), append([]string{"exec", "-n=" + namespace, pod, "--", "/probe"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(n.dir, "admin.kubeconfig"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// wantReach waits until a pod reaches a URL, or does not.
func (n node) wantReach(t *testing.T, namespace, pod, url string, want bool) {
	t.Helper()
	what := map[bool]string{true: "reaches", false: "cannot reach"}[want]
	eventually(t, fmt.Sprintf("%s/%s %s %s", namespace, pod, what, url), func() bool {
		out, err := n.exec(namespace, pod, "get", url)
		if err == nil && !strings.HasPrefix(out, "server-") && !strings.HasPrefix(out, "customer") {
			t.Fatalf("%s answers %q", url, out)
		}
		return (err == nil) == want
	})
}

func testPods(t *testing.T, n node) {
	if out, err := n.exec("shop", "customer", "resolve", "server.shop.svc.cluster.local"); err != nil || out != "10.96.0.80\n" {
		t.Errorf("resolve a service: %q, %v", out, err)
	}
	// A pod is available before kube-proxy has heard of it.
	n.wantReach(t, "street", "stranger", "http://server.shop", true)
	if out, err := n.exec("street", "stranger", "get", "http://server.shop"); err != nil || !strings.HasSuffix(out, " at :8080\n") {
		t.Errorf("get from a service: %q, %v", out, err)
	}
	if out := kubectl(t, n.programs, n.dir, "admin", "", "logs", "-n=shop", "deployment/server"); out != "serving\n" {
		t.Errorf("logs: %q", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://10.96.0.80", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("get from a service, from the machine: %v", err)
	}
	resp.Body.Close()
	if conn, err := os.Stat(filepath.Join(n.dir, "cri", "containerd.sock")); err != nil || conn.Mode()&fs.ModeSocket == 0 {
		t.Errorf("containerd's socket is not where up says: %v", err)
	}
	// The machine sees where each of the pods' processes belongs.
	out := kubectl(t, n.programs, n.dir, "admin", "", "get", "pod", "-n=shop", "customer", "-o=jsonpath={.metadata.uid}")
	if found, _ := filepath.Glob("/sys/fs/cgroup/pids/" + cgroupName + "/kubepods/besteffort/pod" + out + "/*/cgroup.procs"); len(found) == 0 {
		t.Errorf("no cgroup of pod %s", out)
	}
}

func testNetworkPolicies(t *testing.T, n node) {
	const http, admin = "http://10.96.0.80:80", "http://10.96.0.80:90"
	policy := func(name, spec string) {
		t.Helper()
		kubectl(t, n.programs, n.dir, "admin", fmt.Sprintf(`{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
			"metadata": {"name": %q, "namespace": "shop"}, "spec": %s}`, name, spec), "apply", "-f", "-")
	}
	policy("deny", `{"podSelector": {}, "policyTypes": ["Ingress"]}`)
	n.wantReach(t, "shop", "customer", http, false)
	n.wantReach(t, "street", "stranger", http, false)
	// A probe of the kubelet is not refused: the pod stays ready.
	policy("customers", `{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
		"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "customer"}}}], "ports": [{"port": "http"}]}]}`)
	n.wantReach(t, "shop", "customer", http, true)
	n.wantReach(t, "shop", "customer", admin, false)
	n.wantReach(t, "street", "stranger", http, false) // the same label in another namespace
	kubectl(t, n.programs, n.dir, "admin", "", "label", "pod", "-n=shop", "customer", "app=other", "--overwrite")
	n.wantReach(t, "shop", "customer", http, false)
	kubectl(t, n.programs, n.dir, "admin", "", "label", "pod", "-n=shop", "customer", "app=customer", "--overwrite")
	n.wantReach(t, "shop", "customer", http, true)
	policy("customers", `{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
		"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "none"}}}], "ports": [{"port": 9000, "endPort": 9100}]}]}`)
	n.wantReach(t, "street", "stranger", admin, true)
	n.wantReach(t, "street", "stranger", http, false)
	n.wantReach(t, "shop", "customer", admin, false)
	policy("customers", `{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
		"ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}]}`)
	n.wantReach(t, "shop", "customer", admin, true)
	// What comes in must have been let out.
	policy("stay", `{"podSelector": {"matchLabels": {"app": "customer"}}, "policyTypes": ["Egress"],
		"egress": [{"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": [{"port": "http"}]}]}`)
	n.wantReach(t, "shop", "customer", admin, false)
	n.wantReach(t, "shop", "customer", http, true)
	n.wantReach(t, "street", "stranger", admin, true)
	if _, err := n.exec("shop", "customer", "resolve", "server.shop.svc.cluster.local"); err == nil {
		t.Error("a pod that may not leave asks the cluster's DNS")
	}
	policy("names", `{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}],
		"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]}]}`)
	eventually(t, "an answer of the cluster's DNS", func() bool {
		_, err := n.exec("shop", "customer", "resolve", "server.shop.svc.cluster.local")
		return err == nil
	})
	ready := kubectl(t, n.programs, n.dir, "admin", "", "get", "deployment", "-n=shop", "server", "-o=jsonpath={.status.availableReplicas}")
	if ready != "1" {
		t.Errorf("the isolated server is not ready: %q", ready)
	}
}

// The reference application runs in real pods, as its secured manifests have it:
// who may connect to its gateway uses it, and others do not reach it.
func TestInternshipMatcher(t *testing.T) {
	programs := realNode(t)
	if servers, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(servers) == 0 {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal("no PostgreSQL")
		}
		t.Skip("no PostgreSQL")
	}
	dir := tempLab(t)
	if got := finish(t, command("up", "--node", "--dir="+dir, "--binaries="+programs)); got.code != 0 {
		t.Fatalf("up: exit code %d, %s", got.code, got.stderr)
	}
	start := exec.Command("go", "run", "./matcher", "--lab="+os.Args[0], "--dir="+dir)
	start.Env = append(os.Environ(), asLab+"=1")
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("start the application: %v\n%s", err, out)
	}
	kubectl(t, programs, dir, "admin", "", "apply", "-f", "testdata/traffic.yaml")
	logs := func(namespace string) string {
		cmd := exec.Command(filepath.Join(programs, "kubectl"), "logs", "-n="+namespace, "traffic")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "admin.kubeconfig"))
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	eventually(t, "20 journeys", func() bool { return strings.Contains(logs("traefik"), "20 journeys completed, 0 failed") })
	eventually(t, "a failed journey", func() bool { return strings.Contains(logs("default"), "0 journeys completed, 1 failed") })
	if got := finish(t, command("down", "--dir="+dir)); got.code != 0 {
		t.Errorf("down: exit code %d, %s", got.code, got.stderr)
	}
}

// A start that is killed leaves its node; down finds and ends it.
func TestNodeStartKilled(t *testing.T) {
	programs := realNode(t)
	before := machine(t)
	for _, sign := range []string{sandboxFile, "logs/kubelet.log"} {
		t.Run(filepath.Base(sign), func(t *testing.T) {
			dir := tempLab(t)
			cmd := command("up", "--node", "--dir="+dir, "--binaries="+programs)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, sign, func() bool {
				_, err := os.Stat(filepath.Join(dir, sign))
				return err == nil
			})
			cmd.Process.Signal(syscall.SIGKILL)
			cmd.Wait()
			if got := finish(t, command("status", "--dir="+dir)); got.code != 1 {
				t.Errorf("status: exit code %d, %s", got.code, got.stdout)
			}
			if got := finish(t, command("down", "--dir="+dir)); got.code != 0 {
				t.Errorf("down: exit code %d, %s", got.code, got.stderr)
			}
			wantNothingRunning(t, dir)
			wantTrace(t, before)
		})
	}
}
