package externaldata_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/policy/externaldata"
)

func given(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestGiven expects a client that asks nobody to say what is given, and no more.
func TestGiven(t *testing.T) {
	const head = "{apiVersion: externaldata.gatekeeper.sh/v1beta1, kind: ProviderResponse, metadata: {name: "
	c, err := externaldata.NewGiven(given(t, head+"p}, response: {idempotent: true, items: [{key: a, value: 1}, {key: b, error: gone}]}}"), given(t, head+"q}, response: {items: [{key: a, value: x}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := c.Ask(t.Context(), "p", []string{"b", "a"})
	if err != nil || !answer.Idempotent || !reflect.DeepEqual(answer.Items, items("b", errors.New("gone"), "a", 1.0)) {
		t.Errorf("%+v, %v", answer, err)
	}
	if answer, err := c.Ask(t.Context(), "q", []string{"a"}); err != nil || answer.Idempotent {
		t.Errorf("%+v, %v", answer, err)
	}
	for _, provider := range []string{"p", "lost"} {
		if _, err := c.Ask(t.Context(), provider, []string{"a", "c"}); !errors.Is(err, externaldata.ErrNotAsked) || !strings.Contains(err.Error(), `"`+provider+`" about`) {
			t.Errorf("error %v", err)
		}
	}
	for text, want := range map[string]string{
		head + "p}, response: {items: [{key: a, value: 1}, {key: a, value: 1}]}}": `read ProviderResponse "p": the key "a" is given twice`,
		head + "p}, response: {systemError: broken}}":                             `a systemError cannot be given`,
		head + "p}, response: {items: {}}}":                                       `read ProviderResponse "p": read its answer`,
		head + "''}, response: {items: []}}":                                      "metadata.name is missing",
	} {
		o := given(t, text)
		if _, err := externaldata.NewGiven(o); !externaldata.IsGiven(o) || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
