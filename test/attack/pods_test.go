//go:build linux && pods

package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/alert"
)

// Both tests look at real pods, on a node of the lab that is up: make pods.
var (
	labProgram = flag.String("lab", "../../bin/lab", "the lab's `program`")
	labDir     = flag.String("dir", "", "`directory` of the lab")
	minutes    = flag.Float64("minutes", 10, "how long people use the application")
	perSecond  = flag.Float64("rate", 5, "how many begin to, each second")
)

// node prepares a command on the node.
func node(args ...string) *exec.Cmd {
	return exec.Command(*labProgram, append([]string{"node", "--dir", *labDir, "--"}, args...)...)
}

func runOn(t *testing.T, stdin string, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, stderr.Bytes())
	}
	return string(out)
}

// attackerPod may do what an attacker who has taken a privileged pod can.
const attackerPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attacker", "namespace": "default"}, "spec": {
	"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
	"containers": [{"name": "app", "image": "localhost/attack:lab", "args": ["serve", "--here"], "stdin": true,
		"securityContext": {"privileged": true}, "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
	"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]}}`

// newPodAttacker is an attacker who is the first process of a pod.
func newPodAttacker(t *testing.T, path string) *attacker {
	t.Helper()
	image := filepath.Join(t.TempDir(), "attack.tar")
	runOn(t, "", exec.Command("go", "run", "-C", "../../lab/node", "./image", image, "localhost/attack:lab="+path))
	runOn(t, "", node("ctr", "images", "import", image))
	runOn(t, attackerPod, node("kubectl", "apply", "-f", "-"))
	t.Cleanup(func() {
		if out, err := node("kubectl", "delete", "pod", "attacker", "--now").CombinedOutput(); err != nil {
			t.Errorf("remove the attacker: %v: %s", err, out)
		}
	})
	runOn(t, "", node("kubectl", "wait", "--for=condition=Ready", "--timeout=3m", "pod/attacker"))
	attach := node("kubectl", "attach", "--quiet", "--stdin", "attacker")
	orders, err := attach.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	attach.Stderr = os.Stderr
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = attach.Process.Kill() // it would wait for the pod's process
		_ = attach.Wait()
	})
	return &attacker{t, orders, bufio.NewReader(answers)}
}

// told are the fields that an alert of a pod must have.
var told = [...]string{"k8s.pod.name", "k8s.ns.name", "container.id", "container.image.repository", "proc.cmdline", "proc.exepath", "proc.pname", "proc.aname[2]", "user.name"}

// know attacks until the runtime has told the agent of the pod: alerts do not wait
// for it, and the agent has just been started.
func (w *watch) know(t *testing.T, by *attacker) {
	t.Helper()
	const rule = "Flooding tool started"
	for {
		w.Forget()
		by.perform("attack", rule)
		a, ok := w.wait(rule)
		if !ok {
			t.Fatalf("%s: no alert", rule)
		}
		if a.OutputFields["container.pending"] == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Each rule is seen in a real pod, and the alert says which one it is, and what
// runs there; that of its twin does not come. Rules about the node are tried there.
func TestPodsRules(t *testing.T) {
	path := build(t)
	onNode, inPod := newAttacker(t, path), newPodAttacker(t, path)
	w := newWatch(t, func(c *agent.Config) { c.CRI = filepath.Join(*labDir, "cri/containerd.sock") })
	ofPod := func(a alert.Alert) bool { return a.OutputFields["k8s.pod.name"] == "attacker" }
	w.about = ofPod
	w.know(t, inPod)
	var late []time.Duration
	filled, pods, without := map[string]int{}, 0, 0
	for _, tech := range table(t) {
		if tech.Without != "" {
			without++
			continue
		}
		by := inPod
		w.about = ofPod
		if tech.Host {
			by, w.about = onNode, func(a alert.Alert) bool { return !ofPod(a) }
		}
		a, ok := w.try(t, by, tech)
		if !ok {
			continue
		}
		late = append(late, a.At.Sub(a.Time))
		if tech.Host {
			continue
		}
		pods++
		for _, field := range told {
			if v := a.OutputFields[field]; v != nil && v != "" {
				filled[field]++
			} else {
				t.Errorf("%s: no %s in %s", tech.Rule, field, a.Output)
			}
		}
		if a.Subject.Name != "attacker" || a.Subject.Container != "app" || a.OutputFields["container.pending"] != nil {
			t.Errorf("%s: subject %+v, %v", tech.Rule, a.Subject, a.OutputFields)
		}
	}
	t.Logf("in pods %d, on the node %d, not tried %d: %s", pods, len(late)-pods, without, spread(late))
	t.Logf("fields: %v", filled)
}

// A tally counts alerts.
type tally struct {
	noise  []string       // about pods of the application and the cluster, warning or higher
	lesser map[string]int // about the same, by rule
	others int            // about this machine, or other containers
}

func (n *tally) add(a alert.Alert) {
	switch {
	case !slices.Contains([]string{"internship-matcher", "kube-system", "traefik"}, a.Subject.Namespace):
		n.others++
	case a.Priority <= alert.Warning:
		n.noise = append(n.noise, a.Output)
	default:
		n.lesser[a.Rule]++
	}
}

// peoplePod uses the application from where its policies let people in: the ingress
// controller's place.
const peoplePod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "people", "namespace": "traefik", "labels": {"app.kubernetes.io/name": "traefik"}}, "spec": {
	"automountServiceAccountToken": false, "restartPolicy": "Never",
	"containers": [{"name": "people", "image": "registry.example.com/internship-matcher/traffic:lab",
		"args": ["-url", "http://gateway.internship-matcher", "-rate", "%g", "-n", "%d", "journeys"]}]}}`

// People use the application for some time, and nobody is told of anything. All
// of them must get what they came for: an application that nobody uses is silent.
func TestPodsBenign(t *testing.T) {
	count := &tally{lesser: map[string]int{}}
	w := newWatch(t, func(c *agent.Config) {
		*c = *agent.DefaultConfig()
		c.CRI, c.Status = filepath.Join(*labDir, "cri/containerd.sock"), "127.0.0.1:0"
	})
	journeys := int(*perSecond * *minutes * 60)
	runOn(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "traefik"}}`, node("kubectl", "apply", "-f", "-"))
	runOn(t, fmt.Sprintf(peoplePod, *perSecond, journeys), node("kubectl", "apply", "-f", "-"))
	t.Cleanup(func() {
		if out, err := node("kubectl", "delete", "namespace", "traefik").CombinedOutput(); err != nil {
			t.Errorf("remove the people: %v: %s", err, out)
		}
	})
	phase := func() string {
		return runOn(t, "", node("kubectl", "get", "pod", "people", "--namespace=traefik", "--output=jsonpath={.status.phase}"))
	}
	began := time.Now()
	for at := phase(); at != "Succeeded" && at != "Failed"; at = phase() {
		if time.Since(began) > 2*time.Duration(*minutes*float64(time.Minute))+patience {
			t.Fatalf("people take too long: their pod is %s", at)
		}
		time.Sleep(5 * time.Second)
	}
	out := runOn(t, "", node("kubectl", "logs", "people", "--namespace=traefik"))
	if want := fmt.Sprintf("%d journeys completed, 0 failed", journeys); !strings.Contains(out, want) {
		t.Errorf("not %s: %s", want, out)
	}
	for _, a := range w.Alerts() {
		count.add(a)
	}
	if len(count.noise) > 0 {
		t.Errorf("%d alerts:\n%s", len(count.noise), strings.Join(count.noise, "\n"))
	}
	t.Logf("%s%sin pods %d alerts of warning or above; lesser: %v; of others on this machine %d",
		out, counters(t, w.StatusAddr()), len(count.noise), count.lesser, count.others)
}

// counters returns what the agent counts of events, one line each.
func counters(t *testing.T, at net.Addr) string {
	t.Helper()
	answer, err := http.Get("http://" + at.String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var b strings.Builder
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		for _, name := range []string{"events_total ", "events_matched_total ", "alerts_total ", `what="dropped"`} {
			if line := lines.Text(); strings.Contains(line, name) && line[0] != '#' {
				fmt.Fprintln(&b, line)
			}
		}
	}
	return b.String()
}
