package mutator

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// An action says what becomes of the field at the end of a location.
type action interface {
	// value returns the new value of a field that has a value, or none. The new
	// one shares nothing with the mutator.
	value(old any, exists bool, in *run) (value any, set bool, err error)
}

// An actionFunc lets a plain function be an action.
type actionFunc func(old any, exists bool, in *run) (any, bool, error)

func (f actionFunc) value(old any, exists bool, in *run) (any, bool, error) {
	return f(old, exists, in)
}

// An assignment is the value of Assign and AssignMetadata.
type assignment struct {
	Value        any `json:"value"`
	FromMetadata *struct {
		Field string `json:"field"`
	} `json:"fromMetadata"`
	ExternalData *externalSpec `json:"externalData"`
}

type assignParameters struct {
	Assign    assignment `json:"assign"`
	PathTests []pathTest `json:"pathTests"`
}

func (c *checker) assign(p *assignParameters) {
	c.keyStays()
	c.pathTests(p.PathTests)
	c.assignment(&p.Assign)
	last := c.m.location.last()
	if !last.item {
		return
	}
	const path = "spec.parameters.assign"
	object, isObject := p.Assign.Value.(map[string]any)
	switch {
	case last.all:
		c.bad("spec.location", "nothing can be added to all items of a list")
	case p.Assign.FromMetadata != nil:
		c.bad(path+".fromMetadata", "metadata is text, which cannot be an item of a list with keys")
	case p.Assign.ExternalData != nil:
		c.bad(path+".externalData", "external data is text, which cannot be an item of a list with keys")
	case !isObject:
		c.bad(path+".value", "want an object, as items of lists with keys are")
	case object[last.name] != last.key:
		c.bad(path+".value", "%s must be %v, as in the location", last.name, last.key)
	}
}

// assignment makes the action of an assignment.
func (c *checker) assignment(a *assignment) {
	const path = "spec.parameters.assign"
	given := 0
	for _, one := range []bool{a.Value != nil, a.FromMetadata != nil, a.ExternalData != nil} {
		if one {
			given++
		}
	}
	switch {
	case given > 1:
		c.bad(path, "value, fromMetadata and externalData exclude each other")
	case a.ExternalData != nil:
		c.external(*a.ExternalData)
	case a.Value != nil:
		c.m.action = actionFunc(func(any, bool, *run) (any, bool, error) { return runtime.DeepCopyJSONValue(a.Value), true, nil })
	case a.FromMetadata == nil:
		c.bad(path, "value, fromMetadata or externalData is required")
	case a.FromMetadata.Field == "name":
		c.m.action = actionFunc(func(_ any, _ bool, in *run) (any, bool, error) { return in.object.GetName(), true, nil })
	case a.FromMetadata.Field == "namespace":
		c.m.action = actionFunc(func(_ any, _ bool, in *run) (any, bool, error) { return in.candidate.Namespace(), true, nil })
	default:
		c.bad(path+".fromMetadata.field", "%q is not supported: want name or namespace", a.FromMetadata.Field)
	}
}

// keyStays refuses a location that would change the key of an item.
func (c *checker) keyStays() {
	if l := c.m.location; len(l) > 1 && l[len(l)-2].item && l.last().name == l[len(l)-2].name {
		c.bad("spec.location", "%s is the key of the list, which cannot be changed", l.last().name)
	}
}

type metadataParameters struct {
	Assign assignment `json:"assign"`
}

func (c *checker) assignMetadata(p *metadataParameters) {
	l := c.m.location
	labels := location{{name: "metadata"}, {name: "labels"}}
	annotations := location{{name: "metadata"}, {name: "annotations"}}
	if len(l) != 3 || l[2].item || !l.beginsWith(labels) && !l.beginsWith(annotations) {
		c.bad("spec.location", "want metadata.labels.KEY or metadata.annotations.KEY")
	}
	c.m.tests[len(l)-1] = mustNotExist // what is there stays
	c.assignment(&p.Assign)
	if _, ok := p.Assign.Value.(string); p.Assign.Value != nil && !ok {
		c.bad("spec.parameters.assign.value", "want a string")
	}
}

type setParameters struct {
	PathTests []pathTest `json:"pathTests"`
	Operation string     `json:"operation"`
	Values    struct {
		FromList []any `json:"fromList"`
	} `json:"values"`
}

func (c *checker) modifySet(p *setParameters) {
	c.m.end = setType
	c.pathTests(p.PathTests)
	if c.m.location.last().item {
		c.bad("spec.location", "want a field: the items of a set have no keys")
	}
	if p.Values.FromList == nil {
		c.bad("spec.parameters.values.fromList", "a value is required")
	}
	switch p.Operation {
	case "", "merge":
		c.m.action = merge(p.Values.FromList)
	case "prune":
		c.m.action = prune(p.Values.FromList)
	default:
		c.bad("spec.parameters.operation", "%q is not supported: want merge or prune", p.Operation)
	}
}

// A merge adds values to a list that lacks them, at its end.
type merge []any

func (m merge) value(old any, exists bool, _ *run) (any, bool, error) {
	values, _ := runtime.DeepCopyJSONValue([]any(m)).([]any)
	if !exists {
		return values, true, nil
	}
	list, err := asList(old)
	for _, v := range values {
		if !has(list, v) {
			list = append(list[:len(list):len(list)], v)
		}
	}
	return list, true, err
}

// A prune removes values from a list.
type prune []any

func (p prune) value(old any, exists bool, _ *run) (any, bool, error) {
	if !exists {
		return nil, false, nil
	}
	list, err := asList(old)
	out := make([]any, 0, len(list))
	for _, item := range list {
		if !has(p, item) {
			out = append(out, item)
		}
	}
	return out, true, err
}

func asList(v any) ([]any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("want a list, have %s", typeName(v))
	}
	return list, nil
}

func has(list []any, value any) bool {
	return slices.ContainsFunc(list, func(item any) bool { return reflect.DeepEqual(item, value) })
}

type imageParameters struct {
	PathTests    []pathTest `json:"pathTests"`
	AssignDomain string     `json:"assignDomain"`
	AssignPath   string     `json:"assignPath"`
	AssignTag    string     `json:"assignTag"`
}

func (c *checker) assignImage(p *imageParameters) {
	const path = "spec.parameters"
	c.m.end = textType
	c.keyStays()
	c.pathTests(p.PathTests)
	if c.m.location.last().item {
		c.bad("spec.location", "want a field: an image is no item of a list")
	}
	to := image{p.AssignDomain, p.AssignPath, p.AssignTag}
	if to == (image{}) {
		c.bad(path, "one of assignDomain, assignPath and assignTag is required")
	}
	for _, part := range []struct{ name, value, form string }{
		{"assignDomain", to.domain, `(\w[\w-]*\.[\w.-]*\w|localhost)(:\d+)?`},
		{"assignPath", to.path, `[a-z0-9]+(([._/]|__|-*)[a-z0-9]+)*`},
		{"assignTag", to.tag, `:\w[\w.-]{0,127}|@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}`},
	} {
		if part.value != "" && !regexp.MustCompile(`^(`+part.form+`)$`).MatchString(part.value) {
			c.bad(path+"."+part.name, "%q does not have the form %s", part.value, part.form)
		}
	}
	if to.domain == "" && newImage(to.path).domain != "" {
		c.bad(path+".assignPath", "%q begins with a domain: use assignDomain", to.path)
	}
	c.m.action = to
}

// An image is a reference in parts: domain/path:tag or domain/path@digest. The
// tag has its sign.
type image struct{ domain, path, tag string }

// newImage takes a reference apart, whatever it is.
func newImage(ref string) (i image) {
	i.path = ref
	if first, rest, found := strings.Cut(ref, "/"); found && (strings.ContainsAny(first, ".:") || first == "localhost") {
		i.domain, i.path = first, rest
	}
	if at := strings.IndexAny(i.path, ":@"); at >= 0 {
		i.path, i.tag = i.path[:at], i.path[at:]
	}
	return i
}

func (i image) String() string {
	if i.domain != "" {
		return i.domain + "/" + i.path + i.tag
	}
	return i.path + i.tag
}

// value returns an image with the parts that the mutator names.
func (i image) value(old any, exists bool, _ *run) (any, bool, error) {
	ref, ok := old.(string)
	if exists && !ok {
		return nil, false, fmt.Errorf("want an image, have %s", typeName(old))
	}
	was := newImage(ref)
	if i.domain != "" {
		was.domain = i.domain
	}
	if i.path != "" {
		was.path = i.path
	}
	if i.tag != "" {
		was.tag = i.tag
	}
	return was.String(), true, nil
}

// typeName returns what errors call a value.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case *placeholder:
		return "external data"
	}
	return "a number"
}
