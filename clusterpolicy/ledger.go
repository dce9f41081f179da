package clusterpolicy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
)

// A ledger turns objects into a set of policies, again and again. It remembers
// the version of each that was good last.
type ledger struct {
	loads   func(files ...policy.File) (*engine.Set, error)
	base    []policy.File
	entries map[string]*entry
	set     *engine.Set // of the load before
}

// An entry is one object.
type entry struct {
	Object
	source  *unstructured.Unstructured // as it was read
	current []byte
	good    []byte // nil: no version was; of the same object by its uid
	chosen  []byte // of the load that runs; nil: none
}

// A kept version is the last good one of an object, from one start to the next.
type kept struct {
	UID  types.UID `json:"uid"`
	Text string    `json:"text"`
}

// load makes objects the ledger's and loads them, and reports whether anything
// has changed. Only an error that is of no object is returned; then the set of the
// load before stays.
func (l *ledger) load(objects []*unstructured.Unstructured, before map[string]kept) (changed bool, err error) {
	if !l.update(objects, before) && l.set != nil {
		return false, nil
	}
	return true, l.reload()
}

// reload loads the current version of each object, or its last good one.
func (l *ledger) reload() error {
	for _, e := range l.entries {
		e.chosen, e.Problems = e.current, nil
		if e.current == nil {
			e.chosen, e.Problems = e.good, []Problem{{Code: policy.CodeUnwritable, Message: "the object cannot be written as a document"}}
		}
	}
	for {
		set, err := l.loads(l.files()...)
		if err == nil {
			l.accept(set)
			return nil
		}
		if !l.blame(err) {
			return fmt.Errorf("load policies of the cluster: %w", err)
		}
	}
}

// rebase replaces what is loaded beside the objects, and by what. On an error
// nothing has changed. Before the first load nothing is tried.
func (l *ledger) rebase(base []policy.File, loads func(files ...policy.File) (*engine.Set, error)) error {
	next := ledger{loads: loads, base: base, entries: make(map[string]*entry, len(l.entries))}
	for id, e := range l.entries {
		next.entries[id] = new(*e)
	}
	if l.set != nil {
		if err := next.reload(); err != nil {
			return err
		}
	}
	*l = next
	return nil
}

// update takes over what there is now, and reports whether that is news.
func (l *ledger) update(objects []*unstructured.Unstructured, before map[string]kept) bool {
	news := false
	now := make(map[string]*entry, len(objects))
	for _, o := range objects {
		id := key(o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName())
		e := l.entries[id]
		if e == nil || e.UID != o.GetUID() {
			e = &entry{Object: Object{Kind: o.GroupVersionKind(), Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID()}}
			if last, ok := before[id]; ok && last.UID == e.UID {
				e.good = []byte(last.Text)
			}
			news = true
		}
		now[id] = e
		news = e.read(o) || news
	}
	news = news || len(now) != len(l.entries)
	l.entries = now
	return news
}

// read takes a version of the object, and reports whether it is another one.
func (e *entry) read(o *unstructured.Unstructured) bool {
	if e.source == o {
		return false
	}
	e.source, e.Native = o, Native(e.Kind)
	written, err := text(o)
	if err != nil {
		written = nil
	}
	news := e.Generation != o.GetGeneration() || !bytes.Equal(e.current, written)
	e.Generation, e.Kind, e.current = o.GetGeneration(), o.GroupVersionKind(), written
	return news
}

// files returns the chosen versions, in the order of their names.
func (l *ledger) files() []policy.File {
	files := slices.Clone(l.base)
	for _, id := range slices.Sorted(maps.Keys(l.entries)) {
		if e := l.entries[id]; e.chosen != nil {
			files = append(files, policy.File{Name: id, Data: e.chosen})
		}
	}
	return files
}

// accept makes a set that of the chosen versions.
func (l *ledger) accept(set *engine.Set) {
	l.set = set
	for _, e := range l.entries {
		e.InForce, e.Stale = e.chosen != nil, e.chosen != nil && len(e.Problems) > 0
		if e.InForce {
			e.good = e.chosen
		}
	}
	for _, err := range set.Conflicts() {
		if id, _, ok := l.find(err); ok {
			e := l.entries[id]
			e.Problems, e.InForce = append(e.Problems, problem(err, id, e.chosen)), false
		}
	}
}

// blame gives each error to its object, whose last good version is then tried, and
// after that none. It reports whether it found anybody to blame.
func (l *ledger) blame(err error) bool {
	blamed := map[string]bool{}
	for _, err := range flatten(err) {
		id, e, ok := l.find(err)
		if !ok || e.chosen == nil {
			continue
		}
		p := problem(err, id, e.chosen)
		if !slices.Contains(e.Problems, p) && len(e.Problems) < maxProblems {
			e.Problems = append(e.Problems, p)
		}
		blamed[id] = true
	}
	for id := range blamed {
		if e := l.entries[id]; e.good != nil && !bytes.Equal(e.chosen, e.good) {
			e.chosen = e.good
		} else {
			e.chosen = nil
		}
	}
	return len(blamed) > 0
}

// maxProblems is how many mistakes of one object are told.
const maxProblems = 20

// find returns the object that an error names first.
func (l *ledger) find(err error) (id string, e *entry, ok bool) {
	id, _, _ = strings.Cut(err.Error(), ":")
	e, ok = l.entries[id]
	return id, e, ok
}

// flatten returns the parts of joined errors.
func flatten(err error) (out []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, part := range joined.Unwrap() {
			out = append(out, flatten(part)...)
		}
		return out
	}
	return []error{err}
}

// problem turns an error in a document into one that its author can use.
func problem(err error, id string, document []byte) Problem {
	message := strings.TrimPrefix(err.Error(), id+":")
	p := Problem{Code: policy.CodeOf(err), Message: strings.TrimSpace(message)}
	if number, rest, ok := strings.Cut(message, ":"); ok {
		if line, err := strconv.Atoi(number); err == nil {
			p.Message = strings.TrimSpace(rest)
			path, row := place(document, line)
			p.Location = path
			if row > 0 {
				p.Location = fmt.Sprintf("%s:%d", path, row)
				p.Message = fmt.Sprintf("%s, line %d: %s", path, row, p.Message)
			}
		}
	}
	const most = 4 << 10
	if len(p.Message) > most {
		p.Message = strings.ToValidUTF8(p.Message[:most], "") + "…"
	}
	return p
}

// stale returns the versions in force of objects whose current version is not.
func (l *ledger) stale() map[string]kept {
	out := map[string]kept{}
	for id, e := range l.entries {
		if e.good != nil && !bytes.Equal(e.good, e.current) {
			out[id] = kept{e.UID, string(e.good)}
		}
	}
	return out
}

// objects returns what there is, by name.
func (l *ledger) objects() (out []Object) {
	for _, id := range slices.Sorted(maps.Keys(l.entries)) {
		out = append(out, l.entries[id].Object)
	}
	return out
}
