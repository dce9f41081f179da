package mutator

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
)

// document returns a mutator for Pods with more fields of its spec, in flow style.
func document(kind, name, location, spec string) string {
	version, applyTo := "v1", `applyTo: [{groups: [""], versions: [v1], kinds: [Pod]}], `
	switch kind {
	case imageKind:
		version = "v1alpha1"
	case metadataKind:
		applyTo = ""
	}
	return "---\napiVersion: " + group + "/" + version + "\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {" + applyTo +
		"location: '" + strings.ReplaceAll(location, "'", "''") + "', " + spec + "}\n"
}

func value(v string) string { return "parameters: {assign: {value: " + v + "}}" }

func read1(text string) (*Set, error) {
	return Load(policy.File{Name: "f.yaml", Data: []byte(text)})
}

func mustLoad(t testing.TB, documents ...string) *Set {
	t.Helper()
	set, err := read1(strings.Join(documents, ""))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestLoadErrors(t *testing.T) {
	assign := func(location, spec string) string { return document(assignKind, "a", location, spec) }
	tests := func(list string) string {
		return "parameters: {pathTests: [" + list + "], assign: {value: x}}"
	}
	image := func(p string) string {
		return document(imageKind, "i", "spec.containers[name: *].image", "parameters: {"+p+"}")
	}
	for name, test := range map[string]struct{ text, want string }{
		"other kind":           {"apiVersion: v1\nkind: Pod\n", `f.yaml:2: kind "Pod" of "v1" is not supported`},
		"version":              {strings.Replace(assign("spec.a", value("x")), "/v1\n", "/v7\n", 1), `f.yaml:2: apiVersion: version "v7" of Assign is not supported`},
		"version of image":     {strings.Replace(image("assignTag: ':1'"), "/v1alpha1", "/v1", 1), `version "v1" of AssignImage is not supported: want one of ["v1alpha1"]`},
		"unknown field":        {assign("spec.a", value("x")+", extra: 1"), `f.yaml:5: unknown field "spec.extra"`},
		"assignIf":             {assign("spec.a", "parameters: {assignIf: {}, assign: {value: x}}"), `unknown field "spec.parameters.assignIf"`},
		"no name":              {strings.Replace(assign("spec.a", value("x")), "name: a", "", 1), "metadata.name: a value is required"},
		"bad name":             {strings.Replace(assign("spec.a", value("x")), "name: a", "name: A", 1), "metadata.name: a lowercase"},
		"long name":            {strings.Replace(assign("spec.a", value("x")), "name: a", "name: "+strings.Repeat("a", 64), 1), "64 characters are more than the limit of 63"},
		"twice":                {assign("spec.a", value("x")) + assign("spec.b", value("x")), `f.yaml:9: Assign "a" is already defined at f.yaml:4`},
		"no applyTo":           {strings.Replace(assign("spec.a", value("x")), `applyTo: [{groups: [""], versions: [v1], kinds: [Pod]}], `, "", 1), "spec.applyTo: at least one is required"},
		"half an applyTo":      {strings.Replace(assign("spec.a", value("x")), `kinds: [Pod]`, "kinds: []", 1), "spec.applyTo[0]: groups, versions and kinds are required"},
		"operation":            {strings.Replace(assign("spec.a", value("x")), `kinds: [Pod]`, "kinds: [Pod], operations: [DELETE]", 1), `spec.applyTo[0].operations[0]: operation "DELETE" is not supported`},
		"operation twice":      {strings.Replace(assign("spec.a", value("x")), `kinds: [Pod]`, "kinds: [Pod], operations: [CREATE, CREATE]", 1), `"CREATE" is given twice`},
		"all and one":          {strings.Replace(assign("spec.a", value("x")), `kinds: [Pod]`, "kinds: [Pod], operations: [CREATE, '*']", 1), "nothing may stand beside it"},
		"too many kinds":       {strings.Replace(assign("spec.a", value("x")), `kinds: [Pod]`, "kinds: [Pod"+strings.Repeat(", x", maxKinds)+"]", 1), "more than 10000 kinds"},
		"match":                {assign("spec.a", "match: {scope: x}, "+value("x")), `spec.match.scope: "x" is not supported`},
		"no location":          {assign("", value("x")), `spec.location: "": want a field after the last character`},
		"metadata":             {assign("metadata.labels", value("x")), "Assign cannot change metadata: use AssignMetadata"},
		"key":                  {assign("spec.containers[name: x].name", value("y")), "spec.location: name is the key of the list, which cannot be changed"},
		"nothing to assign":    {assign("spec.a", "parameters: {assign: {}}"), "value, fromMetadata or externalData is required"},
		"null":                 {assign("spec.a", value("null")), "value, fromMetadata or externalData is required"},
		"two to assign":        {assign("spec.a", "parameters: {assign: {value: x, fromMetadata: {field: name}}}"), "exclude each other"},
		"metadata field":       {assign("spec.a", "parameters: {assign: {fromMetadata: {field: uid}}}"), `"uid" is not supported: want name or namespace`},
		"data of nobody":       {assign("spec.a", outer("")), "spec.parameters.assign.externalData.provider: a value is required"},
		"data and value":       {assign("spec.a", "parameters: {assign: {value: x, externalData: {provider: p}}}"), "exclude each other"},
		"data source":          {assign("spec.a", outer("provider: p, dataSource: Mine")), `externalData.dataSource: "Mine" is not supported: want ValueAtLocation or Username`},
		"data failure policy":  {assign("spec.a", outer("provider: p, failurePolicy: Retry")), `externalData.failurePolicy: "Retry" is not supported: want Fail, UseDefault or Ignore`},
		"data default":         {assign("spec.a", outer("provider: p, failurePolicy: UseDefault")), "externalData.default: a value is required, which UseDefault is to use"},
		"data field":           {assign("spec.a", outer("provider: p, failurPolicy: Fail")), `unknown field "spec.parameters.assign.externalData.failurPolicy"`},
		"item of data":         {assign("spec.a[n: x]", outer("provider: p")), "external data is text, which cannot be an item of a list with keys"},
		"item of all":          {assign("spec.a[n: *]", value("{n: x}")), "nothing can be added to all items of a list"},
		"item of text":         {assign("spec.a[n: x]", value("x")), "want an object, as items of lists with keys are"},
		"item of metadata":     {assign("spec.a[n: x]", "parameters: {assign: {fromMetadata: {field: name}}}"), "metadata is text"},
		"item of another key":  {assign("spec.a[n: x]", value("{n: y}")), "n must be x, as in the location"},
		"test elsewhere":       {assign("spec.a.b", tests("{subPath: spec.b, condition: MustExist}")), "spec.parameters.pathTests[0].subPath: spec.b does not lead to the location spec.a.b"},
		"test beyond":          {assign("spec.a", tests("{subPath: spec.a.b, condition: MustExist}")), "does not lead to the location"},
		"test without path":    {assign("spec.a", tests("{condition: MustExist}")), "spec.parameters.pathTests[0].subPath"},
		"test of nothing":      {assign("spec.a", tests("{subPath: spec, condition: May}")), `"May" is not supported: want MustExist or MustNotExist`},
		"tests against other":  {assign("spec.a", tests("{subPath: spec, condition: MustExist}, {subPath: spec, condition: MustNotExist}")), "spec cannot both exist and not exist"},
		"tests below nothing":  {assign("spec.a", tests("{subPath: spec.a, condition: MustExist}, {subPath: spec, condition: MustNotExist}")), "nothing exists below spec, which must not exist"},
		"metadata of spec":     {document(metadataKind, "m", "spec.labels.a", value("x")), "want metadata.labels.KEY or metadata.annotations.KEY"},
		"metadata of number":   {document(metadataKind, "m", "metadata.labels.a", value("1")), "want a string"},
		"metadata with kinds":  {document(metadataKind, "m", "metadata.labels.a", `applyTo: [{groups: [""], versions: [v1], kinds: [Pod]}], `+value("x")), "AssignMetadata is for objects of any kind"},
		"metadata from outer":  {document(metadataKind, "m", "metadata.labels.a", "parameters: {assign: {externalData: {provider: p}}}"), "externalData.dataSource: want Username"},
		"set of items":         {document(setKind, "s", "spec.a[n: x]", "parameters: {values: {fromList: [x]}}"), "the items of a set have no keys"},
		"set of nothing":       {document(setKind, "s", "spec.a", "parameters: {}"), "spec.parameters.values.fromList: a value is required"},
		"set operation":        {document(setKind, "s", "spec.a", "parameters: {operation: xor, values: {fromList: [x]}}"), `"xor" is not supported: want merge or prune`},
		"image of nothing":     {image(""), "one of assignDomain, assignPath and assignTag is required"},
		"image domain":         {image("assignDomain: host"), `assignDomain: "host" does not have the form`},
		"image path":           {image("assignPath: A/b"), `assignPath: "A/b" does not have the form`},
		"image path of domain": {image("assignPath: a.b/c"), `"a.b/c" begins with a domain: use assignDomain`},
		"image tag":            {image("assignTag: v1"), `assignTag: "v1" does not have the form`},
		"image of items":       {document(imageKind, "i", "spec.a[n: x]", "parameters: {assignTag: ':1'}"), "an image is no item of a list"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := read1(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestLoadReportsAll wants each mistake told once, and not too many.
func TestLoadReportsAll(t *testing.T) {
	_, err := read1(document(assignKind, "A", "", "x: 1") + document(assignKind, "A", "", value("x")))
	if got := strings.Count(err.Error(), "\n") + 1; got != 3 {
		t.Errorf("%d mistakes, want 3:\n%v", got, err)
	}
	_, err = read1(strings.Repeat("---\nkind: X\n", 101))
	if got := strings.Count(err.Error(), "\n") + 1; got != 101 || !strings.HasSuffix(err.Error(), "and 1 more errors") {
		t.Errorf("%d lines: %v", got, err)
	}
}

func TestLoadIsBounded(t *testing.T) {
	many := strings.Replace(document(assignKind, "a", "spec"+strings.Repeat(".a", 30), value("x")), "kinds: [Pod]", "kinds: [k"+strings.Join(numbers(maxKinds), ", k")+"]", 1)
	if _, err := read1(many); err == nil || !strings.Contains(err.Error(), `Assign "a": the locations of all mutators have more than`) {
		t.Errorf("error = %v", err)
	}
}

func TestHandles(t *testing.T) {
	for kind, want := range map[string]bool{assignKind: true, metadataKind: true, setKind: true, imageKind: true, "Other": false} {
		if got := Handles(schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}); got != want {
			t.Errorf("Handles(%s) = %v", kind, got)
		}
	}
	if Handles(schema.GroupVersionKind{Group: "other", Version: "v1", Kind: assignKind}) {
		t.Error("Handles takes any group")
	}
}

// FuzzLoad wants no input to crash or hang the loader.
func FuzzLoad(f *testing.F) {
	f.Add(document(assignKind, "a", "spec.containers[name: *].x", "match: {namespaces: [a]}, "+value("{a: [1]}")) +
		document(assignKind, "b", "spec.containers.x", "parameters: {assign: {fromMetadata: {field: name}}, pathTests: [{subPath: spec, condition: MustExist}]}"))
	f.Add(document(metadataKind, "m", "metadata.labels.a", value("x")) + document(setKind, "s", "spec.a", "parameters: {operation: prune, values: {fromList: [x]}}"))
	f.Add(document(imageKind, "i", `spec.containers[name: "x"].image`, "parameters: {assignDomain: a.b, assignPath: c, assignTag: ':1'}"))
	f.Fuzz(func(t *testing.T, text string) {
		set, err := read1(text)
		if (set == nil) != (err != nil) {
			t.Fatalf("set %v, error %v", set, err)
		}
		if err == nil {
			req := pod(t, "{containers: [{name: x, image: y}], a: [x]}")
			before := req.Object.DeepCopy()
			set.Conflicts()
			_, _, _ = set.Mutate(t.Context(), req) // any error is as good as none
			same(t, req.Object, before)
		}
	})
}

// outer returns parameters that assign external data.
func outer(fields string) string { return "parameters: {assign: {externalData: {" + fields + "}}}" }
