package externaldata

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// IsGiven reports whether an object is a ProviderResponse, which [NewGiven]
// takes.
func IsGiven(o *unstructured.Unstructured) bool {
	return o.GroupVersionKind().GroupKind() == schema.GroupKind{Group: group, Kind: responseKind}
}

// NewGiven returns a client that asks nobody: it answers by ProviderResponses,
// each named as the provider that says so. To other questions the answer is an
// [*Error] that wraps [ErrNotAsked].
func NewGiven(responses ...*unstructured.Unstructured) (*Client, error) {
	c, err := NewClient(nil, Options{})
	if err != nil {
		return nil, err
	}
	c.given = map[place]entry{}
	for _, o := range responses {
		if o.GetName() == "" {
			return nil, fmt.Errorf("read %s: metadata.name is missing: which provider says so", responseKind)
		}
		data, err := json.Marshal(o.Object)
		if err != nil {
			return nil, fmt.Errorf("read %s %q: %w", responseKind, o.GetName(), err)
		}
		answer, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("read %s %q: %w", responseKind, o.GetName(), err)
		}
		if answer.SystemError != "" {
			return nil, fmt.Errorf("read %s %q: a systemError cannot be given, only items", responseKind, o.GetName())
		}
		for _, i := range answer.Items {
			at := place{o.GetName(), i.Key}
			if _, twice := c.given[at]; twice {
				return nil, fmt.Errorf("read %s %q: the key %q is given twice", responseKind, o.GetName(), clip(i.Key))
			}
			c.given[at] = entry{i, answer.Idempotent}
		}
	}
	return c, nil
}
