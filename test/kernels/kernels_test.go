//go:build linux && kernels

// Package kernels runs the sensor's tests on kernels of other versions and of
// another architecture, in machines that QEMU emulates.
package kernels

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var only = flag.String("only", "", "run the sensor's tests that match this `pattern` alone")

// TestKernels runs the agent, and then the sensor's own tests, on each kernel, as
// root of a machine that has nothing else to do. No test may be skipped, but the
// one that compiles.
func TestKernels(t *testing.T) {
	for _, c := range []struct{ version, release, arch, kernel string }{
		{"6.1", "bookworm", "amd64", "linux-image-cloud-amd64"},
		{"6.12", "bookworm", "amd64", "linux-image-6.12-cloud-amd64"},
		{"6.1", "bookworm", "arm64", "linux-image-cloud-arm64"},
		{"6.12", "bookworm", "arm64", "linux-image-6.12-cloud-arm64"},
	} {
		t.Run(c.version+"-"+c.arch, func(t *testing.T) {
			d := newDebian(t, c.release, c.arch)
			root := newRoot(t, d)
			t.Run("agent", func(t *testing.T) {
				out := runAgent(t, d, c.kernel, root)
				if !strings.Contains(out, `"rule":"Password hashes read"`) || strings.Contains(out, "not covered") || !strings.Contains(out, ended+"0") {
					t.Error("the agent does not see all, or did not end well")
				}
			})
			compile(t, c.arch, filepath.Join(root, "test/sensor"), "test", "-c", "../../sensor")
			report(t, boot(t, d, c.kernel, root, "/test/sensor -test.v=test2json -test.skip=TestObjectsAreThoseOfTheSource -test.run='"+*only+"'"))
		})
	}
}

// TestTooOld: on a kernel that is too old, the agent says so.
func TestTooOld(t *testing.T) {
	d := newDebian(t, "bullseye", "amd64")
	out := runAgent(t, d, "linux-image-cloud-amd64", newRoot(t, d))
	if !strings.Contains(out, "not supported by this kernel") || !strings.Contains(out, "Linux 5.15 or later") || !strings.Contains(out, ended+"2") {
		t.Error("the agent does not say that the kernel is too old")
	}
}

// watch runs the agent while hashes of passwords are read, and prints its log and
// its alerts.
const watch = `#!/bin/sh
/test/agent --standalone >/tmp/alerts 2>/tmp/log & agent=$!
until busybox grep msg=watching /tmp/log || ! kill -0 $agent; do sleep 1; done
cat /etc/shadow
kill $agent; wait $agent; code=$?
cat /tmp/log /tmp/alerts
exit $code
`

// runAgent returns what is printed on a kernel where the agent watches.
func runAgent(t *testing.T, d *debian, kernel, root string) string {
	t.Helper()
	compile(t, d.arch, filepath.Join(root, "test/agent"), "build", "../../cmd/kubeguardian-agent")
	err := errors.Join(os.WriteFile(filepath.Join(root, "test/watch"), []byte(watch), 0o755),
		os.WriteFile(filepath.Join(root, "etc/shadow"), []byte("root:*:20000:0:99999:7:::\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	out, err := boot(t, d, kernel, root, "/test/watch").CombinedOutput()
	if t.Logf("%s", out); err != nil {
		t.Error(err)
	}
	return string(out)
}

// compile makes a program for a machine: of a package, or of its tests.
func compile(t *testing.T, arch, to, command string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{command, "-o", to}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	run(t, cmd)
}

type event struct{ Action, Test, Output string }

// report runs a machine whose command is the program of a package's tests, and
// makes each of them a subtest as soon as it has ended.
func report(t *testing.T, machine *exec.Cmd) {
	t.Helper()
	console, err := machine.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parser := exec.Command("go", "tool", "test2json")
	parser.Stdin = console
	events, err := parser.StdoutPipe()
	if err := errors.Join(err, machine.Start(), parser.Start()); err != nil {
		t.Fatal(err)
	}
	output := map[string]*strings.Builder{} // by test that runs; what is of none, by ""
	for from := json.NewDecoder(events); ; {
		var e event
		if err := from.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		test, _, inner := strings.Cut(e.Test, "/")
		if output[test] == nil {
			output[test] = &strings.Builder{}
		}
		output[test].WriteString(strings.ReplaceAll(e.Output, "\r", ""))
		if ends := e.Action == "pass" || e.Action == "fail" || e.Action == "skip"; ends && test != "" && !inner {
			conclude(t, test, e.Action, output[test].String())
			delete(output, test)
		}
	}
	if err := errors.Join(parser.Wait(), machine.Wait()); err != nil {
		t.Error(err)
	}
	outside := output[""].String()
	delete(output, "")
	for test, text := range output {
		conclude(t, test, "end of the machine", text.String())
	}
	if t.Logf("%s", outside); !strings.Contains(outside, ended+"0") && !t.Failed() {
		t.Error("the tests did not end well")
	}
}

func conclude(t *testing.T, test, how, output string) {
	t.Run(test, func(t *testing.T) {
		if t.Log(how + "\n" + output); how != "pass" {
			t.Fail()
		}
	})
}
