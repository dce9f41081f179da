// Package setting sets how far policies are enforced, whom they spare and what
// their parameters are, in one file for pipelines and clusters:
//
//	apiVersion: kubeguardian.dev/v1alpha1
//	kind: PolicySettings
//	enforcement:
//	  default: warn
//	  policies: {privileged-containers: deny, image-digest: dryrun}
//	exemptNamespaces: [legacy]
//	parameters:
//	  administratorGroups: ["system:masters", platform]
//
// Settings are written into the policies before these are loaded, so that what is
// exported says the same, also where there is nothing that parameters could be
// read from, such as on the disk of an API server. A parameter is a variable of a
// ValidatingAdmissionPolicy that the annotation kubeguardian.dev/parameters names,
// and whose expression is a literal: that is its default.
package setting

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// maxBytes bounds a file of settings.
const maxBytes = 1 << 20

// The stages of a policy, each stricter than the one before: what it finds is
// recorded, shown to who asks, and refused.
const (
	DryRun = "dryrun"
	Warn   = "warn"
	Deny   = "deny"
)

// Stages returns the stages in their order.
func Stages() []string { return []string{DryRun, Warn, Deny} }

// Settings are what a file says. They are immutable.
type Settings struct {
	name string // of the file
	root *yaml.Node
	document
}

type document struct {
	APIVersion  string         `yaml:"apiVersion"`
	Kind        string         `yaml:"kind"`
	Metadata    map[string]any `yaml:"metadata"`
	Enforcement struct {
		// Default is the stage of each policy that is not named; "" leaves it as
		// the policies have it.
		Default string `yaml:"default"`
		// Policies have their stage by name: of a native policy or an image policy,
		// the kind of a constraint, or its kind and name, as in K8sAllowedRepos/ours.
		Policies map[string]string `yaml:"policies"`
	} `yaml:"enforcement"`
	// ExemptNamespaces are left alone by all policies.
	ExemptNamespaces []string `yaml:"exemptNamespaces"`
	// Parameters have a text, a whole number, true or false, or a list of texts.
	Parameters map[string]any `yaml:"parameters"`
}

// Stage returns settings that put every policy at one stage.
func Stage(stage string) (*Settings, error) {
	if !slices.Contains(Stages(), stage) {
		return nil, fmt.Errorf("unknown stage %q: want one of %s", stage, strings.Join(Stages(), ", "))
	}
	s := &Settings{}
	s.Enforcement.Default = stage
	return s, nil
}

// Load reads a file.
func Load(file string) (*Settings, error) {
	data, err := Read(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, data)
}

// Read returns the text of a file, for [Parse].
func Read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read settings of policies: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read settings of policies: %w", err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: file has more than the limit of %d bytes", file, maxBytes)
	}
	return data, nil
}

// Parse reads the text of a file. All errors are returned together, with file and
// line.
func Parse(name string, data []byte) (*Settings, error) {
	items, err := yamldoc.All[document](name, data, 1)
	if err != nil {
		return nil, err
	}
	if len(items) != 1 {
		return nil, fmt.Errorf("%s: want one document of kind PolicySettings", name)
	}
	s := &Settings{name: name, root: items[0].Root, document: items[0].Value}
	var mistakes policy.Mistakes
	if s.APIVersion != "kubeguardian.dev/v1alpha1" || s.Kind != "PolicySettings" {
		mistakes.Add(s.at("kind", "kind %s of %s is not supported: want PolicySettings of kubeguardian.dev/v1alpha1", s.Kind, s.APIVersion))
	}
	if stage := s.Enforcement.Default; stage != "" {
		mistakes.Add(s.checkStage("enforcement.default", stage))
	}
	for name, stage := range sorted(s.Enforcement.Policies) {
		mistakes.Add(s.checkStage("enforcement.policies."+name, stage))
	}
	for i, namespace := range s.ExemptNamespaces {
		if !namespaceForm.MatchString(namespace) {
			mistakes.Add(s.at(fmt.Sprintf("exemptNamespaces[%d]", i), "%q is not the name of a namespace", namespace))
		}
	}
	for name, value := range sorted(s.Parameters) {
		if _, err := literal(value); err != nil {
			mistakes.Add(s.at("parameters."+name, "parameters.%s: %v", name, err))
		}
	}
	if err := mistakes.Err(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Settings) checkStage(path, stage string) error {
	if slices.Contains(Stages(), stage) {
		return nil
	}
	return s.at(path, "%s: unknown stage %q: want one of %s", path, stage, strings.Join(Stages(), ", "))
}

// at returns an error with file and line.
func (s *Settings) at(path, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", s.name, yamldoc.Line(s.root, path), fmt.Sprintf(format, args...))
}

// sorted yields a map in the order of its keys.
func sorted[V any](m map[string]V) func(yield func(string, V) bool) {
	return func(yield func(string, V) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}

// With calls use with files as settings change them; without settings as they
// are. What is wrong with the files themselves has the lines that it has there.
func With[T any](s *Settings, files []policy.File, use func([]policy.File) (T, error)) (T, error) {
	if s == nil {
		return use(files)
	}
	changed, err := s.Apply(files)
	if err != nil {
		return *new(T), err
	}
	out, err := use(changed)
	if err == nil {
		return out, nil
	}
	if original, wrong := use(files); wrong != nil {
		return original, wrong
	}
	return out, fmt.Errorf("%s: policies with these settings: %w", s.name, err)
}
