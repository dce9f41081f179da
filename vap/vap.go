// Package vap writes policies as native ones, ValidatingAdmissionPolicies or
// MutatingAdmissionPolicies with their bindings: for a cluster, or as static
// manifests that an API server reads from its own disk
// (ManifestBasedAdmissionControlConfig, Kubernetes 1.36 and later), which nobody
// can delete through its API.
//
// Native policies are written as they are. A constraint of a Gatekeeper template in
// CEL becomes a policy of its own, which holds the parameters and needs neither.
package vap

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/manifest"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// StaticSuffix is how the names of static policies and bindings end; the API
// server refuses it for all others.
const StaticSuffix = ".static.k8s.io"

// A Target is the kind of policies to write. An API server reads static manifests
// of each from a folder of its own.
type Target string

// The targets.
const (
	Validating Target = "ValidatingAdmissionPolicy"
	Mutating   Target = "MutatingAdmissionPolicy"
)

// A Manifest is one policy with its bindings, as YAML.
type Manifest struct {
	Name string // of the policy
	Data []byte
}

// An UnsupportedError names a document that cannot be exported.
type UnsupportedError struct {
	Source string // "file:line"
	Kind   string
	Name   string
	Reason string
}

// Error says what cannot be exported and why.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: %s cannot be exported: %s", e.Source, strings.TrimSpace(e.Kind+" "+e.Name), e.Reason)
}

// Export returns the policies in files, ordered by name, each followed by its
// bindings, ordered by name. The text of native policies is that of the files, but
// for what a cluster adds to its objects. When they are to be static, names end in
// [StaticSuffix].
//
// What cannot be exported is in unsupported, each an [*UnsupportedError]. The
// error is for policies that do not load at all.
func Export(files []policy.File, to Target, static bool) (manifests []Manifest, unsupported []error, err error) {
	policies, others, err := engine.Split(files...)
	if err != nil {
		return nil, nil, err
	}
	set, err := engine.Load(policies...)
	if err != nil {
		return nil, nil, err
	}
	x := &export{to: to, static: static}
	for _, f := range others {
		if err := x.refuse(f); err != nil {
			return nil, nil, err
		}
	}
	all, err := read(policies)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range all {
		if err := x.object(o, all); err != nil {
			return nil, nil, err
		}
	}
	if to == Validating {
		x.constraints(set)
	}
	slices.SortFunc(x.manifests, func(a, b Manifest) int { return cmp.Compare(a.Name, b.Name) })
	return x.manifests, x.unsupported, nil
}

// read parses files, and orders what they hold by name.
func read(files []policy.File) (all []*manifest.Object, err error) {
	for _, f := range files {
		objects, err := manifest.Read(f)
		if err != nil && !bytes.HasPrefix(f.Data, []byte("-----BEGIN ")) { // a key that image policies name
			return nil, err
		}
		all = append(all, objects...)
	}
	slices.SortStableFunc(all, func(a, b *manifest.Object) int { return cmp.Compare(a.Name(), b.Name()) })
	return all, nil
}

// An export is what becomes of files.
type export struct {
	to          Target
	static      bool
	manifests   []Manifest
	unsupported []error
}

func (x *export) obstacle(source, kind, name, reason string) {
	x.unsupported = append(x.unsupported, &UnsupportedError{source, kind, name, reason})
}

// refuse names documents that are no policies.
func (x *export) refuse(f policy.File) error {
	objects, err := manifest.Read(f)
	for _, o := range objects {
		x.obstacle(o.Place("kind"), o.Kind(), "", "it is no policy")
	}
	return err
}

// object exports a document with its bindings. A binding comes with its policy,
// constraints with their templates, and what has no kind with the image policies
// that name it.
func (x *export) object(o *manifest.Object, all []*manifest.Object) error {
	kind := o.Kind()
	if kind == "" || strings.HasSuffix(kind, "AdmissionPolicyBinding") || x.to == Validating && (kind == "ConstraintTemplate" || o.Group() == "constraints.gatekeeper.sh") {
		return nil
	}
	if reason := x.reason(o); reason != "" {
		x.obstacle(o.Source, kind, o.Name(), reason)
		return nil
	}
	out := []*manifest.Object{o}
	for _, b := range all {
		if b.Kind() == kind+"Binding" && b.Text("spec", "policyName") == o.Name() {
			out = append(out, b)
		}
	}
	return x.write(o.Name(), out)
}

// reason returns why a document cannot be exported, or "".
func (x *export) reason(o *manifest.Object) string {
	switch {
	case o.Kind() == string(Mutating) && x.to == Validating:
		return "it changes objects: --to map exports it"
	case o.Kind() == string(Validating) && x.to == Mutating:
		return "it changes nothing: --to vap exports it"
	case o.Kind() != string(x.to):
		return fmt.Sprintf("no %s does what it does", x.to)
	case x.static && o.Find("spec", "paramKind") != nil:
		return "a static policy cannot have parameters: the API server reads it before there are any"
	}
	return x.tooLong(o.Name())
}

func (x *export) tooLong(name string) string {
	if x.static && len(name)+len(StaticSuffix) > 253 {
		return "its name is too long for the suffix " + StaticSuffix
	}
	return ""
}

// write adds a manifest.
func (x *export) write(name string, objects []*manifest.Object) error {
	texts := make([][]byte, len(objects))
	for i, o := range objects {
		o.Drop()
		if x.static {
			makeStatic(o)
		}
		text, err := o.Write()
		if err != nil {
			return err
		}
		texts[i] = text
	}
	if x.static {
		name = staticName(name)
	}
	x.manifests = append(x.manifests, Manifest{Name: name, Data: manifest.Join(texts...)})
	return nil
}

// makeStatic gives an object its name, and the version that API servers with
// static manifests have.
func makeStatic(o *manifest.Object) {
	for _, path := range [][]string{{"metadata", "name"}, {"spec", "policyName"}} {
		if n := o.Find(path...); n != nil {
			n.Value = staticName(n.Value)
		}
	}
	o.Find("apiVersion").Value = "admissionregistration.k8s.io/v1"
}

func staticName(name string) string { return strings.TrimSuffix(name, StaticSuffix) + StaticSuffix }

// constraints exports those that can be native policies.
func (x *export) constraints(set *engine.Set) {
	natives, obstacles := set.Natives()
	for _, o := range obstacles {
		x.obstacle(o.Source, o.Kind, o.Name, o.Reason)
	}
	for _, n := range natives {
		if reason := x.constraint(n); reason != "" {
			x.obstacle(n.Source, n.Kind, n.Name, reason)
		}
	}
}

// constraint exports a constraint, or says why it cannot be.
func (x *export) constraint(n gatekeeper.Native) string {
	name := n.Policy.Name
	if reason := x.tooLong(name); reason != "" {
		return reason
	}
	if slices.ContainsFunc(x.manifests, func(m Manifest) bool { return strings.TrimSuffix(m.Name, StaticSuffix) == name }) {
		return fmt.Sprintf("another policy is called %s, as its own would be", name)
	}
	first, err := yaml.Marshal(n.Policy)
	second, failed := yaml.Marshal(n.Binding)
	if err := errors.Join(err, failed); err != nil {
		return err.Error()
	}
	file := policy.File{Name: name, Data: manifest.Join(first, second)}
	if _, err := policy.Load(file); err != nil {
		return "it does not compile without Gatekeeper's variables: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	objects, err := manifest.Read(file)
	if err == nil {
		err = x.write(name, objects)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
