package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// secured starts a registry with a certificate that nobody knows, for the user
// me with a password.
func secured(t *testing.T, password string) (host string, ca []byte) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, given, _ := r.BasicAuth(); user != "me" || given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "https://"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// authority returns the certificate of one that vouches for nobody here.
func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// write puts a text into a file, later than what was there before.
func write(t *testing.T, file string, data []byte) {
	t.Helper()
	before, err := os.Stat(file)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
		later := before.ModTime().Add(time.Second)
		if err == nil {
			err = os.Chtimes(file, later, later)
		}
	} else {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAccess pushes to a registry with an authority and a password of its own,
// while both files change.
func TestAccess(t *testing.T) {
	host, ca := secured(t, "new")
	foreign := authority(t)
	dir := t.TempDir()
	caFile, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "config.json")
	credentials := func(password string) []byte {
		return []byte(`{"auths": {"` + host + `": {"username": "me", "password": "` + password + `"}}}`)
	}
	write(t, caFile, ca)
	write(t, config, credentials("old"))
	access, err := New(Options{CredentialsFile: config, Authorities: []Authority{{Host: host, CAFile: caFile}}})
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	push := func(access *Access) string {
		tag, err := name.NewTag(host + "/shop/web:1")
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(tag, image, remote.WithTransport(access), remote.WithAuthFromKeychain(access)); err != nil {
			return err.Error()
		}
		return ""
	}
	expect := func(when, got, want string) {
		t.Helper()
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	expect("old password", push(access), "401 Unauthorized")
	write(t, config, credentials("new"))
	expect("new password", push(access), "")
	write(t, config, []byte("{"))
	expect("broken password", push(access), "config.json: parse Docker configuration")
	write(t, config, credentials("new"))
	expect("mended password", push(access), "")
	write(t, caFile, foreign)
	expect("another authority", push(access), "certificate signed by unknown authority")
	write(t, caFile, []byte("none"))
	expect("broken authority", push(access), "ca.pem: no certificate in PEM")
	write(t, caFile, ca)
	expect("mended authority", push(access), "")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	expect("removed password", push(access), "no such file")

	plain, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect("a registry on this machine that nobody named", push(plain), "address 127.0.0.1 is not that of a registry")
}

func TestBadOptions(t *testing.T) {
	dir := t.TempDir()
	ca, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "config.json")
	write(t, ca, []byte("-----BEGIN CERTIFICATE-----"))
	write(t, config, make([]byte, maxFileBytes+1))
	_, err := New(Options{CredentialsFile: config, Authorities: []Authority{{"a.example.com", ca}, {"A.example.com:443", ca}, {"b.example.com", filepath.Join(dir, "none")}}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"config.json: file has 3145729 bytes", "ca.pem: no certificate in PEM", "registry a.example.com has two authorities", "no such file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
}

// TestPlain keeps requests from going over the wire unprotected.
func TestPlain(t *testing.T) {
	access, err := New(Options{AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"http://registry.example.com/v2/": "registries are asked by HTTPS only",
		"http://10.0.0.1/v2/":             "registries are asked by HTTPS only",
		"https://169.254.169.254/v2/":     "address 169.254.169.254 is not that of a registry",
		"http://127.0.0.1:1/v2/":          "connection refused",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := access.RoundTrip(req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}
