// Package suite runs labelled examples of controls, suites of policies, and tests
// of detection rules (package ruletest). They are how a control, a policy or a
// rule is specified, and anybody can write one.
//
// # Examples of controls
//
// An example is a small input whose name says which state the control must have
// for it.
//
// The examples of a control lie in a folder with its id, or with the name of a
// policy that defines it. Their names begin with a state: pass, fail, unknown or
// na (not applicable). An example is
//
//   - a file NAME.yaml with the objects of files, or NAME.live.yaml with those of
//     a live cluster; or
//   - a folder with such a file called objects.yaml or objects.live.yaml,
//     evidence in evidence/, and exceptions in exceptions.yaml, each of which may
//     be missing.
//
// Some subject must have the state of the label. A fail example may have other
// states beside it, the others may not.
//
// # Suites of policies
//
// A suite is a file of Gatekeeper's format (test.gatekeeper.sh/v1alpha1, kind
// Suite): tests, each of which applies a policy to objects and says how many
// violations there must be, and with which messages. As the template of a test
// any policy may stand, and as its constraint what applies it, such as a
// ValidatingAdmissionPolicyBinding. What that format has no word for is in ours
// (kubeguardian.dev/v1alpha1, kind Suite), which is the same with more fields.
package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// annotation is how a policy names the control that it defines.
const annotation = "kubeguardian.dev/control"

// states are the labels of examples.
var states = map[string]finding.Status{
	"pass": finding.Pass, "fail": finding.Fail, "unknown": finding.Unknown, "na": finding.NotApplicable,
}

// A Runner judges examples by a catalogue and the policies that define its
// controls.
type Runner struct {
	Catalogue *control.Catalogue
	Policies  *policy.Set
	Now       time.Time // at which evidence is judged

	// Artifacts reads the policies of suites, which may be OCI artifacts; nil reads
	// files only.
	Artifacts *artifact.Client
}

// A Result is one example of a control or one case of a suite: Err says how it
// differs from what it should be, or nil.
type Result struct {
	Control string // empty for a case
	Example string // its path; for a case that of the suite and the names
	Label   string // pass, fail, unknown or na; empty for a case
	Skipped bool   // the suite says so
	Err     error
}

// Run runs all suites and then all examples in the folders under root, in the
// order of their paths. A path may end in /... as gator has it. The error is for
// what cannot be read or run, and for a path without anything to run; the
// results of all else come with it.
func (r Runner) Run(ctx context.Context, root string) ([]Result, error) {
	root = strings.TrimSuffix(root, "/...")
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	results, err := r.suites(ctx, root)
	if !info.IsDir() {
		if err == nil && len(results) == 0 {
			err = fmt.Errorf("%s: nothing to test: it has no tests", root)
		}
		return results, err
	}
	examples, failed := r.examples(ctx, root)
	results = append(results, examples...)
	if err = errors.Join(err, failed); err == nil && len(results) == 0 {
		err = fmt.Errorf("%s: nothing to test: want files of kind Suite or RuleTest, or folders with the id of a control, or the name of its policy, that hold examples", root)
	}
	return results, err
}

// examples runs all examples in the folders under root.
func (r Runner) examples(ctx context.Context, root string) ([]Result, error) {
	var results []Result
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		id := r.controlOf(d.Name())
		if id == "" {
			return nil
		}
		entries, err := os.ReadDir(path)
		for _, e := range entries {
			if label, _, ok := strings.Cut(e.Name(), "-"); ok && ctx.Err() == nil {
				results = append(results, r.example(ctx, id, label, filepath.Join(path, e.Name())))
			}
		}
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		return fs.SkipDir
	})
	return results, err
}

// controlOf returns the control whose examples a folder of this name has, or "".
// A policy whose control is judged in another way has none.
func (r Runner) controlOf(folder string) string {
	defined := ""
	for _, p := range r.Policies.Policies() {
		if p.Name() == folder {
			defined = p.Annotation(annotation)
		}
	}
	for _, c := range r.Catalogue.Controls() {
		if c.ID == folder || c.ID == defined && c.Evaluator == "policy" {
			return c.ID
		}
	}
	return ""
}

func (r Runner) example(ctx context.Context, id, label, path string) Result {
	result := Result{Control: id, Example: path, Label: label}
	in, err := r.Input(ctx, path)
	if err != nil {
		result.Err = err
		return result
	}
	findings, err := r.Catalogue.Evaluate(ctx, in)
	if err != nil {
		result.Err = err
		return result
	}
	result.Err = compare(label, slices.DeleteFunc(findings, func(f finding.Finding) bool { return f.Control != id }))
	return result
}

// compare says how states differ from a label, or nil.
func compare(label string, findings []finding.Finding) error {
	want := states[label]
	if want == "" {
		return fmt.Errorf("the name begins with %q: want pass, fail, unknown or na", label)
	}
	got := map[finding.Status]int{}
	var told []string
	for _, f := range findings {
		got[f.Status]++
		told = append(told, fmt.Sprintf("%s %s: %s%s", f.Subject, f.Status, f.Message, f.Reason))
		if f.Status == finding.Fail && (f.Message == "" || f.Fix == "") {
			return fmt.Errorf("%s fails without message or fix: %q, %q", f.Subject, f.Message, f.Fix)
		}
	}
	if got[want] == 0 || want != finding.Fail && len(got) > 1 {
		return fmt.Errorf("want %s, have %s", want, strings.Join(told, "; "))
	}
	return nil
}

// Input reads an example.
func (r Runner) Input(ctx context.Context, path string) (control.Input, error) {
	in := control.Input{Policies: r.Policies, Now: r.Now}
	var err error
	if strings.HasSuffix(path, ".yaml") {
		in.Inventory, err = objects(ctx, path)
		return in, err
	}
	files, _ := filepath.Glob(filepath.Join(path, "objects*.yaml"))
	if len(files) > 0 {
		in.Inventory, err = objects(ctx, files[0])
	} else {
		in.Inventory, err = inventory.New(inventory.Files, nil, nil)
	}
	if err != nil {
		return in, err
	}
	if seen := filepath.Join(path, "evidence"); exists(seen) {
		if in.Evidence, err = evidence.Load(ctx, seen); err != nil {
			return in, err
		}
		for i := range in.Evidence.Repositories {
			if !r.Now.IsZero() {
				in.Evidence.Repositories[i].SeenAt = r.Now // and not when its folder is read
			}
		}
	}
	if file := filepath.Join(path, "exceptions.yaml"); exists(file) {
		data, err := os.ReadFile(file)
		if err != nil {
			return in, err
		}
		in.Exceptions, err = exception.Read(file, data)
		return in, err
	}
	return in, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// objects reads the objects of files, or of a live cluster.
func objects(ctx context.Context, file string) (*inventory.Inventory, error) {
	inv, err := inventory.FromFiles(ctx, []string{file}, nil)
	if err != nil {
		return unchecked(file, err)
	}
	if !strings.HasSuffix(file, ".live.yaml") {
		return inv, nil
	}
	for _, o := range inv.Objects() {
		o.Source = ""
	}
	return inventory.New(inventory.Cluster, inv.Objects(), nil)
}

// unchecked reads the one object of a file that strict reading refused: what the
// API server of another version would take, a policy may have to judge.
func unchecked(file string, strict error) (*inventory.Inventory, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(data, &o.Object); err != nil || o.GetKind() == "" {
		return nil, strict
	}
	return inventory.New(inventory.Files, []*inventory.Object{{Unstructured: o, Source: file + ":1"}}, nil)
}
