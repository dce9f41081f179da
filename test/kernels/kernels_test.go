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

// TestKernels runs the sensor's own tests on each kernel, as root of a machine
// that has nothing else to do. None may be skipped, but the one that compiles.
func TestKernels(t *testing.T) {
	for _, c := range []struct{ version, release, arch, kernel string }{
		{"6.1", "bookworm", "amd64", "linux-image-cloud-amd64"},
		{"6.12", "bookworm", "amd64", "linux-image-6.12-cloud-amd64"},
	} {
		t.Run(c.version+"-"+c.arch, func(t *testing.T) {
			d := newDebian(t, c.release, c.arch)
			root := newRoot(t, d)
			compile(t, machines[c.arch].goarch, "../../sensor", filepath.Join(root, "test/sensor"))
			cmd := boot(t, d, c.kernel, root, "/test/sensor -test.v=test2json -test.skip=TestObjectsAreThoseOfTheSource -test.run='"+*only+"'")
			report(t, cmd)
		})
	}
}

// compile makes the program of a package's tests for the machine.
func compile(t *testing.T, goarch, pkg, to string) {
	t.Helper()
	cmd := exec.Command("go", "test", "-c", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+goarch)
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
