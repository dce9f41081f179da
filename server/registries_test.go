package server

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/policy"
)

// A hub is a registry with a certificate of its own, which wants a password.
type ociHub struct {
	*httptest.Server
	host   string
	config string // the section of a configuration that knows it
}

func newHub(t *testing.T) *ociHub {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h := &ociHub{Server: httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))}
	t.Cleanup(h.Close)
	h.host = strings.TrimPrefix(h.URL, "https://")
	dir := t.TempDir()
	ca, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, ".dockerconfigjson")
	err := errors.Join(
		os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o600),
		os.WriteFile(config, fmt.Appendf(nil, `{"auths": {%q: {"username": "me", "password": "secret"}}}`, h.host), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	h.config = fmt.Sprintf("registries: {credentialsFile: %q, authorities: [{host: %q, caFile: %q}]}\n", config, h.host, ca)
	return h
}

// TestPoliciesFromRegistry takes policies from a registry, also when it is away
// but was there before, and asks it about images.
func TestPoliciesFromRegistry(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	options := func(t *testing.T, dir, policies string) Options {
		opts := options(t, dir, fmt.Sprintf("admission: {policies: [%q]}\n", policies)+h.config)
		opts.Cluster = small(t)
		return opts
	}
	// The server that pushes has no policies from there yet.
	pusher := start(t, options(t, t.TempDir(), write(t, template)))
	pinned, err := pusher.artifacts.Push(t.Context(), "oci://"+h.host+"/team/policies:1", []policy.File{
		{Name: "owned.yaml", Data: []byte(template)},
		{Name: "images.yaml", Data: []byte("apiVersion: kubeguardian.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: pinned}\nspec: {validationActions: [Deny], match: {images: ['**']}}\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	image, digest := pushImage(t, pusher, h.host+"/shop/web:1")

	for _, when := range []string{"there", "away"} {
		t.Run(when, func(t *testing.T) {
			r := start(t, options(t, dir, pinned))
			if _, body := r.webhook("/admit", podReview("alice", `"labels":{}`, "nginx@"+digest)); !strings.Contains(body, "[OwnedPod] say whose it is") {
				t.Errorf("no owner: %s", body)
			}
			_, body := r.webhook("/admit", podReview("alice", `"labels":{"owner":"shop"}`, image))
			want, counted := "write "+image+"@"+digest, "kubeguardian_image_verification_failures_total 0"
			if when == "away" {
				want, counted = "it could not be verified", "kubeguardian_image_verification_failures_total 1"
			}
			if !strings.Contains(body, want) {
				t.Errorf("image: %s, want %s", body, want)
			}
			if _, metrics := r.page("/metrics"); !strings.Contains(metrics, counted) {
				t.Errorf("metrics do not have %s", counted)
			}
		})
		h.Close()
	}
	t.Run("never read", func(t *testing.T) {
		if _, err := New(t.Context(), options(t, t.TempDir(), pinned)); err == nil || !strings.Contains(err.Error(), "load policies: read policies from "+pinned) {
			t.Errorf("New = %v", err)
		}
	})
	t.Run("uninstall", func(t *testing.T) { // needs no policies
		opts := options(t, t.TempDir(), pinned)
		var asked atomic.Int64
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			if r.Method == http.MethodGet { // no server is marked as being removed
				w.WriteHeader(http.StatusNotFound)
				fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
				return
			}
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
		}))
		defer api.Close()
		opts.Cluster = &rest.Config{Host: api.URL}
		if _, err := Uninstall(context.Background(), opts); err != nil || asked.Load() == 0 {
			t.Errorf("Uninstall = %v, %d requests", err, asked.Load())
		}
	})
}

// TestTagOfPolicies is refused, with what to write.
func TestTagOfPolicies(t *testing.T) {
	h := newHub(t)
	opts := options(t, t.TempDir(), fmt.Sprintf("admission: {policies: [%q]}\n", "oci://"+h.host+"/team/policies:1")+h.config)
	_, err := New(t.Context(), opts)
	var hint interface{ Hint() string }
	if !errors.As(err, &hint) || !strings.Contains(err.Error(), "an artifact is named by its digest") {
		t.Errorf("New = %v", err)
	}
	opts = options(t, t.TempDir(), "registries: {credentialsFile: none}\n")
	if _, err := New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "open registries: stat none: no such file") {
		t.Errorf("New = %v", err)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pushImage stores an image by the access that a server has.
func pushImage(t *testing.T, r *running, at string) (image, digest string) {
	t.Helper()
	access, err := registryAccess(r.cfg.Registries, false)
	if err != nil {
		t.Fatal(err)
	}
	made, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, made, remote.WithTransport(access), remote.WithAuthFromKeychain(access)); err != nil {
		t.Fatal(err)
	}
	hash, err := made.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return at, hash.String()
}
