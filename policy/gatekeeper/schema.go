package gatekeeper

import (
	"encoding/json"
	"errors"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	apiservervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/kubeguardian/kubeguardian/policy"
)

// Parameters are what a template takes: the schema of spec.parameters.
type parameters struct {
	structural *structural.Structural // nil: none
	validator  apiservervalidation.SchemaValidator
}

const schemaPath = "spec.crd.spec.validation.openAPIV3Schema"

// newParameters reads the schema of a template, which must be structural, as in
// a CustomResourceDefinition. A legacy schema keeps what it does not name; it is
// the default of the old versions.
func newParameters(d *policy.Document, apiVersion string, v *validation) (*parameters, error) {
	schema := parameterSchema(apiVersion, v)
	if schema == nil {
		return &parameters{}, nil
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(schema, &internal, nil); err != nil {
		return nil, d.At(schemaPath, "%s: %v", schemaPath, err)
	}
	s, err := structural.NewStructural(&internal)
	if err != nil {
		return nil, d.At(schemaPath, "%s: %v", schemaPath, err)
	}
	if errs := structural.ValidateStructural(field.NewPath(schemaPath), s); len(errs) > 0 {
		return nil, fieldErrors(d, errs)
	}
	validator, _, err := apiservervalidation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, d.At(schemaPath, "%s: %v", schemaPath, err)
	}
	return &parameters{structural: s, validator: validator}, nil
}

// parameterSchema returns the schema that a template gives, and nil for none.
func parameterSchema(apiVersion string, v *validation) *apiextensionsv1.JSONSchemaProps {
	legacy := strings.HasSuffix(apiVersion, "beta1") || strings.HasSuffix(apiVersion, "alpha1")
	if v != nil && v.LegacySchema != nil {
		legacy = *v.LegacySchema
	}
	var schema *apiextensionsv1.JSONSchemaProps
	if v != nil {
		schema = v.OpenAPIV3Schema
	}
	if schema == nil && legacy {
		schema = &apiextensionsv1.JSONSchemaProps{}
	}
	if legacy {
		keepUnknown(schema)
	}
	return schema
}

// fieldErrors gives each error of a library its line.
func fieldErrors(d *policy.Document, list field.ErrorList) error {
	var errs []error
	for _, err := range list {
		errs = append(errs, d.At(err.Field, "%s", err.Error()))
	}
	return errors.Join(errs...)
}

// keepUnknown lets a schema and those below it keep fields that they do not
// name.
func keepUnknown(s *apiextensionsv1.JSONSchemaProps) {
	switch s.Type {
	case "", "object":
		s.XPreserveUnknownFields = new(true)
	case "array":
		if s.Items == nil || s.Items.Schema == nil && s.Items.JSONSchemas == nil {
			s.Items = &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{XPreserveUnknownFields: new(true)}}
		}
	}
	for name, property := range s.Properties {
		keepUnknown(&property)
		s.Properties[name] = property
	}
	if s.Items != nil && s.Items.Schema != nil {
		keepUnknown(s.Items.Schema)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		keepUnknown(s.AdditionalProperties.Schema)
	}
}

// read validates the parameters of a constraint and sets defaults, as the API
// server does for a custom resource. spec belongs to the caller and is changed.
func (p *parameters) read(d *policy.Document, spec map[string]any) error {
	value, given := spec["parameters"]
	if p.structural == nil {
		if given {
			return d.At("spec.parameters", "spec.parameters: the template takes no parameters")
		}
		return nil
	}
	if given {
		if errs := apiservervalidation.ValidateCustomResource(field.NewPath("spec.parameters"), value, p.validator); len(errs) > 0 {
			return fieldErrors(d, errs)
		}
		if err := p.unknown(d, value); err != nil {
			return err
		}
	}
	// Defaults inside of spec, so that one for parameters as a whole counts.
	defaulting.Default(spec, &structural.Structural{Properties: map[string]structural.Structural{"parameters": *p.structural}})
	return nil
}

// unknown reports parameters that the schema does not name.
func (p *parameters) unknown(d *policy.Document, value any) error {
	options := structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	var errs []error
	for _, path := range pruning.PruneWithOptions(copyJSON(value), p.structural, false, options) {
		full := "spec.parameters." + path
		errs = append(errs, d.At(full, "%s: the template has no such parameter", full))
	}
	return errors.Join(errs...)
}

// copyJSON copies a value with whole numbers as int64, as Kubernetes has them.
// It was read from a document, so that nothing can go wrong.
func copyJSON(value any) any {
	data, err := json.Marshal(value)
	if err != nil {
		return value
	}
	var out any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &out); err != nil {
		return value
	}
	return out
}

// decodeSource fills the code of an engine strictly.
func decodeSource(d *policy.Document, path string, source map[string]any, into any) error {
	data, err := json.Marshal(source)
	if err != nil {
		return d.At(path, "%s: %v", path, err)
	}
	strict, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			full := path + "." + wrong.Field
			return d.At(full, "%s: want %s, have %s", full, wrong.Type, wrong.Value)
		}
		return d.At(path, "%s: %v", path, err)
	}
	var errs []error
	for _, err := range strict {
		errs = append(errs, d.At(path, "%s: %v", path, err))
	}
	return errors.Join(errs...)
}
