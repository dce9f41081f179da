package playground

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// A PolicyTrial is policies, as a file has them, and the object that is created.
type PolicyTrial struct{ Policy, Object string }

// A PolicyResult says what policies make of the creation of an object.
type PolicyResult struct {
	Allowed    bool                `json:"allowed"`
	Violations []finding.Violation `json:"violations"`
	Unjudged   []string            `json:"unjudged"`          // policies that cannot be judged here, and why
	Changed    string              `json:"changed,omitempty"` // the object as policies have changed it, YAML
}

// refused are kinds of policies that ask others, which a trial must not.
var refused = []string{"ImagePolicy", "Provider"}

// Policy tries policies. Those without a binding, and templates without a
// constraint, get one that denies. The error is an [*InputError], [ErrBusy],
// [ErrTooLong], [ErrMemory] or that there can be no process.
func (p *Playground) Policy(ctx context.Context, session string, t PolicyTrial) (PolicyResult, error) {
	if len(t.Policy) > MaxText || len(t.Object) > MaxText {
		return PolicyResult{}, wrong("the policy and the object may each have %d bytes", MaxText)
	}
	if p.Program == "" {
		return run(ctx, p, session, func(ctx context.Context) (PolicyResult, error) { return tryPolicy(ctx, t) })
	}
	if !p.begin(session) {
		return PolicyResult{}, ErrBusy
	}
	defer p.end(session)
	return p.apart(ctx, t)
}

func tryPolicy(ctx context.Context, t PolicyTrial) (PolicyResult, error) {
	out := PolicyResult{Violations: []finding.Violation{}, Unjudged: []string{}}
	object, err := readObject(t.Object)
	if err != nil {
		return out, err
	}
	files := []policy.File{{Name: fileName, Data: []byte(t.Policy)}}
	more, err := bindings(files[0])
	if err != nil {
		return out, err
	}
	set, err := engine.Load(append(files, more...)...)
	if err != nil {
		return out, &InputError{err}
	}
	req, err := policy.NewCreateRequest(object)
	if err != nil {
		return out, &InputError{err}
	}
	req.Unjudged = func(policy string, err error) {
		if text := fmt.Sprintf("%s: %v", policy, err); !slices.Contains(out.Unjudged, text) {
			out.Unjudged = append(out.Unjudged, text)
		}
	}
	changed, changes, err := set.Mutate(ctx, req)
	if err != nil {
		return out, &InputError{err}
	}
	if len(changes) > 0 {
		data, err := yaml.Marshal(changed.Object)
		if err != nil {
			return out, fmt.Errorf("write the changed object: %w", err)
		}
		req.Object, out.Changed = changed, string(data)
	}
	violations, err := set.Evaluate(ctx, req)
	if err != nil {
		return out, &InputError{err}
	}
	out.Violations, out.Allowed = append(out.Violations, violations...), len(out.Unjudged) == 0
	for _, v := range violations {
		out.Allowed = out.Allowed && v.Enforcement != "deny"
	}
	return out, nil
}

func readObject(text string) (*unstructured.Unstructured, error) {
	if strings.TrimSpace(text) == "" {
		return nil, wrong("the object is empty")
	}
	object := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &object); err != nil {
		return nil, &InputError{fmt.Errorf("read the object: %w", err)}
	}
	u := &unstructured.Unstructured{Object: object}
	if u.GetKind() == "" || u.GetAPIVersion() == "" {
		return nil, wrong("read the object: it needs apiVersion and kind")
	}
	return u, nil
}

// bindings returns what puts policies in force that nothing in their file does.
func bindings(f policy.File) ([]policy.File, error) {
	docs, err := policy.Documents(f)
	if err != nil {
		return nil, &InputError{err}
	}
	if len(docs) == 0 {
		return nil, wrong("the policy is empty")
	}
	bound := map[string]bool{} // by kind of policy and name, or by kind of constraint
	for _, d := range docs {
		kind := d.Text("kind")
		if slices.Contains(refused, kind) {
			return nil, wrong("policies of kind %s ask others, and cannot be tried here: use kubeguardian review", kind)
		}
		name, _, _ := unstructured.NestedString(d.Object(), "spec", "policyName")
		bound[strings.TrimSuffix(kind, "Binding")+"/"+name] = strings.HasSuffix(kind, "Binding")
		bound[kind] = true
	}
	var out []policy.File
	add := func(object map[string]any) error {
		data, err := yaml.Marshal(object)
		out = append(out, policy.File{Name: "binding", Data: data})
		return err
	}
	for _, d := range docs {
		kind := d.Text("kind")
		name, _, _ := unstructured.NestedString(d.Object(), "metadata", "name")
		constraint, _, _ := unstructured.NestedString(d.Object(), "spec", "crd", "spec", "names", "kind")
		switch {
		case (kind == "ValidatingAdmissionPolicy" || kind == "MutatingAdmissionPolicy") && !bound[kind+"/"+name]:
			spec := map[string]any{"policyName": name}
			if kind == "ValidatingAdmissionPolicy" {
				spec["validationActions"] = []any{"Deny"}
			}
			err = add(map[string]any{"apiVersion": d.Text("apiVersion"), "kind": kind + "Binding", "metadata": map[string]any{"name": fileName}, "spec": spec})
		case kind == "ConstraintTemplate" && constraint != "" && !bound[constraint]:
			err = add(map[string]any{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": constraint, "metadata": map[string]any{"name": fileName}})
		}
		if err != nil {
			return nil, fmt.Errorf("bind policy %q: %w", name, err)
		}
	}
	return out, nil
}
