package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// falcoAlert returns an alert of a time, which retention tells old ones by.
func falcoAlert(at time.Time) string {
	return fmt.Sprintf(`{"hostname":"node-1","output":"10:20:30.123456789: Notice A shell was spawned","output_fields":{"container.id":"3f2a9c01d7be",`+
		`"evt.time":%d,"k8s.ns.name":"shop","k8s.pod.name":"web-0"},"priority":"Notice","rule":"Terminal shell in container",`+
		`"source":"syscall","tags":["mitre_execution"],"time":%q}`, at.UnixNano(), at.UTC().Format(time.RFC3339Nano))
}

// TestFalcoReportsHere: an alert of Falco is on the page once, however often it
// is sent, and outlives a restart.
func TestFalcoReportsHere(t *testing.T) {
	dir := t.TempDir()
	r := start(t, options(t, dir, "falco: {listen: '127.0.0.1:0'}\n"))
	token, err := os.ReadFile(filepath.Join(dir, "falco-token"))
	if err != nil {
		t.Fatal(err)
	}
	to := url.URL{Scheme: "http", Host: r.falcoListener.Addr().String(), Path: "/", User: url.UserPassword("falco", strings.TrimSpace(string(token)))}
	client := &http.Client{}
	send := func(url, body string) int {
		t.Helper()
		resp, err := client.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	now := time.Now()
	alert := falcoAlert(now)
	for range 2 {
		if code := send(to.String(), alert); code != http.StatusOK {
			t.Fatalf("alert: %d", code)
		}
	}
	if code := send("http://"+to.Host, alert); code != http.StatusUnauthorized {
		t.Errorf("without the token: %d", code)
	}
	if code := send(to.String(), "{}"); code != http.StatusBadRequest {
		t.Errorf("no alert: %d", code)
	}
	if n := r.alerts(); n != 1 {
		t.Errorf("%d alerts, want 1", n)
	}
	_, body := r.page("/api/v1/alerts")
	for _, want := range []string{`"name":"web-0"`, fmt.Sprintf(`"evt.time":%d`, now.UnixNano()), `"tactics":["execution"]`, `{"kind":"pod","name":"shop/web-0"}`} {
		if !strings.Contains(body, want) {
			t.Errorf("the alert does not have %s: %s", want, body)
		}
	}
	_, metrics := r.page("/metrics")
	for status, n := range map[string]int{"accepted": 2, "rejected": 2, "failed": 0} {
		if want := fmt.Sprintf("falcosecurity_falcosidekick_inputs_total{source=\"requests\",status=%q} %d\n", status, n); !strings.Contains(metrics, want) {
			t.Errorf("metrics do not have %s", want)
		}
	}
	for cause, n := range map[string]int{"unauthorized": 1, "invalid": 1, "too_large": 0} {
		if want := fmt.Sprintf("kubeguardian_falco_requests_refused_total{cause=%q} %d\n", cause, n); !strings.Contains(metrics, want) {
			t.Errorf("metrics do not have %s", want)
		}
	}
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	if code := send(to.String(), alert); code != http.StatusServiceUnavailable {
		t.Errorf("an alert that cannot be stored: %d, want 503", code)
	}
}

// TestFalcoByCertificate: with authorities of senders, who has no certificate of
// theirs gets no answer at all.
func TestFalcoByCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "sender", ca, caKey)
	certificate(t, dir, "stranger", nil, nil)
	file := func(name string) string { return filepath.Join(dir, name) }
	r := start(t, options(t, t.TempDir(), fmt.Sprintf("falco: {listen: '127.0.0.1:0', certFile: %s, keyFile: %s, clientCAFile: %s}\n",
		file("server.crt"), file("server.key"), file("ca.crt"))))
	alert := falcoAlert(time.Now())
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for name, want := range map[string]bool{"sender": true, "stranger": false, "": false} {
		cfg := &tls.Config{RootCAs: roots}
		if name != "" {
			pair, err := tls.LoadX509KeyPair(file(name+".crt"), file(name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Certificates = []tls.Certificate{pair}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
		resp, err := client.Post("https://"+r.falcoListener.Addr().String(), "application/json", strings.NewReader(alert))
		if ok := err == nil && resp.StatusCode == http.StatusOK; ok != want {
			t.Errorf("sender %q: accepted %t (%v), want %t", name, ok, err, want)
		}
		client.CloseIdleConnections()
	}
	if n := r.alerts(); n != 1 {
		t.Errorf("%d alerts, want 1", n)
	}
}

// certificate writes name.crt and name.key, signed by an authority or by itself.
func certificate(t *testing.T, dir, name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: ca == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		var text bytes.Buffer
		if err := pem.Encode(&text, block); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+suffix), text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestFalcoNeedsItsFiles(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, "server", nil, nil)
	pair := fmt.Sprintf("certFile: %[1]s/server.crt, keyFile: %[1]s/server.key", dir)
	for extra, want := range map[string]string{
		"falco: {listen: '127.0.0.1:0', certFile: none, keyFile: none}":                "load certificate of falco.listen",
		"falco: {listen: '127.0.0.1:0', " + pair + ", clientCAFile: none}":             "load authorities of senders",
		"falco: {listen: '127.0.0.1:0', " + pair + ", clientCAFile: ../go.mod}":        "has no certificate in PEM",
		"falco: {listen: '127.0.0.1:0', tokenFile: " + dir + "/server.crt/token}":      "falco: read login token",
		"falco: {listen: '" + silent(t).Host[len("http://"):] + "', tokenFile: token}": "bind falco listener",
	} {
		extra = strings.Replace(extra, "tokenFile: token", "tokenFile: "+filepath.Join(dir, "token"), 1)
		s, err := New(t.Context(), options(t, t.TempDir(), extra+"\n"))
		if err == nil {
			s.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", extra, err, want)
		}
	}
}

// TestFromFalcoToOtherSystems: an alert of Falco goes out as those of our own
// rules do.
func TestFromFalcoToOtherSystems(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(t.TempDir(), "out")
	r := start(t, options(t, dir, fmt.Sprintf(`
falco: {listen: '127.0.0.1:0'}
notify:
  destinations:
  - {name: lake, type: file, config: {folder: %s, format: ocsf-1.8.0}}
  routes:
  - {to: [lake], of: alerts, match: ['namespace="shop"'], groupWait: 0s}`, folder)))
	token, err := os.ReadFile(filepath.Join(dir, "falco-token"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+r.falcoListener.Addr().String(), strings.NewReader(falcoAlert(time.Now())))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("alert: %d", resp.StatusCode)
	}
	var line []byte
	for deadline := time.Now().Add(2 * time.Minute); len(line) == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(folder, "*.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if line, err = os.ReadFile(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range []string{`"class_uid":2004`, `"title":"Terminal shell in container"`, `"uid":"Pod/shop/web-0"`, `"cluster":"test"`, `"severity":"Low"`, `"uid":"TA0002"`} {
		if !bytes.Contains(line, []byte(want)) {
			t.Errorf("no %s in %q", want, line)
		}
	}
}
