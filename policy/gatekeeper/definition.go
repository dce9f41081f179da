package gatekeeper

import (
	_ "embed" // of a file
	"encoding/json"
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// ConstraintLabel is the label, with the value "yes", of the definitions of
// constraints, by which Gatekeeper's tools find them.
const ConstraintLabel = "gatekeeper.sh/constraint"

//go:embed constraint.yaml
var constraintDefinition []byte

// Definition returns the CustomResourceDefinition of the constraints of a template
// that [Load] takes. The template owns it, if it has a uid.
func Definition(template *unstructured.Unstructured) (*apiextensionsv1.CustomResourceDefinition, error) {
	data, err := json.Marshal(template.Object)
	if err != nil {
		return nil, fmt.Errorf("read template %q: %w", template.GetName(), err)
	}
	var doc templateDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read template %q: %w", template.GetName(), err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(constraintDefinition, crd); err != nil {
		return nil, fmt.Errorf("read the definition of constraints: %w", err)
	}
	kind := doc.Spec.CRD.Spec.Names.Kind
	plural := strings.ToLower(kind)
	crd.Name = plural + "." + constraintGroup
	names := &crd.Spec.Names
	names.Kind, names.ListKind, names.Plural, names.Singular = kind, kind+"List", plural, plural
	names.ShortNames = doc.Spec.CRD.Spec.Names.ShortNames
	if template.GetUID() != "" {
		crd.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: template.GetAPIVersion(), Kind: template.GetKind(), Name: template.GetName(), UID: template.GetUID(),
			Controller: new(true), // to block the deletion would take a right of its own
		}}
	}
	if schema := parameterSchema(doc.APIVersion, doc.Spec.CRD.Spec.Validation); schema != nil {
		for i := range crd.Spec.Versions {
			crd.Spec.Versions[i].Schema.OpenAPIV3Schema.Properties["spec"].Properties["parameters"] = *schema
		}
	}
	return crd, nil
}
