// Package oracle runs Gatekeeper's own client, as its webhook does, for tests
// that compare it with ours. It is a module of its own: Gatekeeper's CEL driver
// needs older Kubernetes libraries than the product.
package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/open-policy-agent/frameworks/constraint/pkg/apis"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client/drivers/rego"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client/reviews"
	"github.com/open-policy-agent/frameworks/constraint/pkg/core/templates"
	"github.com/open-policy-agent/frameworks/constraint/pkg/types"
	expansionunversioned "github.com/open-policy-agent/gatekeeper/v3/apis/expansion/unversioned"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/drivers/k8scel"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/expansion"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/util"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// A Setup is what reviews are judged by and see; both sides read the same.
type Setup struct {
	Policies   string            `json:"policies"` // YAML documents
	Namespaces []json.RawMessage `json:"namespaces"`
	Inventory  []json.RawMessage `json:"inventory"`
	Point      string            `json:"point"`
	Mutators   string            `json:"mutators"` // YAML documents, for what is expanded
	Outer
}

// An Answer is the outcome of one review.
type Answer struct {
	Violations []Violation `json:"violations"`
	Error      string      `json:"error,omitempty"`
}

// A Violation is what the product writes for one.
type Violation struct {
	Policy      string            `json:"policy"`
	Binding     string            `json:"binding"`
	Enforcement string            `json:"enforcement"`
	Message     string            `json:"message"`
	Details     map[string]string `json:"details,omitempty"`
}

// A Gatekeeper is its client with policies.
type Gatekeeper struct {
	client     *client.Client
	expansion  *expansion.System
	namespaces map[string]*corev1.Namespace
	point      string
}

// New returns Gatekeeper's client, made as its webhook makes it.
func New(setup Setup) (*Gatekeeper, error) {
	cel, err := k8scel.New()
	if err != nil {
		return nil, err
	}
	providers, err := setup.read()
	if err != nil {
		return nil, err
	}
	args := []rego.Arg{rego.DisableBuiltins("http.send"), rego.AddExternalDataProviderCache(providers)}
	if setup.certificate != nil {
		args = append(args, rego.EnableExternalDataClientAuth(), rego.AddExternalDataClientCertWatcher(setup.certificate))
	}
	driver, err := rego.New(args...)
	if err != nil {
		return nil, err
	}
	c, err := client.NewClient(
		client.Targets(&target.K8sValidationTarget{}), client.Driver(cel), client.Driver(driver),
		client.EnforcementPoints(util.WebhookEnforcementPoint, util.AuditEnforcementPoint, util.GatorEnforcementPoint))
	if err != nil {
		return nil, err
	}
	mutators, err := newSystem(setup.Mutators, mutation.SystemOpts{ProviderCache: providers, ClientCertWatcher: setup.certificate})
	if err != nil {
		return nil, err
	}
	g := &Gatekeeper{client: c, expansion: expansion.NewSystem(mutators), namespaces: map[string]*corev1.Namespace{}, point: setup.Point}
	if err := g.addPolicies(setup.Policies); err != nil {
		return nil, err
	}
	for _, raw := range setup.Inventory {
		var o unstructured.Unstructured
		if err := o.UnmarshalJSON(raw); err != nil {
			return nil, err
		}
		if _, err := c.AddData(context.Background(), &o); err != nil {
			return nil, err
		}
	}
	for _, raw := range setup.Namespaces {
		var ns corev1.Namespace
		if err := json.Unmarshal(raw, &ns); err != nil {
			return nil, err
		}
		g.namespaces[ns.Name] = &ns
	}
	return g, nil
}

func (g *Gatekeeper) addPolicies(text string) error {
	scheme := runtime.NewScheme()
	if err := apis.AddToScheme(scheme); err != nil {
		return err
	}
	objects, err := documents(text)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetKind() != "ConstraintTemplate" {
			continue
		}
		t, err := template(scheme, o)
		if err != nil {
			return err
		}
		if _, err := g.client.AddTemplate(context.Background(), t); err != nil {
			return fmt.Errorf("add template %s: %w", t.Name, err)
		}
	}
	for _, o := range objects {
		if o.GetKind() != "ExpansionTemplate" {
			continue
		}
		var t expansionunversioned.ExpansionTemplate
		data, err := o.MarshalJSON()
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &t); err != nil {
			return err
		}
		if err := g.expansion.UpsertTemplate(&t); err != nil {
			return fmt.Errorf("add expansion %s: %w", t.Name, err)
		}
	}
	for _, o := range objects {
		if o.GroupVersionKind().Group != "constraints.gatekeeper.sh" {
			continue
		}
		if _, err := g.client.AddConstraint(context.Background(), o); err != nil {
			return fmt.Errorf("add constraint %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func documents(text string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		var o unstructured.Unstructured
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			out = append(out, &o)
		}
	}
}

// template converts a template of any version, defaulted, to the common form.
func template(scheme *runtime.Scheme, o *unstructured.Unstructured) (*templates.ConstraintTemplate, error) {
	versioned, err := scheme.New(o.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	data, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, versioned); err != nil {
		return nil, err
	}
	common, ok := versioned.(interface {
		ToVersionless() (*templates.ConstraintTemplate, error)
	})
	if !ok {
		return nil, fmt.Errorf("%T is no template", versioned)
	}
	return common.ToVersionless()
}

// Review judges one request in JSON, and what its object will make.
func (g *Gatekeeper) Review(raw []byte) (*types.Responses, error) {
	var req admissionv1.AdmissionRequest
	if err := json.Unmarshal(raw, &req); err != nil {
		return nil, err
	}
	review := &target.AugmentedReview{AdmissionRequest: &req, Source: mutationtypes.SourceTypeOriginal, IsAdmission: true}
	options := []reviews.ReviewOpt{reviews.EnforcementPoint(g.point)}
	if req.Kind.Group == "" && req.Kind.Kind == "Namespace" {
		req.Namespace = ""
	}
	if ns := g.namespaces[req.Namespace]; ns != nil {
		review.Namespace = ns
		fields, err := util.NamespaceToMap(ns)
		if err != nil {
			return nil, err
		}
		options = append(options, reviews.Namespace(fields))
	}
	responses, err := g.client.Review(context.Background(), review, options...)
	if err != nil {
		return nil, err
	}
	return responses, g.reviewExpanded(responses, review, options)
}

// reviewExpanded adds what is wrong with the objects that the object of a
// request makes.
func (g *Gatekeeper) reviewExpanded(to *types.Responses, review *target.AugmentedReview, options []reviews.ReviewOpt) error {
	req := review.AdmissionRequest
	raw := req.Object.Raw
	if req.Operation == admissionv1.Delete {
		raw = req.OldObject.Raw
	}
	if raw == nil {
		return nil
	}
	var o unstructured.Unstructured
	if err := o.UnmarshalJSON(raw); err != nil {
		return err
	}
	o.SetNamespace(req.Namespace)
	o.SetGroupVersionKind(schema.GroupVersionKind(req.Kind))
	made, err := g.expansion.Expand(&mutationtypes.Mutable{Object: &o, Namespace: review.Namespace, Username: req.UserInfo.Username})
	if err != nil {
		return err
	}
	for _, m := range made {
		implied, err := g.client.Review(context.Background(), &target.AugmentedUnstructured{
			Object: *m.Obj, Namespace: review.Namespace, Operation: req.Operation, Source: mutationtypes.SourceTypeGenerated,
		}, options...)
		if err != nil {
			return err
		}
		expansion.OverrideEnforcementAction(m.EnforcementAction, implied)
		expansion.AggregateResponses(m.TemplateName, to, implied)
	}
	return nil
}

// Answer judges one request and returns the outcome in the form of ours.
func (g *Gatekeeper) Answer(raw []byte) Answer {
	responses, err := g.Review(raw)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	var out Answer
	for _, r := range responses.Results() {
		actions := []string{r.EnforcementAction}
		if r.EnforcementAction == "scoped" {
			actions = r.ScopedEnforcementActions
		}
		for _, action := range actions {
			out.Violations = append(out.Violations, Violation{
				Policy: r.Constraint.GetKind(), Binding: r.Constraint.GetName(), Enforcement: action,
				Message: r.Msg, Details: details(r),
			})
		}
	}
	sortViolations(out.Violations)
	return out
}

// details returns the details of a result as the product writes them.
func details(r *types.Result) map[string]string {
	fields, _ := r.Metadata["details"].(map[string]any)
	out := map[string]string{}
	for key, value := range fields {
		if text, ok := value.(string); ok {
			out[key] = text
		} else {
			data, err := json.Marshal(value)
			if err != nil {
				data = []byte(err.Error())
			}
			out[key] = string(data)
		}
	}
	return out
}

func sortViolations(list []Violation) {
	slices.SortFunc(list, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
}

// String writes all of a violation, in the order by which they are sorted.
func (v Violation) String() string {
	details, err := json.Marshal(v.Details)
	if err != nil {
		details = []byte(err.Error())
	}
	if len(v.Details) == 0 {
		details = nil
	}
	return strings.Join([]string{v.Policy, v.Binding, v.Enforcement, v.Message, string(details)}, " | ")
}
