package terraform

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// A configuration is the source of a plan, by the address of each module
// without the indexes of its instances.
type configuration struct {
	modules map[string]*tfjson.ConfigModule
	calls   map[string]*tfjson.ModuleCall // that made the module
	// resources by the address of their module, then by kind.name.
	resources map[string]map[string]*tfjson.ConfigResource
}

func newConfiguration(config *tfjson.Config) *configuration {
	if config == nil || config.RootModule == nil {
		return nil
	}
	c := &configuration{map[string]*tfjson.ConfigModule{}, map[string]*tfjson.ModuleCall{}, map[string]map[string]*tfjson.ConfigResource{}}
	c.add("", config.RootModule)
	return c
}

func (c *configuration) add(address string, m *tfjson.ConfigModule) {
	if m == nil {
		return
	}
	c.modules[address] = m
	resources := map[string]*tfjson.ConfigResource{}
	for _, r := range m.Resources {
		if r != nil {
			resources[r.Type+"."+r.Name] = r
		}
	}
	c.resources[address] = resources
	for name, call := range m.ModuleCalls {
		if call != nil {
			inner := join(address, "module."+name)
			c.calls[inner] = call
			c.add(inner, call.Module)
		}
	}
}

// writtenOf returns what the configuration sets of a resource; nil if the
// document has no configuration of it.
func (c *configuration) writtenOf(r *resource) map[string]*tfjson.Expression {
	if c == nil {
		return nil
	}
	of := c.resources[plain(r.module)][r.name]
	switch {
	case of == nil:
		return nil
	case of.Expressions == nil:
		return map[string]*tfjson.Expression{}
	}
	return of.Expressions
}

// index matches the index of an instance, which may hold any text in quotes.
var index = regexp.MustCompile(`\[(?:[0-9]+|"(?:[^"\\]|\\.)*")\]`)

// plain returns an address without the indexes of instances.
func plain(address string) string { return index.ReplaceAllString(address, "") }

// A reference is an attribute of a resource, which may refer to others.
type reference struct {
	of  *resource
	key string
}

// refers returns the resources of a kind that an attribute of r refers to, all
// instances of each, through variables and outputs of modules.
func (d *document) refers(r *resource, key, kind string) []*resource {
	if d.config == nil {
		return nil
	}
	all, have := d.followed[reference{r, key}]
	if !have {
		w := walk{d.config, map[*tfjson.Expression]bool{}, map[target]bool{}}
		w.follow(plain(r.module), r.written[key])
		for _, to := range slices.SortedFunc(maps.Keys(w.found), target.compare) {
			for _, other := range d.byPlain[to.address] {
				if strings.HasSuffix(other.address, to.index) {
					all = append(all, other)
				}
			}
		}
		d.followed[reference{r, key}] = all
	}
	return slices.DeleteFunc(slices.Clone(all), func(other *resource) bool { return other.kind != kind })
}

// A walk follows references from an expression.
type walk struct {
	*configuration
	seen  map[*tfjson.Expression]bool
	found map[target]bool
}

// A target is what a reference leads to: a resource, by its address without
// indexes, and the index of its instance; "" for all of them.
type target struct{ address, index string }

func (t target) compare(other target) int {
	return cmp.Or(strings.Compare(t.address, other.address), strings.Compare(t.index, other.index))
}

// resourceForm matches a reference to a resource, with the index of an instance.
var resourceForm = regexp.MustCompile(`^([a-z][a-z0-9_-]*\.[A-Za-z_][A-Za-z0-9_-]*)(\[(?:[0-9]+|"(?:[^"\\]|\\.)*")\])?`)

// follow notes each resource that an expression of a module depends on.
func (w *walk) follow(module string, e *tfjson.Expression) {
	if e == nil || e.ExpressionData == nil || w.seen[e] {
		return
	}
	w.seen[e] = true
	for _, nested := range e.NestedBlocks {
		for _, inner := range nested {
			w.follow(module, inner)
		}
	}
	for _, ref := range e.References {
		longer := func(other string) bool { return strings.HasPrefix(other, ref+"[") }
		if !slices.ContainsFunc(e.References, longer) {
			w.reference(module, ref)
		}
	}
}

// reference follows one reference. Terraform gives each with its prefixes, as
// module.eks.role and module.eks. What a local value is made of is not part of
// a plan.
func (w *walk) reference(module, ref string) {
	parts := strings.Split(plain(ref), ".")
	switch {
	case len(parts) < 2:
	case parts[0] == "var":
		if call := w.calls[module]; call != nil {
			w.follow(parent(module), call.Expressions[parts[1]])
		}
	case parts[0] == "module" && len(parts) > 2:
		inner := join(module, "module."+parts[1])
		if m := w.modules[inner]; m != nil && m.Outputs[parts[2]] != nil {
			w.follow(inner, m.Outputs[parts[2]].Expression)
		}
	default:
		if m := resourceForm.FindStringSubmatch(ref); m != nil {
			w.found[target{join(module, m[1]), m[2]}] = true
		}
	}
}

// join returns the address of something in a module.
func join(module, name string) string { return strings.TrimPrefix(module+"."+name, ".") }

// parent returns the address of the module that calls a module.
func parent(module string) string {
	i := strings.LastIndex(module, "module.")
	return strings.TrimSuffix(module[:max(0, i)], ".")
}

// named returns the resources of a kind that an attribute of r names: by its
// value, which is one of theirs under keys, or by a reference. The second
// result says whether the answer is whole.
func (d *document) named(r *resource, key, kind string, keys ...string) ([]*resource, bool) {
	value, known := r.text(key)
	if value != "" {
		for _, other := range d.byType[kind] {
			for _, k := range keys {
				if v, _ := other.text(k); v == value {
					return []*resource{other}, true
				}
			}
		}
		return nil, true
	}
	out := d.refers(r, key, kind)
	return out, known || len(out) > 0
}
