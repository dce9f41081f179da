//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
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
	orders  *os.File
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
type watch struct{ *agenttest.Agent }

func newWatch(t *testing.T) watch {
	t.Helper()
	c := agent.DefaultConfig()
	c.Rules = []string{content.Builtin, "../../content/rules/testdata/enable/syscall.yaml"}
	c.Match, c.CRI, c.Environment = "all", "none", true
	return watch{agenttest.Start(t, c)}
}

// take returns the alerts of a rule that are not forgotten, but for what the attacker
// itself does to prepare.
func (w watch) take(rule string) (found []alert.Alert) {
	for _, a := range w.Alerts() {
		if a.Rule == rule && a.OutputFields["proc.exepath"] != "" && !strings.Contains(a.Output, "command=attack serve") {
			found = append(found, a)
		}
	}
	return found
}

// wait returns an alert of a rule, or false after a minute.
func (w watch) wait(rule string) (alert.Alert, bool) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if found := w.take(rule); len(found) > 0 {
			return found[0], true
		}
	}
	return alert.Alert{}, false
}

// Each rule raises its alert when a program does what it is about, on a real
// kernel with a real agent, and none for the benign twin.
func TestRulesLive(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("watches the whole machine")
	}
	attacker := newAttacker(t, build(t))
	w := newWatch(t)
	const mark, otherMark = "Flooding tool started", "Attack tool started"
	var late []time.Duration
	for _, tech := range table(t) {
		if tech.Without != "" {
			continue
		}
		w.Forget()
		attacker.perform("attack", tech.Rule)
		done := time.Now()
		a, raised := w.wait(tech.Rule)
		if !raised {
			t.Errorf("%s: no alert", tech.Rule)
			continue
		}
		late = append(late, time.Since(done))
		if host := a.OutputFields["container.id"] == "host"; host != tech.Host || a.OutputFields["proc.cmdline"] == nil || a.OutputFields["proc.pname"] == nil {
			t.Errorf("%s: output %s", tech.Rule, a.Output)
		}
		after := mark
		if tech.Rule == mark {
			after = otherMark
		}
		w.Forget()
		attacker.perform("benign", tech.Rule)
		attacker.perform("attack", after)
		if _, raised := w.wait(after); !raised {
			t.Fatalf("%s: the mark after its twin did not come", tech.Rule)
		}
		if noise := w.take(tech.Rule); len(noise) > 0 {
			t.Errorf("%s: the twin raises %s", tech.Rule, noise[0].Output)
		}
	}
	slices.Sort(late)
	if n := len(late); n > 0 {
		t.Logf("%d rules; alert after the end of the attack: half within %s, the last within %s", n, late[n/2], late[n-1])
	}
}
