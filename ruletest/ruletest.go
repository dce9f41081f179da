// Package ruletest runs tests of detection rules. They are how a rule is
// specified, and anybody can write one: a file of kind RuleTest says of events
// which rule they raise, and which they must not. docs/rule-tests.md describes
// the format.
//
// A file is read strictly ([Read]): a mistake is named by file and line. Its
// cases run through the same code as live events ([File.Run]).
package ruletest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// What a file of this format says it is.
const (
	apiVersion = "kubeguardian.dev/v1alpha1"
	kind       = "RuleTest"
)

// A File is a file of tests.
type File struct {
	name string
	document
}

// A document is what a file holds.
type document struct {
	APIVersion  string         `yaml:"apiVersion"`
	Kind        string         `yaml:"kind"`
	Metadata    map[string]any `yaml:"metadata"`
	Rules       []string       `yaml:"rules"`       // files and folders; none for the built-in rules
	AuditPolicy string         `yaml:"auditPolicy"` // a file; none to take events as they are given
	Source      string         `yaml:"source"`      // of the events of tests that name no rule; k8s_audit if not given
	Event       fields         `yaml:"event"`
	Tests       []*ruleTest    `yaml:"tests"`
}

// fields are the part of an event that a test writes down.
type fields = map[string]any

// A ruleTest has the cases of one rule, or of all rules if it names none.
type ruleTest struct {
	Rule   string      `yaml:"rule"`
	Event  fields      `yaml:"event"`
	Alerts []*testCase `yaml:"alerts"`
	Quiet  []*testCase `yaml:"quiet"`

	line int
}

// A testCase has one event, or those of a file.
type testCase struct {
	Name   string   `yaml:"name"`
	Before []fields `yaml:"before"` // events that came earlier; what they raise does not count
	Event  fields   `yaml:"event"`
	File   string   `yaml:"file"`

	// What each alert must have.
	Priority string         `yaml:"priority"`
	Output   string         `yaml:"output"` // a part of it
	Fields   map[string]any `yaml:"fields"`

	line     int
	priority alert.Priority
}

// UnmarshalYAML remembers the line.
func (t *ruleTest) UnmarshalYAML(n *yaml.Node) error {
	type plain ruleTest
	t.line = n.Line
	return errors.Join(yamldoc.Known(n, "rule", "event", "alerts", "quiet"), n.Decode((*plain)(t)))
}

// UnmarshalYAML remembers the line.
func (c *testCase) UnmarshalYAML(n *yaml.Node) error {
	type plain testCase
	c.line = n.Line
	return errors.Join(yamldoc.Known(n, "name", "before", "event", "file", "priority", "output", "fields"), n.Decode((*plain)(c)))
}

// Is reports whether data claims to be a file of tests.
func Is(data []byte) bool {
	return bytes.Contains(data, []byte(kind)) && bytes.Contains(data, []byte(apiVersion))
}

// Read reads a file of tests. All of its mistakes are returned together.
func Read(name string, data []byte) (*File, error) {
	f := &File{name: name}
	if err := yamldoc.One(name, data, &f.document); err != nil {
		return nil, err
	}
	if f.APIVersion != apiVersion || f.Kind != kind {
		return nil, fmt.Errorf("%s: kind %s of %s: want kind %s of %s", name, f.Kind, f.APIVersion, kind, apiVersion)
	}
	var errs []error
	fail := func(line int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d: %s", name, line, fmt.Sprintf(format, args...)))
	}
	if f.Source != "" && !slices.Contains(event.Sources(), f.Source) {
		fail(1, "source is %q, want one of %s", f.Source, strings.Join(event.Sources(), ", "))
	}
	if len(f.Tests) == 0 {
		fail(1, "tests is empty")
	}
	for i, t := range f.Tests {
		if t == nil {
			fail(1, "tests[%d] is empty", i)
			continue
		}
		t.check(fail)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return f, nil
}

func (t *ruleTest) check(fail func(line int, format string, args ...any)) {
	switch {
	case len(t.Alerts)+len(t.Quiet) == 0:
		fail(t.line, "test has neither alerts nor quiet")
	case t.Rule == "" && len(t.Alerts) > 0:
		fail(t.line, "test has alerts, but does not say of which rule")
	}
	for i, cases := range [][]*testCase{t.Alerts, t.Quiet} {
		names := map[string]bool{}
		for _, c := range cases {
			if c == nil {
				fail(t.line, "a case is empty")
				continue
			}
			if c.Name == "" || names[c.Name] {
				fail(c.line, "case needs a name that no other one has, not %q", c.Name)
			}
			names[c.Name] = true
			c.check(i == 0, fail)
		}
	}
}

func (c *testCase) check(alerts bool, fail func(line int, format string, args ...any)) {
	if c.File != "" && c.Event != nil {
		fail(c.line, "case has both event and file")
	}
	if !alerts && (c.Priority != "" || c.Output != "" || c.Fields != nil) {
		fail(c.line, "a quiet case has no alert with priority, output or fields")
	}
	if c.Priority != "" {
		var err error
		if c.priority, err = alert.ParsePriority(c.Priority); err != nil {
			fail(c.line, "%v", err)
		}
	}
}

// cases are those with alerts, then the quiet ones.
func (t *ruleTest) cases() []*testCase {
	return append(append([]*testCase(nil), t.Alerts...), t.Quiet...)
}

// title names a case in results.
func (f *File) title(t *ruleTest, c *testCase) string {
	return fmt.Sprintf("%s:%d: %s", f.name, c.line, strings.TrimPrefix(t.Rule+"/"+c.Name, "/"))
}
