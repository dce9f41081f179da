package gateway

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestOpenAPI holds the document to the routes, and to what each needs.
func TestOpenAPI(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var open, closed []string
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if operation.Security != nil && len(*operation.Security) == 0 {
				open = append(open, method+" "+path)
			} else {
				closed = append(closed, method+" "+path)
			}
		}
	}
	a := &api{}
	for name, tc := range map[string]struct{ described, served []string }{
		"without a login": {open, slices.Collect(maps.Keys(a.open()))},
		"with a login":    {closed, slices.Collect(maps.Keys(a.closed()))},
	} {
		slices.Sort(tc.described)
		slices.Sort(tc.served)
		if !slices.Equal(tc.described, tc.served) {
			t.Errorf("%s, described are\n%s\nserved are\n%s", name, strings.Join(tc.described, "\n"), strings.Join(tc.served, "\n"))
		}
	}
}
