package clusterpolicy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
)

const (
	debounce = 250 * time.Millisecond // collects a burst of changes
	recheck  = 20 * time.Second       // until what could not be read or written is tried again
)

// A Watcher follows the policies of a cluster. Make it with [New] and run it once.
type Watcher struct {
	Options
	discovery *discovery.DiscoveryClient
	feeds     feeds
	native    []resource // nil: not known yet
	enforced  ledger
	natives   ledger
	kept      map[string]kept
	writer    *writer
	rebases   chan rebase

	published bool
	rebased   bool // since it was published
	last      State
	told      map[string]bool // warnings that still hold
	failed    error           // of the last load, to log what is news
}

// New makes a watcher, and reads the file that keeps versions.
func New(opts Options) (*Watcher, error) {
	config := rest.CopyConfig(opts.Config)
	config.QPS, config.Burst = 50, 200
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("watch policies of the cluster: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("watch policies of the cluster: %w", err)
	}
	w := &Watcher{
		Options: opts, discovery: kinds,
		feeds:    feeds{client: client, changed: make(chan struct{}, 1), open: map[resource]*feed{}},
		enforced: ledger{base: opts.Base, loads: opts.Load}, natives: ledger{loads: new(engine.Loader).Load},
		writer: newWriter(client, opts), rebases: make(chan rebase),
	}
	if opts.Load == nil {
		w.enforced.loads = new(engine.Loader).Load
	}
	if w.kept, err = readKept(opts.KeepFile); err != nil { // what is good now is in force all the same
		opts.Log.Error("the last good versions of policies with mistakes are not known", "error", err)
	}
	return w, nil
}

// Run follows the cluster until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer w.feeds.running.Wait()
	defer cancel()
	w.feeds.running.Go(func() { w.writer.run(ctx) })
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	w.feeds.signal()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case r := <-w.rebases:
			err := w.enforced.rebase(r.base, r.load)
			r.done <- err
			if err != nil {
				continue
			}
			w.rebased = true
		case <-w.feeds.changed:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(debounce):
			}
		}
		if err := w.follow(ctx); err != nil && ctx.Err() == nil {
			w.report(err)
		}
	}
}

// A rebase is an order to replace the policies of files.
type rebase struct {
	base []policy.File
	load func(files ...policy.File) (*engine.Set, error)
	done chan error // takes one
}

// Rebase replaces Base and Load of the options, and waits until that is decided: on
// an error all stays as it was. [Watcher.Run] must be running.
func (w *Watcher) Rebase(ctx context.Context, base []policy.File, load func(files ...policy.File) (*engine.Set, error)) error {
	r := rebase{base, load, make(chan error, 1)}
	select {
	case w.rebases <- r:
		return <-r.done
	case <-ctx.Done():
		return fmt.Errorf("replace the policies of files: %w", ctx.Err())
	}
}

// report logs an error that is news.
func (w *Watcher) report(err error) {
	if w.failed == nil || w.failed.Error() != err.Error() {
		w.Log.Error("the policies of the cluster are not followed", "error", err)
	}
	w.failed = err
}

// follow takes over what there is now.
func (w *Watcher) follow(ctx context.Context) (err error) {
	if w.native == nil {
		if w.native, err = natives(ctx, w.discovery); err != nil {
			w.feeds.signal() // again, after a while
			time.Sleep(debounce)
			return err
		}
	}
	wanted := append([]resource{definitions}, w.native...)
	crds := w.feeds.open[definitions]
	known := crds != nil && crds.settled() // before they are read
	if known {
		wanted = append(wanted, custom(crds.objects())...)
	}
	if err := w.feeds.set(ctx, wanted); err != nil {
		return err
	}
	unsettled := func(r resource) bool { return !w.feeds.open[r].settled() }
	if !known || !w.published && slices.ContainsFunc(wanted, unsettled) {
		return nil // once all was read, a kind that is new comes when it was
	}
	return w.take()
}

// take loads what there is and publishes it if that has changed.
func (w *Watcher) take() error {
	var own, native []*unstructured.Unstructured
	var unread []error
	for r, feed := range w.feeds.open {
		if err := feed.unread(); err != nil {
			unread = append(unread, err)
		}
		switch {
		case r == definitions || !feed.informer.HasSynced():
		case Native(r.groupVersionKind()):
			native = append(native, feed.objects()...)
		default:
			own = append(own, feed.objects()...)
		}
	}
	slices.SortFunc(unread, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	own, misplaced := w.placed(own)
	bound, loose := pairs(native)
	changed, err := w.enforced.load(own, w.kept)
	nativeChanged, nativeErr := w.natives.load(bound, nil)
	err = errors.Join(err, nativeErr)
	if w.enforced.set == nil || w.natives.set == nil {
		return err
	}
	state := State{
		Enforced: w.enforced.set, Base: w.enforced.base, Native: w.natives.set, Unread: unread, Foreign: cmp.Or(foreign(w.feeds.open[definitions].objects()), w.writer.foreign()),
		Objects: slices.Concat(w.enforced.objects(), w.natives.objects(), objectsOf(loose), objectsOf(misplaced, w.misplacement())),
	}
	if changed || nativeChanged || !w.published || w.rebased || !slices.EqualFunc(unread, w.last.Unread, sameError) || state.Foreign != w.last.Foreign || len(state.Objects) != len(w.last.Objects) {
		w.published, w.rebased, w.last = true, false, state
		w.tell(state)
		w.Publish(state)
		err = errors.Join(err, writeKept(w.KeepFile, w.enforced.stale()))
	}
	w.writer.offer(w.work())
	if err == nil {
		w.failed = nil
	}
	return err
}

func sameError(a, b error) bool { return a.Error() == b.Error() }

// tell logs what is wrong, once for as long as it is.
func (w *Watcher) tell(state State) {
	w.Log.Info("policies of the cluster are in force", "objects", len(state.Objects), "judging", state.Enforced.Len(), "native", state.Native.Len())
	now := map[string]bool{}
	warn := func(text string, args ...any) {
		said := fmt.Sprint(append([]any{text}, args...)...)
		if now[said] = true; !w.told[said] {
			w.Log.Warn(text, args...)
		}
	}
	for _, o := range state.Objects {
		for _, p := range o.Problems {
			warn("a policy of the cluster has a mistake", "object", o.String(), "generation", o.Generation, "inForce", o.InForce, "error", p.Message)
		}
	}
	for _, err := range state.Unread {
		warn("policies of the cluster are not read", "error", err)
	}
	w.told = now
}

// pairs returns the native policies that have a binding with these, and the
// others, which do nothing.
func pairs(native []*unstructured.Unstructured) (bound, loose []*unstructured.Unstructured) {
	type side struct{ kind, name string }
	policies, bindings := map[side]bool{}, map[side]bool{}
	of := func(o *unstructured.Unstructured) (side, bool) {
		if name, ok, _ := unstructured.NestedString(o.Object, "spec", "policyName"); ok {
			return side{o.GetKind()[:len(o.GetKind())-len("Binding")], name}, true
		}
		return side{o.GetKind(), o.GetName()}, false
	}
	for _, o := range native {
		if s, binding := of(o); binding {
			bindings[s] = true
		} else {
			policies[s] = true
		}
	}
	for _, o := range native {
		if s, _ := of(o); policies[s] && bindings[s] {
			bound = append(bound, o)
		} else {
			loose = append(loose, o)
		}
	}
	return bound, loose
}

// placed takes out what counts only where administrators put it: a Config exempts
// namespaces from policies, so that the one of a namespace must not be that of
// whoever owns the namespace.
func (w *Watcher) placed(objects []*unstructured.Unstructured) (placed, misplaced []*unstructured.Unstructured) {
	for _, o := range objects {
		if o.GetNamespace() == "" || o.GetName() == "config" && (o.GetNamespace() == w.Namespace || o.GetNamespace() == gatekeeperNamespace) {
			placed = append(placed, o)
		} else {
			misplaced = append(misplaced, o)
		}
	}
	return placed, misplaced
}

const gatekeeperNamespace = "gatekeeper-system"

func (w *Watcher) misplacement() Problem {
	return Problem{Code: policy.CodeMisplaced, Location: "metadata.namespace", Message: fmt.Sprintf("only the one called config in %s or %s counts", gatekeeperNamespace, w.Namespace)}
}

// objectsOf returns objects that are not in force.
func objectsOf(objects []*unstructured.Unstructured, problems ...Problem) (out []Object) {
	for _, o := range objects {
		out = append(out, Object{
			Kind: o.GroupVersionKind(), Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), Generation: o.GetGeneration(),
			Native: Native(o.GroupVersionKind()), Problems: problems,
		})
	}
	slices.SortFunc(out, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Kind.Kind, b.Kind.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// maxKept bounds the file that keeps versions.
const maxKept = 64 << 20

// readKept reads the file that keeps versions; that there is none is no error.
func readKept(file string) (map[string]kept, error) {
	out := map[string]kept{}
	if file == "" {
		return out, nil
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil && info.Size() > maxKept {
		err = fmt.Errorf("%d bytes are more than the limit of %d", info.Size(), maxKept)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read the kept versions of policies from %s: %w", file, err)
	}
	return out, nil
}

// writeKept writes the file anew, or removes it when there is nothing to keep.
func writeKept(file string, versions map[string]kept) error {
	if file == "" {
		return nil
	}
	if len(versions) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the kept versions of policies: %w", err)
		}
		return nil
	}
	data, err := json.Marshal(versions)
	if err == nil {
		err = os.WriteFile(file+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("keep versions of policies: %w", err)
	}
	return nil
}
