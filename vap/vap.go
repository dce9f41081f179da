// Package vap writes policies as native ValidatingAdmissionPolicies with their
// bindings: for a cluster, or as static manifests that an API server reads from
// its own disk (ManifestBasedAdmissionControlConfig, Kubernetes 1.36 and later),
// which nobody can delete through its API.
package vap

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/manifest"
	"github.com/kubeguardian/kubeguardian/policy"
)

// StaticSuffix is how the names of static policies and bindings end; the API
// server refuses it for all others.
const StaticSuffix = ".static.k8s.io"

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
// bindings, ordered by name. The text is that of the files, but for what a
// cluster adds to its objects. When they are to be static, names end in
// [StaticSuffix].
//
// What cannot be exported is in unsupported, each an [*UnsupportedError]. The
// error is for policies that do not load at all.
func Export(files []policy.File, static bool) (manifests []Manifest, unsupported []error, err error) {
	unsupported, err = load(files)
	if err != nil {
		return nil, nil, err
	}
	policies, _, err := engine.Split(files...)
	if err != nil {
		return nil, nil, err
	}
	var all []*manifest.Object
	for _, f := range policies {
		objects, err := manifest.Read(f)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, objects...)
	}
	slices.SortStableFunc(all, func(a, b *manifest.Object) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, o := range all {
		if isBinding(o) {
			continue // with its policy
		}
		if reason := obstacle(o, static); reason != "" {
			unsupported = append(unsupported, &UnsupportedError{o.Source, o.Kind(), o.Name(), reason})
			continue
		}
		written, err := export(o, all, static)
		if err != nil {
			return nil, nil, err
		}
		manifests = append(manifests, written)
	}
	return manifests, unsupported, nil
}

// load checks the policies. Documents of other kinds are not supported.
func load(files []policy.File) (unsupported []error, err error) {
	_, err = engine.Load(files...)
	var errs []error
	for _, e := range flatten(err) {
		if unknown := (*engine.UnknownKindError)(nil); errors.As(e, &unknown) {
			unsupported = append(unsupported, &UnsupportedError{Source: unknown.Source, Kind: unknown.Kind.Kind, Reason: "it is no policy"})
		} else {
			errs = append(errs, e)
		}
	}
	return unsupported, errors.Join(errs...)
}

// flatten returns the errors that are joined in one.
func flatten(err error) (all []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// export writes a policy and its bindings.
func export(p *manifest.Object, all []*manifest.Object, static bool) (Manifest, error) {
	out := []*manifest.Object{p}
	for _, o := range all {
		if o.Kind() == p.Kind()+"Binding" && o.Text("spec", "policyName") == p.Name() {
			out = append(out, o)
		}
	}
	name := p.Name()
	if static {
		name = staticName(name)
	}
	var texts [][]byte
	for _, o := range out {
		o.Drop()
		if static {
			for _, path := range [][]string{{"metadata", "name"}, {"spec", "policyName"}} {
				if n := o.Find(path...); n != nil {
					n.Value = staticName(n.Value)
				}
			}
		}
		text, err := o.Write()
		if err != nil {
			return Manifest{}, err
		}
		texts = append(texts, text)
	}
	return Manifest{Name: name, Data: manifest.Join(texts...)}, nil
}

func staticName(name string) string { return strings.TrimSuffix(name, StaticSuffix) + StaticSuffix }

// isBinding reports whether an object is written with its policy.
func isBinding(o *manifest.Object) bool { return strings.HasSuffix(o.Kind(), "AdmissionPolicyBinding") }

// obstacle returns why an object cannot be exported, or "".
func obstacle(o *manifest.Object, static bool) string {
	switch {
	case o.Kind() != "ValidatingAdmissionPolicy":
		return "no ValidatingAdmissionPolicy does what it does"
	case static && o.Find("spec", "paramKind") != nil:
		return "a static policy cannot have parameters: the API server reads it before there are any"
	case static && len(o.Name())+len(StaticSuffix) > 253:
		return "its name is too long for the suffix " + StaticSuffix
	}
	return ""
}
