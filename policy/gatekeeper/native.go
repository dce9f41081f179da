package gatekeeper

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A Native is a constraint as a ValidatingAdmissionPolicy with its binding. What
// the constraint says, parameters included, is written into the policy, so that
// the API server needs neither of the two kinds.
type Native struct {
	Source  string // of the constraint: "file:line"
	Kind    string
	Name    string // of the constraint
	Policy  *admissionregistrationv1.ValidatingAdmissionPolicy
	Binding *admissionregistrationv1.ValidatingAdmissionPolicyBinding
}

// An Obstacle is a template or a constraint that no ValidatingAdmissionPolicy
// stands for.
type Obstacle struct{ Source, Kind, Name, Reason string }

// Natives returns the constraints of the set as native policies, for what the API
// server sends to [Webhook], and what cannot be one. A template that cannot be one
// stands for its constraints. Where a constraint scopes its actions, those for
// vap.k8s.io count.
func (s *Set) Natives() (natives []Native, obstacles []Obstacle) {
	used := map[*template]bool{}
	for _, c := range s.constraints {
		used[c.template] = true
		if _, ok := c.template.engine.(*celEngine); !ok {
			continue // its template is an obstacle
		}
		native, reason := c.native()
		if reason != "" {
			obstacles = append(obstacles, Obstacle{c.source, c.template.kind, c.name, reason})
			continue
		}
		natives = append(natives, native)
	}
	for _, t := range s.templates {
		reason := ""
		if rego, ok := t.engine.(*regoEngine); ok {
			reason = "its code is Rego, which only a webhook runs"
			if rego.inventory {
				reason += "; it also reads data.inventory"
			}
		} else if !used[t] {
			reason = "it has no constraint"
		}
		if reason != "" {
			obstacles = append(obstacles, Obstacle{t.document.Place(""), "ConstraintTemplate", t.name, reason})
		}
	}
	return natives, obstacles
}

// native returns a constraint as a native policy, or why it is none.
func (c *constraint) native() (Native, string) {
	actions := c.nativeActions()
	m := c.match
	if m == nil {
		m = &match{}
	}
	switch {
	case len(actions) == 0:
		return Native{}, "none of its scoped actions is for vap.k8s.io"
	case m.Source == generated:
		return Native{}, "it judges only what an ExpansionTemplate generates"
	case m.NamespaceSelector != nil && m.mayBeNamespace() && has(c.template.registered(), "UPDATE"):
		return Native{}, "its namespaceSelector is for Namespaces too, and the API server looks only at the new labels of one: name the other kinds in match.kinds"
	}
	source := c.template.engine.(*celEngine).source
	name := c.template.name + "-" + c.name
	p := &admissionregistrationv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			FailurePolicy:    source.FailurePolicy,
			MatchConstraints: &admissionregistrationv1.MatchResources{ObjectSelector: m.LabelSelector, NamespaceSelector: m.NamespaceSelector},
			Variables: []admissionregistrationv1.Variable{
				{Name: "anyObject", Expression: anyObject},
				{Name: "params", Expression: "dyn(" + celLiteral(c.givenParameters()) + ")"},
			},
		},
	}
	for _, rule := range policy.JoinRules(c.webhookRules()) {
		p.Spec.MatchConstraints.ResourceRules = append(p.Spec.MatchConstraints.ResourceRules, admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: rule})
	}
	if expression := m.expression(); expression != "" {
		p.Spec.MatchConditions = append(p.Spec.MatchConditions, admissionregistrationv1.MatchCondition{Name: "constraint-matches", Expression: expression})
	}
	for _, condition := range source.MatchConditions {
		p.Spec.MatchConditions = append(p.Spec.MatchConditions, admissionregistrationv1.MatchCondition(condition))
	}
	for _, v := range source.Variables {
		p.Spec.Variables = append(p.Spec.Variables, admissionregistrationv1.Variable(v))
	}
	for _, v := range source.Validations {
		p.Spec.Validations = append(p.Spec.Validations, admissionregistrationv1.Validation{Expression: v.Expression, Message: v.Message, MessageExpression: v.MessageExpression})
	}
	return Native{
		Source: c.source, Kind: c.template.kind, Name: c.name, Policy: p,
		Binding: &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: p.APIVersion, Kind: p.Kind + "Binding"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: actions},
		},
	}, ""
}

// nativeActions returns what a binding does. The API server does not deny and
// warn by the same one.
func (c *constraint) nativeActions() []admissionregistrationv1.ValidationAction {
	spec, _, _ := unstructured.NestedMap(c.object.Object, "spec")
	action, _, _ := unstructured.NestedString(spec, "enforcementAction")
	found := map[string]bool{}
	switch action {
	case "":
		found["deny"] = true
	case "scoped":
		scoped, _, _ := unstructured.NestedSlice(spec, "scopedEnforcementActions")
		for _, one := range scoped {
			item, _ := one.(map[string]any)
			points, _, _ := unstructured.NestedSlice(item, "enforcementPoints")
			for _, point := range points {
				named, _ := point.(map[string]any)
				if named["name"] == "*" || named["name"] == "vap.k8s.io" {
					action, _, _ := unstructured.NestedString(item, "action")
					found[action] = true
				}
			}
		}
	default:
		found[action] = true
	}
	if found["deny"] {
		delete(found, "warn")
	}
	known := map[string]admissionregistrationv1.ValidationAction{
		"deny": admissionregistrationv1.Deny, "warn": admissionregistrationv1.Warn, "dryrun": admissionregistrationv1.Audit,
	}
	var out []admissionregistrationv1.ValidationAction
	for _, action := range slices.Sorted(maps.Keys(found)) {
		out = append(out, known[action])
	}
	return out
}

// givenParameters returns the parameters with defaults, or nil.
func (c *constraint) givenParameters() any {
	value, _, _ := unstructured.NestedFieldNoCopy(c.object.Object, "spec", "parameters")
	return value
}

// mayBeNamespace reports whether Namespaces are among the kinds.
func (m *match) mayBeNamespace() bool { return m.ofKind(&subject{kind: "Namespace"}) }

// What the criteria are about, in CEL. The object of a DELETE is the one that is
// deleted; those of some subresources have no metadata.
const (
	celIsNamespace = `(request.kind.group == '' && request.kind.kind == 'Namespace')`
	celNamespace   = `request.?namespace.orValue('')`
	celMetadata    = `(object != null ? object : oldObject).?metadata`
	celName        = celMetadata + `.?name.orValue('')`
	celPrefix      = celMetadata + `.?generateName.orValue('')`
	celInNamespace = `(!` + celIsNamespace + ` && ` + celNamespace + ` != '')`
	celWhere       = `(` + celIsNamespace + ` ? ` + celName + ` : ` + celNamespace + `)`
)

// expression returns the criteria that selectors do not say, in CEL, or "" for
// none. They are those of [match.matches].
func (m *match) expression() string {
	var all []string
	if kinds := celKinds(m.Kinds); kinds != "" {
		all = append(all, kinds)
	}
	switch m.Scope {
	case "Cluster":
		all = append(all, "!"+celInNamespace)
	case "Namespaced":
		all = append(all, celInNamespace)
	}
	var listed []string
	if len(m.Namespaces) > 0 {
		listed = append(listed, celAny(m.Namespaces, celWhere))
	}
	if len(m.ExcludedNamespaces) > 0 {
		listed = append(listed, "!"+celAny(m.ExcludedNamespaces, celWhere))
	}
	if len(listed) > 0 {
		all = append(all, "(!"+celIsNamespace+" && "+celNamespace+" == '' || "+strings.Join(listed, " && ")+")")
	}
	if m.Name != "" {
		named := m.Name.expression(celName)
		if strings.HasSuffix(string(m.Name), "*") {
			named = "(" + named + " || " + m.Name.expression(celPrefix) + ")"
		}
		all = append(all, named)
	}
	return strings.Join(all, " && ")
}

// celKinds returns the list of kinds in CEL, or "" if it names all.
func celKinds(list []kinds) string {
	var any []string
	for _, k := range list {
		var both []string
		for _, part := range []struct {
			names []string
			field string
		}{{k.APIGroups, "request.kind.group"}, {k.Kinds, "request.kind.kind"}} {
			if len(part.names) > 0 && !slices.Contains(part.names, "*") {
				both = append(both, part.field+" in "+celTexts(part.names))
			}
		}
		if len(both) == 0 {
			return ""
		}
		any = append(any, "("+strings.Join(both, " && ")+")")
	}
	if len(any) == 0 {
		return ""
	}
	return "(" + strings.Join(any, " || ") + ")"
}

func celAny(list []wildcard, text string) string {
	any := make([]string, len(list))
	for i, w := range list {
		any[i] = w.expression(text)
	}
	return "(" + strings.Join(any, " || ") + ")"
}

// expression is [wildcard.matches] in CEL.
func (w wildcard) expression(text string) string {
	rest, front := strings.CutPrefix(string(w), "*")
	rest, back := strings.CutSuffix(rest, "*")
	switch {
	case front && (back || w == "*"):
		return text + ".contains(" + celText(rest) + ")"
	case front:
		return text + ".endsWith(" + celText(rest) + ")"
	case back:
		return text + ".startsWith(" + celText(rest) + ")"
	}
	return text + " == " + celText(rest)
}

func celTexts(list []string) string {
	texts := make([]string, len(list))
	for i, text := range list {
		texts[i] = celText(text)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// celText writes a text, whose escapes are those of Go.
func celText(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return "'" + strings.ReplaceAll(quoted[1:len(quoted)-1], "'", `\'`) + "'"
}

// celLiteral writes a JSON value. What is in lists and maps is dynamic, because
// the types of a literal must be the same.
func celLiteral(v any) string {
	switch v := v.(type) {
	case string:
		return celText(v)
	case bool, int64:
		return fmt.Sprint(v)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = "dyn(" + celLiteral(item) + ")"
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]any:
		var items []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			items = append(items, celText(key)+": dyn("+celLiteral(v[key])+")")
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	return "null"
}
