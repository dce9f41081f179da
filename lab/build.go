package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// kubernetesVersion is that of k8s.io/kubernetes in go.mod; a test compares them.
const kubernetesVersion = "v1.37.1"

// module is the module path of the lab, by which its source is recognised.
const module = "github.com/kubeguardian/kubeguardian/lab"

// A program is something that the lab runs or hands to its user.
type program struct{ name, pkg, ldflags string }

// programs lists all that a lab needs, in the order in which they are built.
func programs() []program {
	const kube = "k8s.io/kubernetes/cmd/"
	version := "-s -w -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
	return []program{
		{"etcd", "./etcd", "-s -w"},
		{"kubectl", kube + "kubectl", version},
		{"kube-apiserver", kube + "kube-apiserver", version},
		{"kube-controller-manager", kube + "kube-controller-manager", version},
		{"kube-scheduler", kube + "kube-scheduler", version},
	}
}

// missing returns the names of the programs that dir does not have.
func missing(dir string, programs []program) []string {
	var names []string
	for _, p := range programs {
		info, err := os.Stat(filepath.Join(dir, p.name))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			names = append(names, p.name)
		}
	}
	return names
}

// given checks a directory of ready programs that the user names.
func given(dir string) error {
	if names := missing(dir, programs()); len(names) > 0 {
		return withHint(fmt.Errorf("use programs in %s: %s missing or not executable", dir, strings.Join(names, ", ")),
			"give a complete set by --binaries, or unset KUBEBUILDER_ASSETS and leave --binaries out to build one")
	}
	return nil
}

// cacheDir is where the built programs of this Kubernetes version are kept.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(dir, "kubeguardian", "lab", kubernetesVersion), nil
}

// cached returns the cache directory after building what it lacks. Away from
// the source a complete cache is used as it is.
func cached(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	b := builder{cache: dir, programs: programs(), progress: progress}
	b.source, err = sourceDir()
	if err == nil {
		return dir, b.build(ctx)
	}
	if len(missing(dir, b.programs)) == 0 {
		return dir, nil
	}
	return "", err
}

// sourceDir finds the source of this module: the working directory, or lab in it.
func sourceDir() (string, error) {
	for _, dir := range []string{".", "lab"} {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte("module "+module+"\n")) {
			return filepath.Abs(dir)
		}
	}
	return "", withHint(errors.New("find the lab's source: not in this directory"),
		"run the lab from the repository, or give ready programs by --binaries")
}

// A builder keeps a cache directory up to date with its source.
type builder struct {
	source, cache string
	programs      []program
	progress      io.Writer
}

// build brings the cache up to date. Only one build runs at a time; the others
// wait for it and then find their work done.
func (b builder) build(ctx context.Context) error {
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return withHint(fmt.Errorf("create cache: %w", err), "set XDG_CACHE_HOME to a directory that you can write to")
	}
	lock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	digest, err := b.digest()
	if err != nil {
		return err
	}
	stamp := filepath.Join(b.cache, "inputs.sha256")
	if last, err := os.ReadFile(stamp); err == nil && string(last) == digest && len(missing(b.cache, b.programs)) == 0 {
		return nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return withHint(errors.New("build the lab's programs: go not found in PATH"), "install Go from https://go.dev/dl, or give ready programs by --binaries")
	}
	if len(missing(b.cache, b.programs)) > 0 {
		fmt.Fprintf(b.progress, "lab: building into %s; about 15 minutes on two cores, only once\n", b.cache)
	}
	for i, p := range b.programs {
		fmt.Fprintf(b.progress, "lab: build %s (%d of %d) … ", p.name, i+1, len(b.programs))
		start := time.Now()
		if err := b.one(ctx, p); err != nil {
			fmt.Fprintln(b.progress, "stopped")
			return err
		}
		fmt.Fprintf(b.progress, "%.0f s\n", time.Since(start).Seconds())
	}
	return os.WriteFile(stamp, []byte(digest), 0o644)
}

// lock waits for the lock of the cache.
func (b builder) lock(ctx context.Context) (*os.File, error) {
	for waiting := false; ; waiting = true {
		f, err := lockDir(b.cache)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		if !waiting {
			fmt.Fprintln(b.progress, "lab: waiting for another build of the same programs")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// digest covers all that decides what is built, but for the Go release. Which
// programs a change concerns is left to the go command and its own cache.
func (b builder) digest() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", b.programs)
	for _, name := range []string{"go.mod", "go.sum", "etcd/main.go"} {
		data, err := os.ReadFile(filepath.Join(b.source, name))
		if err != nil {
			return "", fmt.Errorf("read build input: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// one builds a program beside its place and then renames it, so that the cache
// never holds half a program and running ones are not disturbed.
func (b builder) one(ctx context.Context, p program) error {
	target := filepath.Join(b.cache, p.name)
	partial, logName := target+".partial", target+".log"
	defer os.Remove(partial)
	log, err := os.Create(logName)
	if err != nil {
		return fmt.Errorf("create build log: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", p.ldflags, "-o", partial, p.pkg)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.source, log, log
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that Cancel reaches the compilers too
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			os.Remove(logName)
			return ctx.Err()
		}
		return withLog(fmt.Errorf("build %s: %w", p.name, err), logName)
	}
	if err := os.Rename(partial, target); err != nil {
		return fmt.Errorf("keep %s: %w", p.name, err)
	}
	return os.Remove(logName)
}

// withLog adds the last lines of a log and its path to an error.
func withLog(err error, path string) error {
	const lines, bytesMax = 15, 8 << 10
	data, readErr := os.ReadFile(path)
	if readErr != nil {
		return withHint(err, "no log: "+readErr.Error())
	}
	data = data[max(0, len(data)-bytesMax):]
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	tail := strings.Join(all[max(0, len(all)-lines):], "\n  ")
	return hinted{error: err, log: "  " + tail + "\n", hint: "the whole log is " + path}
}
