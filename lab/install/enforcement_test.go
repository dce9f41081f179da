package install

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rules of the built-in pack, and those of the agent and the server themselves.
const (
	dropped = "Drifted program started"
	called  = "Kubelet called by a container"
	drifted = "Executable that did not come with the image"
	entered = "Command in a container without a request"
)

// The kubelet's own address, which containers have no business with, and that of
// DNS, which they have.
const (
	kubelet = "10.99.0.2:10250"
	dns     = "10.96.0.10:53"
)

// enforcing is what the agent is told to do, by namespace. The first order is
// about every namespace but those in which something else is tried, so also about
// kube-system.
func enforcing() map[string]any {
	type object = map[string]any
	return object{
		"enforce": []any{
			object{"rules": []any{dropped}, "action": "kill", "except": []any{"rehearsal", "watched", "sealed"}},
			object{"rules": []any{dropped}, "action": "kill", "dryRun": true, "namespaces": []any{"rehearsal"}},
			object{"rules": []any{called}, "action": "block-egress", "namespaces": []any{"shop"}},
		},
		"zeroDrift": []any{
			object{"namespaces": []any{"sealed"}, "mode": "kill"},
			object{"namespaces": []any{"watched"}, "mode": "alert"},
			object{"mode": "off"},
		},
	}
}

// victims starts one pod for each place in which the agent is tried, and waits
// for all of them.
func (l lab) victims(places ...string) {
	l.t.Helper()
	no := false
	for _, place := range places {
		namespace, name, _ := strings.Cut(place, "/")
		_, err := l.client.CoreV1().Namespaces().Create(l.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			l.t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no,
			Containers:                   []corev1.Container{{Name: "app", Image: "localhost/intruder:lab"}},
		}}
		l.eventually("a pod to attack", func(ctx context.Context) error {
			_, err := l.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		})
	}
	for _, place := range places {
		namespace, name, _ := strings.Cut(place, "/")
		l.eventually(place, func(ctx context.Context) error {
			p, err := l.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
			if err == nil && p.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("it is %s", p.Status.Phase)
			}
			return err
		})
	}
}

// in runs the intruder in a pod, by the API server and the kubelet, and returns
// what it says.
func (l lab) in(place string, order ...string) (string, error) {
	l.t.Helper()
	out, err := l.intruder(place, order...).CombinedOutput()
	return string(out), err
}

func (l lab) intruder(place string, order ...string) *exec.Cmd {
	namespace, name, _ := strings.Cut(place, "/")
	args := append([]string{"node", "--dir", l.dir, "--", "kubectl", "exec", "--namespace", namespace, name, "--", "/intruder"}, order...)
	return exec.CommandContext(l.t.Context(), l.program, args...)
}

// storm has a pod start one process after the other for a while, and returns once
// it does. Its connection ends when the runtime does.
func (l lab) storm(place, duration string) {
	l.t.Helper()
	cmd := l.intruder(place, "storm", duration)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "storming\n" {
		l.t.Fatalf("%s: %q (%v)", place, line, err)
	}
}

// A told alert is what the server has of one.
type told struct {
	ID, Rule string
	Subject  struct{ Namespace, Name string }
	Fields   map[string]any `json:"output_fields"`
}

// alerts returns the alerts of a rule that the server has about a pod.
func (l lab) alerts(rule, place string) (found []told, err error) {
	text, err := l.get("/api/v1/alerts?limit=500&rule="+url.QueryEscape(rule), l.token())
	if err != nil {
		return nil, err
	}
	var page struct{ Items []told }
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		return nil, err
	}
	for _, a := range page.Items {
		if a.Subject.Namespace+"/"+a.Subject.Name == place {
			found = append(found, a)
		}
	}
	return found, nil
}

// A recorded action is a line of the agent's record.
type recorded struct{ Action, Outcome, By, Reason, Rule, Alert, Entry, Exe, Pod, Namespace string }

// actions reads the agent's record.
func (l lab) actions() (all []recorded, err error) {
	text := l.node("sh", "-c", "cat /var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/spool/actions.jsonl")
	for line := range strings.Lines(text) {
		var a recorded
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return nil, fmt.Errorf("read %q: %w", line, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// A deed is what a pod does, and what has to become of it.
type deed struct {
	place   string
	order   []string
	says    string // the program, in the end
	rule    string
	outcome string // empty: there is an alert, and no action
	by      string
}

// wantEnforcement wants the agent to do what it is told, to note it in the alert
// and in its record, and to let be what it is not told of.
func (l lab) wantEnforcement() {
	l.t.Helper()
	for _, d := range []deed{
		{"shop/cart", []string{"drop", "5m"}, "signal: killed", dropped, "killed", "agent"},
		{"rehearsal/cart", []string{"drop", "2s"}, "lingered", dropped, "would-kill", "agent"},
		{"kube-system/cart", []string{"drop", "2s"}, "lingered", dropped, "refused", ""},
		{"sealed/cart", []string{"drop", "5m"}, "signal: killed", drifted, "killed", "kernel"},
		{"watched/cart", []string{"drop", "2s"}, "lingered", drifted, "", ""},
		{"shop/caller", []string{"call", kubelet}, "connected", called, "blocked", "agent"},
	} {
		if out, err := l.in(d.place, "run"); err != nil || !strings.Contains(out, "ran") {
			l.t.Errorf("%s: the image's own program: %v %s", d.place, err, out)
		}
		if out, _ := l.in(d.place, d.order...); !strings.Contains(out, d.says) {
			l.t.Errorf("%s %v: want %q, have %s", d.place, d.order, d.says, out)
		}
		l.wantAction(d)
	}
	l.eventually("the blocked network", func(context.Context) error {
		if out, err := l.in("shop/caller", "call", dns); err == nil || !strings.Contains(out, "operation not permitted") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if out, err := l.in("shop/cart", "call", dns); err != nil {
		l.t.Errorf("another pod was kept from the network: %v %s", err, out)
	}
}

// wantAction wants the alert of a deed to say what was done, and the record too.
func (l lab) wantAction(d deed) {
	l.t.Helper()
	name := "enforce.kill"
	if d.rule == called {
		name = "enforce.block-egress"
	}
	l.eventually("the alert of "+d.place, func(context.Context) error {
		alerts, err := l.alerts(d.rule, d.place)
		if err != nil || len(alerts) == 0 {
			return fmt.Errorf("there is none (%w)", err)
		}
		a := alerts[0]
		if outcome, _ := a.Fields[name].(string); outcome != d.outcome {
			return fmt.Errorf("%s is %q, want %q: %v", name, outcome, d.outcome, a.Fields)
		}
		actions, err := l.actions()
		if err != nil {
			return err
		}
		noted, err := l.get("/api/v1/actions", l.token())
		if err != nil {
			return err
		}
		if done := d.outcome != "" && d.outcome != "would-kill"; done != strings.Contains(noted, "/alerts/"+a.ID) {
			return fmt.Errorf("in the server's log of actions: %v, want %v", !done, done)
		}
		n := 0
		for _, act := range actions {
			if act.Namespace+"/"+act.Pod != d.place {
				continue
			}
			if n++; act.Outcome != d.outcome || act.By != d.by || act.Rule != d.rule || act.Action != strings.TrimPrefix(name, "enforce.") {
				return fmt.Errorf("record %+v, want %+v", act, d)
			}
		}
		if n > 0 != (d.outcome != "") {
			return fmt.Errorf("%d actions in the record", n)
		}
		return nil
	})
}

// wantCommands wants a command that came by the API server to be explained by the
// audit log, and one that came by the runtime's socket to raise an alert.
func (l lab) wantCommands() {
	l.t.Helper()
	const asked, past = "default/asked", "default/past"
	if out, err := l.in(asked, "run"); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	p, err := l.client.CoreV1().Pods("default").Get(l.t.Context(), "past", metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	_, id, _ := strings.Cut(p.Status.ContainerStatuses[0].ContainerID, "://")
	l.node("ctr", "--namespace", "k8s.io", "tasks", "exec", "--exec-id", "past", id, "/intruder", "run")
	l.eventually("the alert of a command without a request", func(context.Context) error {
		alerts, err := l.alerts(entered, past)
		if err == nil && len(alerts) != 1 {
			err = fmt.Errorf("%d alerts about the command by the runtime's socket", len(alerts))
		}
		return err
	})
	metrics, err := l.get("/metrics", "")
	if err != nil {
		l.t.Fatal(err)
	}
	if alerts, err := l.alerts(entered, asked); err != nil || len(alerts) > 0 || !strings.Contains(metrics, `kubeguardian_container_commands_total{outcome="explained"}`) {
		l.t.Errorf("a command that was asked for has %d alerts (%v)", len(alerts), err)
	}
}

// wantRestarts kills the agent and restarts the runtime while a pod starts one
// process after the other: the agent that the kubelet starts again takes nothing of
// the image for drift, and goes on to kill what is.
func (l lab) wantRestarts() {
	l.t.Helper()
	l.storm("watched/cart", "15s")
	before := l.agent()
	_, id, _ := strings.Cut(before.ContainerID, "://")
	l.node("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id)
	l.restartRuntime()
	l.eventually("the agent's restart", func(context.Context) error {
		if now := l.agent(); now.RestartCount == before.RestartCount || !now.Ready {
			return fmt.Errorf("restarted %d times, ready %v", now.RestartCount, now.Ready)
		}
		return nil
	})
	if out, err := l.in("watched/cart", "storm", "1s"); err != nil {
		l.t.Errorf("the image's own program: %v %s", err, out)
	}
	if out, _ := l.in("sealed/cart", "drop", "5m"); !strings.Contains(out, "signal: killed") {
		l.t.Errorf("after the restart a program that is not of the image lives: %s", out)
	}
	l.eventually("the second kill in the record", func(context.Context) error {
		actions, err := l.actions()
		n := 0
		for _, act := range actions {
			if act.Namespace == "sealed" && act.Outcome == "killed" {
				n++
			}
		}
		if err == nil && n != 2 {
			err = fmt.Errorf("%d kills", n)
		}
		return err
	})
	for _, place := range []string{"sealed/cart", "watched/cart"} {
		alerts, err := l.alerts(drifted, place)
		if err != nil || len(alerts) == 0 {
			l.t.Errorf("%s: %d alerts (%v)", place, len(alerts), err)
		}
		for _, a := range alerts {
			if a.Fields["proc.exepath"] != "/implant" {
				l.t.Errorf("%s: false drift: %v", place, a.Fields)
			}
		}
	}
}

// agent returns how the container of the only agent is.
func (l lab) agent() corev1.ContainerStatus {
	l.t.Helper()
	pods, err := l.client.CoreV1().Pods(agents).List(l.t.Context(), listAll)
	if err != nil || len(pods.Items) != 1 || len(pods.Items[0].Status.ContainerStatuses) != 1 {
		l.t.Fatalf("not one agent: %+v (%v)", pods, err)
	}
	return pods.Items[0].Status.ContainerStatuses[0]
}

// restartRuntime ends the node's containerd, and starts it again.
func (l lab) restartRuntime() {
	l.t.Helper()
	pid := 0
	for line := range strings.Lines(l.run(l.program, "status", "--dir", l.dir)) {
		if rest, ok := strings.CutPrefix(line, "containerd "); ok {
			_, _ = fmt.Sscanf(strings.TrimSpace(rest), "pid %d", &pid)
		}
	}
	if pid == 0 {
		l.t.Fatal("the lab has no containerd")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the end of containerd", func(context.Context) error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("it runs still (%v)", err)
		}
		return nil
	})
	l.node("sh", "-c", "setsid containerd --config=/opt/lab/etc/containerd.toml </dev/null >/dev/null 2>&1 &")
	l.eventually("containerd", func(ctx context.Context) error {
		return exec.CommandContext(ctx, l.program, "node", "--dir", l.dir, "--", "ctr", "version").Run()
	})
}
