package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The versions that the programs say of themselves are those that go.mod and
// node/go.mod pin; a test compares them.
const (
	kubernetesVersion = "v1.37.1"
	containerdVersion = "2.4.2"
	runcVersion       = "1.5.2"
)

// module is the module path of the lab, by which its source is recognised.
const module = "github.com/kubeguardian/kubeguardian/lab"

// A program is something that the lab runs or hands to its user.
type program struct {
	name, pkg string
	module    string // the directory whose go.mod pins the version, below the lab's source
	tags      string
	cgo       bool
	ldflags   string
}

const (
	kube        = "k8s.io/kubernetes/cmd/"
	kubeStrip   = "-s -w -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion + kubeRelease
	kubeRelease = " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
)

// programs lists all that the control plane needs, in the order in which they
// are built.
func programs() []program {
	return []program{
		{name: "etcd", pkg: "./etcd", ldflags: "-s -w"},
		{name: "kubectl", pkg: kube + "kubectl", ldflags: kubeStrip},
		{name: "kube-apiserver", pkg: kube + "kube-apiserver", ldflags: kubeStrip},
		{name: "kube-controller-manager", pkg: kube + "kube-controller-manager", ldflags: kubeStrip},
		{name: "kube-scheduler", pkg: kube + "kube-scheduler", ldflags: kubeStrip},
	}
}

// nodePrograms lists what a node needs beside the control plane.
func nodePrograms() []program {
	const plugins = "github.com/containernetworking/plugins/plugins/"
	const containerd = "github.com/containerd/containerd/v2/"
	inNode := func(name, pkg string) program {
		return program{name: name, pkg: pkg, module: "node", ldflags: "-s -w"}
	}
	ofContainerd := func(name string) program {
		p := inNode(name, containerd+"cmd/"+name)
		p.tags, p.ldflags = "no_btrfs,no_devmapper,no_zfs", "-s -w -X "+containerd+"version.Version="+containerdVersion
		return p
	}
	runc := inNode("runc", "github.com/opencontainers/runc")
	runc.tags, runc.cgo, runc.ldflags = "seccomp", true, "-s -w -X main.version="+runcVersion
	return []program{
		runc, ofContainerd("containerd"), ofContainerd("containerd-shim-runc-v2"), ofContainerd("ctr"),
		inNode("ptp", plugins+"main/ptp"), inNode("loopback", plugins+"main/loopback"),
		inNode("host-local", plugins+"ipam/host-local"), inNode("portmap", plugins+"meta/portmap"),
		inNode("netpol", "./netpol"), inNode("coredns", "./coredns"), inNode("pause", "./pause"), inNode("image", "./image"),
		{name: "kube-proxy", pkg: kube + "kube-proxy", ldflags: kubeStrip},
		{name: "kubelet", pkg: kube + "kubelet", ldflags: kubeStrip},
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

// cached returns the cache directory after building what it lacks of some sets
// of programs. Away from the source a complete cache is used as it is.
func cached(ctx context.Context, progress io.Writer, sets ...func(source, cache string, progress io.Writer) builder) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	source, sourceErr := sourceDir()
	for _, set := range sets {
		b := set(source, dir, progress)
		switch {
		case sourceErr == nil:
			if err := b.build(ctx); err != nil {
				return "", err
			}
		case len(missing(dir, b.programs)) > 0:
			return "", sourceErr
		}
	}
	return dir, nil
}

func controlPlaneBuilder(source, cache string, progress io.Writer) builder {
	return builder{
		source: source, cache: cache, progress: progress, name: "control-plane", takes: "about 15 minutes",
		programs: programs(), inputs: []string{"go.mod", "go.sum", "etcd"},
	}
}

// nodeBuilder also writes the images of the node's own pods.
func nodeBuilder(source, cache string, progress io.Writer) builder {
	b := builder{
		source: source, cache: cache, progress: progress, name: "node", takes: "about 5 minutes",
		programs: nodePrograms(), inputs: []string{"go.mod", "go.sum", "node"},
	}
	b.finish = func(ctx context.Context) error {
		in := func(name string) string { return filepath.Join(cache, name) }
		out, err := exec.CommandContext(ctx, in("image"), in(nodeImages+".partial"),
			"localhost/pause:lab="+in("pause"), "localhost/coredns:lab="+in("coredns")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("make the node's images: %w: %s", err, out)
		}
		return os.Rename(in(nodeImages+".partial"), in(nodeImages))
	}
	return b
}

// nodeImages is the file in the cache with the images of the node's own pods.
const nodeImages = "node-images.tar"

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

// A builder keeps a set of programs in the cache up to date with its source.
type builder struct {
	source, cache string
	name          string   // of the set
	takes         string   // on two cores with cold caches, for the user
	inputs        []string // files and directories of the source that decide what is built
	programs      []program
	finish        func(context.Context) error // what follows the programs, if anything
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
	stamp := filepath.Join(b.cache, b.name+".sha256")
	if last, err := os.ReadFile(stamp); err == nil && string(last) == digest && len(missing(b.cache, b.programs)) == 0 {
		return nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return withHint(errors.New("build the lab's programs: go not found in PATH"), "install Go from https://go.dev/dl, or give ready programs by --binaries")
	}
	if len(missing(b.cache, b.programs)) > 0 {
		fmt.Fprintf(b.progress, "lab: building into %s; %s on two cores, only once\n", b.cache, b.takes)
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
	if b.finish != nil {
		if err := b.finish(ctx); err != nil {
			return err
		}
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
	fmt.Fprintf(h, "%+v\n", b.programs)
	for _, input := range b.inputs {
		err := filepath.WalkDir(filepath.Join(b.source, input), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			name, _ := filepath.Rel(b.source, path)
			fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read build input: %w", err)
		}
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
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", p.tags, "-ldflags", p.ldflags, "-o", partial, p.pkg)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(b.source, p.module), log, log
	cgo := "CGO_ENABLED=0"
	if p.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo, "GOWORK=off")
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
