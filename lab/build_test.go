package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// source writes a module with the files that a build's digest covers.
func source(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/tiny\n\ngo 1.26\n", "go.sum": "",
		"etcd/main.go": "package main\n\nfunc main() { " + body + " }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func tiny(source, cache string) (builder, *bytes.Buffer) {
	var progress bytes.Buffer
	return builder{
		source: source, cache: cache, progress: &progress, name: "tiny", takes: "a moment",
		programs: []program{{name: "tiny", pkg: "./etcd", ldflags: "-s -w"}}, inputs: []string{"go.mod", "go.sum", "etcd"},
	}, &progress
}

func TestBuildOnceAndAgainWhenTheSourceChanges(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "new", "cache")
	build := func(body string) (progress, output string) {
		t.Helper()
		b, out := tiny(source(t, body), cache)
		if err := b.build(t.Context()); err != nil {
			t.Fatal(err)
		}
		said, _ := exec.Command(filepath.Join(cache, "tiny")).CombinedOutput()
		return out.String(), string(said)
	}
	first := regexp.MustCompile(`^lab: building into \S+; .*\nlab: build tiny \(1 of 1\) … \d+ s\n$`)
	if progress, said := build(`println("one")`); !first.MatchString(progress) || said != "one\n" {
		t.Errorf("first build: %q, the program says %q", progress, said)
	}
	if progress, said := build(`println("one")`); progress != "" || said != "one\n" {
		t.Errorf("unchanged: %q, the program says %q", progress, said)
	}
	if progress, said := build(`println("two")`); !strings.HasPrefix(progress, "lab: build tiny") || said != "two\n" {
		t.Errorf("changed: %q, the program says %q", progress, said)
	}
	wantFiles(t, cache, "tiny", "tiny.sha256")
}

func TestBuildFails(t *testing.T) {
	cache := t.TempDir()
	b, _ := tiny(source(t, `undefined()`), cache)
	err := b.build(t.Context())
	var h hinted
	if !errors.As(err, &h) || !strings.Contains(h.log, "undefined: undefined") || !strings.HasSuffix(h.hint, filepath.Join(cache, "tiny.log")) {
		t.Errorf("build = %#v", err)
	}
	wantFiles(t, cache, "tiny.log")
}

func TestBuildWaitsForAnother(t *testing.T) {
	cache := t.TempDir()
	lock, err := lockDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := tiny(source(t, ""), cache)
	said := make(lines, 1)
	b.progress = said
	done := make(chan error)
	go func() { done <- b.build(t.Context()) }()
	if line := <-said; !strings.Contains(line, "waiting for another build") {
		t.Errorf("progress: %q", line)
	}
	go func() {
		for range said { // the rest of the progress
		}
	}()
	lock.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantFiles(t, cache, "tiny", "tiny.sha256")
}

func TestBuildInterrupted(t *testing.T) {
	cache := t.TempDir()
	b, _ := tiny(source(t, ""), cache)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.build(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("build = %v", err)
	}
	wantFiles(t, cache)
}

// lines passes on each write.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

func TestVersionsAreThoseOfTheModules(t *testing.T) {
	modules := map[string]string{}
	for _, dir := range []string{"", "node"} {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		modules[dir] = string(data)
	}
	for path, version := range map[string]string{
		"k8s.io/kubernetes": kubernetesVersion, "github.com/containerd/containerd/v2": "v" + containerdVersion, "github.com/opencontainers/runc": "v" + runcVersion,
	} {
		if !strings.Contains(modules[""]+modules["node"], "\t"+path+" "+version+" ") {
			t.Errorf("no go.mod requires %s %s", path, version)
		}
	}
	for _, p := range append(programs(), nodePrograms()...) {
		if !strings.HasPrefix(p.pkg, "./") && !strings.Contains(modules[p.module], "\t"+p.pkg+"\n") {
			t.Errorf("%s has no tool %s", filepath.Join(p.module, "go.mod"), p.pkg)
		}
	}
}
