package mutator

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// Load reads and checks files with mutators. The error holds one line for each
// mistake found, with file and line, at most 100 of them. Documents of other
// kinds are mistakes: see [Handles]. Mutators that contradict each other are
// none: see [Set.Conflicts].
func Load(files ...policy.File) (*Set, error) {
	l := loader{first: map[string]*mutator{}}
	for _, f := range files {
		docs, err := policy.Documents(f)
		l.mistakes.Add(err)
		for _, d := range docs {
			l.add(d)
		}
	}
	schemas := schemaSet{roots: map[schemaKey]*node{}}
	for _, m := range l.mutators {
		if err := schemas.add(m); err != nil {
			l.mistakes.Add(err)
			break
		}
	}
	if err := l.mistakes.Err(); err != nil {
		return nil, err
	}
	schemas.disable()
	slices.SortFunc(l.mutators, order)
	return &Set{mutators: l.mutators}, nil
}

// A loader collects the mutators of a load and what is wrong with them.
type loader struct {
	mutators []*mutator
	first    map[string]*mutator // by kind and name
	mistakes policy.Mistakes
}

func (l *loader) add(d *policy.Document) {
	m, err := newMutator(d)
	l.mistakes.Add(err)
	if err != nil {
		return
	}
	if first := l.first[m.String()]; first != nil {
		l.mistakes.Add(policy.Coded(policy.CodeDefined, d.At("metadata.name", "%s is already defined at %s", m, first.document.Place("metadata.name"))))
		return
	}
	l.first[m.String()] = m
	l.mutators = append(l.mutators, m)
}

// newMutator reads a mutator of any kind.
func newMutator(d *policy.Document) (*mutator, error) {
	kind := schema.FromAPIVersionAndKind(d.Text("apiVersion"), d.Text("kind"))
	if !Handles(kind) {
		return nil, d.At("kind", "kind %q of %q is not supported: want one of %q", kind.Kind, kind.GroupVersion(), kinds())
	}
	versions := []string{"v1", "v1beta1", "v1alpha1"}
	if kind.Kind == imageKind {
		versions = versions[2:]
	}
	if !slices.Contains(versions, kind.Version) {
		return nil, d.At("apiVersion", "apiVersion: version %q of %s is not supported: want one of %q", kind.Version, kind.Kind, versions)
	}
	switch kind.Kind {
	case assignKind:
		return read(d, (*checker).assign)
	case metadataKind:
		return read(d, (*checker).assignMetadata)
	case setKind:
		return read(d, (*checker).modifySet)
	}
	return read(d, (*checker).assignImage)
}

// A spec is that of a mutator whose parameters are of type P.
type spec[P any] struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Status     map[string]any    `json:"status"`
	Spec       struct {
		ApplyTo    []applyTo         `json:"applyTo"`
		Match      *gatekeeper.Match `json:"match"`
		Location   string            `json:"location"`
		Parameters P                 `json:"parameters"`
	} `json:"spec"`
}

// A pathTest lets a mutator be applied only where there is something, or nothing.
type pathTest struct {
	SubPath   string    `json:"subPath"`
	Condition condition `json:"condition"`
}

// A condition says what must be at a step of a location. Without one it may
// exist or not.
type condition string

const (
	mustExist    condition = "MustExist"
	mustNotExist condition = "MustNotExist"
)

// holds reports whether a condition allows that there is something, or nothing.
func (c condition) holds(exists bool) bool { return c == "" || exists == (c == mustExist) }

// read reads a document; parameters checks what is its kind's alone.
func read[P any](d *policy.Document, parameters func(*checker, *P)) (*mutator, error) {
	var doc spec[P]
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	c := checker{d: d, m: &mutator{
		document: d, kind: doc.Kind, name: doc.Metadata.Name, applyTo: doc.Spec.ApplyTo, match: doc.Spec.Match,
	}}
	c.name()
	c.applyTo()
	if c.m.match != nil {
		c.mistakes.Add(c.m.match.Check(d))
	}
	if c.location(doc.Spec.Location) {
		parameters(&c, &doc.Spec.Parameters)
	}
	if err := c.mistakes.Err(); err != nil {
		return nil, err
	}
	return c.m, nil
}

// A checker collects what is wrong with a mutator.
type checker struct {
	d        *policy.Document
	m        *mutator
	mistakes policy.Mistakes
}

func (c *checker) bad(path, format string, args ...any) {
	c.mistakes.Add(c.d.At(path, "%s: %s", path, fmt.Sprintf(format, args...)))
}

func (c *checker) name() {
	switch problems := utilvalidation.IsDNS1123Subdomain(c.m.name); {
	case c.m.name == "":
		c.bad("metadata.name", "a value is required")
	case len(c.m.name) > 63:
		c.bad("metadata.name", "%d characters are more than the limit of 63", len(c.m.name))
	case len(problems) > 0:
		c.bad("metadata.name", "%s", problems[0])
	}
}

// maxKinds bounds the kinds that one entry of applyTo combines.
const maxKinds = 10_000

func (c *checker) applyTo() {
	const path = "spec.applyTo"
	if c.m.kind == metadataKind {
		if len(c.m.applyTo) > 0 {
			c.bad(path, "%s is for objects of any kind: use match.kinds", metadataKind)
		}
		return
	}
	if len(c.m.applyTo) == 0 {
		c.bad(path, "at least one is required")
	}
	for i, to := range c.m.applyTo {
		entry := fmt.Sprintf("%s[%d]", path, i)
		if len(to.Groups) == 0 || len(to.Versions) == 0 || len(to.Kinds) == 0 {
			c.bad(entry, "groups, versions and kinds are required")
		}
		if n := max(len(to.Groups), len(to.Versions), len(to.Kinds)); n > maxKinds || len(to.Groups)*len(to.Versions)*len(to.Kinds) > maxKinds {
			c.bad(entry, "more than %d kinds", maxKinds)
		}
		c.operations(entry, &to)
	}
}

func (c *checker) operations(entry string, to *applyTo) {
	for i, operation := range to.Operations {
		path := fmt.Sprintf("%s.operations[%d]", entry, i)
		if operation != "*" && !slices.Contains(operations(), operation) {
			c.bad(path, "operation %q is not supported: want CREATE, UPDATE or *", operation)
		}
		if slices.Contains(to.Operations[:i], operation) {
			c.bad(path, "operation %q is given twice", operation)
		}
	}
	if len(to.Operations) > 1 && slices.Contains(to.Operations, "*") {
		c.bad(entry+".operations", "* stands for all: nothing may stand beside it")
	}
}

// location reports whether a location can be read.
func (c *checker) location(text string) bool {
	const path = "spec.location"
	l, err := parseLocation(text)
	if err != nil {
		c.bad(path, "%q: %v", text, err)
		return false
	}
	c.m.location, c.m.tests = l, make([]condition, len(l))
	if c.m.kind != metadataKind && l[0] == (step{name: "metadata"}) {
		c.bad(path, "%s cannot change metadata: use %s", c.m.kind, metadataKind)
	}
	return true
}

// pathTests keeps the conditions by the steps that they are about.
func (c *checker) pathTests(tests []pathTest) {
	for i, test := range tests {
		path := fmt.Sprintf("spec.parameters.pathTests[%d]", i)
		if test.Condition != mustExist && test.Condition != mustNotExist {
			c.bad(path+".condition", "%q is not supported: want %s or %s", test.Condition, mustExist, mustNotExist)
		}
		sub, err := parseLocation(test.SubPath)
		if err != nil {
			c.bad(path+".subPath", "%q: %v", test.SubPath, err)
			continue
		}
		if !c.m.location.beginsWith(sub) {
			c.bad(path+".subPath", "%s does not lead to the location %s", sub, c.m.location)
			continue
		}
		if had := c.m.tests[len(sub)-1]; had != "" && had != test.Condition {
			c.bad(path, "%s cannot both exist and not exist", sub)
		}
		c.m.tests[len(sub)-1] = test.Condition
	}
	if none := slices.Index(c.m.tests, mustNotExist); none >= 0 && slices.Contains(c.m.tests[none:], mustExist) {
		c.bad("spec.parameters.pathTests", "nothing exists below %s, which must not exist", c.m.location[:none+1])
	}
}
