package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asLab makes the test program behave as the lab's own.
const asLab = "KUBEGUARDIAN_TEST_AS_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(asLab) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A result is what a command line did.
type result struct {
	stdout, stderr string
	code           int
}

// command prepares a command line of the lab.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asLab+"=1", "KUBEBUILDER_ASSETS=")
	return cmd
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// tempLab returns a directory for a lab that is ended with the test.
func tempLab(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lab")
	t.Cleanup(func() {
		if err := stop(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// eventually waits for something that other processes bring about.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func wantNothingRunning(t *testing.T, dir string) {
	t.Helper()
	running, err := processes(dir)
	if err != nil || len(running) > 0 {
		t.Errorf("still running: %v, %v", running, err)
	}
}

// scripts writes stand-ins for all programs: they wait, but for those that
// bodies gives another text.
func scripts(t *testing.T, bodies map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs() {
		body, ok := bodies[p.name]
		if !ok {
			body = "exec sleep 300"
		}
		if err := os.WriteFile(filepath.Join(dir, p.name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBadCommandLines(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := strconv.Itoa(busy.Addr().(*net.TCPAddr).Port)
	foreign := t.TempDir()
	file := filepath.Join(foreign, "notes.txt")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	waiting := scripts(t, nil)
	for name, tt := range map[string]struct {
		args []string
		want string // in stderr
	}{
		"no command":               {nil, `^Usage: lab COMMAND`},
		"unknown command":          {[]string{"start"}, `error: unknown command "start"\n.*hint: lab help`},
		"unknown flag":             {[]string{"up", "--nodes=3"}, `flag provided but not defined: -nodes`},
		"argument":                 {[]string{"up", "now"}, `error: unexpected argument "now"\n.*hint: lab up -h`},
		"port out of range":        {[]string{"up", "--port=70000"}, `error: --port 70000: want 0 to 65535`},
		"port in use":              {[]string{"up", "--port=" + port, "--binaries=" + waiting}, `error: port ` + port + ` on 127.0.0.1 is in use\n.*hint: choose another by --port`},
		"no programs":              {[]string{"up", "--binaries=" + foreign}, `error: use programs in .*: etcd, kubectl, kube-apiserver, .* missing or not executable\n.*hint: .*--binaries`},
		"no binaries folder":       {[]string{"run", "--binaries=/nowhere"}, `error: --binaries: open /nowhere: no such file or directory`},
		"no audit policy":          {[]string{"up", "--audit-policy=/nowhere.yaml"}, `error: --audit-policy: open /nowhere.yaml: no such file`},
		"no kubeconfig":            {[]string{"up", "--webhook-kubeconfig=/nowhere"}, `error: --webhook-kubeconfig: open /nowhere: no such file`},
		"up in a foreign folder":   {[]string{"up", "--dir=" + foreign}, `error: use .*: not empty, and not a lab\n.*hint: choose a new or empty directory`},
		"down in a foreign folder": {[]string{"down", "--dir=" + foreign}, `error: use .*: not empty, and not a lab`},
		"no folder possible":       {[]string{"up", "--dir=" + file + "/lab"}, `error: create lab: .*not a directory\n.*hint: .*--dir`},
		"unknown user":             {[]string{"kubeconfig", "--user=root"}, `error: --user "root": want admin or developer`},
		"kubeconfig of none":       {[]string{"kubeconfig"}, `error: find kubeconfig: .*\n.*hint: .*lab up`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempLab(t)
			cmd := command(tt.args...)
			cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+dir)
			got := finish(t, cmd)
			if got.code != 2 || got.stdout != "" || !regexp.MustCompile(tt.want).MatchString(got.stderr) {
				t.Errorf("exit code %d, stdout %q, stderr:\n%s\nwant 2, nothing, %s", got.code, got.stdout, got.stderr, tt.want)
			}
			if left, _ := filepath.Glob(dir + "/kubeguardian/lab/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			wantNothingRunning(t, filepath.Join(dir, "kubeguardian", "lab"))
		})
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("the foreign file is now %q, %v", data, err)
	}
}

func TestWhatABuildNeeds(t *testing.T) {
	for name, tt := range map[string]struct{ dir, path, want string }{
		"go":     {".", t.TempDir(), `error: build the lab's programs: go not found in PATH\n.*hint: install Go`},
		"source": {t.TempDir(), os.Getenv("PATH"), `error: find the lab's source: not in this directory\n.*hint: run the lab from the repository`},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command("build")
			cmd.Dir = tt.dir
			cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+t.TempDir(), "PATH="+tt.path)
			if got := finish(t, cmd); got.code != 2 || !regexp.MustCompile(tt.want).MatchString(got.stderr) {
				t.Errorf("exit code %d, stderr:\n%s\nwant %s", got.code, got.stderr, tt.want)
			}
		})
	}
}

func TestProgramEndsDuringStart(t *testing.T) {
	for _, name := range []string{"up", "run"} {
		t.Run(name, func(t *testing.T) {
			dir := tempLab(t)
			programs := scripts(t, map[string]string{"kube-apiserver": "echo no such flag >&2; exit 3"})
			got := finish(t, command(name, "--dir="+dir, "--binaries="+programs))
			want := regexp.MustCompile(`(?s)^lab: error: kube-apiserver ended by itself: exit status 3\n  no such flag\nlab: hint: the whole log is (\S+)\n$`)
			match := want.FindStringSubmatch(got.stderr)
			if got.code != 2 || match == nil {
				t.Fatalf("exit code %d, stderr:\n%s", got.code, got.stderr)
			}
			if log, err := os.ReadFile(match[1]); err != nil || string(log) != "no such flag\n" {
				t.Errorf("log: %q, %v", log, err)
			}
			wantNothingRunning(t, dir)
		})
	}
}

// begin starts a lab that will never be ready and returns when all that can
// run of it runs.
func begin(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	cmd := command(name, "--dir="+dir, "--binaries="+scripts(t, nil))
	cmd.Stderr = new(bytes.Buffer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	eventually(t, "two programs", func() bool {
		running, err := processes(dir)
		return err == nil && len(running) == 2
	})
	return cmd
}

func TestInterrupted(t *testing.T) {
	for _, name := range []string{"up", "run"} {
		t.Run(name, func(t *testing.T) {
			dir := tempLab(t)
			cmd := begin(t, name, dir)
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			stderr := cmd.Stderr.(*bytes.Buffer).String()
			if cmd.ProcessState.ExitCode() != 2 || stderr != "lab: error: interrupted; nothing is left running\n" {
				t.Errorf("exit code %d, stderr %q", cmd.ProcessState.ExitCode(), stderr)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left", dir)
			}
			wantNothingRunning(t, dir)
		})
	}
}

func TestKilled(t *testing.T) {
	dir := tempLab(t)
	cmd := begin(t, "up", dir)
	if got := finish(t, command("down", "--dir="+dir)); got.code != 2 || !strings.Contains(got.stderr, "in use by another lab command") {
		t.Errorf("down during up: exit code %d, stderr %s", got.code, got.stderr)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if got := finish(t, command("status", "--dir="+dir)); got.code != 1 || !strings.HasPrefix(got.stdout, "broken: ") {
		t.Errorf("status of half a lab: exit code %d, %s", got.code, got.stdout)
	}
	for range 2 {
		if got := finish(t, command("down", "--dir="+dir)); got.code != 0 {
			t.Errorf("down: exit code %d, %s", got.code, got.stderr)
		}
	}
	wantNothingRunning(t, dir)
	if got := finish(t, command("status", "--dir="+dir)); got.code != 1 || !strings.HasPrefix(got.stdout, "not up: ") {
		t.Errorf("status of none: exit code %d, %s", got.code, got.stdout)
	}
}

func TestDownFindsProgramsOfARemovedDirectory(t *testing.T) {
	dir := tempLab(t)
	cmd := begin(t, "up", dir)
	cmd.Process.Kill()
	cmd.Wait()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := finish(t, command("down", "--dir="+dir)); got.code != 0 {
		t.Errorf("down: exit code %d, %s", got.code, got.stderr)
	}
	wantNothingRunning(t, dir)
}

func TestRunKilledTakesItsProgramsAlong(t *testing.T) {
	dir := tempLab(t)
	cmd := begin(t, "run", dir)
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "the programs to end", func() bool {
		running, err := processes(dir)
		return err == nil && len(running) == 0
	})
}

func TestStopSparesOthers(t *testing.T) {
	mine, other := tempLab(t), tempLab(t)
	begin(t, "run", mine)
	begin(t, "run", other)
	if err := stop(mine); err != nil {
		t.Fatal(err)
	}
	if running, err := processes(other); err != nil || len(running) != 2 {
		t.Errorf("the other lab has %v, %v", running, err)
	}
}
