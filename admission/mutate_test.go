package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/kubeguardian/kubeguardian/policy"
)

// labels sets a label and switches the account token off, as a policy for safe
// defaults does.
func setDefaults(_ context.Context, req policy.Request) (*unstructured.Unstructured, []string, error) {
	switch req.Name {
	case "slow-down":
		panic("boom")
	case "refused":
		return nil, nil, errors.New("[defaults] spec.a/b: cannot be defaulted; remove it")
	}
	out := req.Object.DeepCopy()
	labels := out.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["example.com/owner"] = "shop"
	out.SetLabels(labels)
	if err := unstructured.SetNestedField(out.Object, false, "spec", "automountServiceAccountToken"); err != nil {
		return nil, nil, err
	}
	return out, []string{"[defaults] set"}, nil
}

func newMutator(r *recorder, causes *causes) *handler {
	return NewHandler(Options{
		Policies: func() Policies { return nil }, Mutator: MutatorFunc(setDefaults),
		Record: r.record, Unjudged: causes.add, Exempt: []string{"kubeguardian"}, Log: slog.New(slog.DiscardHandler),
	}).(*handler)
}

// patched applies the patch of a response as the API server does.
func patched(t *testing.T, object []byte, response *admissionv1.AdmissionResponse) []byte {
	t.Helper()
	if response.Patch == nil {
		return object
	}
	if response.PatchType == nil || *response.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Fatalf("patch type = %v", response.PatchType)
	}
	patch, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(object)
	if err != nil {
		t.Fatalf("apply %s: %v", response.Patch, err)
	}
	return out
}

func TestMutate(t *testing.T) {
	var r recorder
	var causes causes
	server := httptest.NewServer(newMutator(&r, &causes))
	defer server.Close()
	review := podReview("shop", goodSpec)
	review.Request.DryRun = new(true)
	got := post(t, server.URL+MutatePath, review)
	if !got.Allowed || len(got.Warnings) != 1 {
		t.Fatalf("response = %+v", got)
	}
	review.Request.Object.Raw = patched(t, review.Request.Object.Raw, got)
	for _, want := range []string{`"example.com/owner":"shop"`, `"automountServiceAccountToken":false`, `"image":"web:1"`} {
		if !strings.Contains(string(review.Request.Object.Raw), want) {
			t.Errorf("the changed object lacks %s: %s", want, review.Request.Object.Raw)
		}
	}
	// The API server asks again after another webhook changed the object.
	if again := post(t, server.URL+MutatePath, review); !again.Allowed || again.Patch != nil {
		t.Errorf("second response = %+v, want no patch", again)
	}
	if len(r.decisions) != 0 {
		t.Errorf("%d decisions are recorded: a change is none", len(r.decisions))
	}
	for _, namespace := range []string{"kube-system", "kubeguardian"} {
		if got := post(t, server.URL+MutatePath, podReview(namespace, goodSpec)); !got.Allowed || got.Patch != nil {
			t.Errorf("response in %s = %+v", namespace, got)
		}
	}
	review.Request.Operation, review.Request.OldObject, review.Request.Object.Raw = admissionv1.Delete, review.Request.Object, nil
	if got := post(t, server.URL+MutatePath, review); !got.Allowed || got.Patch != nil {
		t.Errorf("response to a deletion = %+v", got)
	}
}

// TestMutateWithoutAnswer expects that a request passes as it is when the
// mutator breaks, and is refused when the mutator says so.
func TestMutateWithoutAnswer(t *testing.T) {
	var r recorder
	var causes causes
	server := httptest.NewServer(newMutator(&r, &causes))
	defer server.Close()
	review := podReview("shop", goodSpec)
	review.Request.Name = "slow-down"
	if got := post(t, server.URL+MutatePath, review); !got.Allowed || got.Patch != nil || got.AuditAnnotations["unjudged"] != "panic" || len(got.Warnings) != 1 {
		t.Errorf("response after a panic = %+v", got)
	}
	if got := causes.all(); len(got) != 1 || got[0] != Panicked {
		t.Errorf("causes = %v", got)
	}
	review.Request.Name = "refused"
	if got := post(t, server.URL+MutatePath, review); got.Allowed || got.Result.Message != "[defaults] spec.a/b: cannot be defaulted; remove it" {
		t.Errorf("response = %+v", got)
	}
}

func TestDifference(t *testing.T) {
	tests := []struct{ name, before, after, want string }{
		{"equal", `{"a":{"b":[1,null,"x"]}}`, `{"a":{"b":[1,null,"x"]}}`, `null`},
		{"added", `{}`, `{"a":null,"b":{}}`, `[{"op":"add","path":"/a","value":null},{"op":"add","path":"/b","value":{}}]`},
		{"removed", `{"a":1,"b":2}`, `{"b":2}`, `[{"op":"remove","path":"/a"}]`},
		{"inside", `{"a":{"b":1}}`, `{"a":{"b":2}}`, `[{"op":"replace","path":"/a/b","value":2}]`},
		{"escaped", `{"a/b":{"~c":1}}`, `{"a/b":{"~c":2}}`, `[{"op":"replace","path":"/a~1b/~0c","value":2}]`},
		{"item", `{"a":[{"b":1},{"b":2}]}`, `{"a":[{"b":1},{"b":3}]}`, `[{"op":"replace","path":"/a/1/b","value":3}]`},
		{"longer list", `{"a":[1]}`, `{"a":[1,2]}`, `[{"op":"replace","path":"/a","value":[1,2]}]`},
		{"other type", `{"a":{"b":1}}`, `{"a":[]}`, `[{"op":"replace","path":"/a","value":[]}]`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			have, err := json.Marshal(difference("", parsed(t, test.before), parsed(t, test.after)))
			if err != nil || string(have) != test.want {
				t.Errorf("difference = %s, %v; want %s", have, err, test.want)
			}
		})
	}
}

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// FuzzDifference applies the difference of any two objects to the first and
// expects the second.
func FuzzDifference(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":1}`, `{"a":[1,{"b":null}],"":{"~":"/"}}`}, {`{"a":[{"b":1},2],"c":null}`, `{"a":[{},2]}`}, {`{}`, `{"a":{"b":{"c":{}}}}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var before, after map[string]any
		if json.Unmarshal(a, &before) != nil || json.Unmarshal(b, &after) != nil || before == nil || after == nil {
			return
		}
		operations := difference("", before, after)
		text, err := json.Marshal(operations)
		if err != nil {
			t.Fatal(err)
		}
		if len(operations) == 0 {
			text = []byte("[]")
		}
		original, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		patch, err := jsonpatch.DecodePatch(text)
		if err != nil {
			t.Fatalf("decode %s: %v", text, err)
		}
		have, err := patch.Apply(original)
		if err != nil {
			t.Fatalf("apply %s to %s: %v", text, original, err)
		}
		var got map[string]any
		if err := json.Unmarshal(have, &got); err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(after)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(got); err != nil || !bytes.Equal(again, want) {
			t.Errorf("%s with %s gives %s, want %s", original, text, again, fmt.Sprint(string(want)))
		}
	})
}
