package helm

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// The bounds of a schema.
const (
	maxSchema      = 1 << 20
	maxSchemaDepth = 256
	maxMistakes    = 10 // that are named
	schemaTime     = 10 * time.Second
)

const schemaFile = "values.schema.json"

// checkValues holds the values of a chart, and of those in it, to their schemas,
// as Helm does before it renders them. Display is the name of the chart for
// people. A schema that refers to another file is an error: nothing is fetched.
func checkValues(display string, c *chart.Chart, values map[string]any) error {
	var all []error
	if c.Schema != nil {
		if err := inTime(func() error { return checkSchema(c.Schema, values) }); err != nil {
			all = append(all, fmt.Errorf("%s: %w", path.Join(display, schemaFile), err))
		}
	}
	for _, sub := range c.Dependencies() {
		given, ok := values[sub.Name()]
		if !ok || given == nil {
			continue
		}
		display := path.Join(display, "charts", sub.Name())
		if own, ok := given.(map[string]any); ok {
			all = append(all, checkValues(display, sub, own))
		} else {
			all = append(all, fmt.Errorf("%s: its values are not a mapping", display))
		}
	}
	return errors.Join(all...)
}

// inTime gives up on f, which cannot be stopped, after a while: schemas can take
// exponential time.
func inTime(f func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the schema cannot be used: %v", p)
			}
			done <- err
		}()
		err = f()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(schemaTime):
		return fmt.Errorf("values are not checked within %s", schemaTime)
	}
}

func checkSchema(text []byte, values map[string]any) error {
	if len(text) > maxSchema {
		return fmt.Errorf("larger than %d MiB", maxSchema>>20)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	if deeper(doc, maxSchemaDepth) {
		return fmt.Errorf("nested deeper than %d levels", maxSchemaDepth)
	}
	const name = "chart:///" + schemaFile
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(offline{})
	if err := compiler.AddResource(name, doc); err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	schema, err := compiler.Compile(name)
	if failed := (*jsonschema.LoadURLError)(nil); errors.As(err, &failed) {
		return hint(&elsewhereError{failed.URL}, "render it yourself: helm template CHART | kubeguardian scan -")
	}
	if err != nil {
		return fmt.Errorf("read schema: %s", oneLine(err.Error()))
	}
	err = schema.Validate(values)
	if invalid := (*jsonschema.ValidationError)(nil); errors.As(err, &invalid) {
		return mistakes(invalid)
	}
	return err
}

// offline refuses all that a schema refers to outside itself, files included:
// they would be those of the machine. The schemas of JSON Schema itself do not
// come by it.
type offline struct{}

func (offline) Load(string) (any, error) { return nil, errors.ErrUnsupported }

// An elsewhereError names a schema that is not in the chart.
type elsewhereError struct{ url string }

func (e *elsewhereError) Error() string {
	url := strings.TrimPrefix(e.url, "chart:///")
	return fmt.Sprintf("it refers to %q: nothing is fetched for a scan", url)
}

// mistakes says what is wrong with values and where, never the values, which may
// be secret.
func mistakes(invalid *jsonschema.ValidationError) error {
	var lines []string
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			walk(cause)
		}
		if len(e.Causes) == 0 {
			at := strings.Join(e.InstanceLocation, ".")
			lines = append(lines, strings.TrimSpace(at+" "+mistake(e.ErrorKind)))
		}
	}
	walk(invalid)
	slices.Sort(lines)
	lines = slices.Compact(lines)
	if more := len(lines) - maxMistakes; more > 0 {
		lines = append(lines[:maxMistakes], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("the values do not fit: %s", oneLine(strings.Join(lines, "; ")))
}

func mistake(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return fmt.Sprintf("is of type %s, want %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.Required:
		return "lacks " + strings.Join(k.Missing, ", ")
	case *kind.AdditionalProperties:
		return "may not have " + strings.Join(k.Properties, ", ")
	}
	return "breaks the rule " + strings.Join(k.KeywordPath(), ".")
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// deeper reports whether a document has more levels than that.
func deeper(doc any, levels int) bool {
	if levels < 0 {
		return true
	}
	switch v := doc.(type) {
	case map[string]any:
		for _, item := range v {
			if deeper(item, levels-1) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return deeper(item, levels-1) })
	}
	return false
}
