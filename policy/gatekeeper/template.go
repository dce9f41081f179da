package gatekeeper

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/policy"
)

// The languages of templates.
const (
	engineRego = "Rego"
	engineCEL  = "K8sNativeValidation"
)

// A template is one compiled ConstraintTemplate.
type template struct {
	document   *policy.Document
	name       string
	kind       string   // of its constraints
	operations []string // at the webhook; none: all
	parameters *parameters
	engine     engine
	known      map[string]*arguments // while constraints are loaded
}

// An engine is compiled code of a template. It is safe for concurrent use.
type engine interface {
	// judge returns what a constraint finds wrong. An error is one of the code,
	// which then says nothing about the object.
	judge(r *review, c *constraint) ([]verdict, error)
}

// A verdict is one violation of a constraint.
type verdict struct {
	message string
	details map[string]string
}

// A templateDocument is a ConstraintTemplate, in any of its versions.
type templateDocument struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Status          map[string]any    `json:"status"`
	Spec            struct {
		CRD struct {
			Spec struct {
				Names struct {
					Kind       string   `json:"kind"`
					ShortNames []string `json:"shortNames"`
				} `json:"names"`
				Validation *validation `json:"validation"`
			} `json:"spec"`
		} `json:"crd"`
		Targets []targetSpec `json:"targets"`
	} `json:"spec"`
}

type validation struct {
	OpenAPIV3Schema *apiextensionsv1.JSONSchemaProps `json:"openAPIV3Schema"`
	LegacySchema    *bool                            `json:"legacySchema"`
}

type targetSpec struct {
	Target     string     `json:"target"`
	Rego       string     `json:"rego"`
	Libs       []string   `json:"libs"`
	Code       []codeSpec `json:"code"`
	Operations []string   `json:"operations"`
}

type codeSpec struct {
	Engine string         `json:"engine"`
	Source map[string]any `json:"source"`
}

const targetPath = "spec.targets[0]"

// newTemplate compiles a template. With an error it returns nil, or a template
// whose kind is known so that its constraints are not reported as orphans.
func newTemplate(d *policy.Document) (*template, error) {
	var doc templateDocument
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if err := checkTemplate(d, &doc); err != nil {
		return nil, err
	}
	spec := &doc.Spec.Targets[0]
	t := &template{
		document:   d,
		name:       doc.Metadata.Name,
		kind:       doc.Spec.CRD.Spec.Names.Kind,
		operations: spec.Operations,
	}
	var schemaErr, codeErr error
	t.parameters, schemaErr = newParameters(d, doc.APIVersion, doc.Spec.CRD.Spec.Validation)
	t.engine, codeErr = newEngine(d, spec)
	return t, errors.Join(schemaErr, codeErr)
}

// checkTemplate reports what is wrong besides schema and code.
func checkTemplate(d *policy.Document, doc *templateDocument) error {
	var errs []error
	bad := func(path, format string, args ...any) {
		errs = append(errs, d.At(path, "%s: %s", path, fmt.Sprintf(format, args...)))
	}
	versions := []string{"v1", "v1beta1", "v1alpha1"}
	if version := strings.TrimPrefix(doc.APIVersion, templateGroup+"/"); !slices.Contains(versions, version) {
		bad("apiVersion", "version %q of ConstraintTemplate is not supported: want one of %s", version, strings.Join(versions, ", "))
	}
	switch kind := doc.Spec.CRD.Spec.Names.Kind; {
	case kind == "":
		bad("spec.crd.spec.names.kind", "a value is required")
	case doc.Metadata.Name != strings.ToLower(kind):
		bad("metadata.name", "%q is not the kind %q in lower case", doc.Metadata.Name, kind)
	}
	if len(doc.Spec.Targets) != 1 {
		bad("spec.targets", "want one target, have %d", len(doc.Spec.Targets))
		return errors.Join(errs...)
	}
	spec := &doc.Spec.Targets[0]
	if spec.Target != target {
		bad(targetPath+".target", "target %q is not known: want %s", spec.Target, target)
	}
	for i, op := range spec.Operations {
		path := fmt.Sprintf("%s.operations[%d]", targetPath, i)
		if !slices.Contains([]string{"*", "CREATE", "UPDATE", "DELETE", "CONNECT"}, op) {
			bad(path, "operation %q is not known: want *, CREATE, UPDATE, DELETE or CONNECT", op)
		}
		if op == "*" && len(spec.Operations) > 1 {
			bad(path, "* must stand alone")
		}
	}
	return errors.Join(errs...)
}

// newEngine compiles the code of a template: CEL where it is given, else Rego.
func newEngine(d *policy.Document, spec *targetSpec) (engine, error) {
	var rego, cel = -1, -1
	for i, code := range spec.Code {
		path := fmt.Sprintf("%s.code[%d].engine", targetPath, i)
		switch {
		case code.Engine == engineRego && rego < 0:
			rego = i
		case code.Engine == engineCEL && cel < 0:
			cel = i
		case code.Engine == engineRego || code.Engine == engineCEL:
			return nil, d.At(path, "engine %s is given twice", code.Engine)
		default:
			return nil, d.At(path, "engine %q is not supported: want %s or %s", code.Engine, engineRego, engineCEL)
		}
	}
	switch {
	case cel >= 0:
		return newCELEngine(d, fmt.Sprintf("%s.code[%d].source", targetPath, cel), spec.Code[cel].Source)
	case spec.Rego != "": // wins over Rego in code, as in Gatekeeper
		return newRegoEngine(d, regoSource{path: targetPath, Rego: spec.Rego, Libs: spec.Libs})
	case rego >= 0:
		source := regoSource{path: fmt.Sprintf("%s.code[%d].source", targetPath, rego)}
		if err := decodeSource(d, source.path, spec.Code[rego].Source, &source); err != nil {
			return nil, err
		}
		return newRegoEngine(d, source)
	}
	return nil, d.At(targetPath, "%s: neither rego nor code of engine %s or %s is given", targetPath, engineRego, engineCEL)
}

// at reports whether the template is for an operation at a point: only the
// webhook leaves operations out.
func (t *template) at(point Point, operation string) bool {
	return point != Webhook || len(t.operations) == 0 || t.operations[0] == "*" || slices.Contains(t.operations, operation)
}

// registered are the operations for which a webhook is asked. Where none are
// named they are those of Gatekeeper's own webhook: few templates are about what
// is deleted.
func (t *template) registered() []string {
	if len(t.operations) == 0 {
		return []string{"CREATE", "UPDATE"}
	}
	return t.operations
}
