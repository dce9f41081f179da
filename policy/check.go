package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// A checker collects what is wrong with one document besides its expressions.
// The rules are those of the API server's validation.
type checker struct {
	*document
	errs []error
}

func (c *checker) bad(path, format string, args ...any) {
	c.errs = append(c.errs, c.at(path, "%s: %s", path, fmt.Sprintf(format, args...)))
}

// required reports an empty value.
func (c *checker) required(path, value string) {
	if strings.TrimSpace(value) == "" {
		c.bad(path, "a value is required")
	}
}

// oneOf reports a value that is not in the list.
func (c *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.bad(path, "%q is not supported: want one of %s", value, strings.Join(allowed, ", "))
	}
}

func (c *checker) name(meta metav1.ObjectMeta) {
	if meta.Name == "" {
		c.required("metadata.name", "")
		return
	}
	for _, problem := range validation.IsDNS1123Subdomain(meta.Name) {
		c.bad("metadata.name", "%s", problem)
	}
}

// check reports what is wrong with the object besides its expressions.
func (d *document) check() error {
	switch {
	case d.policy != nil:
		return d.checkPolicy()
	case d.binding != nil:
		return d.checkBinding()
	case d.mutating != nil:
		return d.checkMutating()
	}
	return d.checkMutatingBinding()
}

func (d *document) checkPolicy() error {
	c := checker{document: d}
	spec := d.policy.Spec
	c.name(d.policy.ObjectMeta)
	c.oneOf("spec.failurePolicy", string(*spec.FailurePolicy), "Fail", "Ignore")
	c.paramKind(spec.ParamKind)
	c.constraints(spec.MatchConstraints)
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		c.bad("spec.validations", "at least one validation or audit annotation is required")
	}
	c.conditions(spec.MatchConditions)
	c.variables(spec.Variables)
	c.validations(spec.Validations)
	c.annotations(spec.AuditAnnotations)
	return errors.Join(c.errs...)
}

func (d *document) checkBinding() error {
	c := checker{document: d}
	spec := d.binding.Spec
	c.name(d.binding.ObjectMeta)
	c.required("spec.policyName", spec.PolicyName)
	c.paramRef(spec.ParamRef)
	if len(spec.ValidationActions) == 0 {
		c.bad("spec.validationActions", "at least one of Deny, Warn, Audit is required")
	}
	for i, action := range spec.ValidationActions {
		path := fmt.Sprintf("spec.validationActions[%d]", i)
		c.oneOf(path, string(action), "Deny", "Warn", "Audit")
		if slices.Contains(spec.ValidationActions[:i], action) {
			c.bad(path, "%s is given twice", action)
		}
	}
	if slices.Contains(spec.ValidationActions, admissionregistrationv1.Deny) && slices.Contains(spec.ValidationActions, admissionregistrationv1.Warn) {
		c.bad("spec.validationActions", "Deny and Warn exclude each other, because they would say the same twice")
	}
	if m := spec.MatchResources; m != nil {
		c.match("spec.matchResources", m)
	}
	return errors.Join(c.errs...)
}

// constraints checks which objects a policy is for.
func (c *checker) constraints(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		c.bad("spec.matchConstraints", "a value is required")
		return
	}
	c.match("spec.matchConstraints", m)
	if len(m.ResourceRules) == 0 {
		c.bad("spec.matchConstraints.resourceRules", "at least one rule is required")
	}
}

func (c *checker) match(path string, m *admissionregistrationv1.MatchResources) {
	c.oneOf(path+".matchPolicy", string(*m.MatchPolicy), "Exact", "Equivalent")
	c.selector(path+".namespaceSelector", m.NamespaceSelector)
	c.selector(path+".objectSelector", m.ObjectSelector)
	for i := range m.ResourceRules {
		c.rule(fmt.Sprintf("%s.resourceRules[%d]", path, i), &m.ResourceRules[i])
	}
	for i := range m.ExcludeResourceRules {
		c.rule(fmt.Sprintf("%s.excludeResourceRules[%d]", path, i), &m.ExcludeResourceRules[i])
	}
}

func (c *checker) selector(path string, s *metav1.LabelSelector) {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		c.bad(path, "%v", err)
	}
}

func (c *checker) rule(path string, rule *admissionregistrationv1.NamedRuleWithOperations) {
	c.wildcards(path+".apiGroups", rule.APIGroups)
	c.wildcards(path+".apiVersions", rule.APIVersions)
	c.oneOf(path+".scope", string(*rule.Scope), "*", "Cluster", "Namespaced")
	if len(rule.Resources) == 0 {
		c.bad(path+".resources", "at least one value is required")
	}
	for i, resource := range rule.Resources {
		c.required(fmt.Sprintf("%s.resources[%d]", path, i), resource)
	}
	if len(rule.Operations) == 0 {
		c.bad(path+".operations", "at least one value is required")
	}
	for i, op := range rule.Operations {
		at := fmt.Sprintf("%s.operations[%d]", path, i)
		c.oneOf(at, string(op), "*", "CONNECT", "CREATE", "DELETE", "UPDATE")
		if op == admissionregistrationv1.OperationAll && len(rule.Operations) > 1 {
			c.bad(at, "* must stand alone")
		}
	}
}

// wildcards checks a list in which * must stand alone.
func (c *checker) wildcards(path string, values []string) {
	if len(values) == 0 {
		c.bad(path, "at least one value is required")
	}
	if len(values) > 1 && slices.Contains(values, "*") {
		c.bad(path, "* must stand alone")
	}
}

func (c *checker) conditions(list []admissionregistrationv1.MatchCondition) {
	if len(list) > 64 {
		c.bad("spec.matchConditions", "%d conditions are more than the limit of 64", len(list))
	}
	seen := map[string]bool{}
	for i, condition := range list {
		path := fmt.Sprintf("spec.matchConditions[%d]", i)
		c.qualified(path+".name", condition.Name, seen)
		c.required(path+".expression", condition.Expression)
	}
}

var identifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

func (c *checker) variables(list []admissionregistrationv1.Variable) {
	seen := map[string]bool{}
	for i, variable := range list {
		path := fmt.Sprintf("spec.variables[%d]", i)
		if !identifier.MatchString(variable.Name) {
			c.bad(path+".name", "%q is not a CEL identifier", variable.Name)
		}
		if seen[variable.Name] {
			c.bad(path+".name", "%q is given twice", variable.Name)
		}
		seen[variable.Name] = true
		c.required(path+".expression", variable.Expression)
	}
}

func (c *checker) validations(list []admissionregistrationv1.Validation) {
	for i, v := range list {
		path := fmt.Sprintf("spec.validations[%d]", i)
		c.required(path+".expression", v.Expression)
		if strings.Contains(strings.TrimSpace(v.Message), "\n") {
			c.bad(path+".message", "a message is one line")
		}
		if v.Reason != nil {
			c.oneOf(path+".reason", string(*v.Reason), "Forbidden", "Invalid", "RequestEntityTooLarge")
		}
	}
}

func (c *checker) annotations(list []admissionregistrationv1.AuditAnnotation) {
	if len(list) > 20 {
		c.bad("spec.auditAnnotations", "%d annotations are more than the limit of 20", len(list))
	}
	seen := map[string]bool{}
	for i, a := range list {
		path := fmt.Sprintf("spec.auditAnnotations[%d]", i)
		c.qualified(path+".key", a.Key, seen)
		c.required(path+".valueExpression", a.ValueExpression)
	}
}

// qualified checks a name that must be unique in its list.
func (c *checker) qualified(path, name string, seen map[string]bool) {
	for _, problem := range validation.IsQualifiedName(name) {
		c.bad(path, "%s", problem)
	}
	if seen[name] {
		c.bad(path, "%q is given twice", name)
	}
	seen[name] = true
}
