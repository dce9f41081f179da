package report

import (
	"encoding/json"
	"os"
	"testing"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"

	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/tool"
)

// TestJSONSchema holds the JSON report to its published schema, which knows
// every key: a new one has to be described.
func TestJSONSchema(t *testing.T) {
	data, err := os.ReadFile("../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema spec.Schema
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	validator := validate.NewSchemaValidator(&schema, nil, "", strfmt.Default)
	for _, name := range reports {
		r := load(t, name)
		r.Exceptions, r.Tools = []exception.Outcome{{Name: "x", Owner: "o", Reason: "r"}}, tool.BuiltIn().Needs
		var value any
		if err := json.Unmarshal([]byte(write(t, JSON{}, r)), &value); err != nil {
			t.Fatal(err)
		}
		for _, err := range validator.Validate(value).Errors {
			t.Errorf("%s: %v", name, err)
		}
		value.(map[string]any)["surprise"] = true
		if validator.Validate(value).IsValid() {
			t.Errorf("%s: the schema takes a key that it does not know", name)
		}
	}
}
