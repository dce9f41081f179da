package suite

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/review"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// An assertion is what must be true of the violations of a case.
type assertion struct {
	Violations  count   `yaml:"violations"`  // that match; at least one if not given
	Message     pattern `yaml:"message"`     // of the violations that count; all if not given
	Enforcement string  `yaml:"enforcement"` // ours: of the violations that count; any if empty
}

// UnmarshalYAML refuses what else an assertion may hold.
func (a *assertion) UnmarshalYAML(n *yaml.Node) error {
	if err := yamldoc.Known(n, "violations", "message", "enforcement"); err != nil {
		return err
	}
	type plain assertion // without this method
	return n.Decode((*plain)(a))
}

// A count says how many violations there must be.
type count struct {
	exact bool
	n     int // exactly, or at least
	none  bool
}

// UnmarshalYAML reads yes, no or a whole number.
func (c *count) UnmarshalYAML(n *yaml.Node) error {
	switch number, err := strconv.Atoi(n.Value); {
	case n.Kind == yaml.ScalarNode && n.Value == "yes":
		*c = count{}
	case n.Kind == yaml.ScalarNode && n.Value == "no":
		*c = count{none: true}
	case n.Kind == yaml.ScalarNode && err == nil && number >= 0:
		*c = count{exact: true, n: number}
	default:
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: violations is %q: want yes, no or a number", n.Line, n.Value)}}
	}
	return nil
}

func (c count) allows(n int) bool {
	switch {
	case c.none:
		return n == 0
	case c.exact:
		return n == c.n
	}
	return n > 0
}

// String says what is wanted.
func (c count) String() string {
	switch {
	case c.none:
		return "none"
	case c.exact:
		return strconv.Itoa(c.n)
	}
	return "at least one"
}

// A pattern is a regular expression that must be found in a message.
type pattern struct{ *regexp.Regexp }

// UnmarshalYAML compiles the expression.
func (p *pattern) UnmarshalYAML(n *yaml.Node) error {
	compiled, err := regexp.Compile(n.Value)
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: message: %v", n.Line, err)}}
	}
	p.Regexp = compiled
	return nil
}

// check returns how the violations differ from the assertion, or nil. A policy
// that is applied with several actions says the same once for each; that counts
// once.
func (a *assertion) check(violations []review.Violation) error {
	type applied struct{ policy, constraint string }
	byAction := map[applied]map[string]int{}
	have := 0
	var messages []string
	for _, v := range violations {
		messages = append(messages, fmt.Sprintf("%s [%s] %s", v.Enforcement, v.Policy, v.Message))
		if a.Message.Regexp != nil && !a.Message.MatchString(v.Message) || a.Enforcement != "" && a.Enforcement != v.Enforcement {
			continue
		}
		by := applied{v.Policy, v.Constraint}
		if byAction[by] == nil {
			byAction[by] = map[string]int{}
		}
		if byAction[by][v.Enforcement]++; byAction[by][v.Enforcement] > most(byAction[by], v.Enforcement) {
			have++
		}
	}
	if a.Violations.allows(have) {
		return nil
	}
	what := "violations"
	if a.Enforcement != "" {
		what = a.Enforcement + " " + what
	}
	if a.Message.Regexp != nil {
		what += fmt.Sprintf(" with %q", a.Message)
	}
	return fmt.Errorf("want %s: %s, have %d in: %s", what, a.Violations, have, strings.Join(messages, "; "))
}

// most returns the largest count of an action other than one.
func most(counts map[string]int, but string) (n int) {
	for action, c := range counts {
		if action != but {
			n = max(n, c)
		}
	}
	return n
}
