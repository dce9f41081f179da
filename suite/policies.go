package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/review"
	"github.com/kubeguardian/kubeguardian/ruletest"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// maxSuiteBytes bounds a suite file.
const maxSuiteBytes = 3 << 20

// The two formats of policy suites: Gatekeeper's, and ours, which has a word for
// what Gatekeeper's has none for.
const (
	gatekeeperVersion = "test.gatekeeper.sh/v1alpha1"
	ownVersion        = "kubeguardian.dev/v1alpha1"
	suiteKind         = "Suite"
)

// A document is a suite file.
type document struct {
	APIVersion string         `yaml:"apiVersion"`
	Kind       string         `yaml:"kind"`
	Metadata   map[string]any `yaml:"metadata"`
	Skip       bool           `yaml:"skip"`
	Tests      []policyTest   `yaml:"tests"`
}

// A policyTest is a list of cases for one set of policies.
type policyTest struct {
	Name       string       `yaml:"name"`
	Template   string       `yaml:"template"`   // a file with policies
	Constraint string       `yaml:"constraint"` // a file with what applies them
	Expansion  string       `yaml:"expansion"`
	Cases      []policyCase `yaml:"cases"`
	Invalid    bool         `yaml:"invalid"` // the constraint must not load
	Skip       bool         `yaml:"skip"`

	// Ours: policies and what applies them, in files or folders, in place of
	// template and constraint; and what all cases know.
	Policies []string `yaml:"policies"`
	Context  []string `yaml:"context"`
}

// A policyCase is one object and what must be said of it.
type policyCase struct {
	Name       string      `yaml:"name"`
	Object     string      `yaml:"object"`
	Inventory  []string    `yaml:"inventory"`
	Assertions []assertion `yaml:"assertions"`
	Skip       bool        `yaml:"skip"`

	// Ours: what is done to the object, and by whom.
	Operation string   `yaml:"operation"`
	Old       string   `yaml:"old"`
	User      string   `yaml:"user"`
	Groups    []string `yaml:"groups"`
	Expect    string   `yaml:"expect"` // the object as policies change it
}

// own returns a word of the test that only our format has, or "".
func (t *policyTest) own() string {
	switch {
	case len(t.Policies) > 0:
		return "policies"
	case len(t.Context) > 0:
		return "context"
	}
	for i := range t.Cases {
		if word := t.Cases[i].own(); word != "" {
			return word
		}
	}
	return ""
}

func (c *policyCase) own() string {
	switch {
	case c.Operation != "":
		return "operation"
	case c.Old != "":
		return "old"
	case c.User != "":
		return "user"
	case len(c.Groups) > 0:
		return "groups"
	case c.Expect != "":
		return "expect"
	case slices.ContainsFunc(c.Assertions, func(a assertion) bool { return a.Enforcement != "" }):
		return "enforcement"
	}
	return ""
}

// suites runs the suites of policies and the tests of rules in a file, or in the
// files of a folder at any depth. The error joins what could not be run.
func (r Runner) suites(ctx context.Context, root string) ([]Result, error) {
	var results []Result
	var errs []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || path != root && !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) {
			return err
		}
		ran, err := r.suite(ctx, path, path == root)
		results, errs = append(results, ran...), append(errs, err)
		return ctx.Err()
	})
	return results, errors.Join(append(errs, err)...)
}

// suite runs what a file holds. One that holds nothing to run is an error if the
// user named it.
func (r Runner) suite(ctx context.Context, path string, named bool) ([]Result, error) {
	data, err := suiteFile(path, named)
	if err != nil {
		return nil, err
	}
	if ruletest.Is(data) {
		return ruleTests(ctx, path, data)
	}
	found, err := parseSuite(path, data, named)
	if err != nil || found == nil {
		return nil, err
	}
	return found.run(ctx, r.Artifacts, path)
}

// ruleTests runs tests of detection rules.
func ruleTests(ctx context.Context, path string, data []byte) ([]Result, error) {
	tests, err := ruletest.Read(path, data)
	if err != nil {
		return nil, err
	}
	ran, err := tests.Run(ctx)
	var results []Result
	for _, r := range ran {
		results = append(results, Result{Example: r.Name, Err: r.Err})
	}
	return results, err
}

// suiteFile reads a file, or returns nil for one that is too large for a suite,
// which is an error if the user named it.
func suiteFile(path string, named bool) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSuiteBytes {
		if named {
			return nil, fmt.Errorf("%s: over the limit of %d MiB for a suite", path, maxSuiteBytes>>20)
		}
		return nil, nil
	}
	return os.ReadFile(path)
}

// parseSuite reads a suite, or returns nil for another file.
func parseSuite(path string, data []byte, named bool) (*document, error) {
	if !bytes.Contains(data, []byte(suiteKind)) || !bytes.Contains(data, []byte(gatekeeperVersion)) && !bytes.Contains(data, []byte(ownVersion)) {
		if named {
			return nil, fmt.Errorf("%s: not a suite: want apiVersion %s or %s and kind %s, or kind RuleTest", path, gatekeeperVersion, ownVersion, suiteKind)
		}
		return nil, nil
	}
	var d document
	if err := yamldoc.One(path, data, &d); err != nil {
		return nil, err
	}
	if d.Kind != suiteKind || d.APIVersion != gatekeeperVersion && d.APIVersion != ownVersion {
		return nil, fmt.Errorf("%s: kind %s of %s is not a suite: want kind %s of %s or %s", path, d.Kind, d.APIVersion, suiteKind, gatekeeperVersion, ownVersion)
	}
	for _, t := range d.Tests {
		if word := t.own(); word != "" && d.APIVersion != ownVersion {
			return nil, fmt.Errorf("%s: test %q: %s is a word of apiVersion %s", path, t.Name, word, ownVersion)
		}
	}
	return &d, nil
}

func (d *document) run(ctx context.Context, artifacts *artifact.Client, path string) ([]Result, error) {
	var results []Result
	var errs []error
	folder := filepath.Dir(path)
	for i := range d.Tests {
		t := &d.Tests[i]
		name := path + ": " + t.Name
		if d.Skip || t.Skip {
			results = append(results, Result{Example: name, Skipped: true})
			continue
		}
		ran, err := t.run(ctx, artifacts, folder, name)
		results, errs = append(results, ran...), append(errs, err)
	}
	return results, errors.Join(errs...)
}

// run loads the policies of a test and runs its cases. Policies that do not load
// fail the test; of a kind that nothing here judges by, they are an error.
func (t *policyTest) run(ctx context.Context, artifacts *artifact.Client, folder, name string) ([]Result, error) {
	set, err := t.load(ctx, artifacts, folder)
	if unknown := (*engine.UnknownKindError)(nil); errors.As(err, &unknown) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if t.Invalid {
		return []Result{{Example: name, Err: t.wrong(folder, err)}}, nil
	}
	if err != nil {
		return []Result{{Example: name, Err: err}}, nil
	}
	var results []Result
	for _, c := range t.Cases {
		result := Result{Example: name + "/" + c.Name, Skipped: c.Skip}
		if !c.Skip {
			result.Err = c.run(ctx, set, folder, t.Context)
		}
		results = append(results, result)
	}
	return results, ctx.Err()
}

func (t *policyTest) load(ctx context.Context, artifacts *artifact.Client, folder string) (*engine.Set, error) {
	paths := slices.Clone(t.Policies)
	if len(paths) == 0 {
		if t.Template == "" || t.Constraint == "" {
			return nil, errors.New("template and constraint are required")
		}
		paths = []string{t.Template, t.Constraint}
		if t.Expansion != "" {
			paths = append(paths, t.Expansion)
		}
	} else if t.Template+t.Constraint+t.Expansion != "" {
		return nil, errors.New("policies take the place of template, constraint and expansion")
	}
	read := func(paths ...string) ([]policy.File, error) { return content.Read[policy.File](nil, paths...) }
	for i := range paths {
		if artifacts != nil && artifact.IsReference(paths[i]) {
			read = func(paths ...string) ([]policy.File, error) { return artifacts.Read(ctx, nil, paths...) }
		} else {
			paths[i] = filepath.Join(folder, paths[i])
		}
	}
	files, err := read(slices.Compact(paths)...)
	if err != nil {
		return nil, err
	}
	set, err := engine.Load(files...)
	if err != nil {
		return nil, err
	}
	return set.At("gator.gatekeeper.sh")
}

// wrong returns nil if the only thing wrong with the policies is the constraint.
func (t *policyTest) wrong(folder string, err error) error {
	if err == nil {
		return errors.New("the constraint is valid, want it invalid")
	}
	at := filepath.Join(folder, t.Constraint) + ":"
	for line := range strings.Lines(err.Error()) {
		if !strings.HasPrefix(line, at) {
			return fmt.Errorf("want an invalid constraint only, have %w", err)
		}
	}
	return nil
}

// run judges the object of a case.
func (c *policyCase) run(ctx context.Context, set *engine.Set, folder string, known []string) error {
	if c.Object == "" || len(c.Assertions) == 0 && c.Expect == "" {
		return errors.New("object and assertions are required")
	}
	objects, err := readObjects(ctx, folder, c.Object)
	if err != nil {
		return err
	}
	if n := len(objects.Objects()); n != 1 {
		return fmt.Errorf("%s has %d objects, want one", c.Object, n)
	}
	r, err := c.reviewer(ctx, set, objects, folder, known)
	if err != nil {
		return err
	}
	if c.Old != "" {
		if r.Old, err = readObjects(ctx, folder, c.Old); err != nil {
			return err
		}
	}
	object := objects.Objects()[0]
	var errs []error
	if c.Expect != "" {
		errs = append(errs, c.mutates(ctx, r, object, folder))
	}
	if len(c.Assertions) == 0 {
		return errors.Join(errs...)
	}
	violations, err := r.Object(ctx, object)
	errs = append(errs, err)
	for _, a := range c.Assertions {
		errs = append(errs, a.check(violations))
	}
	return errors.Join(errs...)
}

// reviewer makes a reviewer for the object of the case.
func (c *policyCase) reviewer(ctx context.Context, set *engine.Set, objects *inventory.Inventory, folder string, known []string) (*review.Reviewer, error) {
	var given []*inventory.Object
	if paths := slices.Concat(known, c.Inventory); len(paths) > 0 {
		found, err := readObjects(ctx, folder, paths...)
		if err != nil {
			return nil, err
		}
		given = found.Objects()
	}
	set, err := set.WithInventory(review.Contents(given))
	if err != nil {
		return nil, err
	}
	all, err := inventory.New(inventory.Files, slices.Concat(given, objects.Objects()), nil)
	if err != nil {
		return nil, err
	}
	r, err := review.New(set, all)
	if err == nil {
		r.Operation, r.User = admissionv1.Operation(c.Operation), authenticationv1.UserInfo{Username: c.User, Groups: c.Groups}
	}
	return r, err
}

// mutates compares what policies make of the object with what is expected.
func (c *policyCase) mutates(ctx context.Context, r *review.Reviewer, object *inventory.Object, folder string) error {
	expected, err := readObjects(ctx, folder, c.Expect)
	if err != nil {
		return err
	}
	if n := len(expected.Objects()); n != 1 {
		return fmt.Errorf("%s has %d objects, want one", c.Expect, n)
	}
	want, err := policy.NewCreateRequest(expected.Objects()[0].Unstructured)
	if err != nil {
		return err
	}
	have, err := r.Mutated(ctx, object)
	if err != nil {
		return err
	}
	if have == nil {
		return errors.New("nothing is left to compare with the expected object")
	}
	if path, differs := difference("", want.Object.Object, have.Object); differs {
		return fmt.Errorf("not the object of %s: %s", c.Expect, path)
	}
	return nil
}

// readObjects reads files loosely: a case may be of an object that no API server
// takes.
func readObjects(ctx context.Context, folder string, paths ...string) (*inventory.Inventory, error) {
	in := inventory.FileInput{Reviews: true, Loose: true}
	for _, p := range paths {
		in.Paths = append(in.Paths, filepath.Join(folder, p))
	}
	inv, err := inventory.Read(ctx, in)
	if err != nil {
		return nil, err
	}
	return inv, inv.Problems
}
