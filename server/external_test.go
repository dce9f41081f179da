package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/policy/externaldata/providertest"
)

// asked wants images that a provider knows, and gives them their digests.
const asked = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: knownimage}
spec:
  crd: {spec: {names: {kind: KnownImage}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package knownimage
      answer := external_data({"provider": "images", "keys": [i | i := input.review.object.spec.containers[_].image]})
      violation[{"msg": sprintf("%v: %v", e)}] { e := answer.errors[_] }
      violation[{"msg": answer.system_error}] { answer.system_error != "" }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: KnownImage
metadata: {name: all}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}
---
apiVersion: mutations.gatekeeper.sh/v1
kind: Assign
metadata: {name: digest}
spec:
  applyTo: [{groups: [""], versions: [v1], kinds: [Pod]}]
  location: "spec.containers[name: *].image"
  parameters: {assign: {externalData: {provider: images, failurePolicy: Ignore}}}
---
`

// startAsking starts a server whose policies ask a provider that knows no image
// that begins with "evil", and nothing at all while it is down.
func startAsking(t *testing.T, down *atomic.Bool) (*running, *providertest.Provider) {
	t.Helper()
	p := providertest.New(t, providertest.Answers(func(key string) (any, string) {
		switch {
		case down.Load():
			panic("the provider is down") // net/http ends the connection
		case strings.HasPrefix(key, "evil"):
			return nil, "not known"
		}
		return key + "@sha256:abc", ""
	}))
	return startBeside(t, p.Document("images")+"---\n"+asked,
		fmt.Sprintf(", externalData: {certFile: %q, keyFile: %q}", p.CertFile, p.KeyFile)), p
}

// TestExternalData: a request is judged and changed by what a provider says, and
// a thousand requests for one image are one call.
func TestExternalData(t *testing.T) {
	var down atomic.Bool
	r, p := startAsking(t, &down)
	for image, want := range map[string]string{"nginx": `"allowed":true`, "evil": "[KnownImage] evil: not known"} {
		if _, body := r.webhook("/admit", podReview("alice", `"labels":{}`, image)); !strings.Contains(body, want) {
			t.Errorf("%s: %s", image, body)
		}
	}
	p.Calls.Store(0)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			for range 50 {
				if _, body := r.webhook("/admit", podReview("alice", `"labels":{}`, "web")); !strings.Contains(body, `"allowed":true`) {
					t.Errorf("review: %s", body)
				}
			}
		})
	}
	group.Wait()
	if n := p.Calls.Load(); n != 1 {
		t.Errorf("%d calls for one image, want 1", n)
	}
	_, body := r.webhook("/mutate", podReview("alice", `"labels":{}`, "web"))
	var review struct{ Response struct{ Patch string } }
	if err := json.Unmarshal([]byte(body), &review); err != nil {
		t.Fatal(err)
	}
	if patch, err := base64.StdEncoding.DecodeString(review.Response.Patch); err != nil || !strings.Contains(string(patch), `"value":"web@sha256:abc"`) {
		t.Errorf("patch %s, %v", patch, err)
	}
}

// TestExternalDataDown: a provider that gives no answer is part of the verdict,
// and counted.
func TestExternalDataDown(t *testing.T) {
	var down atomic.Bool
	r, _ := startAsking(t, &down)
	down.Store(true)
	if _, body := r.webhook("/admit", podReview("alice", `"labels":{}`, "nginx")); !strings.Contains(body, `ask provider \"images\" about \"nginx\"`) || !strings.Contains(body, `"allowed":false`) {
		t.Errorf("review: %s", body)
	}
	if _, body := r.page("/metrics"); !strings.Contains(body, `kubeguardian_external_data_failures_total{provider="images"} 1`) {
		t.Error("the failure is not counted")
	}
}

// TestExternalDataHangs: a provider that hangs does not keep hundreds of reviews
// from an answer, each of which says what is wrong.
func TestExternalDataHangs(t *testing.T) {
	p := providertest.New(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			<-r.Context().Done()
		}
	}))
	r := startBeside(t, strings.Replace(p.Document("images"), "timeout: 2", "timeout: 1", 1)+"---\n"+asked,
		fmt.Sprintf(", externalData: {certFile: %q, keyFile: %q}", p.CertFile, p.KeyFile))
	const reviews = 500
	r.webhook("/admit?timeout=30s", podReview("alice", `"labels":{}`, "web:first")) // and there is a connection
	var group sync.WaitGroup
	var clear atomic.Int64
	for i := range reviews {
		group.Go(func() {
			code, body := r.webhook("/admit?timeout=30s", podReview("alice", `"labels":{}`, fmt.Sprintf("web:%d", i)))
			switch {
			case code != http.StatusOK:
				t.Errorf("status %d: %s", code, body)
			case strings.Contains(body, "no answer within its timeout of 1s"), strings.Contains(body, "not asked: it was late"):
				clear.Add(1)
			default:
				t.Errorf("review: %s", body)
			}
		})
	}
	group.Wait()
	if n := p.Calls.Load(); clear.Load() != reviews || n > 200 {
		t.Errorf("%d of %d reviews say why, after %d calls", clear.Load(), reviews, n)
	}
}

// TestExternalDataInterval: what is judged by answers does not count much longer
// than they do.
func TestExternalDataInterval(t *testing.T) {
	r, _ := startAsking(t, new(atomic.Bool))
	for ttl, want := range map[time.Duration]time.Duration{0: time.Minute, 3 * time.Minute: 3 * time.Minute, time.Hour: 10 * time.Minute} {
		s := Server{cfg: &config.Config{Scan: r.cfg.Scan, Admission: config.Admission{ExternalData: config.ExternalData{CacheTTL: ttl}}}}
		s.force.Store(r.force.Load())
		if got := s.interval(); got != want {
			t.Errorf("answers are kept for %s: interval %s, want %s", ttl, got, want)
		}
	}
}

// TestExternalDataWithoutCertificate: a certificate that cannot be read is known
// at the start.
func TestExternalDataWithoutCertificate(t *testing.T) {
	opts := options(t, t.TempDir(), "admission: {externalData: {certFile: none.crt, keyFile: none.key}}\n")
	if _, err := New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "read client certificate for providers") {
		t.Errorf("error %v", err)
	}
	if _, err := config.Parse("c.yaml", []byte("admission: {externalData: {cacheTTL: 1}}")); err == nil {
		t.Error("a time without a unit is taken")
	}
}
