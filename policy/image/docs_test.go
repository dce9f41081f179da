package image

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubeguardian/kubeguardian/policy"
)

const page = "../../docs/images.md"

// block returns a fenced block of the page.
func block(t *testing.T, info string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n```"+info+"\n")
	inside, _, closed := strings.Cut(rest, "\n```\n")
	if !ok || !closed {
		t.Fatalf("%s has no block %q", page, info)
	}
	return inside + "\n"
}

// example is where the page's example happens: its registry, over TLS, with the
// images that it speaks of.
type example struct {
	*hub
	transport http.RoundTripper
	release   key
	pipeline  transparent
}

func newExample(t *testing.T) example {
	t.Helper()
	e := example{hub: newHub(t, true), release: newKey(t), pipeline: newTransparent(t)}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.serve(w, r) }))
	t.Cleanup(front.Close)
	e.transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: front.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != "registry.example.com:443" {
				return nil, fmt.Errorf("%s is asked, which the policy does not allow", address)
			}
			return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(front.URL, "https://"))
		},
	}
	return e
}

// image stores an image with all that the policy wants, as far as it is given.
func (e example) image(name, source string, severity string) {
	e.t.Helper()
	at := e.push("shop/" + name + ":1")
	if source == "" {
		return
	}
	const who, vouching = "https://github.com/acme/shop/.github/workflows/release.yml@refs/tags/v1", "https://token.actions.githubusercontent.com"
	e.cosign(at, ".sig", e.release.simple(claim(at.DigestStr())))
	report := map[string]any{"SchemaVersion": 2, "Results": []any{map[string]any{"Vulnerabilities": []any{
		map[string]any{"VulnerabilityID": "CVE-2026-0001", "Severity": "HIGH"},
		map[string]any{"VulnerabilityID": "CVE-2026-0002", "Severity": severity},
	}}}}
	e.refer(at, e.pipeline.bundle(who, vouching, e.pipeline.log, inToto(e.t, at.DigestStr(), slsa, map[string]any{
		"buildDefinition": map[string]any{"resolvedDependencies": []any{map[string]any{"uri": source}}},
		"runDetails":      map[string]any{"builder": map[string]any{"id": "https://github.com/actions/runner/github-hosted"}},
	})))
	e.refer(at, e.pipeline.bundle(who, vouching, e.pipeline.log, inToto(e.t, at.DigestStr(), cosignVulnerabilities, scan(time.Now(), time.Now(), report))))
	if _, err := remote.Head(at); err != nil {
		e.t.Fatal(err)
	}
}

// TestPage loads the policies of the page and compares what it says of images.
func TestPage(t *testing.T) {
	e := newExample(t)
	e.image("web", "git+https://github.com/acme/shop@refs/tags/v1", "MEDIUM")
	e.image("unsigned", "", "")
	e.image("fork", "git+https://github.com/mallory/shop@refs/tags/v1", "LOW")
	e.image("holes", "git+https://github.com/acme/shop@refs/tags/v1", "CRITICAL")
	set, err := New(Options{Transport: e.transport}).Load(
		policy.File{Name: page, Data: []byte(block(t, "yaml policy"))},
		policy.File{Name: "release.pub", Data: []byte(e.release.public())},
		policy.File{Name: "trusted_root.json", Data: e.pipeline.trusted()},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := block(t, "text answers")
	var have strings.Builder
	for line := range strings.Lines(want) {
		if strings.HasPrefix(line, " ") {
			continue
		}
		have.WriteString(line)
		answer(t, &have, set, strings.TrimSpace(line))
	}
	text := regexp.MustCompile(`sha256:[0-9a-f]{64}`).ReplaceAllString(have.String(), "sha256:...")
	if text != want {
		t.Errorf("%s says\n%s\nbut it is\n%s", page, want, text)
	}
}

// answer writes what both phases of admission make of a pod with an image.
func answer(t *testing.T, out *strings.Builder, set *Set, image string) {
	t.Helper()
	req := podOf(image)
	req.Namespaces = policy.NamespacesFunc(func(_ context.Context, name string) (*corev1.Namespace, error) {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"stage": "production"}}}, nil
	})
	object, _, err := set.Mutate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if now := imagesIn(object)[0]; now != image {
		fmt.Fprintf(out, "  becomes %s\n", now)
	}
	req.Object = object
	found, err := set.Evaluate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		fmt.Fprintf(out, "  %s: [%s] %s\n", v.Enforcement, v.Policy, v.Message)
	}
}
