package oracle

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
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// providers starts a server for both sides, which wants a client certificate. It
// is several providers, by the path: good, plain (whose answers are not
// idempotent), failing (whose system has an error), down (the same with the status
// 503), and broken (which gives no answer). There is none called lost.
func providers(t *testing.T) Outer {
	t.Helper()
	dir := t.TempDir()
	out := Outer{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	certificate := writeCertificate(t, out.CertFile, out.KeyFile)
	var err error
	if out.certificate, err = certwatcher.New(out.CertFile, out.KeyFile); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	bundle := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}))
	var all []string
	for _, name := range []string{"good", "plain", "failing", "down", "broken"} {
		all = append(all, string(raw(object{
			"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "Provider", "metadata": object{"name": name},
			"spec": object{"url": server.URL + "/" + name, "timeout": 10, "caBundle": bundle},
		})))
	}
	out.Providers = strings.Join(all, "\n---\n")
	return out
}

func writeCertificate(t *testing.T, certFile, keyFile string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "provider"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// answer says of each key something that follows from it.
func answer(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Request struct{ Keys []string }
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || r.URL.Path == "/broken" {
		fmt.Fprint(w, "not now")
		return
	}
	items := []any{}
	for _, key := range request.Request.Keys {
		if item := answerTo(key); item != nil {
			items = append(items, item)
		}
	}
	response := object{"idempotent": r.URL.Path != "/plain", "items": items}
	if r.URL.Path == "/failing" || r.URL.Path == "/down" {
		response["systemError"] = "half of it is down"
	}
	if r.URL.Path == "/down" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintf(w, "%s", raw(object{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": response}))
}

func answerTo(key string) object {
	values := map[string]any{
		"number": 7, "large": json.Number("12345678901234567890"), "huge": 1e21, "small": 1e-7, "half": 0.5, "list": []any{1, "a", nil}, "object": object{"a": object{"b": true}}, "null": nil,
	}
	value, special := values[key]
	switch {
	case key == "nothing":
		return nil
	case special:
		return object{"key": key, "value": value}
	case strings.HasPrefix(key, "docker.io/"), key == "text":
		return object{"key": key, "error": "not known"}
	case key == "registry.example.com/agent:2":
		return object{"key": key, "value": 2}
	}
	return object{"key": key, "value": "known " + key}
}
