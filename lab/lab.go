package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// startLimit is how long the control plane may take to be ready, on a machine
// that is busy with other things.
const startLimit = 3 * time.Minute

// A lab is one control plane, with or without a node. All of its state is in its directory.
type lab struct {
	dir      string
	progress io.Writer
}

// A state is what lab.json in the lab's directory says. The file is written
// before all others, so that it marks the directory as one the lab may empty.
type state struct {
	Options options `json:"options"`
	Port    int     `json:"port"`
	// Where the running programs come from.
	Binaries     string `json:"binaries"`
	NodeBinaries string `json:"nodeBinaries,omitempty"`
}

func newLab(dir string, progress io.Writer) *lab {
	if dir == "" {
		dir = defaultDir()
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return &lab{canonical(dir), progress}
}

// canonical resolves the symbolic links of a path that need not exist yet, so
// that a directory has one name.
func canonical(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(canonical(parent), filepath.Base(path))
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, "lab: "+format+"\n", args...) }

// up starts the lab unless it is up, and prints what a shell needs to use it.
// The programs go on when up returns. When up fails none is left.
func (l *lab) up(ctx context.Context, opts options, stdout io.Writer) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if st, err := l.load(); err == nil && l.check(ctx, st) == nil {
		if st.Options != opts {
			return withHint(fmt.Errorf("a lab with other options is up in %s", l.dir), "end it first: lab down")
		}
		l.say("already up")
		l.facts(stdout, st)
		return nil
	}
	st, err := l.boot(ctx, opts, false, make(chan exit, 8))
	if err != nil {
		return err
	}
	l.facts(stdout, st)
	return nil
}

// run starts the lab and stays until ctx ends or a program of the lab ends.
// The programs do not outlive run, however it ends.
func (l *lab) run(ctx context.Context, opts options, stdout io.Writer) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if st, err := l.load(); err == nil && l.check(ctx, st) == nil {
		return withHint(fmt.Errorf("a lab is up in %s", l.dir), "end it first: lab down")
	}
	exits := make(chan exit, 8)
	st, err := l.boot(ctx, opts, true, exits)
	if err != nil {
		return err
	}
	l.facts(stdout, st)
	l.say("Ctrl-C ends the lab and removes it")
	select {
	case e := <-exits:
		if err := stop(l.dir); err != nil {
			return err
		}
		return l.ended(e)
	case <-ctx.Done():
		return l.remove()
	}
}

// boot clears what is left of an earlier lab, starts a new one and waits until
// it is ready. Ended programs are told to exits.
func (l *lab) boot(ctx context.Context, opts options, bound bool, exits chan exit) (st state, err error) {
	st = state{Options: opts}
	if st.Binaries, st.NodeBinaries, err = l.programs(ctx, opts); err != nil {
		return st, err
	}
	began := time.Now()
	if err := l.clear(); err != nil {
		return st, err
	}
	if err := l.prepare(&st); err != nil {
		return st, err
	}
	defer func() {
		if err != nil {
			err = l.undo(err)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not ready after %s", startLimit))
	defer cancel()
	c, err := newClient(l.path("admin.kubeconfig"))
	if err != nil {
		return st, err
	}
	if opts.Node { // the API server listens on the cable to it
		if err := l.sandbox(ctx, st, bound, exits); err != nil {
			return st, err
		}
	}
	for i, part := range controlPlane(l.dir, st.Port, opts) {
		if i == 2 { // the controllers give up when there is no API server
			if err := l.await(ctx, exits, "kube-apiserver", c.ready); err != nil {
				return st, err
			}
		}
		if err := l.start(st, part, bound, exits); err != nil {
			return st, err
		}
	}
	if err := l.await(ctx, exits, "kube-controller-manager", c.populated); err != nil {
		return st, err
	}
	if err := c.grantDeveloper(ctx); err != nil {
		return st, err
	}
	if opts.Node {
		if err := l.startNode(ctx, st, c, bound, exits); err != nil {
			return st, err
		}
	}
	l.say("ready in %.1f s", time.Since(began).Seconds())
	return st, nil
}

// undo ends what a start that failed has started. The logs stay for the reader
// of the error; who interrupts has no use for them.
func (l *lab) undo(cause error) error {
	clean := stop
	if errors.Is(cause, context.Canceled) {
		clean = func(string) error { return l.clear() }
	}
	if err := clean(l.dir); err != nil {
		return fmt.Errorf("clean up after %q: %w", cause, err)
	}
	return cause
}

// programs returns the directories of the programs to run.
func (l *lab) programs(ctx context.Context, opts options) (controlPlane, node string, err error) {
	if opts.Binaries != "" {
		if controlPlane, err = opts.Binaries, given(opts.Binaries); err != nil || !opts.Node {
			return controlPlane, "", err
		}
		node, err = cached(ctx, l.progress, nodeBuilder)
		return controlPlane, node, err
	}
	if !opts.Node {
		controlPlane, err = cached(ctx, l.progress, controlPlaneBuilder)
		return controlPlane, "", err
	}
	node, err = cached(ctx, l.progress, controlPlaneBuilder, nodeBuilder)
	return node, node, err
}

// start starts a component, the node's in the sandbox.
func (l *lab) start(st state, c component, bound bool, exits chan<- exit) error {
	cmd := exec.Command(filepath.Join(st.Binaries, c.name), c.args...)
	if c.node {
		cmd = l.inside(context.Background(), append([]string{c.name}, c.args...)...)
	}
	return start(l.dir, c.name, cmd, bound, exits)
}

// prepare chooses the port and writes all files into the empty directory.
func (l *lab) prepare(st *state) (err error) {
	if st.Port, err = freePort(st.Options.Port); err != nil {
		return err
	}
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := os.WriteFile(l.path("lab.json"), data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Mkdir(l.path("logs"), 0o700); err != nil {
		return fmt.Errorf("create log directory: %w", err)
	}
	if err := configure(l.dir, st.Port, st.Options); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// await polls until probe succeeds. It fails when a program ends meanwhile or
// ctx does; then the log of the program named is shown.
func (l *lab) await(ctx context.Context, exits <-chan exit, name string, probe func(context.Context) error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = probe(ctx); last == nil {
			return nil
		}
		select {
		case e := <-exits:
			return l.ended(e)
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return context.Canceled
			}
			return withLog(fmt.Errorf("wait for %s: %w: %w", name, context.Cause(ctx), last), logPath(l.dir, name))
		case <-tick.C:
		}
	}
}

// ended describes a program that ended by itself.
func (l *lab) ended(e exit) error {
	cause := "exit status 0"
	if e.err != nil {
		cause = e.err.Error()
	}
	return withLog(fmt.Errorf("%s ended by itself: %s", e.name, cause), logPath(l.dir, e.name))
}

// down ends the lab and removes its directory. It is no error if none is there.
func (l *lab) down() error {
	lock, err := lockDir(l.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return stop(l.dir) // the directory may have been removed by hand
	case errors.Is(err, errLocked):
		return l.busy(err)
	case err != nil:
		return err
	}
	defer lock.Close()
	if err := l.owned(); err != nil {
		return errors.Join(stop(l.dir), err)
	}
	if err := l.remove(); err != nil {
		return err
	}
	l.say("down")
	return nil
}

// status prints what runs.
func (l *lab) status(ctx context.Context, stdout io.Writer) error {
	st, loadErr := l.load()
	running, err := processes(l.dir)
	if err != nil {
		return err
	}
	if len(running) == 0 {
		fmt.Fprintf(stdout, "not up: %s\n", l.dir)
		return errNotUp
	}
	problem := loadErr
	if problem == nil {
		problem = l.check(ctx, st)
	}
	if problem == nil {
		fmt.Fprintf(stdout, "up: %s\n", server(st.Port, st.Options))
	} else {
		fmt.Fprintf(stdout, "broken: %v\n", problem)
	}
	fmt.Fprintf(stdout, "directory: %s\n", l.dir)
	for _, c := range components(l.dir, st.Port, st.Options) {
		for _, p := range running {
			if p.name == c.name {
				fmt.Fprintf(stdout, "%-24s pid %d\n", p.name, p.pid)
			}
		}
	}
	if problem != nil {
		return errNotUp
	}
	return nil
}

// facts prints what the caller's shell can evaluate.
func (l *lab) facts(stdout io.Writer, st state) {
	fmt.Fprintf(stdout, "export KUBECONFIG=%s\n", quote(l.path("admin.kubeconfig")))
	fmt.Fprintf(stdout, "export PATH=%s:\"$PATH\"\n", quote(st.Binaries))
	fmt.Fprintf(stdout, "# a user with few rights: %s\n", l.path("developer.kubeconfig"))
	fmt.Fprintf(stdout, "# audit log: %s\n", l.path("audit.jsonl"))
	if st.Options.Node {
		fmt.Fprint(stdout, l.nodeFacts())
	}
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// lock creates the directory if it is missing, takes its lock and makes sure
// that the lab may use it. An unlocked directory that is empty is removed.
func (l *lab) lock() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return nil, withHint(fmt.Errorf("create lab: %w", err), "choose a directory that you can write to by --dir")
		}
		f, err := lockDir(l.dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // a `lab down` removed it just now
		case errors.Is(err, errLocked):
			return nil, l.busy(err)
		case err != nil:
			return nil, err
		}
		unlock = func() {
			os.Remove(l.dir) // fails, as it should, when there is something in it
			f.Close()
		}
		if err := l.owned(); err != nil {
			unlock()
			return nil, err
		}
		return unlock, nil
	}
}

func (l *lab) busy(err error) error {
	return withHint(err, "wait until it is done; `lab run` ends with Ctrl-C")
}

// owned fails for a directory that has files and is not a lab's: what it holds
// is someone else's and must not be removed.
func (l *lab) owned() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("read lab: %w", err)
	}
	if len(entries) == 0 || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "lab.json" }) {
		return nil
	}
	return withHint(fmt.Errorf("use %s: not empty, and not a lab", l.dir), "choose a new or empty directory by --dir")
}

// load reads the state of a lab that was started.
func (l *lab) load() (state, error) {
	var st state
	data, err := os.ReadFile(l.path("lab.json"))
	if err != nil {
		return st, fmt.Errorf("read state: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&st); err != nil {
		return st, fmt.Errorf("read state: %s: %w", l.path("lab.json"), err)
	}
	return st, nil
}

// check says what keeps a lab from being up.
func (l *lab) check(ctx context.Context, st state) error {
	running, err := processes(l.dir)
	if err != nil {
		return err
	}
	for _, c := range components(l.dir, st.Port, st.Options) {
		if !slices.ContainsFunc(running, func(p process) bool { return p.name == c.name }) {
			return fmt.Errorf("%s is not running", c.name)
		}
	}
	client, err := newClient(l.path("admin.kubeconfig"))
	if err != nil {
		return err
	}
	if err := client.ready(ctx); err != nil {
		return err
	}
	if st.Options.Node {
		if err := client.nodeReady(ctx); err != nil {
			return err
		}
	}
	return client.populated(ctx)
}

// clear ends what runs and empties the directory, which stays locked.
func (l *lab) clear() error {
	if err := stop(l.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("read lab: %w", err)
	}
	// lab.json goes last: without it the rest would be nobody's.
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		switch {
		case a.Name() == "lab.json":
			return 1
		case b.Name() == "lab.json":
			return -1
		}
		return strings.Compare(a.Name(), b.Name())
	})
	for _, e := range entries {
		if err := os.RemoveAll(l.path(e.Name())); err != nil {
			return fmt.Errorf("remove lab: %w", err)
		}
	}
	return nil
}

// remove ends what runs and removes the directory.
func (l *lab) remove() error {
	if err := l.clear(); err != nil {
		return err
	}
	if err := os.Remove(l.dir); err != nil {
		return fmt.Errorf("remove lab: %w", err)
	}
	return nil
}
