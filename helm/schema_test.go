package helm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common/util"
)

func TestValuesSchema(t *testing.T) {
	const schema = `{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["web"], "properties": {
	"web": {"$ref": "#/definitions/web"}, "password": {"type": "string", "pattern": "^[a-z]+$"}},
	"definitions": {"web": {"type": "object", "additionalProperties": false, "properties": {"replicas": {"type": "integer", "minimum": 1}}}}}`
	refers := func(to string) string { return `{"properties": {"web": {"$ref": "` + to + `"}}}` }
	deep := strings.Repeat(`{"not":`, 300) + "true" + strings.Repeat("}", 300)
	tests := []struct{ name, schema, values, err string }{
		{"fits", schema, "web: {replicas: 2}\npassword: abc", ""},
		{"a type", schema, "web: {replicas: two}", "app/values.schema.json: the values do not fit: web.replicas is of type string, want integer"},
		{"a missing value", schema, "password: abc", "app/values.schema.json: the values do not fit: lacks web"},
		{"an unknown value", schema, "web: {replica: 2}", "the values do not fit: web may not have replica"},
		{"a rule, without the secret", schema, "web: {}\npassword: Hunter2", "the values do not fit: password breaks the rule pattern"},
		{"two", schema, "web: {replicas: 0, other: 1}", "the values do not fit: web may not have other; web.replicas breaks the rule minimum"},
		{"an address", refers("https://example.com/web.json"), "", `app/values.schema.json: it refers to "https://example.com/web.json": nothing is fetched for a scan`},
		{"a file of the machine", refers("file:///etc/hostname"), "", `app/values.schema.json: it refers to "file:///etc/hostname"`},
		{"a file of the chart", refers("web.json"), "", `app/values.schema.json: it refers to "web.json"`},
		{"a name", refers("urn:example:web"), "", `app/values.schema.json: it refers to "urn:example:web"`},
		{"another language", `{"$schema": "https://example.com/language"}`, "", `app/values.schema.json: it refers to "https://example.com/language"`},
		{"no JSON", "{", "", "app/values.schema.json: read schema: "},
		{"no schema", `{"type": "thing"}`, "", "app/values.schema.json: read schema: "},
		{"an expression", `{"properties": {"a": {"pattern": "("}}}`, "", "app/values.schema.json: read schema: "},
		{"itself", `{"$ref": "#"}`, "", "app/values.schema.json: "},
		{"too deep", deep, "", "nested deeper than 256 levels"},
		{"too large", `{"title": "` + strings.Repeat("x", maxSchema) + `"}`, "", "larger than 1 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := chartOf(map[string]string{"Chart.yaml": metadata, "values.yaml": tt.values, "values.schema.json": tt.schema, "templates/a.yaml": "a: 1"})
			_, err := Render(t.Context(), "app", files, plain)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %s", err, tt.err)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "Hunter2")) {
				t.Errorf("error %q", err)
			}
		})
	}
}

// The values of a chart in a chart are those that the outer one gives it.
func TestValuesSchemaOfSubchart(t *testing.T) {
	files := map[string]string{
		"Chart.yaml": metadata + "dependencies: [{name: db, version: 1.0.0}]\n", "values.yaml": "db: {size: big}",
		"charts/db/Chart.yaml": "apiVersion: v2\nname: db\nversion: 1.0.0\n", "charts/db/values.yaml": "size: 1",
		"charts/db/values.schema.json": `{"properties": {"size": {"type": "integer"}}}`,
	}
	_, err := Render(t.Context(), "app", chartOf(files), plain)
	if err == nil || err.Error() != "app/charts/db/values.schema.json: the values do not fit: size is of type string, want integer" {
		t.Errorf("error %v", err)
	}
	files["values.yaml"] = ""
	if _, err := Render(t.Context(), "app", chartOf(files), plain); err != nil {
		t.Error(err)
	}
}

// A schema that takes exponential time does not hold a scan up for long.
func TestSchemaInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a limit")
	}
	var defs []string
	for i := range 40 {
		defs = append(defs, fmt.Sprintf(`"d%d": {"allOf": [{"$ref": "#/$defs/d%d"}, {"$ref": "#/$defs/d%d"}]}`, i, i+1, i+1))
	}
	schema := `{"$ref": "#/$defs/d0", "$defs": {` + strings.Join(defs, ",") + `, "d40": {"type": "object"}}}`
	err := inTime(func() error { return checkSchema([]byte(schema), map[string]any{}) })
	if err == nil || !strings.Contains(err.Error(), "not checked within") {
		t.Errorf("error %v", err)
	}
	if err := inTime(func() error { panic("deep") }); err == nil || err.Error() != "the schema cannot be used: deep" {
		t.Errorf("error %v", err)
	}
}

// FuzzSchema looks for a schema on which Helm and we disagree, or that panics.
func FuzzSchema(f *testing.F) {
	f.Add(`{"type": "object", "required": ["a"]}`, "a")
	f.Add(`{"properties": {"a": {"enum": ["b", 1]}}}`, "a")
	f.Add(`{"$ref": "#/definitions/x", "definitions": {"x": {"minProperties": 2}}}`, "b")
	f.Add(`{"patternProperties": {"^a": {"type": ["null", "integer"]}}, "if": {"required": ["b"]}, "else": false}`, "b")
	f.Fuzz(func(t *testing.T, schema, key string) {
		if len(schema) > 1<<12 || strings.Contains(schema, "ref") && strings.Contains(schema, ":/") {
			return
		}
		values := map[string]any{key: int64(1)}
		err := checkSchema([]byte(schema), values)
		if errors.As(err, new(*elsewhereError)) {
			return // Helm reads files, or takes what it does not know for good
		}
		if theirs := util.ValidateAgainstSingleSchema(values, []byte(schema)); (theirs == nil) != (err == nil) {
			t.Fatalf("%q: %v, Helm says %v", schema, err, theirs)
		}
	})
}
