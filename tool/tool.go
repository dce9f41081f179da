// Package tool knows the tools of the field: for each level what is needed,
// what serves that need on each cloud and as open source, and by what a tool is
// recognised in a cluster, a plan or a pipeline. All of it is data; see
// content/tools.
package tool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/content"
)

// A Need is something that a level asks for.
type Need struct {
	ID    string `yaml:"id" json:"id"`
	Title string `yaml:"title" json:"title"`
	Level string `yaml:"-" json:"level"`
	Tools []Tool `yaml:"tools" json:"tools"`
}

// A Tool serves a need.
type Tool struct {
	Name string `yaml:"name" json:"name"`
	On   string `yaml:"on" json:"on"` // aws, azure, google or open
	// Detected says where the tool was seen; none if it was not.
	Detected []string `yaml:"-" json:"detected,omitempty"`

	Images      []string `yaml:"images" json:"-"`      // last parts of names
	Groups      []string `yaml:"groups" json:"-"`      // of custom resources
	Kinds       []string `yaml:"kinds" json:"-"`       // Kind.group
	Annotations []string `yaml:"annotations" json:"-"` // keys of annotations or labels
	Namespaces  []string `yaml:"namespaces" json:"-"`
	Drivers     []string `yaml:"drivers" json:"-"`   // CSI
	Systems     []string `yaml:"systems" json:"-"`   // how the OS of a node calls itself
	Resources   []string `yaml:"resources" json:"-"` // of Terraform
	Files       []string `yaml:"files" json:"-"`     // of a repository
	Evidence    []string `yaml:"evidence" json:"-"`  // how its name begins there
	Steps       []Step   `yaml:"steps" json:"-"`
}

// A Step is how a tool is run in a pipeline: by an action, a command with its
// first words, or a template of GitLab.
type Step struct {
	Action   string            `yaml:"action"`
	Command  string            `yaml:"command"`
	Template string            `yaml:"template"`
	When     map[string]string `yaml:"when"` // inputs that the action must have
	For      []string          `yaml:"for"`
	// A step fails the build unless it lacks all of Fails, has one of Passes, or
	// leaves that to the code host.
	Fails     []string `yaml:"fails"`
	Passes    []string `yaml:"passes"`
	Elsewhere bool     `yaml:"elsewhere"`
}

// Purposes are what a step may be for.
var purposes = []string{
	"dast", "dependencies", "images", "infrastructure", "manifests", "posture", "provenance", "sast", "sealing", "secrets", "signing",
}

// Clouds are where a tool may be from, in the order of the matrix.
func Clouds() []string { return []string{"aws", "azure", "google", "open"} }

// A Matrix is all needs, ordered by level. It is read-only.
type Matrix struct{ Needs []Need }

// Knows reports whether objects of a group are a sign of a tool: they are looked
// at, though no control has them for a subject.
func (m *Matrix) Knows(group string) bool {
	return slices.ContainsFunc(m.Needs, func(n Need) bool {
		return slices.ContainsFunc(n.Tools, func(t Tool) bool { return slices.Contains(t.Groups, group) })
	})
}

// BuiltIn returns the matrix that comes with KubeGuardian.
func BuiltIn() *Matrix { return builtIn() }

var builtIn = sync.OnceValue(func() *Matrix {
	m, err := Load(content.Tools())
	if err != nil {
		panic(err) // the files are embedded, and tested
	}
	return m
})

// maxFile bounds one file of the matrix.
const maxFile = 1 << 20

// Load reads every YAML file of fsys: the needs of one level each.
func Load(fsys fs.FS) (*Matrix, error) {
	m := &Matrix{}
	names, err := fs.Glob(fsys, "*.yaml")
	if err != nil || len(names) == 0 {
		return nil, errors.Join(errors.New("read tools: no files"), err)
	}
	levels := []string{"infrastructure", "cluster", "container", "application", "code"}
	slices.SortFunc(names, func(a, b string) int {
		return slices.Index(levels, level(a)) - slices.Index(levels, level(b))
	})
	for _, name := range names {
		needs, err := load(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read tools: %w", err)
		}
		m.Needs = append(m.Needs, needs...)
	}
	return m, m.check(levels)
}

// level returns the level that a file is named after.
func level(file string) string { return file[:len(file)-len(path.Ext(file))] }

func load(fsys fs.FS, name string) ([]Need, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var doc struct {
		Level string `yaml:"level"`
		Needs []Need `yaml:"needs"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for i := range doc.Needs {
		doc.Needs[i].Level = doc.Level
	}
	return doc.Needs, nil
}

// check returns what is wrong with a matrix.
func (m *Matrix) check(levels []string) error {
	var errs []error
	seen := map[string]bool{}
	for _, n := range m.Needs {
		if n.ID == "" || n.Title == "" || seen[n.ID] || !slices.Contains(levels, n.Level) {
			errs = append(errs, fmt.Errorf("need %q: want an id of its own, a title and a level", n.ID))
		}
		seen[n.ID] = true
		for _, t := range n.Tools {
			if t.Name == "" || !slices.Contains(Clouds(), t.On) {
				errs = append(errs, fmt.Errorf("need %s: tool %q: want a name, and on: aws, azure, google or open", n.ID, t.Name))
			}
			for _, s := range t.Steps {
				if err := s.check(); err != nil {
					errs = append(errs, fmt.Errorf("need %s: tool %s: %w", n.ID, t.Name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (s Step) check() error {
	ways := 0
	for _, way := range []string{s.Action, s.Command, s.Template} {
		if way != "" {
			ways++
		}
	}
	if ways != 1 || len(s.For) == 0 {
		return errors.New("a step wants one of action, command and template, and what it is for")
	}
	for _, p := range s.For {
		if !slices.Contains(purposes, p) {
			return fmt.Errorf("a step cannot be for %q", p)
		}
	}
	return nil
}
