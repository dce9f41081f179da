package gatekeeper

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/memory"
)

// A constraint is a template with parameters, what it is for and what is done
// about its violations.
type constraint struct {
	template *template
	name     string
	source   string                     // "file:line"
	order    int                        // in the set
	match    *match                     // nil: all
	actions  map[Point][]string         // without a point: it is not judged there
	object   *unstructured.Unstructured // with defaults

	// parameters are the same for all constraints of the template that find the
	// same wrong with an object, because they have equal ones.
	parameters *arguments
}

// Arguments are the parameters of a constraint.
type arguments struct {
	value *ast.Term                // spec.parameters
	known memory.Memory[[]verdict] // what CEL said with them
}

// arguments returns the same for equal parameters, unless the code of the
// template looks at more of the constraint than these.
func (t *template) arguments(value ast.Value, constraint string) *arguments {
	key := value.String()
	if e, ok := t.engine.(*celEngine); ok && e.constraint {
		key = constraint
	}
	if t.known == nil {
		t.known = map[string]*arguments{}
	}
	if t.known[key] == nil {
		t.known[key] = &arguments{value: ast.NewTerm(value)}
	}
	return t.known[key]
}

// A constraintDocument is a constraint of any kind; its parameters are read by
// the schema of its template.
type constraintDocument struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Status          map[string]any    `json:"status"`
	Spec            struct {
		Match                    *match         `json:"match"`
		Parameters               any            `json:"parameters"`
		EnforcementAction        string         `json:"enforcementAction"`
		ScopedEnforcementActions []scopedAction `json:"scopedEnforcementActions"`
	} `json:"spec"`
}

type scopedAction struct {
	Action            string `json:"action"`
	EnforcementPoints []struct {
		Name string `json:"name"`
	} `json:"enforcementPoints"`
}

// newConstraint reads a constraint of a template.
func newConstraint(d *policy.Document, t *template) (*constraint, error) {
	var doc constraintDocument
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	object, ok := copyJSON(d.Object()).(map[string]any)
	if !ok {
		return nil, d.At("", "read constraint: its values are not those of JSON")
	}
	checker := constraintChecker{d: d}
	c := &constraint{
		template: t,
		name:     doc.Metadata.Name,
		source:   d.Place(""),
		match:    doc.Spec.Match,
		actions:  checker.actions(&doc),
		object:   &unstructured.Unstructured{Object: object},
	}
	checker.metadata(&doc)
	checker.match(c.match)
	if t.parameters == nil { // the template has a mistake, which is reported
		return nil, errors.Join(checker.errs...)
	}
	var parameters any = map[string]any{}
	if spec, ok := object["spec"].(map[string]any); ok {
		checker.keep(t.parameters.read(d, spec))
		if given := spec["parameters"]; given != nil {
			parameters = given
		}
	}
	delete(object, "status")
	if len(checker.errs) > 0 {
		return nil, errors.Join(checker.errs...)
	}
	value, err := ast.InterfaceToValue(parameters)
	if err != nil {
		return nil, d.At("spec.parameters", "spec.parameters: %v", err)
	}
	c.parameters = t.arguments(value, c.name)
	return c, nil
}

// A constraintChecker collects what is wrong with a constraint besides its
// parameters.
type constraintChecker struct {
	d    *policy.Document
	errs []error
}

func (c *constraintChecker) keep(err error) {
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

func (c *constraintChecker) bad(path, format string, args ...any) {
	c.keep(c.d.At(path, "%s: %s", path, fmt.Sprintf(format, args...)))
}

func (c *constraintChecker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.bad(path, "%q is not supported: want one of %q", value, allowed)
	}
}

func (c *constraintChecker) metadata(doc *constraintDocument) {
	c.oneOf("apiVersion", doc.APIVersion, constraintGroup+"/v1beta1", constraintGroup+"/v1alpha1")
	if doc.Metadata.Name == "" {
		c.bad("metadata.name", "a value is required")
		return
	}
	for _, problem := range utilvalidation.IsDNS1123Subdomain(doc.Metadata.Name) {
		c.bad("metadata.name", "%s", problem)
	}
	if len(doc.Metadata.Name) > 63 {
		c.bad("metadata.name", "%d characters are more than the limit of 63", len(doc.Metadata.Name))
	}
}

// actions returns what is done at each point.
func (c *constraintChecker) actions(doc *constraintDocument) map[Point][]string {
	action := doc.Spec.EnforcementAction
	if action == "" {
		action = "deny"
	}
	if action != "scoped" {
		c.oneOf("spec.enforcementAction", action, "deny", "warn", "dryrun")
		out := map[Point][]string{}
		for _, p := range points() {
			out[p] = []string{action}
		}
		return out
	}
	if doc.Spec.ScopedEnforcementActions == nil {
		c.bad("spec.scopedEnforcementActions", "a value is required when enforcementAction is scoped")
	}
	sets := map[Point]map[string]bool{}
	for i, scoped := range doc.Spec.ScopedEnforcementActions {
		c.scoped(fmt.Sprintf("spec.scopedEnforcementActions[%d]", i), &scoped, sets)
	}
	out := map[Point][]string{}
	for point, set := range sets {
		out[point] = slices.Sorted(maps.Keys(set)) // deny, dryrun, warn
	}
	return out
}

func (c *constraintChecker) scoped(path string, scoped *scopedAction, into map[Point]map[string]bool) {
	c.oneOf(path+".action", scoped.Action, "deny", "warn", "dryrun")
	if len(scoped.EnforcementPoints) == 0 {
		c.bad(path+".enforcementPoints", "at least one is required")
	}
	for i, named := range scoped.EnforcementPoints {
		at := []Point{Point(named.Name)}
		switch named.Name {
		case "*":
			at = points()
		case "vap.k8s.io": // the API server's, not ours
			continue
		default:
			c.oneOf(fmt.Sprintf("%s.enforcementPoints[%d].name", path, i), named.Name, string(Webhook), string(Audit), string(Gator), "vap.k8s.io", "*")
		}
		for _, point := range at {
			if into[point] == nil {
				into[point] = map[string]bool{}
			}
			into[point][scoped.Action] = true
		}
	}
}

var wildcardForm = regexp.MustCompile(`^\*?[-:a-z0-9]*\*?$`)

// match checks and prepares the criteria.
func (c *constraintChecker) match(m *match) {
	if m == nil {
		return
	}
	if m.Source != "" {
		c.oneOf("spec.match.source", string(m.Source), "All", string(original), string(generated))
	}
	if m.Scope != "" { // Gatekeeper takes any text, and then matches all
		c.oneOf("spec.match.scope", m.Scope, "*", "Cluster", "Namespaced")
	}
	c.wildcards("spec.match.namespaces", m.Namespaces)
	c.wildcards("spec.match.excludedNamespaces", m.ExcludedNamespaces)
	if !wildcardForm.MatchString(string(m.Name)) {
		c.bad("spec.match.name", "%q is not a name with * at its ends", m.Name)
	}
	m.labels = c.selector("spec.match.labelSelector", m.LabelSelector)
	m.namespaceLabels = c.selector("spec.match.namespaceSelector", m.NamespaceSelector)
}

func (c *constraintChecker) wildcards(path string, list []wildcard) {
	for i, w := range list {
		if !wildcardForm.MatchString(string(w)) {
			c.bad(fmt.Sprintf("%s[%d]", path, i), "%q is not a name with * at its ends", w)
		}
	}
}

// selector parses a selector; one that is not given is nil.
func (c *constraintChecker) selector(path string, s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return nil
	}
	if errs := metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, field.NewPath(path)); len(errs) > 0 {
		c.keep(fieldErrors(c.d, errs))
		return nil
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		c.bad(path, "%v", err)
	}
	return parsed
}
