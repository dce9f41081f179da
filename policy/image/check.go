package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// Bounds of what a policy may hold.
const (
	maxAttestors    = 16
	maxAttestations = 16
	maxPatterns     = 256
	maxIdentities   = 64
)

// A checker reads one document and collects what is wrong with it.
type checker struct {
	document
	file string
	root *yaml.Node
	errs []error
}

func (c *checker) bad(path, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s:%d: %s: %s", c.file, yamldoc.Line(c.root, path), path, fmt.Sprintf(format, args...)))
}

// oneOf reports a value that is not in the list.
func (c *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.bad(path, "%q is not supported: want one of %s", value, strings.Join(allowed, ", "))
	}
}

// most reports a list that is too long.
func (c *checker) most(path string, have, limit int) {
	if have > limit {
		c.bad(path, "%d items are more than the limit of %d", have, limit)
	}
}

// head checks what says that the document is an ImagePolicy, and returns its name.
func (c *checker) head() string {
	c.oneOf("kind", c.Kind, Kind)
	c.oneOf("apiVersion", c.APIVersion, APIVersion)
	name, _ := c.Metadata["name"].(string)
	for _, problem := range validation.IsDNS1123Subdomain(name) {
		c.bad("metadata.name", "%s", problem)
	}
	return name
}

// actions checks the validation actions and returns them as violations name them.
func (c *checker) actions() []string {
	const path = "spec.validationActions"
	given := c.Spec.ValidationActions
	if len(given) == 0 {
		c.bad(path, "at least one of Deny, Warn, Audit is required")
	}
	var out []string
	for i, action := range given {
		at := fmt.Sprintf("%s[%d]", path, i)
		c.oneOf(at, action, "Deny", "Warn", "Audit")
		if slices.Contains(given[:i], action) {
			c.bad(at, "%s is given twice", action)
		}
		out = append(out, strings.ToLower(action))
	}
	if slices.Contains(given, "Deny") && slices.Contains(given, "Warn") {
		c.bad(path, "Deny and Warn exclude each other, because they would say the same twice")
	}
	return out
}

// selector parses a label selector; none selects all.
func (c *checker) selector(path string, s *selector) labels.Selector {
	if s == nil {
		return labels.Everything()
	}
	in := metav1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, e := range s.MatchExpressions {
		in.MatchExpressions = append(in.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values,
		})
	}
	out, err := metav1.LabelSelectorAsSelector(&in)
	if err != nil {
		c.bad(path, "%v", err)
	}
	return out
}

// patterns compiles globs over image names.
func (c *checker) patterns(path string, globs []string) patterns {
	c.most(path, len(globs), maxPatterns)
	var out patterns
	for i, glob := range globs {
		compiled, err := parsePattern(glob)
		if err != nil {
			c.bad(fmt.Sprintf("%s[%d]", path, i), "%v", err)
			continue
		}
		out = append(out, compiled)
	}
	return out
}

// texts compiles values that must be met exactly, and expressions that must match
// the whole of a value.
func (c *checker) texts(path string, exact []string, exprPath string, exprs []string) texts {
	c.most(path, len(exact), maxPatterns)
	c.most(exprPath, len(exprs), maxPatterns)
	out := texts{exact: exact}
	for i, value := range exact {
		if value == "" {
			c.bad(fmt.Sprintf("%s[%d]", path, i), "a value is required")
		}
	}
	for i, expr := range exprs {
		compiled, err := anchored(expr)
		if err != nil || expr == "" {
			c.bad(fmt.Sprintf("%s[%d]", exprPath, i), "%q is not a regular expression: %v", expr, err)
			continue
		}
		out.exprs = append(out.exprs, compiled)
	}
	return out
}

// duration checks a duration; none given is zero, for no limit.
func (c *checker) duration(path string, d duration) {
	if d.text != "" && d.Duration <= 0 {
		c.bad(path, "%q is not a duration: want one such as 168h", d.text)
	}
}

// unique reports a name that is missing, or given twice in its list.
func (c *checker) unique(path, name string, seen map[string]bool) {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		c.bad(path, "%s", problems[0])
	} else if seen[name] {
		c.bad(path, "%q is given twice", name)
	}
	seen[name] = true
}

func (c *checker) err() error { return errors.Join(c.errs...) }
