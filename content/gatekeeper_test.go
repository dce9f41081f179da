package content

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// TestDefinitions expects definitions that the API server takes, with the label by
// which the server knows them.
func TestDefinitions(t *testing.T) {
	var kinds []string
	for doc := range strings.SplitSeq(string(CRDs())+"\n---\n"+string(Gatekeeper()), "\n---\n") {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal([]byte(doc), &crd); err != nil {
			t.Fatal(err)
		}
		if crd.Kind != "CustomResourceDefinition" || crd.Spec.Names.Kind == "SecurityException" {
			continue
		}
		kinds = append(kinds, crd.Spec.Names.Kind)
		if crd.Labels["app.kubernetes.io/managed-by"] != "kubeguardian" {
			t.Errorf("%s: labels = %v", crd.Name, crd.Labels)
		}
		stored := 0
		for _, v := range crd.Spec.Versions {
			if v.Storage {
				stored++
			}
			var internal apiextensions.JSONSchemaProps
			if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, &internal, nil); err != nil {
				t.Fatal(err)
			}
			s, err := structural.NewStructural(&internal)
			if err != nil {
				t.Fatalf("%s %s: %v", crd.Name, v.Name, err)
			}
			if errs := structural.ValidateStructural(field.NewPath(v.Name), s); len(errs) > 0 || v.Subresources == nil || v.Subresources.Status == nil {
				t.Errorf("%s: %v, subresources %v", crd.Name, errs, v.Subresources)
			}
		}
		if stored != 1 {
			t.Errorf("%s stores %d versions", crd.Name, stored)
		}
	}
	slices.Sort(kinds)
	want := []string{"Assign", "AssignImage", "AssignMetadata", "Config", "ConstraintTemplate", "ExpansionTemplate", "ImagePolicy", "ModifySet", "Provider", "SyncSet"}
	if !slices.Equal(kinds, want) {
		t.Errorf("kinds = %v, want %v", kinds, want)
	}
}
