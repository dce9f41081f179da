package admission

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func openAuthority(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := OpenAuthority(t.Context(), FileKeys(dir))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve starts a TLS server that only lets clients of the authority through,
// and returns its URL.
func serve(t *testing.T, a *Authority, handler http.Handler) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", a.ServerTLS("127.0.0.1", "webhook.example"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: a.RequireClient(handler, nil)}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return "https://" + ln.Addr().String()
}

var accept = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })

// client returns a client that trusts the authority, with the changes of edit.
func client(a *Authority, edit func(*tls.Config)) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CABundle())
	config := &tls.Config{RootCAs: roots}
	edit(config)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
}

// TestKubeconfig goes the whole way of a review: the kubeconfig, used by
// client-go as in the API server, TLS, the handler and the built-in policies.
func TestKubeconfig(t *testing.T) {
	a := openAuthority(t, t.TempDir())
	url := serve(t, a, newHandler(builtIn(t), &recorder{}))
	text, err := a.Kubeconfig(url + "/audit")
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	if config.AuthInfos["*"] == nil {
		t.Error(`no user "*", by which the API server finds the credentials for every webhook`)
	}
	restConfig, err := clientcmd.NewDefaultClientConfig(*config, nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	c, err := rest.HTTPClientFor(restConfig)
	if err != nil {
		t.Fatal(err)
	}
	if got := postWith(t, c, strings.TrimSuffix(restConfig.Host, "/audit")+ValidatePath, podReview("shop", badSpec)); got.Allowed {
		t.Errorf("response = %+v, want a denial", got)
	}
}

// TestOtherCallers expects that no one else gets through.
func TestOtherCallers(t *testing.T) {
	a, stranger := openAuthority(t, t.TempDir()), openAuthority(t, t.TempDir())
	url := serve(t, a, accept)
	issue := func(by *Authority, usage x509.ExtKeyUsage, notAfter time.Time) tls.Certificate {
		cert, err := by.issue(&x509.Certificate{
			Subject: pkix.Name{CommonName: "kube-apiserver"}, NotAfter: notAfter, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			t.Fatal(err)
		}
		return *cert
	}
	later := time.Now().Add(time.Hour)
	tests := []struct {
		name string
		edit func(*tls.Config)
	}{
		{"no certificate", func(*tls.Config) {}},
		{"another authority", func(c *tls.Config) {
			cert := issue(stranger, x509.ExtKeyUsageClientAuth, later)
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		}},
		{"a serving certificate", func(c *tls.Config) { c.Certificates = []tls.Certificate{issue(a, x509.ExtKeyUsageServerAuth, later)} }},
		{"an expired certificate", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{issue(a, x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute))}
		}},
		{"TLS 1.2", func(c *tls.Config) {
			c.MaxVersion = tls.VersionTLS12
			c.Certificates = []tls.Certificate{issue(a, x509.ExtKeyUsageClientAuth, later)}
		}},
		{"a client that expects another host", func(c *tls.Config) {
			c.ServerName = "other.example"
			c.Certificates = []tls.Certificate{issue(a, x509.ExtKeyUsageClientAuth, later)}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp, err := client(a, test.edit).Get(url)
			if err != nil {
				return // the handshake failed
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("status %d, want 401 or no connection", resp.StatusCode)
			}
		})
	}
	good := client(a, func(c *tls.Config) { c.Certificates = []tls.Certificate{issue(a, x509.ExtKeyUsageClientAuth, later)} })
	resp, err := good.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("with a client certificate: status %d, want 204", resp.StatusCode)
	}
}

func TestHostNames(t *testing.T) {
	a := openAuthority(t, t.TempDir())
	url := serve(t, a, accept)
	for host, want := range map[string]bool{"webhook.example": true, "127.0.0.1": true, "webhook.example.org": false} {
		resp, err := client(a, func(c *tls.Config) { c.ServerName = host }).Get(url)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v, want trusted: %v", host, err, want)
		}
	}
}

// TestVerifiedWithoutTLS covers a listener that was set up wrongly.
func TestVerifiedWithoutTLS(t *testing.T) {
	if openAuthority(t, t.TempDir()).Verified(&http.Request{}) {
		t.Error("a request without TLS is verified")
	}
}

func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first := openAuthority(t, dir)
	if !bytes.Equal(first.CABundle(), openAuthority(t, dir).CABundle()) {
		t.Error("a second authority is made")
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "ca.pem"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("files = %v, %v; want one", files, err)
	}
	if left := time.Until(first.NotAfter()); left < 9*365*24*time.Hour || left > 11*365*24*time.Hour {
		t.Errorf("the authority expires on %s, want in ten years", first.NotAfter())
	}
}

// TestFirstUseByMany expects that all who open a new folder at once get the
// same authority.
func TestFirstUseByMany(t *testing.T) {
	dir := t.TempDir()
	bundles := make([][]byte, 16)
	var group sync.WaitGroup
	for i := range bundles {
		group.Go(func() {
			if a, err := OpenAuthority(t.Context(), FileKeys(dir)); err != nil {
				t.Error(err)
			} else {
				bundles[i] = a.CABundle()
			}
		})
	}
	group.Wait()
	for _, b := range bundles {
		if !bytes.Equal(b, bundles[0]) {
			t.Fatal("several authorities are made")
		}
	}
}

func TestAuthorityErrors(t *testing.T) {
	a, other := t.TempDir(), t.TempDir()
	openAuthority(t, a)
	openAuthority(t, other)
	read := func(dir string) (cert, key []byte) {
		data, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(data, []byte("-----BEGIN EC"))
		return data[:i], data[i:]
	}
	cert, key := read(a)
	_, otherKey := read(other)
	leaf, err := openAuthority(t, a).issue(&x509.Certificate{NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		content []byte
		mode    os.FileMode
		want    string
	}{
		{"empty", nil, 0o600, "want a certificate and its private key"},
		{"text", []byte("hello"), 0o600, "want a certificate in PEM"},
		{"no key", cert, 0o600, "a certificate has no private key"},
		{"no certificate", key, 0o600, "certificate"},
		{"half a key", append(bytes.Clone(cert), key[:len(key)/2]...), 0o600, "key"},
		{"a stray certificate", slices.Concat(cert, key, encode("CERTIFICATE", leaf.Certificate[0])), 0o600, "a certificate has no private key"},
		{"another key", append(bytes.Clone(cert), otherKey...), 0o600, "does not match"},
		{"not an authority", append(encode("CERTIFICATE", leaf.Certificate[0]), encode("PRIVATE KEY", leafKey)...), 0o600, "not a certificate authority"},
		{"open to others", append(bytes.Clone(cert), key...), 0o644, "mode is 0644, want 0600"},
		{"good", append(bytes.Clone(cert), key...), 0o600, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "ca.pem")
			if err := os.WriteFile(file, test.content, test.mode); err != nil {
				t.Fatal(err)
			}
			_, err := OpenAuthority(t.Context(), FileKeys(dir))
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("error = %v, want %q and %s", err, test.want, file)
			}
		})
	}
}

func TestAuthorityFolderErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(t.Context(), FileKeys(filepath.Join(file, "pki"))); err == nil || !strings.HasPrefix(err.Error(), "load certificate authority "+file) {
		t.Errorf("error = %v", err)
	}
}

// TestRotation moves the clock: the certificate that is served is replaced
// before it expires, and none outlives the authority.
func TestRotation(t *testing.T) {
	a := openAuthority(t, t.TempDir())
	now := time.Now()
	a.now = func() time.Time { return now }
	config := a.ServerTLS("webhook.example")
	serial := func() string {
		t.Helper()
		cert, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Leaf.NotAfter.After(now) || cert.Leaf.NotAfter.After(a.NotAfter()) {
			t.Errorf("on %s a certificate is served that expires on %s", now, cert.Leaf.NotAfter)
		}
		return cert.Leaf.SerialNumber.String()
	}
	first := serial()
	now = now.Add(servingLife / 2)
	if serial() != first {
		t.Error("replaced at half of its life")
	}
	now = now.Add(servingLife / 4)
	second := serial()
	if second == first {
		t.Error("not replaced at three quarters of its life")
	}
	now = a.NotAfter().Add(-time.Hour)
	serial()
}
