package fix_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/fix"
)

const weak = namespaced + "  hostPID: true # needed?\n  containers: [{name: a, image: b}]\n"

// folder writes files and returns where they are.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func planFor(t *testing.T, paths ...string) *fix.Plan {
	t.Helper()
	in := input(t, paths...)
	in.Controls = []string{"CON-SEC-10"}
	return propose(t, in)
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWrite(t *testing.T) {
	dir := folder(t, map[string]string{"pod.yaml": "\xef\xbb\xbf# first\n" + weak, "values.yaml": "a: 1\n"})
	p := planFor(t, dir)
	written, err := p.Write()
	name := filepath.Join(dir, "pod.yaml")
	if err != nil || len(written) != 1 || written[0] != name {
		t.Fatalf("written %v, %v", written, err)
	}
	if got := read(t, name); got != "\xef\xbb\xbf# first\n"+strings.Replace(weak, "hostPID: true", "hostPID: false", 1) {
		t.Errorf("got\n%s", got)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("files %v", left)
	}
	if _, err := p.Write(); err == nil || !strings.Contains(err.Error(), "has changed since it was read") {
		t.Errorf("a second time: %v", err)
	}
}

func TestWriteThroughLinks(t *testing.T) {
	outside := folder(t, map[string]string{"pod.yaml": weak})
	dir := folder(t, map[string]string{"real/pod.yaml": strings.ReplaceAll(weak, "web", "own")})
	link := func(target, name string) string {
		name = filepath.Join(dir, name)
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	link(filepath.Join(outside, "pod.yaml"), "a-link.yaml")
	written, err := planFor(t, dir).Write()
	if err == nil || !strings.Contains(err.Error(), "outside of the given paths") || len(written) != 1 {
		t.Errorf("written %v, %v", written, err)
	}
	if got := read(t, filepath.Join(outside, "pod.yaml")); got != weak {
		t.Errorf("a file outside has changed\n%s", got)
	}
	named := filepath.Join(dir, "a-link.yaml")
	if _, err := planFor(t, named).Write(); err != nil {
		t.Errorf("a link that is named itself: %v", err)
	}
	if info, err := os.Lstat(named); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if got := read(t, filepath.Join(outside, "pod.yaml")); got == weak {
		t.Error("what the link leads to has not changed")
	}
}

// The diff is what patch takes, both ways.
func TestDiff(t *testing.T) {
	patch, err := exec.LookPath("patch")
	if err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("patch is not installed")
	}
	space := "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
	for name, newline := range map[string]string{"lines of Unix": "\n", "lines of Windows": "\r\n"} {
		t.Run(name, func(t *testing.T) {
			pod := strings.TrimSuffix(strings.ReplaceAll(strings.Replace(weak, "name: web", "name: web\n  namespace: shop", 1), "\n", newline), newline)
			dir := folder(t, map[string]string{"pod.yaml": pod, "space.yaml": space})
			t.Chdir(dir)
			in := input(t, ".")
			in.Controls = []string{"CON-SEC-10", "CLU-NET-02"}
			p := propose(t, in)
			run := func(args ...string) {
				cmd := exec.Command(patch, append(args, "-p1", "--binary")...)
				cmd.Stdin = strings.NewReader(p.Diff())
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("patch: %v\n%s\n%s", err, out, p.Diff())
				}
			}
			run()
			if got := read(t, "pod.yaml"); got != strings.Replace(pod, "true", "false", 1) {
				t.Errorf("got %q", got)
			}
			if !strings.Contains(read(t, "networkpolicy-shop.yaml"), "name: default-deny-ingress") {
				t.Error("the new file is not there")
			}
			run("-R")
			if got := read(t, "pod.yaml"); got != pod {
				t.Errorf("taken back: %q", got)
			}
			if _, err := os.Stat("networkpolicy-shop.yaml"); err == nil {
				t.Error("the new file is still there")
			}
		})
	}
}
