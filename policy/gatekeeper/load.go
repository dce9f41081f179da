package gatekeeper

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/deadline"
)

// Load parses, checks and compiles files with templates, their constraints,
// ExpansionTemplate, Config and SyncSet documents, in any order. The error holds one line for each
// mistake found, with file and line, at most 100 of them. Documents of other
// kinds are mistakes: see [Handles].
func Load(files ...policy.File) (*Set, error) { return new(Loader).Load(files...) }

// A Loader loads sets one after the other. A template in a file that is as it was
// in the load before is not compiled again. The zero value is ready for use, by
// one goroutine at a time.
type Loader struct {
	files    map[string]readFile
	compiled map[*policy.Document]compilation
}

// A readFile is a parsed file.
type readFile struct {
	data []byte
	docs []*policy.Document
	err  error
}

// A compilation is what became of a template.
type compilation struct {
	template *template
	err      error
}

// Load is like the function of the same name.
func (c *Loader) Load(files ...policy.File) (*Set, error) {
	last := *c
	c.files, c.compiled = map[string]readFile{}, map[*policy.Document]compilation{}
	l := loader{
		compile: func(d *policy.Document) (*template, error) {
			done, ok := last.compiled[d]
			if !ok {
				done.template, done.err = newTemplate(d)
			}
			c.compiled[d] = done
			return done.template, done.err
		},
		templates:   map[string]*template{},
		constraints: map[string]*policy.Document{},
		out:         &compiled{excluded: map[Point][]wildcard{}, pool: deadline.NewPool()},
	}
	var constraints []*policy.Document
	for _, f := range files {
		read, ok := last.files[f.Name]
		if !ok || !bytes.Equal(read.data, f.Data) {
			read.data = f.Data
			read.docs, read.err = policy.Documents(f)
		}
		c.files[f.Name] = read
		l.mistakes.Add(read.err)
		for _, d := range read.docs {
			if kind := kindOf(d); kind.Group == constraintGroup {
				constraints = append(constraints, d)
			} else {
				l.add(d, kind)
			}
		}
	}
	for _, d := range constraints { // their templates may stand after them
		l.addConstraint(d)
	}
	if err := l.mistakes.Err(); err != nil {
		return nil, err
	}
	return &Set{compiled: l.out.ready(), point: Webhook}, nil
}

func kindOf(d *policy.Document) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(d.Text("apiVersion"), d.Text("kind"))
}

// A loader collects the documents of a load and what is wrong with them.
type loader struct {
	compile     func(*policy.Document) (*template, error)
	templates   map[string]*template        // by the kind of their constraints
	constraints map[string]*policy.Document // by kind and name
	out         *compiled
	mistakes    policy.Mistakes
}

// add takes any document but a constraint.
func (l *loader) add(d *policy.Document, kind schema.GroupVersionKind) {
	switch {
	case !Handles(kind):
		l.mistakes.Add(d.At("kind", "kind %q of %q is not supported: want ConstraintTemplate, a constraint, ExpansionTemplate, Config or SyncSet", kind.Kind, kind.GroupVersion()))
	case kind.Group == templateGroup:
		l.addTemplate(d)
	case kind.Group == expansionGroup:
		l.mistakes.Add(l.out.addExpansion(d))
	case kind.Group == configGroup:
		l.mistakes.Add(l.out.addConfig(d))
	default:
		l.mistakes.Add(l.out.addSyncSet(d))
	}
}

func (l *loader) addTemplate(d *policy.Document) {
	t, err := l.compile(d)
	l.mistakes.Add(err)
	if t == nil {
		return
	}
	t.known = nil
	if first := l.templates[t.kind]; first != nil {
		l.mistakes.Add(policy.Coded(policy.CodeDefined, d.At("metadata.name", "template %q is already defined at %s", t.name, first.document.Place("metadata.name"))))
		return
	}
	l.templates[t.kind] = t
	l.out.templates = append(l.out.templates, t)
}

func (l *loader) addConstraint(d *policy.Document) {
	t := l.templates[d.Text("kind")]
	if t == nil {
		if l.mistakes.Err() == nil { // a template with a mistake may be the one
			l.mistakes.Add(policy.Coded(policy.CodeUndefined, d.At("kind", "no ConstraintTemplate defines the kind %q", d.Text("kind"))))
		}
		return
	}
	c, err := newConstraint(d, t)
	l.mistakes.Add(err)
	if c == nil {
		return
	}
	key := t.kind + "/" + c.name
	if first := l.constraints[key]; first != nil {
		l.mistakes.Add(policy.Coded(policy.CodeDefined, d.At("metadata.name", "constraint %s %q is already defined at %s", t.kind, c.name, first.Place("metadata.name"))))
		return
	}
	l.constraints[key] = d
	l.out.constraints = append(l.out.constraints, c)
}

// ready orders and indexes what was loaded.
func (c *compiled) ready() *compiled {
	slices.SortFunc(c.templates, func(a, b *template) int { return cmp.Compare(a.kind, b.kind) })
	slices.SortFunc(c.constraints, func(a, b *constraint) int {
		return cmp.Or(cmp.Compare(a.template.kind, b.template.kind), cmp.Compare(a.name, b.name))
	})
	for _, t := range c.templates {
		t.known = nil
	}
	for i, constraint := range c.constraints {
		constraint.order = i
	}
	c.index = newIndex(c.constraints)
	return c
}

// A configDocument is Gatekeeper's Config. Traces and the readiness of its pods
// are none of our business.
type configDocument struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Status     map[string]any `json:"status"`
	Spec       struct {
		Match []struct {
			Processes          []string   `json:"processes"`
			ExcludedNamespaces []wildcard `json:"excludedNamespaces"`
		} `json:"match"`
		Sync struct {
			SyncOnly []metav1.GroupVersionKind `json:"syncOnly"`
		} `json:"sync"`
		Validation map[string]any `json:"validation"`
		Readiness  map[string]any `json:"readiness"`
	} `json:"spec"`
}

func (c *compiled) addConfig(d *policy.Document) error {
	var doc configDocument
	if err := d.Decode(&doc); err != nil {
		return err
	}
	processes := map[string][]Point{
		"webhook": {Webhook}, "audit": {Audit}, "*": {Webhook, Audit, mutation}, "sync": nil, "mutation-webhook": {mutation},
	}
	var errs []error
	for i, m := range doc.Spec.Match {
		for j, name := range m.Processes {
			where, known := processes[name]
			if !known {
				errs = append(errs, d.At(fmt.Sprintf("spec.match[%d].processes[%d]", i, j), "process %q is not known: want one of %v", name, slices.Sorted(maps.Keys(processes))))
			}
			for _, point := range where {
				c.excluded[point] = append(c.excluded[point], m.ExcludedNamespaces...)
			}
		}
	}
	c.sync(doc.Spec.Sync.SyncOnly)
	return errors.Join(errs...)
}

// A syncSetDocument says what data.inventory is to hold.
type syncSetDocument struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Status     map[string]any `json:"status"`
	Spec       struct {
		GVKs []metav1.GroupVersionKind `json:"gvks"`
	} `json:"spec"`
}

func (c *compiled) addSyncSet(d *policy.Document) error {
	var doc syncSetDocument
	if err := d.Decode(&doc); err != nil {
		return err
	}
	c.sync(doc.Spec.GVKs)
	return nil
}

func (c *compiled) sync(kinds []metav1.GroupVersionKind) {
	for _, k := range kinds {
		kind := schema.GroupVersionKind(k)
		if !slices.Contains(c.synced, kind) {
			c.synced = append(c.synced, kind)
		}
	}
}
