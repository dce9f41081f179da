package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// dial connects anew, sends a request and returns its status.
func dial(ctx context.Context, url string, bundle []byte, cert *tls.Certificate) (int, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	config := &tls.Config{RootCAs: roots}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func clientCertificate(t *testing.T, a *Authority, name string) *tls.Certificate {
	t.Helper()
	cert, err := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestRotationUnderLoad hammers two servers that share an authority, with new
// connections by clients that were never told of a change and by clients that
// follow it, while the authority is replaced three times, and expects no error.
func TestRotationUnderLoad(t *testing.T) {
	dir := t.TempDir()
	first, second := openAuthority(t, dir), openAuthority(t, dir)
	urls := []string{serve(t, first, accept), serve(t, second, accept)}
	oldBundle, oldCert := first.CABundle(), clientCertificate(t, first, "kube-apiserver")
	ctx, stop := context.WithCancel(t.Context())
	var done atomic.Int64
	var group sync.WaitGroup
	hammer := func(name string, bundle func() []byte, cert func() *tls.Certificate) {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				code, err := dial(t.Context(), urls[i%2], bundle(), cert())
				if err != nil || code != http.StatusNoContent {
					t.Errorf("%s: %d %v", name, code, err)
					return
				}
				done.Add(1)
			}
		})
	}
	hammer("a client that knows the first generation only", func() []byte { return oldBundle }, func() *tls.Certificate { return oldCert })
	hammer("a client that follows one server", first.CABundle, func() *tls.Certificate { return oldCert })
	hammer("a client that follows the other server", second.CABundle, func() *tls.Certificate { return oldCert })
	hammer("a client with a certificate of the newest generation", func() []byte { return oldBundle }, func() *tls.Certificate { return clientCertificate(t, first, "kube-apiserver") })
	for range 3 {
		if err := first.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
		for before := done.Load(); done.Load() < before+50 && !t.Failed(); { // the other server has not heard of it
			time.Sleep(time.Millisecond)
		}
		if err := second.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		for before := done.Load(); done.Load() < before+50 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	group.Wait()
	if n := len(second.generations()); n != 4 {
		t.Errorf("%d generations, want 4", n)
	}
	t.Logf("%d connections", done.Load())
}

// TestAuthorityIsRenewed moves the clock: a new generation comes when a third of
// the life is left, and the old one goes when it has expired.
func TestAuthorityIsRenewed(t *testing.T) {
	a := openAuthority(t, t.TempDir())
	now := time.Now()
	a.now = func() time.Time { return now }
	generations := func() int {
		t.Helper()
		if err := a.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(a.generations())
	}
	oldest := a.NotAfter()
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {authorityLife / 2, 1}, {authorityLife * 7 / 10, 2}, {authorityLife * 9 / 10, 2}, {authorityLife + time.Hour, 1}} {
		now = oldest.Add(step.after - authorityLife)
		if got := generations(); got != step.want {
			t.Errorf("%d generations after %s, want %d", got, step.after, step.want)
		}
	}
	if !a.NotAfter().After(oldest) {
		t.Error("the authority that expired is trusted")
	}
}

// TestRotationHasAnEnd expects an error rather than an endless bundle.
func TestRotationHasAnEnd(t *testing.T) {
	a := openAuthority(t, t.TempDir())
	var err error
	for range maxGenerations {
		err = a.Rotate(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "8 generations are valid still") || len(a.generations()) != maxGenerations {
		t.Errorf("error = %v with %d generations", err, len(a.generations()))
	}
}

// TestRingSurvivesTheFile writes and reads several generations.
func TestRingSurvivesTheFile(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, dir)
	if err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b := openAuthority(t, dir); !bytes.Equal(a.CABundle(), b.CABundle()) || b.newest().cross == nil || bytes.Count(b.CABundle(), []byte("BEGIN CERTIFICATE")) != 2 {
		t.Errorf("another process reads %d generations: %s", len(b.generations()), b.CABundle())
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("files = %v, %v; want one", files, err)
	}
}

// secrets is a cluster with an empty Secret, whose API compares versions as the
// real one does: the fake client alone does not.
func secrets(t *testing.T) *fake.Clientset {
	t.Helper()
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kubeguardian", Name: "authority", ResourceVersion: "1"}})
	var mu sync.Mutex
	client.PrependReactor("update", "secrets", func(action k8stesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		secret := action.(k8stesting.UpdateAction).GetObject().(*corev1.Secret).DeepCopy()
		now, err := client.Tracker().Get(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, secret.Namespace, secret.Name)
		if err != nil {
			return true, nil, err
		}
		if now.(*corev1.Secret).ResourceVersion != secret.ResourceVersion {
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, secret.Name, errors.New("changed"))
		}
		secret.ResourceVersion += "1"
		return true, secret, client.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, secret, secret.Namespace)
	})
	return client
}

// TestReplicasShareASecret opens an empty Secret by many replicas at once and
// expects one authority, then rotates it by all of them at once.
func TestReplicasShareASecret(t *testing.T) {
	client := secrets(t)
	replicas := make([]*Authority, 4)
	var group sync.WaitGroup
	for i := range replicas {
		group.Go(func() {
			var err error
			if replicas[i], err = OpenAuthority(t.Context(), SecretKeys(client, "kubeguardian", "authority")); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, a := range replicas {
		if !bytes.Equal(a.CABundle(), replicas[0].CABundle()) {
			t.Fatal("several authorities are made")
		}
	}
	for _, a := range replicas {
		group.Go(func() {
			if err := a.Rotate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i, a := range replicas {
		if err := a.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(a.generations()); n != 1+len(replicas) || !bytes.Equal(a.CABundle(), replicas[0].CABundle()) {
			t.Errorf("replica %d has %d generations", i, n)
		}
	}
	_, err := OpenAuthority(t.Context(), SecretKeys(client, "kubeguardian", "missing"))
	if err == nil || !strings.Contains(err.Error(), "Secret kubeguardian/missing") || !strings.Contains(err.Error(), "setup rbac") {
		t.Errorf("error without the Secret = %v", err)
	}
}

// TestConfiguredClients accepts the API server by the authority of the cluster,
// and none of its other clients.
func TestConfiguredClients(t *testing.T) {
	a, cluster := openAuthority(t, t.TempDir()), openAuthority(t, t.TempDir())
	url := serve(t, a, accept)
	apiServer := clientCertificate(t, cluster, "kube-apiserver-client")
	if code, err := dial(t.Context(), url, a.CABundle(), apiServer); err == nil && code == http.StatusNoContent {
		t.Error("a client of an unknown authority gets through")
	}
	if err := a.TrustClients(cluster.CABundle(), "kube-apiserver-client"); err != nil {
		t.Fatal(err)
	}
	if code, err := dial(t.Context(), url, a.CABundle(), apiServer); err != nil || code != http.StatusNoContent {
		t.Errorf("the API server gets %d, %v", code, err)
	}
	if code, err := dial(t.Context(), url, a.CABundle(), clientCertificate(t, cluster, "mallory")); err == nil && code != http.StatusUnauthorized {
		t.Errorf("another client of the cluster gets %d", code)
	}
	for _, text := range []string{"", "hello", "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"} {
		if err := a.TrustClients([]byte(text), "x"); err == nil {
			t.Errorf("%q is taken as an authority", text)
		}
	}
	if err := a.TrustClients(cluster.CABundle()); err == nil {
		t.Error("all clients of an authority are trusted")
	}
}

func FuzzParseRing(f *testing.F) {
	dir := f.TempDir()
	a, err := OpenAuthority(f.Context(), FileKeys(dir))
	if err != nil {
		f.Fatal(err)
	}
	if err := a.Rotate(f.Context()); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ring, err := parseRing(text)
		if err != nil {
			return
		}
		again, err := formatRing(ring)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := parseRing(again); err != nil || len(other) != len(ring) {
			t.Errorf("%d generations are read as %d: %v", len(ring), len(other), fmt.Sprint(err))
		}
	})
}
