package mutator

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/policy"
)

// pod returns the request to create the Pod shop/web with this spec.
func pod(t testing.TB, spec string) policy.Request {
	t.Helper()
	return request(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\nspec: "+spec+"\n")
}

func request(t testing.TB, text string) policy.Request {
	t.Helper()
	docs, err := policy.Documents(policy.File{Name: "object.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(docs[0].Object())
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return policy.Request{Operation: admissionv1.Create, Kind: o.GroupVersionKind(), Namespace: o.GetNamespace(), Name: o.GetName(), Object: o}
}

func same(t testing.TB, got, want *unstructured.Unstructured) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("object is %v\nwant %v", got, want)
	}
}

func TestMutate(t *testing.T) {
	image := func(p string) string {
		return document(imageKind, "i", "spec.containers[name: *].image", "parameters: {"+p+"}")
	}
	set := func(operation string) string {
		return document(setKind, "s", "spec.containers[name: a].args", "parameters: {operation: "+operation+", values: {fromList: [--x, {y: [1]}]}}")
	}
	tested := func(condition, sub, location string) string {
		return document(assignKind, "a", location, "parameters: {assign: {value: 1}, pathTests: [{subPath: '"+sub+"', condition: "+condition+"}]}")
	}
	for name, test := range map[string]struct {
		mutators   string
		spec, want string // want "": not changed
	}{
		"a field":             {document(assignKind, "a", "spec.hostPID", value("false")), "{}", "{hostPID: false}"},
		"a field again":       {document(assignKind, "a", "spec.hostPID", value("false")), "{hostPID: false}", ""},
		"parents":             {document(assignKind, "a", "spec.a.b.c", value("{d: [1]}")), "{}", "{a: {b: {c: {d: [1]}}}}"},
		"all items":           {document(assignKind, "a", "spec.c[name: *].x", value("1")), "{c: [{name: a}, {name: b, x: 2}, {}]}", "{c: [{name: a, x: 1}, {name: b, x: 1}, {x: 1}]}"},
		"no items":            {document(assignKind, "a", "spec.c[name: *].x", value("1")), "{c: []}", ""},
		"an item":             {document(assignKind, "a", "spec.c[name: b].x", value("1")), "{c: [{name: a}, {name: b}, text]}", "{c: [{name: a}, {name: b, x: 1}, text]}"},
		"a missing item":      {document(assignKind, "a", "spec.c[name: b].x", value("1")), "{c: [{name: a}]}", "{c: [{name: a}, {name: b, x: 1}]}"},
		"a missing list":      {document(assignKind, "a", "spec.c[name: b].x", value("1")), "{}", "{c: [{name: b, x: 1}]}"},
		"a number as key":     {document(assignKind, "a", "spec.p[port: 80].x", value("1")), "{p: [{port: '80'}, {port: 80}]}", "{p: [{port: '80'}, {port: 80, x: 1}]}"},
		"add an item":         {document(assignKind, "a", "spec.c[name: b]", value("{name: b, x: 1}")), "{c: [{name: a}]}", "{c: [{name: a}, {name: b, x: 1}]}"},
		"replace an item":     {document(assignKind, "a", "spec.c[name: b]", value("{name: b, x: 1}")), "{c: [{name: b, y: 1}, {name: b}]}", "{c: [{name: b, x: 1}, {name: b}]}"},
		"add a numbered item": {document(assignKind, "a", "spec.c[n: 1]", value("{n: 1}")), "{}", "{c: [{n: 1}]}"},
		"name":                {document(assignKind, "a", "spec.n", "parameters: {assign: {fromMetadata: {field: name}}}"), "{}", "{n: web}"},
		"namespace":           {document(assignKind, "a", "spec.n", "parameters: {assign: {fromMetadata: {field: namespace}}}"), "{}", "{n: shop}"},

		"must exist, does":           {tested("MustExist", "spec.a", "spec.a.b"), "{a: {}}", "{a: {b: 1}}"},
		"must exist, does not":       {tested("MustExist", "spec.a", "spec.a.b"), "{}", ""},
		"must not exist, does":       {tested("MustNotExist", "spec.a.b", "spec.a.b"), "{a: {b: 2}}", ""},
		"must not exist, does not":   {tested("MustNotExist", "spec.a.b", "spec.a.b"), "{}", "{a: {b: 1}}"},
		"item must exist, does not":  {tested("MustExist", "spec.c[name: x]", "spec.c[name: x].b"), "{c: [{name: y}]}", ""},
		"item must not exist, does":  {tested("MustNotExist", "spec.c[name: x]", "spec.c[name: x].b"), "{c: [{name: x}]}", ""},
		"any item must not exist":    {tested("MustNotExist", "spec.c[name: *]", "spec.c[name: *].b"), "{c: [{name: x}]}", ""},
		"field of items must exist":  {tested("MustExist", "spec.c[name: *].b", "spec.c[name: *].b"), "{c: [{b: 2}, {d: 1}]}", "{c: [{b: 1}, {d: 1}]}"},
		"new item for what must be":  {tested("MustExist", "spec.c[name: x].b", "spec.c[name: x].b"), "{c: []}", ""},
		"whole item must not exist":  {strings.Replace(tested("MustNotExist", "spec.c[name: x]", "spec.c[name: x]"), "value: 1", "value: {name: x}", 1), "{c: [{name: x, y: 1}]}", ""},
		"whole item must exist, not": {strings.Replace(tested("MustExist", "spec.c[name: x]", "spec.c[name: x]"), "value: 1", "value: {name: x}", 1), "{c: []}", ""},

		"merge":          {set("merge"), "{containers: [{name: a, args: [--y, {y: [1]}]}]}", "{containers: [{name: a, args: [--y, {y: [1]}, --x]}]}"},
		"merge into new": {set("merge"), "{containers: []}", "{containers: [{name: a, args: [--x, {y: [1]}]}]}"},
		"prune":          {set("prune"), "{containers: [{name: a, args: [--x, --y, {y: [1]}, --x]}]}", "{containers: [{name: a, args: [--y]}]}"},
		"prune nothing":  {set("prune"), "{containers: [{name: a}]}", ""},

		"tag":             {image("assignTag: ':2'"), "{containers: [{name: a, image: nginx}, {name: b, image: 'r.io:5000/x/nginx:1@sha256:0'}]}", "{containers: [{name: a, image: 'nginx:2'}, {name: b, image: 'r.io:5000/x/nginx:2'}]}"},
		"domain":          {image("assignDomain: 'r.io:5000'"), "{containers: [{name: a, image: nginx}, {name: b, image: 'localhost/x:1'}, {name: c, image: library/x}]}", "{containers: [{name: a, image: 'r.io:5000/nginx'}, {name: b, image: 'r.io:5000/x:1'}, {name: c, image: 'r.io:5000/library/x'}]}"},
		"path":            {image("assignPath: a/b_c"), "{containers: [{name: a, image: 'r.io/nginx:1'}]}", "{containers: [{name: a, image: 'r.io/a/b_c:1'}]}"},
		"digest":          {image("assignTag: '@sha256:" + strings.Repeat("a", 64) + "'"), "{containers: [{name: a, image: 'nginx:1'}]}", "{containers: [{name: a, image: 'nginx@sha256:" + strings.Repeat("a", 64) + "'}]}"},
		"image where not": {image("assignDomain: a.b, assignPath: c, assignTag: ':1'"), "{containers: [{name: a}]}", "{containers: [{name: a, image: 'a.b/c:1'}]}"},

		"in the order of names": {document(assignKind, "b", "spec.x", value("b")) + document(assignKind, "a", "spec.x", value("a")), "{}", "{x: b}"},
		"of kinds":              {document(imageKind, "a", "spec.x", "parameters: {assignTag: ':1'}") + document(assignKind, "b", "spec.x", value("b")), "{}", "{x: 'b:1'}"},
		"again":                 {document(assignKind, "a", "spec.x.y", "parameters: {assign: {value: 1}, pathTests: [{subPath: spec.x, condition: MustExist}]}") + document(assignKind, "b", "spec.x", "parameters: {assign: {value: {z: 1}}, pathTests: [{subPath: spec.x, condition: MustNotExist}]}"), "{}", "{x: {y: 1, z: 1}}"},
		"other kind":            {strings.Replace(document(assignKind, "a", "spec.x", value("1")), "kinds: [Pod]", "kinds: [Deployment]", 1), "{}", ""},
		"other version":         {strings.Replace(document(assignKind, "a", "spec.x", value("1")), "versions: [v1]", "versions: [v2]", 1), "{}", ""},
		"other operation":       {strings.Replace(document(assignKind, "a", "spec.x", value("1")), "kinds: [Pod]", "kinds: [Pod], operations: [UPDATE]", 1), "{}", ""},
		"match":                 {document(assignKind, "a", "spec.x", "match: {namespaces: [sh*], labelSelector: {matchLabels: {app: web}}}, "+value("1")), "{}", "{x: 1}"},
		"no match":              {document(assignKind, "a", "spec.x", "match: {excludedNamespaces: [shop]}, "+value("1")), "{}", ""},
		"match by new label":    {document(metadataKind, "m", "metadata.labels.app", value("other")) + document(assignKind, "a", "spec.x", "match: {labelSelector: {matchLabels: {app: other}}}, "+value("1")), "{}", ""},
		"generated only":        {document(assignKind, "a", "spec.x", "match: {source: Generated}, "+value("1")), "{}", ""},
		"nothing":               {"", "{}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			req := pod(t, test.spec)
			before := req.Object.DeepCopy()
			got, changes, err := mustLoad(t, test.mutators).Mutate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			same(t, req.Object, before)
			if test.want == "" {
				if got != req.Object || len(changes) > 0 {
					t.Errorf("object %v, changes %v; want the object itself", got, changes)
				}
				return
			}
			same(t, got, pod(t, test.want).Object)
			if len(changes) == 0 {
				t.Error("no changes are told")
			}
		})
	}
}

func TestAssignMetadata(t *testing.T) {
	set := mustLoad(t, document(metadataKind, "owner", "metadata.labels.owner", value("dev")),
		document(metadataKind, "app", "metadata.labels.app", value("other")),
		document(metadataKind, "from", `metadata.annotations."a.b/from"`, "parameters: {assign: {fromMetadata: {field: namespace}}}"))
	req := pod(t, "{}")
	got, changes, err := set.Mutate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"app": "web", "owner": "dev"}; !reflect.DeepEqual(got.GetLabels(), want) {
		t.Errorf("labels are %v, want %v", got.GetLabels(), want)
	}
	if want := map[string]string{"a.b/from": "shop"}; !reflect.DeepEqual(got.GetAnnotations(), want) {
		t.Errorf("annotations are %v, want %v", got.GetAnnotations(), want)
	}
	if want := []policy.Change{{Policy: metadataKind, Binding: "from"}, {Policy: metadataKind, Binding: "owner"}}; !slices.Equal(changes, want) {
		t.Errorf("changes are %v, want %v", changes, want)
	}
}

// TestLeftAlone has requests that no mutator is for.
func TestLeftAlone(t *testing.T) {
	set := mustLoad(t, document(metadataKind, "m", "metadata.labels.x", value("z")))
	for name, change := range map[string]func(*policy.Request){
		"delete":     func(r *policy.Request) { r.Operation = admissionv1.Delete },
		"connect":    func(r *policy.Request) { r.Operation = admissionv1.Connect },
		"no object":  func(r *policy.Request) { r.Object = nil },
		"no content": func(r *policy.Request) { r.Object = &unstructured.Unstructured{} },
		"Gatekeeper": func(r *policy.Request) { r.Kind.Group = "constraints.gatekeeper.sh" },
	} {
		req := pod(t, "{}")
		change(&req)
		if got, changes, err := set.Mutate(t.Context(), req); got != req.Object || changes != nil || err != nil {
			t.Errorf("%s: %v, %v, %v", name, got, changes, err)
		}
	}
	req := pod(t, "{}")
	req.Operation = admissionv1.Update
	if got, _, err := set.Mutate(t.Context(), req); err != nil || got.GetLabels()["x"] != "z" {
		t.Errorf("update: %v, %v", got, err)
	}
}

// TestDenied has mutators that cannot be applied.
func TestDenied(t *testing.T) {
	for name, test := range map[string]struct{ mutators, spec, want string }{
		"no list":      {document(assignKind, "a", "spec.c[name: *].x", value("1")), "{c: {}}", "spec.c: want a list, have an object"},
		"no object":    {document(assignKind, "a", "spec.c.x", value("1")), "{c: 1}", "spec.c: want an object, have a number"},
		"null":         {document(assignKind, "a", "spec.c.x", value("1")), "{c: null}", "spec.c: want an object, have null"},
		"text in list": {document(assignKind, "a", "spec.c[name: *].x", value("1")), "{c: [text]}", "spec.c[name: *]: want an object, have a string"},
		"text by key":  {document(assignKind, "a", "spec.c[name: x]", value("{name: x}")), "{c: [true]}", "spec.c: item 0: want an object, have a boolean"},
		"no set":       {document(setKind, "a", "spec.c", "parameters: {values: {fromList: [x]}}"), "{c: {}}", "spec.c: want a list, have an object"},
		"no image":     {document(imageKind, "a", "spec.c", "parameters: {assignTag: ':1'}"), "{c: []}", "spec.c: want an image, have a list"},
		"namespace":    {document(assignKind, "a", "spec.c", "match: {namespaceSelector: {matchLabels: {a: b}}}, "+value("1")), "{}", `match the object: look up namespace "shop": no namespaces are known`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := mustLoad(t, test.mutators).Mutate(t.Context(), pod(t, test.spec))
			var denied *policy.DeniedError
			if !errors.As(err, &denied) || len(denied.Violations) != 1 {
				t.Fatalf("error is %v, want a DeniedError", err)
			}
			if v := denied.Violations[0]; v.Binding != "a" || v.Enforcement != "deny" || v.Message != test.want {
				t.Errorf("violation is %+v, want %s", v, test.want)
			}
		})
	}
}

// TestUnsettled has mutators that change the kind of an object in a circle.
func TestUnsettled(t *testing.T) {
	turn := func(name, from, to string) string {
		return strings.Replace(document(assignKind, name, "kind", value(to)), "[Pod]", "["+from+"]", 1)
	}
	set := mustLoad(t, turn("c", "Pod", "B"), turn("b", "B", "C"), turn("a", "C", "Pod"), document(assignKind, "d", "spec.x", value("1")))
	_, _, err := set.Mutate(t.Context(), pod(t, "{}"))
	var denied *policy.DeniedError
	if !errors.As(err, &denied) {
		t.Fatalf("error is %v, want a DeniedError", err)
	}
	if want := `the object does not settle in 5 rounds: the last was changed by Assign `; !strings.HasPrefix(denied.Violations[0].Message, want) || strings.Contains(err.Error(), `"d"`) {
		t.Errorf("violations are %+v", denied.Violations)
	}
}

func TestNamespaceSelector(t *testing.T) {
	set := mustLoad(t, document(assignKind, "a", "spec.x", "match: {namespaceSelector: {matchLabels: {a: b}}}, "+value("1")),
		document(assignKind, "b", "spec.y", "match: {namespaceSelector: {matchLabels: {a: c}}}, "+value("1")))
	req, asked := pod(t, "{}"), 0
	req.Namespaces = policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) {
		asked++
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"a": "b"}}}, nil
	})
	got, _, err := set.Mutate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, pod(t, "{x: 1}").Object)
	if asked != 1 {
		t.Errorf("the namespace was looked up %d times", asked)
	}
	var told []string
	req.Namespaces, req.Unjudged = nil, func(name string, err error) { told = append(told, name+": "+err.Error()) }
	if got, _, err = set.Mutate(t.Context(), req); err != nil || got != req.Object || len(told) != 2 || !strings.HasPrefix(told[0], "Assign/a: look up namespace") {
		t.Errorf("%v, %v, told %q", got, err, told)
	}
}

func TestMutateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := mustLoad(t, document(assignKind, "a", "spec.x", value("1"))).Mutate(ctx, pod(t, "{}"))
	if !errors.Is(err, context.Canceled) || errors.As(err, new(*policy.DeniedError)) {
		t.Errorf("error is %v", err)
	}
}

// TestMutateIsBounded writes a large value to each of many items.
func TestMutateIsBounded(t *testing.T) {
	set := mustLoad(t, document(assignKind, "a", "spec.c[n: *].x", value(strings.Repeat("x", 1<<20))))
	_, _, err := set.Mutate(t.Context(), pod(t, "{c: ["+strings.TrimSuffix(strings.Repeat("{},", 100), ",")+"]}"))
	if err == nil || !strings.Contains(err.Error(), "are written in one round") {
		t.Errorf("error is %v", err)
	}
}

func TestConflicts(t *testing.T) {
	tag := "parameters: {assignTag: ':1'}"
	values := "parameters: {values: {fromList: [x]}}"
	for name, test := range map[string]struct {
		mutators []string
		want     []string // those that are disabled
	}{
		"list and object":     {[]string{document(assignKind, "a", "spec.c.x", value("1")), document(assignKind, "b", "spec.c[n: *].x", value("1")), document(assignKind, "c", "spec.d", value("1"))}, []string{"a", "b"}},
		"other keys":          {[]string{document(assignKind, "a", "spec.c[n: *].x", value("1")), document(assignKind, "b", "spec.c[m: *].x", value("1"))}, []string{"a", "b"}},
		"same key":            {[]string{document(assignKind, "a", "spec.c[n: *].x", value("1")), document(assignKind, "b", "spec.c[n: y].x", value("1"))}, nil},
		"set and list":        {[]string{document(setKind, "a", "spec.c", values), document(assignKind, "b", "spec.c[n: *].x", value("1"))}, []string{"a", "b"}},
		"set and image":       {[]string{document(setKind, "a", "spec.c", values), document(imageKind, "b", "spec.c", tag)}, []string{"a", "b"}},
		"set and any value":   {[]string{document(setKind, "a", "spec.c", values), document(assignKind, "b", "spec.c", value("1"))}, nil},
		"beyond an image":     {[]string{document(imageKind, "a", "spec.c", tag), document(assignKind, "b", "spec.c.d", value("1")), document(assignKind, "c", "spec.c.d", value("1"))}, []string{"a", "b", "c"}},
		"other kinds":         {[]string{document(assignKind, "a", "spec.c.x", value("1")), strings.Replace(document(assignKind, "b", "spec.c[n: *].x", value("1")), "[Pod]", "[Job]", 1)}, nil},
		"other operations":    {[]string{strings.Replace(document(assignKind, "a", "spec.c.x", value("1")), "[Pod]", "[Pod], operations: [CREATE]", 1), strings.Replace(document(assignKind, "b", "spec.c[n: *].x", value("1")), "[Pod]", "[Pod], operations: [UPDATE]", 1)}, nil},
		"a kind in common":    {[]string{document(assignKind, "a", "spec.c.x", value("1")), strings.Replace(document(assignKind, "b", "spec.c[n: *].x", value("1")), "[Pod]", "[Job, Pod]", 1)}, []string{"a", "b"}},
		"metadata never does": {[]string{document(metadataKind, "a", "metadata.labels.x", value("x")), document(metadataKind, "b", "metadata.labels.x", value("z"))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			set := mustLoad(t, test.mutators...)
			var got []string
			for _, m := range set.mutators {
				if len(m.conflicts) > 0 {
					got = append(got, m.name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) || len(set.Conflicts()) != len(test.want) {
				t.Errorf("disabled are %v, want %v: %v", got, test.want, set.Conflicts())
			}
		})
	}
}

// TestDisabled names both sides of a conflict, applies neither, and tells who
// wants to know.
func TestDisabled(t *testing.T) {
	set := mustLoad(t, document(assignKind, "a", "spec.c.x", value("1")), document(assignKind, "b", "spec.c[n: *].x", value("1")), document(assignKind, "c", "spec.d", value("1")))
	const want = `f.yaml:5: Assign "a" is disabled: its location spec.c.x contradicts that of Assign "b" (f.yaml:10)`
	if got := set.Conflicts(); len(got) != 2 || got[0].Error() != want {
		t.Errorf("conflicts are %v, want %s", got, want)
	}
	req := pod(t, "{}")
	got, _, err := set.Mutate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, pod(t, "{d: 1}").Object)
	var told []string
	req.Unjudged = func(name string, _ error) { told = append(told, name) }
	if _, _, err := set.Mutate(t.Context(), req); err != nil || !slices.Equal(told, []string{"Assign/a", "Assign/b"}) {
		t.Errorf("told of %v, error %v", told, err)
	}
}

// TestManyConflicts bounds what one error names.
func TestManyConflicts(t *testing.T) {
	documents := []string{document(assignKind, "z", "spec.c.x", value("1"))}
	for _, n := range numbers(20) {
		documents = append(documents, document(assignKind, "a"+n, "spec.c[n: *].x", value("1")))
	}
	set := mustLoad(t, documents...)
	conflicts := set.Conflicts()
	if last := conflicts[len(conflicts)-1].Error(); len(conflicts) != 21 || !strings.HasSuffix(last, ", and more") || strings.Count(last, "f.yaml") != maxNamed+1 {
		t.Errorf("%d conflicts, the last %s", len(conflicts), last)
	}
}
