package evidence

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// StatementsVersion is the apiVersion of a file of [Statement]s.
const StatementsVersion = "kubeguardian.dev/attestation/v1"

// A Statement is what a person vouches for: that a control holds for some
// subjects, until a day. It settles what could not be verified; it never
// outweighs a failure that was seen.
type Statement struct {
	Origin  `yaml:"-"`
	Control string    `yaml:"control"`
	Scope   Scope     `yaml:"scope"` // the zero value is every subject of the control
	By      string    `yaml:"by"`    // who vouches
	At      time.Time `yaml:"at"`
	Text    string    `yaml:"text"`
	Expires time.Time `yaml:"expires"`
}

// A Scope names subjects by patterns, as of [path.Match]; "" matches all.
type Scope struct {
	Kind      string `yaml:"kind"`
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
}

// Matches reports whether a subject is in the scope.
func (s Scope) Matches(subject finding.Subject) bool {
	return matches(s.Kind, subject.Kind) && matches(s.Namespace, subject.Namespace) && matches(s.Name, subject.Name)
}

func matches(pattern, value string) bool {
	ok, err := path.Match(pattern, value)
	return pattern == "" || ok && err == nil
}

// Valid returns nil while the statement may be relied upon.
func (s *Statement) Valid(now time.Time) error {
	switch {
	case s.At.After(now):
		return fmt.Errorf("is dated %s, which is in the future", s.At.Format(time.DateOnly))
	case now.After(s.Expires):
		return fmt.Errorf("expired on %s", s.Expires.Format(time.DateOnly))
	case now.After(s.At.Add(Attestation.Lifetime())):
		return fmt.Errorf("is of %s; a statement is good for 90 days", s.At.Format(time.DateOnly))
	}
	return nil
}

// check returns what is missing in a statement.
func (s *Statement) check() error {
	var missing []string
	for key, absent := range map[string]bool{
		"control": s.Control == "", "by": s.By == "", "text": strings.TrimSpace(s.Text) == "",
		"at": s.At.IsZero(), "expires": s.Expires.IsZero(),
	} {
		if absent {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("statement without %s", strings.Join(sorted(missing), ", "))
	}
	if !s.Expires.After(s.At) {
		return errors.New("statement expires before it is made")
	}
	for _, pattern := range []string{s.Scope.Kind, s.Scope.Namespace, s.Scope.Name} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("scope %q: %w", pattern, err)
		}
	}
	return nil
}

// statements reads a file of statements.
func statements(d document) (*Set, error) {
	var file struct {
		APIVersion string      `yaml:"apiVersion"`
		Statements []statement `yaml:"statements"`
	}
	if err := d.strict(&file); err != nil {
		return nil, err
	}
	set := &Set{}
	var errs []error
	for _, s := range file.Statements {
		if err := s.check(); err != nil {
			errs = append(errs, d.errorf(s.line, "%v", err))
			continue
		}
		s.Origin = Origin{Kind: Attestation, Tool: s.By, Source: d.at(s.line), SeenAt: s.At}
		set.Statements = append(set.Statements, s.Statement)
	}
	if len(file.Statements) == 0 {
		errs = append(errs, d.errorf(0, "no statements"))
	}
	return set, errors.Join(errs...)
}

// A statement is a Statement with the line it begins at.
type statement struct {
	Statement `yaml:",inline"`
	line      int
}

// UnmarshalYAML keeps the line.
func (s *statement) UnmarshalYAML(n *yaml.Node) error {
	type plain statement
	s.line = n.Line
	if err := yamldoc.Known(n, "control", "scope", "by", "at", "text", "expires"); err != nil {
		return err
	}
	return n.Decode((*plain)(s))
}
