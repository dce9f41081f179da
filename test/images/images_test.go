// Package images tests that what the reference application's images bring along
// is what KubeGuardian wants to see: at admission, and in a scan.
package images

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

const root = "../.."

var services = []string{"application", "auth", "gateway", "offer"}

// newKey writes a key pair, and returns the file of each half.
func newKey(t *testing.T) (private, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	known, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key.pem"), filepath.Join(dir, "key.pub")
	for file, block := range map[string]*pem.Block{private: {Type: "PRIVATE KEY", Bytes: secret}, public: {Type: "PUBLIC KEY", Bytes: known}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

// run runs a program in the root of the repository, and returns what it prints
// and its exit code.
func run(t *testing.T, program string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = root
	var said strings.Builder
	cmd.Stderr = &said
	text, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return string(text), 1
	}
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", filepath.Base(program), args, err, &said)
	}
	return string(text), 0
}

// serve runs a registry, and returns its address and the file of its authority,
// whom programs of this test trust.
func serve(t *testing.T) (host, authority string) {
	t.Helper()
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	authority = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_DIR", dir) // beside the system's file
	return strings.TrimPrefix(server.URL, "https://"), authority
}

// TestImages builds, signs and pushes the images; then the admission policy lets
// in what this key signed, and no other, and a scan believes what it reads.
func TestImages(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the images of the reference application")
	}
	host, authority := serve(t)
	private, public := newKey(t)
	dir := t.TempDir()
	run(t, "go", append([]string{"run", "-C", "examples/internship-matcher", "./cmd/images",
		"-o", dir, "-push", "-repository", host + "/internship-matcher", "-key", private, "-builder", "https://ci.example.com"}, services...)...)
	program := filepath.Join(t.TempDir(), "kubeguardian")
	run(t, "go", "build", "-o", program, "./cmd/kubeguardian")

	t.Run("admission", func(t *testing.T) {
		review := func(key string) (found string, code int) {
			return run(t, program, "review", "--registry-ca", host+"="+authority, "--policies", imagePolicy(t, host, key), dir+"/deploy")
		}
		if found, code := review(public); code != 0 {
			t.Errorf("denied although all is signed:\n%s", found)
		}
		_, other := newKey(t)
		found, code := review(other)
		if code != 1 || strings.Count(found, "it is not signed by release") != len(services) {
			t.Errorf("exit code %d, and not every image is denied although another key is wanted:\n%s", code, found)
		}
	})
	t.Run("scan", func(t *testing.T) {
		without, total := scan(t, program, dir+"/deploy")
		with, more := scan(t, program, dir+"/deploy", "--evidence", dir+"/evidence")
		for _, control := range []string{"APP-DEP-02", "CON-IMG-07", "COD-PRV-01"} {
			for _, service := range services {
				if at := control + "/" + service; without[at] != "unknown" || with[at] != "pass" {
					t.Errorf("%s is %q without evidence and %q with it, want unknown and pass", at, without[at], with[at])
				}
			}
		}
		if more <= total {
			t.Errorf("the evidence takes the score from %.1f to %.1f", total, more)
		}
		t.Logf("score without the evidence of the images %.1f, with it %.1f", total, more)
	})
}

// imagePolicy writes a policy that wants images signed by a key, and to be made
// by the pipeline.
func imagePolicy(t *testing.T, host, public string) (file string) {
	t.Helper()
	key, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`apiVersion: kubeguardian.dev/v1alpha1
kind: ImagePolicy
metadata: {name: signed}
spec:
  validationActions: [Deny]
  match: {images: ["%s/internship-matcher/**"]}
  attestors:
  - name: release
    key: {data: %q}
  attestations:
  - name: provenance
    predicateType: https://slsa.dev/provenance/v1
    provenance:
      builders: [https://ci.example.com]
`, host, key)
	file = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// scan returns the status of findings on services by "control/service", and the
// score.
func scan(t *testing.T, program string, args ...string) (status map[string]string, total float64) {
	t.Helper()
	out, _ := run(t, program, append([]string{"scan", "--format", "json", "--fail-on", "none"}, args...)...)
	var report struct {
		Score    struct{ Total float64 }
		Findings []struct {
			Control, Status string
			Subject         struct{ Kind, Name string }
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	status = map[string]string{}
	for _, f := range report.Findings {
		if f.Subject.Kind == "Deployment" && slices.Contains(services, f.Subject.Name) {
			status[f.Control+"/"+f.Subject.Name] = f.Status
		}
	}
	return status, report.Score.Total
}
