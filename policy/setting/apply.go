package setting

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubeguardian/kubeguardian/manifest"
	"github.com/kubeguardian/kubeguardian/policy"
)

// parametersKey is the annotation by which a policy says which of its variables
// are parameters.
const parametersKey = "kubeguardian.dev/parameters"

var namespaceForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Apply returns files with the settings written into them. Names that no policy
// has are errors: whoever wrote them believes that they do something.
func (s *Settings) Apply(files []policy.File) ([]policy.File, error) {
	a := &application{Settings: s, staged: map[string]bool{}, given: map[string]bool{}}
	out := make([]policy.File, len(files))
	for i, f := range files {
		changed, err := a.file(f)
		if err != nil {
			return nil, err
		}
		out[i] = changed
	}
	var mistakes policy.Mistakes
	for name := range sorted(s.Enforcement.Policies) {
		if !a.staged[name] {
			mistakes.Add(s.at("enforcement.policies."+name, "enforcement.policies: no policy that judges is called %q", name))
		}
	}
	for name := range sorted(s.Parameters) {
		if !a.given[name] {
			mistakes.Add(s.at("parameters."+name, "parameters: no policy has a parameter %q", name))
		}
	}
	return out, mistakes.Err()
}

// An application is the work of one Apply: it notes which names were met.
type application struct {
	*Settings
	staged, given map[string]bool
}

// file changes the documents of a file. One that is no YAML is a key beside
// policies, or is refused by the loader, which says why.
func (a *application) file(f policy.File) (policy.File, error) {
	objects, err := manifest.Read(f)
	if err != nil {
		return f, nil
	}
	changed := false
	for _, o := range objects {
		did, err := a.object(o)
		if err != nil {
			return f, err
		}
		changed = changed || did
	}
	if !changed {
		return f, nil
	}
	texts := make([][]byte, len(objects))
	for i, o := range objects {
		if texts[i], err = o.Write(); err != nil {
			return f, err
		}
	}
	return policy.File{Name: f.Name, Data: manifest.Join(texts...)}, nil
}

// object changes a document, and reports whether it did.
func (a *application) object(o *manifest.Object) (changed bool, err error) {
	changes := []func(*manifest.Object) (bool, error){a.stage, a.exempt, a.parameters}
	for _, change := range changes {
		did, err := change(o)
		if err != nil {
			return false, err
		}
		changed = changed || did
	}
	return changed, nil
}

// The kinds of documents that settings change.
const (
	imagePolicy   = "ImagePolicy"
	nativeBinding = "ValidatingAdmissionPolicyBinding"
	mutateBinding = "MutatingAdmissionPolicyBinding"
	constraints   = "constraints.gatekeeper.sh"
	mutators      = "mutations.gatekeeper.sh"
)

// stage puts what judges at its stage.
func (a *application) stage(o *manifest.Object) (bool, error) {
	var names []string // the last one counts
	switch {
	case o.Kind() == nativeBinding:
		names = []string{o.Text("spec", "policyName")}
	case o.Kind() == imagePolicy:
		names = []string{o.Name()}
	case o.Group() == constraints:
		names = []string{o.Kind(), o.Kind() + "/" + o.Name()}
	default:
		return false, nil
	}
	stage := a.Enforcement.Default
	for _, name := range names {
		if named, ok := a.Enforcement.Policies[name]; ok {
			stage, a.staged[name] = named, true
		}
	}
	switch {
	case stage == "":
		return false, nil
	case o.Group() == constraints:
		return true, stageConstraint(o, stage)
	}
	return true, o.Set(actions(stage), "spec", "validationActions")
}

// actions are those of a binding at a stage. What is only shown is recorded too.
func actions(stage string) []string {
	switch stage {
	case DryRun:
		return []string{"Audit"}
	case Warn:
		return []string{"Warn", "Audit"}
	}
	return []string{"Deny"}
}

// stageConstraint puts a constraint at a stage, at the points where it acts.
func stageConstraint(o *manifest.Object, stage string) error {
	if o.Text("spec", "enforcementAction") != "scoped" {
		return o.Set(stage, "spec", "enforcementAction")
	}
	scoped := o.Find("spec", "scopedEnforcementActions")
	if scoped == nil {
		return nil // its loader refuses it
	}
	for _, one := range scoped.Content {
		if action := manifest.Value(one, "action"); action != nil {
			action.Value = stage
		}
	}
	return nil
}

// exempt spares namespaces.
func (a *application) exempt(o *manifest.Object) (bool, error) {
	if len(a.ExemptNamespaces) == 0 {
		return false, nil
	}
	switch {
	case o.Kind() == nativeBinding, o.Kind() == mutateBinding:
		return true, a.exclude(o, "spec", "matchResources", "namespaceSelector", "matchExpressions")
	case o.Kind() == imagePolicy:
		return true, a.exclude(o, "spec", "match", "namespaceSelector", "matchExpressions")
	case o.Group() == constraints, o.Group() == mutators:
		path := []string{"spec", "match", "excludedNamespaces"}
		var names []string
		if n := o.Find(path...); n != nil {
			if err := n.Decode(&names); err != nil {
				return false, nil // its loader refuses it
			}
		}
		return true, o.Set(slices.Concat(names, a.ExemptNamespaces), path...)
	}
	return false, nil
}

// exclude adds a requirement to a selector of namespaces.
func (a *application) exclude(o *manifest.Object, path ...string) error {
	var expressions []any
	if n := o.Find(path...); n != nil {
		if err := n.Decode(&expressions); err != nil {
			return nil // its loader refuses it
		}
	}
	return o.Set(append(expressions, map[string]any{
		"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": a.ExemptNamespaces,
	}), path...)
}

// parameters puts values in the place of the defaults of a policy.
func (a *application) parameters(o *manifest.Object) (bool, error) {
	if o.Kind() != "ValidatingAdmissionPolicy" {
		return false, nil
	}
	changed := false
	for name := range strings.SplitSeq(o.Text("metadata", "annotations", parametersKey), ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		expression := variable(o, name)
		if expression == nil {
			return false, fmt.Errorf("%s: the annotation %s names %q, which is no variable", o.Source, parametersKey, name)
		}
		value, ok := a.Parameters[name]
		if !ok {
			continue
		}
		text, err := literal(value)
		if err == nil && kindOf(text) != kindOf(strings.TrimSpace(expression.Value)) {
			err = fmt.Errorf("want %s, as the default in policy %s is", kindOf(strings.TrimSpace(expression.Value)), o.Name())
		}
		if err != nil {
			return false, a.at("parameters."+name, "parameters.%s: %v", name, err)
		}
		expression.Value, expression.Style = text, yaml.DoubleQuotedStyle
		a.given[name], changed = true, true
	}
	return changed, nil
}

// variable returns the expression of a variable, or nil.
func variable(o *manifest.Object, name string) *yaml.Node {
	variables := o.Find("spec", "variables")
	if variables == nil {
		return nil
	}
	for _, v := range variables.Content {
		if n := manifest.Value(v, "name"); n != nil && n.Value == name {
			return manifest.Value(v, "expression")
		}
	}
	return nil
}

// kindOf says what a literal is.
func kindOf(text string) string {
	switch {
	case strings.HasPrefix(text, "["):
		return "a list of texts"
	case text == "true" || text == "false":
		return "true or false"
	case strings.HasPrefix(text, "'") || strings.HasPrefix(text, `"`):
		return "a text"
	}
	return "a whole number"
}

// maxItems bounds a list: what policies look through costs time.
const maxItems = 1000

// literal writes a value in CEL.
func literal(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return quote(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case []any:
		if len(v) > maxItems {
			return "", fmt.Errorf("%d items are more than the limit of %d", len(v), maxItems)
		}
		texts := make([]string, len(v))
		for i, item := range v {
			text, ok := item.(string)
			if !ok {
				return "", fmt.Errorf("item %d is no text: put it in quotes", i+1)
			}
			texts[i] = quote(text)
		}
		return "[" + strings.Join(texts, ", ") + "]", nil
	}
	return "", errors.New("want a text, a whole number, true or false, or a list of texts")
}

// quote writes a text in CEL, whose escapes are those of Go.
func quote(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return "'" + strings.ReplaceAll(quoted[1:len(quoted)-1], `'`, `\'`) + "'"
}
