package mutator

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
)

// clients returns a client of the providers with these names.
func clients(t *testing.T, handlers map[string]http.Handler) *externaldata.Client {
	t.Helper()
	var files []policy.File
	var opts externaldata.Options
	var p *providertest.Provider
	for name, handler := range handlers {
		if p == nil {
			p = providertest.New(t, handler)
		} else {
			p = p.Beside(t, handler)
		}
		opts.CertFile, opts.KeyFile = p.CertFile, p.KeyFile
		files = append(files, policy.File{Name: name, Data: []byte(p.Document(name))})
	}
	set, err := externaldata.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	client, err := externaldata.NewClient(set, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// digests gives text for keys, but for some.
func digests(key string) (any, string) {
	switch key {
	case "bad":
		return nil, "no such image"
	case "number":
		return 7, ""
	}
	return "<" + key + ">", ""
}

func TestExternalData(t *testing.T) {
	client := clients(t, map[string]http.Handler{"p": providertest.Answers(digests)})
	images := func(fields string) string {
		return document(assignKind, "a", "spec.c[name: *].image", outer("provider: p"+fields))
	}
	for name, test := range map[string]struct{ mutators, spec, want string }{
		"all items":           {images(""), "{c: [{image: a}, {image: b}, {image: a}]}", "{c: [{image: <a>}, {image: <b>}, {image: <a>}]}"},
		"nothing there":       {images(""), "{c: [{name: x}]}", "{c: [{name: x, image: <>}]}"},
		"no place":            {images(""), "{}", "{}"},
		"a user":              {document(assignKind, "a", "spec.owner", outer("provider: p, dataSource: Username")), "{}", "{owner: <jane>}"},
		"a user of something": {document(assignKind, "a", "spec.owner", outer("provider: p, dataSource: Username")), "{owner: me}", "{owner: <me>}"}, // as in Gatekeeper
		"default":             {images(", failurePolicy: UseDefault, default: none"), "{c: [{image: bad}, {image: a}]}", "{c: [{image: none}, {image: <a>}]}"},
		"ignore":              {images(", failurePolicy: Ignore"), "{c: [{image: bad}, {image: a}]}", "{c: [{image: bad}, {image: <a>}]}"},
		"ignored provider":    {strings.Replace(images(", failurePolicy: Ignore"), "provider: p", "provider: lost", 1), "{c: [{image: a}]}", "{c: [{image: a}]}"},
		"after another":       {document(imageKind, "a", "spec.c[name: *].image", "parameters: {assignTag: ':1'}") + document(assignKind, "b", "spec.c[name: *].image", outer("provider: p")), "{c: [{image: a}]}", ""},
		"before a value":      {document(assignKind, "a", "spec.x", outer("provider: p")) + document(assignKind, "b", "spec.x", value("z")), "{}", "{x: z}"},
		"after a value":       {document(assignKind, "a", "spec.x", value("z")) + document(assignKind, "b", "spec.x", outer("provider: p")), "{}", "{x: <z>}"},
		"fail":                {images(""), "{c: [{image: bad}, {image: bad}]}", `deny Assign/a: spec.c[name: *].image: ask provider "p": of "bad" it says: no such image`},
		"no text":             {images(""), "{c: [{image: number}]}", `deny Assign/a: spec.c[name: *].image: ask provider "p": of "number" it says a number: want a string`},
		"unknown provider":    {strings.Replace(images(""), "provider: p", "provider: lost", 1), "{c: [{image: a}]}", `deny Assign/a: spec.c[name: *].image: ask provider "lost" about "a": there is no such Provider`},
		"not text":            {images(""), "{c: [{image: 7}]}", `deny Assign/a: spec.c[name: *].image: want a string to ask the provider "p" about, have a number`},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := read1(test.mutators)
			if err != nil {
				t.Fatal(err)
			}
			req := pod(t, test.spec)
			req.User.Username = "jane"
			before := req.Object.DeepCopy()
			got, _, err := set.WithExternalData(client).Mutate(t.Context(), req)
			same(t, req.Object, before)
			var denied *policy.DeniedError
			switch {
			case test.want == "": // an image is nothing else once it is to be asked about
				if !errors.As(err, &denied) || !strings.Contains(err.Error(), "want an image, have external data") {
					t.Errorf("error %v", err)
				}
			case strings.HasPrefix(test.want, "deny "):
				if !errors.As(err, &denied) || len(denied.Violations) != 1 {
					t.Fatalf("error %v, want one violation", err)
				}
				v := denied.Violations[0]
				if text := fmt.Sprintf("%s %s/%s: %s", v.Enforcement, v.Policy, v.Binding, v.Message); text != test.want {
					t.Errorf("violation %s, want %s", text, test.want)
				}
			case err != nil:
				t.Error(err)
			default:
				same(t, got, pod(t, test.want).Object)
			}
		})
	}
}

// TestExternalMetadata expects a label to be what a provider says of the user,
// once, and not where there is one.
func TestExternalMetadata(t *testing.T) {
	set, err := read1(document(metadataKind, "m", "metadata.labels.owner", outer("provider: p, dataSource: Username")))
	if err != nil {
		t.Fatal(err)
	}
	set = set.WithExternalData(clients(t, map[string]http.Handler{"p": providertest.Answers(digests)}))
	req := pod(t, "{}")
	req.User.Username = "jane"
	got, changes, err := set.Mutate(t.Context(), req)
	if err != nil || got.GetLabels()["owner"] != "<jane>" || len(changes) != 1 {
		t.Errorf("labels %v, %v, %v", got.GetLabels(), changes, err)
	}
	req.Object, req.User.Username = got, "joe"
	if again, changes, err := set.Mutate(t.Context(), req); err != nil || again != got || len(changes) > 0 {
		t.Errorf("%v, %v, %v", again, changes, err)
	}
}

// TestExternalBatch expects one question for each provider, with each key once,
// and both at the same time.
func TestExternalBatch(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	both := make(chan struct{})
	var here sync.WaitGroup
	here.Add(2)
	go func() { here.Wait(); close(both) }()
	provider := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		asked = append(asked, string(body))
		mu.Unlock()
		here.Done()
		select {
		case <-both:
		case <-time.After(time.Minute):
			t.Error("the providers are asked one after the other")
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		providertest.Answers(digests).ServeHTTP(w, r)
	})
	set, err := read1(document(assignKind, "a", "spec.c[name: *].image", outer("provider: p")) +
		document(assignKind, "b", "spec.i[name: *].image", outer("provider: p")) + document(assignKind, "c", "spec.x", outer("provider: q")))
	if err != nil {
		t.Fatal(err)
	}
	set = set.WithExternalData(clients(t, map[string]http.Handler{"p": provider, "q": provider}))
	got, changes, err := set.Mutate(t.Context(), pod(t, "{c: [{image: b}, {image: a}], i: [{image: a}], x: z}"))
	if err != nil || len(changes) != 3 {
		t.Fatalf("%v, %v", changes, err)
	}
	same(t, got, pod(t, "{c: [{image: <b>}, {image: <a>}], i: [{image: <a>}], x: <z>}").Object)
	slices.Sort(asked)
	const head = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":`
	if want := []string{head + `["a","b"]}}`, head + `["z"]}}`}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// TestExternalAnswers expects an answer that is not for mutation to be none.
func TestExternalAnswers(t *testing.T) {
	for response, want := range map[string]string{
		`{"items": [{"key": "a", "value": "b"}]}`:                                           "its answer is not idempotent",
		`{"idempotent": true, "systemError": "off", "items": [{"key": "a", "value": "b"}]}`: "its system has an error: off",
		`{"idempotent": true, "items": [{"key": "b", "value": "b"}]}`:                       `it says nothing of "a"`,
	} {
		set, err := read1(document(assignKind, "a", "spec.x", outer("provider: p")))
		if err != nil {
			t.Fatal(err)
		}
		set = set.WithExternalData(clients(t, map[string]http.Handler{"p": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": %s}`, response)
		})}))
		if _, _, err := set.Mutate(t.Context(), pod(t, "{x: a}")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestExternalOffline expects a mutator that may ask nobody to be left out by
// name, or, where nobody listens, to have no answer.
func TestExternalOffline(t *testing.T) {
	set, err := read1(document(assignKind, "a", "spec.x", outer("provider: p")))
	if err != nil || !set.AsksProviders() {
		t.Fatal(err)
	}
	req := pod(t, "{x: a}")
	if _, _, err := set.Mutate(t.Context(), req); err == nil || !strings.Contains(err.Error(), `ask provider "p": there are no Providers`) {
		t.Errorf("error %v", err)
	}
	var told []string
	req.Unjudged = func(policy string, err error) { told = append(told, policy+": "+err.Error()) }
	got, _, err := set.Mutate(t.Context(), req)
	if err != nil || got != req.Object || !slices.Equal(told, []string{"Assign/a: assign external data: no provider may be asked"}) {
		t.Errorf("told %q, %v", told, err)
	}
}
