package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigure(t *testing.T) {
	dir := t.TempDir()
	if err := configure(dir, 6443, options{WebhookKubeconfig: "/etc/webhook.kubeconfig"}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, id := range identities(false) {
		t.Run(id.file, func(t *testing.T) {
			c, err := newClient(filepath.Join(dir, id.file+".kubeconfig"))
			if err != nil {
				t.Fatal(err)
			}
			if c.server != "https://127.0.0.1:6443" {
				t.Errorf("server = %s", c.server)
			}
			leaf := clientCertificate(t, c)
			if leaf.Subject.CommonName != id.user || strings.Join(leaf.Subject.Organization, ",") != id.group {
				t.Errorf("certificate of %s, want %s in %s", leaf.Subject, id.user, id.group)
			}
			verify(t, leaf, filepath.Join(dir, "pki", "ca.crt"), x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		})
	}
	got, err := os.ReadFile(filepath.Join(dir, "audit-policy.yaml"))
	if err != nil || string(got) != string(auditPolicy) {
		t.Errorf("audit policy: %v, not the embedded one", err)
	}
}

func TestConfigureTakesTheGivenAuditPolicy(t *testing.T) {
	dir := t.TempDir()
	given := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(given, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := configure(dir, 1, options{AuditPolicy: given}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "audit-policy.yaml")); err != nil || string(got) != "mine" {
		t.Errorf("audit policy: %q, %v", got, err)
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	if _, err := writeCertificates(dir); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		issuer string
		opts   x509.VerifyOptions
	}{
		"apiserver":          {"ca", x509.VerifyOptions{DNSName: "kubernetes.default.svc"}},
		"front-proxy-client": {"front-proxy-ca", x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}},
	} {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		verify(t, cert.Leaf, filepath.Join(dir, tt.issuer+".crt"), tt.opts)
		for _, host := range []string{"127.0.0.1", "localhost", serviceIP} {
			if name == "apiserver" && cert.Leaf.VerifyHostname(host) != nil {
				t.Errorf("the API server's certificate is not for %s", host)
			}
		}
	}
}

func clientCertificate(t *testing.T, c *client) *x509.Certificate {
	t.Helper()
	return c.http.Transport.(*http.Transport).TLSClientConfig.Certificates[0].Leaf
}

func verify(t *testing.T, cert *x509.Certificate, caFile string, opts x509.VerifyOptions) {
	t.Helper()
	ca, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	opts.Roots, opts.CurrentTime = x509.NewCertPool(), time.Now()
	opts.Roots.AppendCertsFromPEM(ca)
	if _, err := cert.Verify(opts); err != nil {
		t.Errorf("%s: %v", cert.Subject, err)
	}
}

func TestAPIServerWebhook(t *testing.T) {
	about := func(args []string) (webhook []string) {
		for _, a := range args {
			if strings.Contains(a, "webhook") || strings.Contains(a, "admission-control") {
				webhook = append(webhook, a)
			}
		}
		return webhook
	}
	if got := about(apiServer("/lab", 1, options{}).args); got != nil {
		t.Errorf("without a webhook: %v", got)
	}
	want := []string{
		"--audit-webhook-config-file=/hook", "--audit-webhook-batch-max-wait=1s",
		"--audit-webhook-initial-backoff=10s", "--admission-control-config-file=/lab/admission.json",
	}
	if got := about(apiServer("/lab", 1, options{WebhookKubeconfig: "/hook"}).args); !slices.Equal(got, want) {
		t.Errorf("with a webhook: %v, want %v", got, want)
	}
	var config struct {
		Plugins []struct {
			Name          string
			Configuration struct{ KubeConfigFile string }
		}
	}
	if err := json.Unmarshal(admissionConfig("/hook"), &config); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range config.Plugins {
		names = append(names, p.Name+" "+p.Configuration.KubeConfigFile)
	}
	if got := strings.Join(names, ", "); got != "MutatingAdmissionWebhook /hook, ValidatingAdmissionWebhook /hook" {
		t.Errorf("admission plugins: %s", got)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/a b": `'/a b'`, "/it's": `'/it'\''s'`} {
		if got := quote(in); got != want {
			t.Errorf("quote(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	dir := canonical(t.TempDir())
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if got, want := canonical(filepath.Join(dir, "link", "new", "lab")), filepath.Join(dir, "new", "lab"); got != want {
		t.Errorf("canonical = %s, want %s", got, want)
	}
}

func TestNewClientRefusesADamagedFile(t *testing.T) {
	for name, text := range map[string]string{
		"empty":       "",
		"not base64":  "certificate-authority-data: !\n",
		"no key pair": "client-certificate-data: YQ==\nclient-key-data: YQ==\n",
	} {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newClient(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
