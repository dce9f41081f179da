//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/agent/agenttest"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
)

// An attacker performs techniques in a process that descends from no test, so that
// rules do not take them for parts of a build.
type attacker struct {
	t       *testing.T
	orders  io.Writer
	answers *bufio.Reader
}

func newAttacker(t *testing.T, path string) *attacker {
	t.Helper()
	in, orders, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("sh", "-c", `"$0" serve <&3 >&4 3<&- 4>&- &`, path)
	shell.ExtraFiles = []*os.File{in, out}
	if err := shell.Run(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(orders.Close(), answers.Close()); err != nil {
			t.Error(err)
		}
	})
	return &attacker{t, orders, bufio.NewReader(answers)}
}

func (a *attacker) perform(kind, rule string) {
	a.t.Helper()
	if _, err := fmt.Fprintf(a.orders, "%s %s\n", kind, rule); err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.answers.ReadString('\n')
	if err != nil || answer != "ok\n" {
		a.t.Fatalf("%s %s: %v %s", kind, rule, err, answer)
	}
}

// A watch is an agent on this machine, with the built-in rules, those that are
// switched off too.
type watch struct {
	*agenttest.Agent
	about func(alert.Alert) bool // alerts that count
}

// newWatch starts one, with a configuration that change has changed.
func newWatch(t *testing.T, change func(*agent.Config)) *watch {
	t.Helper()
	c := agent.DefaultConfig()
	c.Rules = []string{content.Builtin, "../../content/rules/testdata/enable/syscall.yaml"}
	c.Match, c.CRI, c.Environment = "all", "none", true
	if change != nil {
		change(c)
	}
	return &watch{agenttest.Start(t, c), func(alert.Alert) bool { return true }}
}

// take returns the alerts of a rule that are not forgotten, but for what the attacker
// itself does to prepare.
func (w *watch) take(rule string) (found []agenttest.Told) {
	for _, a := range w.Told() {
		if a.Rule == rule && w.about(a.Alert) && a.OutputFields["proc.exepath"] != "" && !prepares(a.Alert) {
			found = append(found, a)
		}
	}
	return found
}

// prepares reports whether an alert is about the attacker who sets the stage.
func prepares(a alert.Alert) bool {
	return strings.Contains(a.Output, "attack serve") || strings.Contains(a.Output, "command=exe stage ")
}

// patience is how long nothing may happen. Alerts come at once, but not on every
// machine.
const patience = time.Minute

// wait returns an alert of a rule, or false when none comes.
func (w *watch) wait(rule string) (agenttest.Told, bool) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if found := w.take(rule); len(found) > 0 {
			return found[0], true
		}
	}
	return agenttest.Told{}, false
}

// try performs a technique and its twin, and returns the alert of the first. The
// second must have none.
func (w *watch) try(t *testing.T, by *attacker, tech technique) (agenttest.Told, bool) {
	t.Helper()
	mark := "Flooding tool started" // by which all alerts of the twin have come
	if tech.Rule == mark {
		mark = "Attack tool started"
	}
	w.Forget()
	by.perform("attack", tech.Rule)
	a, ok := w.wait(tech.Rule)
	if !ok {
		t.Errorf("%s: no alert", tech.Rule)
		return a, false
	}
	w.Forget()
	by.perform("benign", tech.Rule)
	by.perform("attack", mark)
	if _, ok := w.wait(mark); !ok {
		t.Fatalf("%s: the mark after its twin did not come", tech.Rule)
	}
	if noise := w.take(tech.Rule); len(noise) > 0 {
		t.Errorf("%s: the twin raises %s", tech.Rule, noise[0].Output)
	}
	return a, true
}

// spread says how long after their events alerts were told.
func spread(late []time.Duration) string {
	if len(late) == 0 {
		return "no alerts"
	}
	slices.Sort(late)
	return fmt.Sprintf("%d rules; alert after its event: half within %s, the last within %s", len(late), late[len(late)/2], late[len(late)-1])
}

// Each rule raises its alert when a program does what it is about, on a real
// kernel with a real agent, and none for the benign twin.
func TestRulesLive(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("watches the whole machine")
	}
	attacker := newAttacker(t, build(t))
	w := newWatch(t, nil)
	var late []time.Duration
	for _, tech := range table(t) {
		if tech.Without != "" {
			continue
		}
		a, ok := w.try(t, attacker, tech)
		if !ok {
			continue
		}
		late = append(late, a.At.Sub(a.Time))
		if host := a.OutputFields["container.id"] == "host"; host != tech.Host || a.OutputFields["proc.cmdline"] == nil || a.OutputFields["proc.pname"] == nil {
			t.Errorf("%s: output %s", tech.Rule, a.Output)
		}
	}
	t.Log(spread(late))
}
