package mutator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
)

// External data is asked for when the object has settled: until then the mutators
// put placeholders where the answers will be, so that there is one question for
// each provider, whatever the number of fields.

// An externalSpec is externalData of an assignment.
type externalSpec struct {
	Provider      string `json:"provider"`
	DataSource    string `json:"dataSource"`
	FailurePolicy string `json:"failurePolicy"`
	Default       string `json:"default"`
}

// What external data is asked about, and what becomes of a field that gets no
// answer.
const (
	ofLocation = "ValueAtLocation"
	ofUser     = "Username"

	orFail    = "Fail"
	orDefault = "UseDefault"
	orIgnore  = "Ignore"
)

// external makes the action of an assignment from external data.
func (c *checker) external(e externalSpec) {
	const path = "spec.parameters.assign.externalData"
	e.DataSource = cmp.Or(e.DataSource, ofLocation)
	e.FailurePolicy = cmp.Or(e.FailurePolicy, orFail)
	if e.Provider == "" {
		c.bad(path+".provider", "a value is required")
	}
	if !slices.Contains([]string{ofLocation, ofUser}, e.DataSource) {
		c.bad(path+".dataSource", "%q is not supported: want %s or %s", e.DataSource, ofLocation, ofUser)
	}
	if c.m.kind == metadataKind && e.DataSource == ofLocation {
		c.bad(path+".dataSource", "want %s: there is nothing at the location of an %s", ofUser, metadataKind)
	}
	if !slices.Contains([]string{orFail, orDefault, orIgnore}, e.FailurePolicy) {
		c.bad(path+".failurePolicy", "%q is not supported: want %s, %s or %s", e.FailurePolicy, orFail, orDefault, orIgnore)
	}
	if e.FailurePolicy == orDefault && e.Default == "" {
		c.bad(path+".default", "a value is required, which %s is to use", orDefault)
	}
	c.m.external = &e
	c.m.action = actionFunc(c.m.place)
}

// A placeholder is where an answer will be.
type placeholder struct {
	mutator *mutator
	key     string // what the provider is asked about
}

// place returns the placeholder for a field. What is there already is asked
// about, whatever the source of data, as in Gatekeeper.
func (m *mutator) place(old any, exists bool, in *run) (any, bool, error) {
	out := &placeholder{mutator: m}
	if m.external.DataSource == ofUser {
		out.key = in.req.User.Username
	}
	if !exists {
		return out, true, nil
	}
	switch was := old.(type) {
	case *placeholder:
		out.key = was.key
	case string:
		out.key = was
	default:
		return nil, false, fmt.Errorf("want a string to ask the provider %q about, have %s", m.external.Provider, typeName(old))
	}
	return out, true, nil
}

// copyOf returns a copy of an object that may have placeholders, which are never
// changed.
func copyOf(o *unstructured.Unstructured) *unstructured.Unstructured {
	content, _ := copyValue(o.Object).(map[string]any)
	return &unstructured.Unstructured{Object: content}
}

func copyValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[key] = copyValue(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = copyValue(item)
		}
		return out
	case *placeholder:
		return v
	}
	return runtime.DeepCopyJSONValue(v)
}

// placeholders calls f with each placeholder below a value, and its field.
func placeholders(value any, f func(in map[string]any, key string, p *placeholder)) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if p, ok := value[key].(*placeholder); ok {
				f(value, key, p)
			} else {
				placeholders(value[key], f)
			}
		}
	case []any:
		for _, item := range value {
			placeholders(item, f)
		}
	}
}

// resolve puts answers where the placeholders are. Each provider is asked once,
// all at the same time.
func (r *run) resolve() error {
	keys := map[string]map[string]bool{} // by provider
	placeholders(r.object.Object, func(_ map[string]any, _ string, p *placeholder) {
		provider := p.mutator.external.Provider
		if keys[provider] == nil {
			keys[provider] = map[string]bool{}
		}
		keys[provider][p.key] = true
	})
	if len(keys) == 0 {
		return nil
	}
	answers := r.ask(keys)
	if err := r.Err(); err != nil {
		return fmt.Errorf("ask providers of external data: %w", err)
	}
	r.object = copyOf(r.object)
	denied := &policy.DeniedError{}
	placeholders(r.object.Object, func(in map[string]any, field string, p *placeholder) {
		value, err := answers[p.mutator.external.Provider].value(p.key)
		switch {
		case errors.Is(err, externaldata.ErrNotAsked) && r.req.Unjudged != nil:
			r.tell(p.mutator, err)
			value, err = p.key, nil
		case err != nil:
			value, err = p.otherwise(err)
		}
		if err != nil {
			denied.Violations = append(denied.Violations, p.mutator.denied(fmt.Sprintf("%s: %v", p.mutator.location, err)))
		}
		in[field] = value
	})
	if len(denied.Violations) > 0 {
		denied.Violations = slices.CompactFunc(denied.Violations, func(a, b finding.Violation) bool { return a.Binding == b.Binding && a.Message == b.Message })
		return denied
	}
	return nil
}

// otherwise returns what is at a placeholder that gets no answer.
func (p *placeholder) otherwise(err error) (string, error) {
	switch p.mutator.external.FailurePolicy {
	case orDefault:
		return p.mutator.external.Default, nil
	case orIgnore:
		return p.key, nil
	}
	return "", err
}

// answers are what one provider says.
type answers struct {
	provider string
	items    map[string]externaldata.Item
	err      error
}

// ask asks all providers.
func (r *run) ask(keys map[string]map[string]bool) map[string]*answers {
	out := map[string]*answers{}
	var group sync.WaitGroup
	for provider, wanted := range keys {
		a := &answers{provider: provider}
		out[provider] = a
		group.Go(func() { a.ask(r, r.providers, slices.Sorted(maps.Keys(wanted))) })
	}
	group.Wait()
	return out
}

func (a *answers) ask(ctx context.Context, client *externaldata.Client, keys []string) {
	if client == nil {
		a.err = fmt.Errorf("ask provider %q: there are no Providers", a.provider)
		return
	}
	answer, err := client.Ask(ctx, a.provider, keys)
	switch {
	case err != nil:
		a.err = err
		return
	case strings.TrimSpace(answer.SystemError) != "":
		a.err = fmt.Errorf("ask provider %q: its system has an error: %s", a.provider, answer.SystemError)
	case !answer.Idempotent:
		a.err = fmt.Errorf("ask provider %q: its answer is not idempotent: an API server may ask twice", a.provider)
	}
	a.items = map[string]externaldata.Item{}
	for _, i := range answer.Items {
		a.items[i.Key] = i
	}
}

// value returns what the provider says of a key.
func (a *answers) value(key string) (string, error) {
	if a.err != nil {
		return "", a.err
	}
	item, ok := a.items[key]
	if !ok {
		return "", fmt.Errorf("ask provider %q: it says nothing of %q", a.provider, key)
	}
	if item.Error != "" {
		return "", fmt.Errorf("ask provider %q: of %q it says: %s", a.provider, key, item.Error)
	}
	text, ok := item.Value.(string)
	if !ok {
		return "", fmt.Errorf("ask provider %q: of %q it says %s: want a string", a.provider, key, typeName(item.Value))
	}
	return text, nil
}

// WithExternalData returns a set whose mutators ask providers by this client.
// Without one there are no providers.
func (s *Set) WithExternalData(client *externaldata.Client) *Set {
	variant := *s
	variant.providers = client
	return &variant
}

// AsksProviders reports whether a mutator assigns external data.
func (s *Set) AsksProviders() bool {
	return slices.ContainsFunc(s.mutators, func(m *mutator) bool { return m.external != nil })
}
