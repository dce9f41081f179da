package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubeguardian/kubeguardian/policy"
)

// workloadRequest returns the request to create an object of a workload.
func workloadRequest(t *testing.T, group, resource, text string) policy.Request {
	t.Helper()
	object := object(t, text)
	return policy.Request{
		Operation: admissionv1.Create, Kind: object.GroupVersionKind(),
		Resource:  schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource},
		Namespace: "shop", Name: object.GetName(), Object: object,
	}
}

const everywhere = `
initContainers: [{name: init, image: docker.io/evil/init}]
containers: [{name: web, image: docker.io/evil/web}, {name: good, image: good.example.com/shop/web}]
ephemeralContainers: [{name: debug, image: docker.io/evil/debug}]
volumes: [{name: data, image: {reference: docker.io/evil/data}}, {name: none, emptyDir: {}}, {name: later, image: {}}]
`

// TestAllImages finds the images of every container and volume in every kind.
func TestAllImages(t *testing.T) {
	set := load(t, Options{}, doc("allowed", "mutateDigest: false\nrules: {allowedImages: ['good.example.com/**']}"))
	spec := func(path string) string {
		text := everywhere
		for _, step := range reversed(strings.Split(path, ".")) {
			text = step + ":\n" + indent(text, 2)
		}
		return text
	}
	for _, test := range []struct{ group, resource, path string }{
		{"", "pods", "spec"},
		{"", "podtemplates", "template.spec"},
		{"", "replicationcontrollers", "spec.template.spec"},
		{"apps", "daemonsets", "spec.template.spec"},
		{"apps", "deployments", "spec.template.spec"},
		{"apps", "replicasets", "spec.template.spec"},
		{"apps", "statefulsets", "spec.template.spec"},
		{"batch", "jobs", "spec.template.spec"},
		{"batch", "cronjobs", "spec.jobTemplate.spec.template.spec"},
	} {
		t.Run(test.resource, func(t *testing.T) {
			req := workloadRequest(t, test.group, test.resource, "metadata: {name: web}\n"+spec(test.path))
			found := strings.Join(evaluate(t, set, req), "\n")
			for _, want := range []string{
				"evil/init (" + test.path + ".initContainers[0].image)", "evil/web (" + test.path + ".containers[0].image)",
				"evil/debug (" + test.path + ".ephemeralContainers[0].image)", "evil/data (" + test.path + ".volumes[0].image.reference)",
			} {
				if !strings.Contains(found, want) {
					t.Errorf("%s\ndoes not name %s", found, want)
				}
			}
			if n := strings.Count(found, "\n") + 1; n != 4 {
				t.Errorf("%d violations, want 4:\n%s", n, found)
			}
		})
	}
}

func reversed(list []string) []string {
	out := make([]string, 0, len(list))
	for i := range list {
		out = append(out, list[len(list)-1-i])
	}
	return out
}

// TestRequests judges what a request brings in, and nothing else.
func TestRequests(t *testing.T) {
	set := load(t, Options{}, doc("allowed", "mutateDigest: false\nrules: {allowedImages: ['good.example.com/**']}"))
	const bad, worse = "docker.io/evil/web:1", "docker.io/evil/web:2"
	with := func(change func(*policy.Request)) policy.Request {
		req := podOf(bad)
		change(&req)
		return req
	}
	update := func(old ...string) func(*policy.Request) {
		return func(r *policy.Request) { r.Operation, r.OldObject = admissionv1.Update, podOf(old...).Object }
	}
	for name, test := range map[string]struct {
		req  policy.Request
		want int
	}{
		"create":                           {podOf(bad), 1},
		"dry run":                          {with(func(r *policy.Request) { r.DryRun = true }), 1},
		"generated name":                   {with(func(r *policy.Request) { r.Name = ""; r.Object.SetName(""); r.Object.SetGenerateName("web-") }), 1},
		"update that changes":              {with(update(worse)), 1},
		"update that keeps":                {with(update(bad)), 0},
		"update that moves an image":       {with(update("good.example.com/a", bad)), 1},
		"update of what is being ended":    {with(func(r *policy.Request) { update(worse)(r); r.Object.SetDeletionTimestamp(&metav1.Time{}) }), 1},
		"update without the old object":    {with(func(r *policy.Request) { r.Operation = admissionv1.Update }), 1},
		"ephemeral containers":             {with(func(r *policy.Request) { update(worse)(r); r.Subresource = "ephemeralcontainers" }), 1},
		"status":                           {with(func(r *policy.Request) { update(worse)(r); r.Subresource = "status" }), 0},
		"delete":                           {with(func(r *policy.Request) { r.Operation, r.OldObject, r.Object = admissionv1.Delete, r.Object, nil }), 0},
		"connect":                          {with(func(r *policy.Request) { r.Operation, r.Subresource = admissionv1.Connect, "exec" }), 0},
		"another kind":                     {with(func(r *policy.Request) { r.Resource.Resource = "configmaps" }), 0},
		"another group":                    {with(func(r *policy.Request) { r.Resource.Group = "example.com" }), 0},
		"the same image in two containers": {podOf(bad, bad), 1},
		"two images":                       {podOf(bad, worse), 2},
	} {
		t.Run(name, func(t *testing.T) {
			if found := evaluate(t, set, test.req); len(found) != test.want {
				t.Errorf("%d violations, want %d: %q", len(found), test.want, found)
			}
		})
	}
	t.Run("malformed", func(t *testing.T) {
		for _, text := range []string{"spec: 1", "spec: {containers: 1}", "spec: {containers: [1]}", "spec: {containers: [{image: 1}]}", "spec: {volumes: [{image: {reference: []}}]}"} {
			_, err := set.Evaluate(t.Context(), workloadRequest(t, "", "pods", "kind: Pod\nmetadata: {name: web}\n"+text))
			if err == nil || !strings.HasPrefix(err.Error(), `read images of Pod "web": `) {
				t.Errorf("%s: %v", text, err)
			}
		}
	})
	t.Run("too many", func(t *testing.T) {
		var images []string
		for i := range maxImages + 1 {
			images = append(images, fmt.Sprintf("good.example.com/shop/%d", i))
		}
		wantOne(t, evaluate(t, set, podOf(images...)), "101 different images are more than the limit of 100")
	})
}

func TestActions(t *testing.T) {
	for given, want := range map[string]string{
		"[Deny]": "deny: ", "[Warn]": "warn: ", "[Audit]": "audit: ", "[Deny, Audit]": "deny: |audit: ", "[Warn, Audit]": "warn: |audit: ",
	} {
		set := load(t, Options{}, doc("allowed", "validationActions: "+given+"\nrules: {allowedImages: ['good.example.com/**']}"))
		var have []string
		for _, found := range evaluate(t, set, podOf("docker.io/evil/web")) {
			have = append(have, found[:strings.Index(found, "image ")])
		}
		if strings.Join(have, "|") != want {
			t.Errorf("%s leads to %q, want %q", given, have, want)
		}
	}
}

func TestSelectors(t *testing.T) {
	namespaces := policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
		switch name {
		case "shop":
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"stage": "live"}}}, nil
		case "lost":
			return nil, nil
		}
		return nil, errors.New("the API server is away")
	})
	with := func(namespace string, labels map[string]string) policy.Request {
		req := podOf("docker.io/evil/web")
		req.Namespace, req.Namespaces = namespace, namespaces
		req.Object.SetLabels(labels)
		return req
	}
	for name, test := range map[string]struct {
		match string
		req   policy.Request
		want  string
	}{
		"namespace that matches":   {"namespaceSelector: {matchLabels: {stage: live}}", with("shop", nil), "allowed repository"},
		"namespace that does not":  {"namespaceSelector: {matchExpressions: [{key: stage, operator: NotIn, values: [live]}]}", with("shop", nil), ""},
		"namespace that is gone":   {"namespaceSelector: {matchLabels: {stage: live}}", with("lost", nil), `look up namespace "lost": not found`},
		"namespace unknown":        {"namespaceSelector: {matchLabels: {stage: live}}", with("x", nil), "the API server is away"},
		"no namespaces":            {"namespaceSelector: {matchLabels: {stage: live}}", podOf("docker.io/evil/web"), "no namespaces are known"},
		"object that matches":      {"objectSelector: {matchLabels: {app: web}}", with("shop", map[string]string{"app": "web"}), "allowed repository"},
		"object that does not":     {"objectSelector: {matchLabels: {app: web}}", with("shop", map[string]string{"app": "db"}), ""},
		"both, object does not":    {"objectSelector: {matchLabels: {app: web}}, namespaceSelector: {matchLabels: {stage: live}}", with("x", nil), ""},
		"image that does not":      {"excludeImages: ['docker.io/evil/*']", with("shop", nil), ""},
		"unreadable, excluded too": {"excludeImages: ['**']", podOf("Not An Image"), "not an image reference"},
	} {
		t.Run(name, func(t *testing.T) {
			set := load(t, Options{}, doc("allowed", "match: {images: ['**'], "+test.match+"}\nrules: {allowedImages: ['good.example.com/**']}"))
			found := evaluate(t, set, test.req)
			if test.want == "" {
				wantNone(t, found)
			} else {
				wantOne(t, found, test.want)
			}
		})
	}
	t.Run("label taken off in the same update", func(t *testing.T) {
		set := load(t, Options{}, doc("allowed", "match: {images: ['**'], objectSelector: {matchLabels: {app: web}}}\nrules: {allowedImages: ['good.example.com/**']}"))
		req := with("shop", nil)
		req.Operation, req.OldObject = admissionv1.Update, podOf("good.example.com/shop/web").Object
		req.OldObject.SetLabels(map[string]string{"app": "web"})
		wantOne(t, evaluate(t, set, req), "allowed repository")
	})
}

// TestPinned follows an image by tag through both phases of admission, and moves
// the tag between and behind them.
func TestPinned(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	tag := h.host + "/shop/web:1"
	signed := h.push("shop/web:1")
	h.cosign(signed, ".sig", release.simple(claim(signed.DigestStr())))

	req := podOf(tag, tag+"@"+signed.DigestStr(), tag)
	before := req.Object.DeepCopy()
	object, _, err := set.Mutate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(req.Object) != fmt.Sprint(before) {
		t.Error("the object of the request was changed")
	}
	want := tag + "@" + signed.DigestStr()
	for i, image := range imagesIn(object) {
		if image != want {
			t.Errorf("image %d is %s, want %s", i, image, want)
		}
	}

	moved := h.push("shop/web:1") // after the mutation, before the validation
	wantOne(t, evaluate(t, set, req), "it has no digest, and was not given one when the object was changed; write "+tag+"@"+moved.DigestStr())
	req.Object = object
	wantNone(t, evaluate(t, set, req))

	again := podOf(tag) // after the verification of the image before
	if again.Object, _, err = set.Mutate(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if have := imagesIn(again.Object)[0]; have != tag+"@"+moved.DigestStr() {
		t.Errorf("the tag that moved is pinned to %s", have)
	}
	wantOne(t, evaluate(t, set, again), "it is not signed by release")
}

func imagesIn(object *unstructured.Unstructured) []string {
	w := workload{pod: []string{"spec"}}
	usages, _ := w.usages(object)
	var out []string
	for _, u := range usages {
		out = append(out, u.image)
	}
	return out
}

func TestMutate(t *testing.T) {
	h := newHub(t, true)
	digest := h.push("shop/web:1")
	tag := h.host + "/shop/web:1"
	mutating := doc("pinned", "rules: {allowedImages: ['"+h.host+"/shop/**']}")
	for name, test := range map[string]struct {
		doc  string
		req  policy.Request
		want string // "" for an object that stays itself
	}{
		"tag":                 {mutating, podOf(tag), tag + "@" + digest.DigestStr()},
		"digest":              {mutating, podOf(digest.String()), ""},
		"tag that is missing": {mutating, podOf(h.host + "/shop/web:2"), ""},
		"not allowed":         {mutating, podOf(h.host + "/evil/web:1"), ""},
		"no reference":        {mutating, podOf("Not An Image"), ""},
		"switched off":        {doc("open", "mutateDigest: false\nrules: {requireDigest: true}"), podOf(tag), ""},
		"delete":              {mutating, policy.Request{Operation: admissionv1.Delete, OldObject: podOf(tag).Object}, ""},
		"kept by an update": {mutating, func() policy.Request {
			req := podOf(tag)
			req.Operation, req.OldObject = admissionv1.Update, req.Object.DeepCopy()
			return req
		}(), ""},
		"image volume": {mutating, workloadRequest(t, "", "pods", "metadata: {name: web}\nspec: {volumes: [{name: data, image: {reference: '"+tag+"'}}]}"), tag + "@" + digest.DigestStr()},
	} {
		t.Run(name, func(t *testing.T) {
			set := load(t, Options{}, test.doc)
			object, _, err := set.Mutate(t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if object != test.req.Object {
					t.Errorf("changed to %v", object)
				}
				return
			}
			if have := imagesIn(object); have[0] != test.want {
				t.Errorf("have %s, want %s", have[0], test.want)
			}
		})
	}
	t.Run("without HEAD", func(t *testing.T) {
		h.answer(refuse("HEAD", 405))
		defer h.answer(nil)
		object, changes, err := load(t, Options{}, mutating).Mutate(t.Context(), podOf(tag))
		if err != nil || imagesIn(object)[0] != tag+"@"+digest.DigestStr() || len(changes) != 1 {
			t.Errorf("have %v, %v, %v", object, changes, err)
		}
	})
}

// TestDigests judges tags where nobody pins them.
func TestDigests(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	tag := h.host + "/shop/web:1"

	strict := load(t, Options{}, doc("strict", "mutateDigest: false\nrules: {requireDigest: true}"))
	wantOne(t, evaluate(t, strict, podOf(tag)), "it has no digest: a tag may lead to another image tomorrow")
	wantNone(t, evaluate(t, strict, podOf(image.String())))
	if total, _ := h.requests(); total > 0 {
		h.forget()
	}
	wantOne(t, evaluate(t, strict, podOf(tag)), "no digest")
	if total, _ := h.requests(); total != 0 {
		t.Errorf("%d requests for what the object itself tells", total)
	}

	lax := load(t, Options{}, doc("lax", "mutateDigest: false\nrules: {requireDigest: false}\nattestors:\n"+keyAttestor("release", release)))
	wantNone(t, evaluate(t, lax, podOf(tag)))
	wantOne(t, evaluate(t, lax, podOf(h.host+"/shop/web:2")), "the registry does not have it")
	h.push("shop/web:1")
	wantOne(t, evaluate(t, lax, podOf(tag)), "it is not signed by release")
}

// TestOneVerdict judges an object by each policy alone and by all together.
func TestOneVerdict(t *testing.T) {
	h, a, b := newHub(t, true), newKey(t), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", a.simple(claim(image.DigestStr())))
	docs := []string{
		doc("a", "attestors:\n"+keyAttestor("a", a)), doc("b", "attestors:\n"+keyAttestor("b", b)),
		doc("c", "rules: {allowedImages: ['x.example.com/**']}"), doc("d", "validationActions: [Warn]\nattestors:\n"+keyAttestor("b", b)),
	}
	var alone []string
	for _, text := range docs {
		alone = append(alone, evaluate(t, load(t, Options{}, text), podOf(image.String(), "docker.io/x"))...)
	}
	together := evaluate(t, load(t, Options{}, docs...), podOf(image.String(), "docker.io/x"))
	if strings.Join(alone, "\n") != strings.Join(together, "\n") || len(alone) < 5 {
		t.Errorf("alone\n%s\ntogether\n%s", strings.Join(alone, "\n"), strings.Join(together, "\n"))
	}
}

// TestIndex verifies an image of several platforms by the digest of its index.
func TestIndex(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	index, err := random.Index(100, 1, 2)
	h.check(err)
	tag := h.push("shop/web:1").Context().Tag("2")
	h.check(remote.WriteIndex(tag, index))
	hash, err := index.Digest()
	h.check(err)
	h.cosign(tag.Context().Digest(hash.String()), ".sig", release.simple(claim(hash.String())))
	req := podOf(tag.String())
	if req.Object, _, err = set.Mutate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	wantNone(t, evaluate(t, set, req))
}
