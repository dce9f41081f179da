//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// Each rule for system calls can be tried, or it says why not.
func TestEachRuleHasATechnique(t *testing.T) {
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	all := table(t)
	n := 0
	for _, r := range set.Rules() {
		if r.Source != event.Syscall {
			continue
		}
		if n >= len(all) || all[n].Rule != r.Name {
			t.Fatalf("technique %d must be that of rule %q", n+1, r.Name)
		}
		has := all[n].Attack.Name != "" && all[n].Benign.Name != ""
		if has == (all[n].Without != "") {
			t.Errorf("rule %q: want an attack with a benign twin, or a reason why there is none", r.Name)
		}
		n++
	}
	if n != len(all) {
		t.Errorf("technique %q is of no rule", all[n].Rule)
	}
}

func table(t *testing.T) []technique {
	t.Helper()
	all, err := techniques()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// build builds the program as a user would.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attack")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// needRoot skips a test where the program cannot make its namespaces.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal("attacks need root")
	}
	t.Skip("attacks need root")
}

// The kernel lets every technique and its twin do what they are about, and nothing
// is left of them.
func TestTechniquesCanBePerformed(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("performs 240 programs")
	}
	attack := build(t)
	before := remains(t)
	t.Run("all", func(t *testing.T) {
		for _, tech := range table(t) {
			if tech.Without != "" {
				continue
			}
			t.Run(tech.Rule, func(t *testing.T) {
				t.Parallel()
				for _, args := range [][]string{{"run", tech.Rule}, {"run", "--benign", tech.Rule}} {
					if out, err := exec.Command(attack, args...).CombinedOutput(); err != nil {
						t.Errorf("%v: %v: %s", args, err, out)
					}
				}
			})
		}
	})
	if after := remains(t); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// remains lists mounts of attacks, and control groups that are named like a
// container's.
func remains(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/attack-") {
			found = append(found, line)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/cri-containerd-*.scope", "/sys/fs/cgroup/*/cri-containerd-*.scope", filepath.Join(os.TempDir(), "attack-*")} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return strings.Join(found, "\n")
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"attack"}, {"attack", "walk"}, {"attack", "run"}, {"attack", "run", "No such rule"}, {"attack", "run", "Shell in a privileged container"}} {
		if err := run(args, t.Output()); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	var out strings.Builder
	if err := run([]string{"attack", "list"}, &out); err != nil || strings.Count(out.String(), "\n") != len(table(t)) ||
		!strings.Contains(out.String(), "Shell in a privileged container (not triggered: it takes") {
		t.Errorf("list: %v\n%s", err, out.String())
	}
	if err := (act{Do: "nothing", Args: []string{"", ""}}).do(); err == nil {
		t.Error("an unknown act is performed")
	}
}
