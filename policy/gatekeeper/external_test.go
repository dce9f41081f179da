package gatekeeper_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
)

// signatures says of an image who signed it; nobody signed those that begin with
// "bad".
func signatures(key string) (any, string) {
	if strings.HasPrefix(key, "bad") {
		return nil, "not signed"
	}
	return map[string]any{"by": "us", "n": 7}, ""
}

// asking returns the set that asks a provider with the name signatures.
func asking(t *testing.T, text string, handler http.Handler) (*gatekeeper.Set, *providertest.Provider) {
	t.Helper()
	p := providertest.New(t, handler)
	providers, err := externaldata.Load(policy.File{Name: "p.yaml", Data: []byte(p.Document("signatures"))})
	if err != nil {
		t.Fatal(err)
	}
	client, err := externaldata.NewClient(providers, externaldata.Options{CertFile: p.CertFile, KeyFile: p.KeyFile, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return load(t, text).WithExternalData(client), p
}

const signed = `package x
images := [i | i := input.review.object.spec.containers[_].image]
answer := external_data({"provider": input.parameters.provider, "keys": images})
violation[{"msg": msg}] { msg := sprintf("%v: %v", answer.errors[_]) }
violation[{"msg": msg}] { r := answer.responses[_]; r[1].by != input.parameters.by; msg := sprintf("%v is by %v, %v", [r[0], r[1].by, r[1].n]) }
violation[{"msg": msg}] { answer.system_error != ""; msg := sprintf("%v %v %v %v", [answer.system_error, answer.status_code, answer.responses, answer.errors]) }`

func signedBy(name, provider, by string) string {
	return strings.Replace(constraint("X", fmt.Sprintf("{match: {kinds: [{kinds: [Pod]}]}, parameters: {provider: %s, by: %s}}", provider, by)), "name: c", "name: "+name, 1)
}

const signedSchema = "{type: object, properties: {provider: {type: string}, by: {type: string}}}"

func podOf(t *testing.T, images ...string) policy.Request {
	t.Helper()
	var list []string
	for _, i := range images {
		list = append(list, "{image: '"+i+"'}")
	}
	return create(t, "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: ["+strings.Join(list, ", ")+"]}}")
}

func TestExternalData(t *testing.T) {
	set, p := asking(t, template("X", signedSchema, signed)+signedBy("them", "signatures", "them")+signedBy("us", "signatures", "us")+signedBy("lost", "lost", "us"),
		providertest.Answers(signatures))
	lost := `X/lost deny: ask provider "lost" about %q: there is no such Provider 400 null null`
	for _, test := range []struct {
		images []string
		want   []string
		calls  int64
	}{
		{[]string{"good:1"}, []string{fmt.Sprintf(lost, "good:1"), "X/them deny: good:1 is by us, 7"}, 1},
		{[]string{"good:1"}, []string{fmt.Sprintf(lost, "good:1"), "X/them deny: good:1 is by us, 7"}, 1},
		{[]string{"bad:1"}, []string{fmt.Sprintf(lost, "bad:1"), "X/them deny: bad:1: not signed", "X/us deny: bad:1: not signed"}, 2},
	} {
		if got := evaluate(t, set, podOf(t, test.images...)); !slices.Equal(got, test.want) {
			t.Errorf("%v: violations %q, want %q", test.images, got, test.want)
		}
		if n := p.Calls.Load(); n != test.calls {
			t.Errorf("%v: %d calls, want %d", test.images, n, test.calls)
		}
	}
}

// TestExternalDataOnce expects a thousand reviews of one image to be one call.
func TestExternalDataOnce(t *testing.T) {
	set, p := asking(t, template("X", signedSchema, signed)+signedBy("them", "signatures", "them"), providertest.Answers(signatures))
	req := podOf(t, "good:1")
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			for range 100 {
				found, err := set.Evaluate(t.Context(), req)
				if err != nil || len(found) != 1 {
					t.Errorf("violations %v, %v", found, err)
				}
			}
		})
	}
	group.Wait()
	if n := p.Calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// TestExternalDataFails expects a provider that gives no answer to be part of
// what a template sees, a question that is none to be undefined, and a function
// of its arguments that asks not to be remembered beyond the review.
func TestExternalDataFails(t *testing.T) {
	set, _ := asking(t, template("X", signedSchema, signed)+signedBy("us", "signatures", "us"), http.NotFoundHandler())
	want := `X/us deny: ask provider "signatures" about "good:1": it answers 404 Not Found: read its answer: invalid character 'p' after top-level value 500 null null`
	if got := evaluate(t, set, podOf(t, "good:1")); len(got) != 1 || got[0] != want {
		t.Errorf("violations %q, want %q", got, want)
	}
	set, p := asking(t, template("X", "{type: object}", `package x
violation[{"msg": "asked"}] { external_data({"provider": "signatures", "keys": "text"}) }
violation[{"msg": "asked"}] { external_data("signatures") }
violation[{"msg": msg}] { msg := f("now") }
f(key) = v { v := external_data({"provider": "signatures", "keys": [key]}).responses[_][1] }`)+constraint("X", "{}"),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": {"systemError": "clock is off", "items": [{"key": "now", "value": "%d"}]}}`, time.Now().UnixNano())
		}))
	seen := map[string]bool{}
	for range 3 {
		got := evaluate(t, set, podOf(t))
		if len(got) != 1 {
			t.Fatalf("violations %q", got)
		}
		seen[got[0]] = true
	}
	if len(seen) != 3 || p.Calls.Load() != 3 {
		t.Errorf("%d answers by %d calls, want 3 each", len(seen), p.Calls.Load())
	}
}

// TestExternalDataOffline expects a set without providers to ask nobody: who
// wants to know what is not judged is told, and a webhook sees an error.
func TestExternalDataOffline(t *testing.T) {
	set := load(t, template("X", signedSchema, signed)+signedBy("us", "signatures", "us"))
	if !set.AsksProviders() {
		t.Error("nothing is said of providers")
	}
	req := podOf(t, "good:1")
	if got := evaluate(t, set, req); len(got) != 1 || got[0] != "X/us deny: there are no Providers 400 null null" {
		t.Errorf("violations %q", got)
	}
	var told []string
	req.Unjudged = func(policy string, err error) { told = append(told, policy+": "+err.Error()) }
	if got := evaluate(t, set, req); len(got) > 0 || len(told) != 1 || told[0] != "X/us: call external_data: no provider may be asked" {
		t.Errorf("violations %q, told %q", got, told)
	}
}

// TestReviewFields expects input.review to have what an API server sends.
func TestReviewFields(t *testing.T) {
	set := load(t, template("X", "{type: object}", `package x
violation[{"msg": msg}] {
  r := input.review
  msg := sprintf("%v %v %v %v %v %v %v", [r.uid, object.get(r, "dryRun", "none"), object.get(r, "requestKind", "none"), object.get(r, "requestResource", "none"), object.get(r, "requestSubResource", "none"), r.options, sort([k | r[k]])])
}`)+constraint("X", "{}"))
	req := podOf(t)
	const made = `X/c deny:  none none none none null ["kind", "name", "namespace", "namespaceObject", "object", "oldObject", "operation", "options", "resource", "uid", "userInfo"]`
	if got := evaluate(t, set, req); len(got) != 1 || got[0] != made {
		t.Errorf("violations %q, want %q", got, made)
	}
	req.UID, req.RequestSubresource = "u-1", "scale"
	req.RequestKind.Version, req.RequestKind.Kind = "v1beta1", "Pod"
	req.RequestResource.Version, req.RequestResource.Resource = "v1beta1", "pods"
	req.Options = object(t, "{apiVersion: meta.k8s.io/v1, kind: CreateOptions}")
	const sent = `X/c deny: u-1 false {"group": "", "kind": "Pod", "version": "v1beta1"} {"group": "", "resource": "pods", "version": "v1beta1"} scale {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"} `
	if got := evaluate(t, set, req); len(got) != 1 || !strings.HasPrefix(got[0], sent) {
		t.Errorf("violations %q, want %q", got, sent)
	}
}
