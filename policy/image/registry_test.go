package image

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// A hub is a real registry on this machine. It counts requests, and hook may
// answer one in its place.
type hub struct {
	t     testing.TB
	host  string
	serve http.HandlerFunc

	mu   sync.Mutex
	seen map[string]int // by "METHOD /path"
	hook func(w http.ResponseWriter, r *http.Request) bool
}

func newHub(t testing.TB, referrers bool) *hub {
	t.Helper()
	h := &hub{t: t, seen: map[string]int{}}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))
	h.serve = func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.seen[r.Method+" "+r.URL.Path]++
		hook := h.hook
		h.mu.Unlock()
		if hook == nil || !hook(w, r) {
			inner.ServeHTTP(w, r)
		}
	}
	server := httptest.NewServer(h.serve)
	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

// answer sets the hook; nil removes it.
func (h *hub) answer(hook func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = hook
}

// forget starts to count anew, and requests returns what was counted.
func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = map[string]int{}
}

func (h *hub) requests() (total, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, n := range h.seen {
		if !strings.HasSuffix(at, " /v2/") {
			total, most = total+n, max(most, n)
		}
	}
	return total, most
}

// push stores a new image under a name and returns its digest in full.
func (h *hub) push(at string) name.Digest {
	h.t.Helper()
	image, err := random.Image(100, 1)
	h.check(err)
	tag, err := name.NewTag(h.host + "/" + at)
	h.check(err)
	h.check(remote.Write(tag, image))
	digest, err := image.Digest()
	h.check(err)
	return tag.Context().Digest(digest.String())
}

func (h *hub) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// cosign stores layers at a tag of cosign.
func (h *hub) cosign(of name.Digest, suffix string, layers ...mutate.Addendum) {
	h.t.Helper()
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	h.check(err)
	h.check(remote.Write(of.Context().Tag(strings.Replace(of.DigestStr(), ":", "-", 1)+suffix), image))
}

// refer stores a bundle that refers to an image.
func (h *hub) refer(to name.Digest, bundle []byte) {
	h.t.Helper()
	const mediaType = bundleType + ".v0.3+json"
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{Layer: static.NewLayer(bundle, mediaType)})
	h.check(err)
	subject, err := remote.Head(to)
	h.check(err)
	referrer := mutate.Subject(mutate.ConfigMediaType(image, mediaType), *subject).(v1.Image)
	digest, err := referrer.Digest()
	h.check(err)
	h.check(remote.Write(to.Context().Digest(digest.String()), referrer))
}

// A key signs as cosign does.
type key struct {
	*ecdsa.PrivateKey
	t testing.TB
}

func newKey(t testing.TB) key {
	t.Helper()
	return newKeyOn(t, elliptic.P256())
}

func newKeyOn(t testing.TB, curve elliptic.Curve) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{k, t}
}

// public returns the public key in PEM.
func (k key) public() string {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		k.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// sign signs the SHA-256 of a message.
func (k key) sign(message []byte) []byte {
	sum := sha256.Sum256(message)
	sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		k.t.Fatal(err)
	}
	return sig
}

// claim returns what cosign signs for an image.
func claim(digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"shop"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
}

// simple returns a signature in the first form of cosign.
func (k key) simple(payload []byte) mutate.Addendum {
	return mutate.Addendum{
		Layer:       static.NewLayer(payload, simpleSigningType),
		Annotations: map[string]string{signatureKey: base64.StdEncoding.EncodeToString(k.sign(payload))},
	}
}

// envelope returns a signed statement as DSSE.
func (k key) envelope(statement []byte) map[string]any {
	const payloadType = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement)
	return map[string]any{
		"payloadType": payloadType, "payload": statement,
		"signatures": []any{map[string]any{"sig": k.sign(pae)}},
	}
}

// attestation returns a statement in the first form of cosign.
func (k key) attestation(statement []byte) mutate.Addendum {
	return mutate.Addendum{Layer: static.NewLayer(mustJSON(k.t, k.envelope(statement)), envelopeType)}
}

// bundle returns a signed statement as a bundle of sigstore.
func (k key) bundle(statement []byte) []byte {
	return mustJSON(k.t, map[string]any{
		"mediaType":            bundleType + ".v0.3+json",
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "any"}},
		"dsseEnvelope":         k.envelope(statement),
	})
}

// inToto returns an in-toto statement of an image.
func inToto(t testing.TB, digest, predicateType string, predicate any) []byte {
	t.Helper()
	return mustJSON(t, map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"name": "shop", "digest": map[string]any{"sha256": strings.TrimPrefix(digest, "sha256:")}}},
		"predicateType": predicateType,
		"predicate":     predicate,
	})
}

func mustJSON(t testing.TB, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// load loads policies with a verifier of its own that talks to this machine.
func load(t testing.TB, options Options, texts ...string) *Set {
	t.Helper()
	options.AllowLoopback = true
	var files []policy.File
	for i, text := range texts {
		files = append(files, policy.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
	}
	set, err := New(options).Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// doc returns a policy for all images that demands what spec says.
func doc(name, spec string) string {
	text := fmt.Sprintf("apiVersion: kubeguardian.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: %s}\nspec:\n", name)
	if !strings.Contains(spec, "validationActions:") {
		text += "  validationActions: [Deny]\n"
	}
	if !strings.Contains(spec, "match:") {
		text += "  match: {images: ['**']}\n"
	}
	return text + indent(spec, 2)
}

func indent(text string, by int) string {
	var out strings.Builder
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		out.WriteString(strings.Repeat(" ", by) + line)
	}
	return out.String()
}

// keyAttestor returns an attestor that is the holder of a key.
func keyAttestor(name string, k key) string {
	return fmt.Sprintf("- name: %s\n  key:\n    data: |\n%s", name, indent(k.public(), 6))
}

// object parses an object.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// podOf returns the request to create a pod with these images.
func podOf(images ...string) policy.Request {
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": fmt.Sprintf("c%d", i), "image": image})
	}
	return policy.Request{
		Operation: admissionv1.Create,
		Kind:      schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  schema.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: "shop", Name: "web",
		Object: &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web", "namespace": "shop"},
			"spec": map[string]any{"containers": containers},
		}},
	}
}

// evaluate returns what a set says of a request, each violation as
// "enforcement: message".
func evaluate(t *testing.T, set *Set, req policy.Request) []string {
	t.Helper()
	found, err := set.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return lines(found)
}

func lines(found []finding.Violation) []string {
	var out []string
	for _, v := range found {
		out = append(out, v.Enforcement+": "+v.Message)
	}
	return out
}

// wantOne fails unless there is one violation that holds all these texts.
func wantOne(t *testing.T, found []string, texts ...string) {
	t.Helper()
	if len(found) != 1 {
		t.Fatalf("%d violations, want 1: %q", len(found), found)
	}
	for _, text := range texts {
		if !strings.Contains(found[0], text) {
			t.Errorf("%q does not say %q", found[0], text)
		}
	}
}

func wantNone(t *testing.T, found []string) {
	t.Helper()
	if len(found) > 0 {
		t.Fatalf("violations: %q", found)
	}
}

// within fails when work takes so long that it could only have hung.
func within(t *testing.T, most time.Duration, work func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); work() }()
	select {
	case <-done:
	case <-time.After(most):
		t.Fatal("it hangs")
	}
}

// repeated is text without end, which counts what was read of it.
type repeated struct {
	text []byte
	sent *atomic.Int64
}

func (r repeated) Read(p []byte) (int, error) {
	n := copy(p, bytes.Repeat(r.text, len(p)/len(r.text)+1))
	r.sent.Add(int64(n))
	return n, nil
}
