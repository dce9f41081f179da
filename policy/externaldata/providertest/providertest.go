// Package providertest runs external data providers for tests: real servers that
// speak TLS 1.3 and want a client certificate.
package providertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// A Provider is a server on loopback.
type Provider struct {
	URL      string
	CABundle string       // who issues its certificate, as a Provider object has it
	CertFile string       // of a client that may ask
	KeyFile  string       // of the same
	Calls    atomic.Int64 // that came with a certificate

	authority *Authority
}

// An Authority issues certificates.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// New starts a provider that answers by a handler until the test ends.
func New(t testing.TB, handler http.Handler) *Provider {
	t.Helper()
	return Until(t, time.Now().Add(time.Hour), handler)
}

// Until is New for a server whose certificate expires.
func Until(t testing.TB, end time.Time, handler http.Handler) *Provider {
	t.Helper()
	return start(t, NewAuthority(t), end, handler)
}

// Beside starts another provider, for clients with the same certificate.
func (p *Provider) Beside(t testing.TB, handler http.Handler) *Provider {
	t.Helper()
	return start(t, p.authority, time.Now().Add(time.Hour), handler)
}

func start(t testing.TB, authority *Authority, end time.Time, handler http.Handler) *Provider {
	t.Helper()
	p := &Provider{authority: authority}
	clients := x509.NewCertPool()
	clients.AddCert(p.authority.certificate)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Calls.Add(1)
		handler.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		Certificates: []tls.Certificate{p.authority.issue(t, "provider", end)},
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	p.URL = server.URL + "/answer"
	p.CABundle = p.authority.Bundle()
	dir := t.TempDir()
	p.CertFile, p.KeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	p.authority.Write(t, p.CertFile, p.KeyFile)
	return p
}

// Document returns the Provider object for the server.
func (p *Provider) Document(name string) string {
	return fmt.Sprintf("apiVersion: externaldata.gatekeeper.sh/v1beta1\nkind: Provider\nmetadata: {name: %s}\nspec: {url: %q, timeout: 2, caBundle: %s}\n", name, p.URL, p.CABundle)
}

// NewAuthority returns an authority that nobody trusts yet.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{certificate: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// Bundle returns the certificate of the authority as caBundle of a Provider.
func (a *Authority) Bundle() string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

// issue returns a certificate for a name and the loopback address.
func (a *Authority) issue(t testing.TB, name string, end time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Write writes a certificate of a client to files.
func (a *Authority) Write(t testing.TB, certFile, keyFile string) {
	t.Helper()
	pair := a.issue(t, "client", time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Renew writes a new certificate of a client that may ask.
func (p *Provider) Renew(t testing.TB) {
	t.Helper()
	p.authority.Write(t, p.CertFile, p.KeyFile)
}

// Answers returns a handler that says of each key what a function says: a value,
// or an error that is not empty.
func Answers(of func(key string) (value any, problem string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			APIVersion, Kind string
			Request          struct{ Keys []string }
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.Kind != "ProviderRequest" || request.APIVersion != "externaldata.gatekeeper.sh/v1beta1" {
			http.Error(w, "want a ProviderRequest", http.StatusBadRequest)
			return
		}
		items := []map[string]any{}
		for _, key := range request.Request.Keys {
			value, problem := of(key)
			item := map[string]any{"key": key}
			if problem != "" {
				item["error"] = problem
			} else {
				item["value"] = value
			}
			items = append(items, item)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse",
			"response": map[string]any{"idempotent": true, "items": items},
		}); err != nil {
			panic(http.ErrAbortHandler) // the client sees it
		}
	})
}
