package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// realPrograms returns a directory of ready programs. A test is no place to
// spend a quarter of an hour on building them.
func realPrograms(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		var err error
		if dir, err = cacheDir(); err != nil {
			t.Fatal(err)
		}
	}
	if names := missing(dir, programs()); len(names) > 0 {
		reason := fmt.Sprintf("%s lacks %s: build them by `lab build`", dir, strings.Join(names, ", "))
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	return dir
}

// An auditEvent is what the tests read of an event of the audit log.
type auditEvent struct {
	AuditID, Stage, Verb string
	User                 struct{ Username string }
	ObjectRef            struct{ Resource, Subresource, Namespace, Name string }
	ResponseStatus       struct{ Code int }
}

// A receiver is what the API server reports to and asks: the audit webhook and
// an admission webhook of one address. It serves only callers with a client
// certificate of its own authority.
type receiver struct {
	mu       sync.Mutex
	refuse   bool
	refused  int
	events   map[string]auditEvent // by audit ID
	reviewed []string              // who asked for a decision about what
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var body struct {
		Items   []auditEvent
		Request struct {
			UID  string
			Name string
		}
	}
	if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch {
	case req.URL.Path == "/admit":
		r.reviewed = append(r.reviewed, req.TLS.PeerCertificates[0].Subject.CommonName+": "+body.Request.Name)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": %q, "allowed": true}}`, body.Request.UID)
	case r.refuse:
		r.refused++
		http.Error(w, "not now", http.StatusServiceUnavailable)
	default:
		for _, e := range body.Items {
			r.events[e.AuditID] = e
		}
	}
}

func (r *receiver) do(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *receiver) has(id string) (ok bool) {
	r.do(func() { _, ok = r.events[id] })
	return ok
}

// receive starts a receiver and returns a kubeconfig for the API server and
// the authority of the receiver's certificate.
func receive(t *testing.T) (r *receiver, address, kubeconfig string, caPEM []byte) {
	t.Helper()
	ca, err := newAuthority("webhook")
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.server("receiver", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	callers := x509.NewCertPool()
	callers.AddCert(ca.cert)
	r = &receiver{events: map[string]auditEvent{}}
	server := httptest.NewUnstartedServer(r)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{serving.cert.Raw}, PrivateKey: serving.key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: callers, MinVersion: tls.VersionTLS13,
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	dir := t.TempDir()
	if err := writeKubeconfig(dir, server.URL, ca, identity{"receiver", "the-api-server", ""}); err != nil {
		t.Fatal(err)
	}
	return r, server.URL, filepath.Join(dir, "receiver.kubeconfig"), ca.certPEM()
}

// kubectl runs as a user of the lab in dir and returns all that is printed.
func kubectl(t *testing.T, programs, dir, user, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, user+".kubeconfig"))
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// auditLog reads the API server's audit log.
func auditLog(t *testing.T, dir string) []auditEvent {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []auditEvent
	for dec := json.NewDecoder(bufio.NewReader(f)); ; {
		var e auditEvent
		if err := dec.Decode(&e); err == io.EOF || err == io.ErrUnexpectedEOF {
			return events
		} else if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
}

// logged waits for the event of an object's creation and returns its audit ID.
func logged(t *testing.T, dir, name string) (id string) {
	t.Helper()
	eventually(t, "the audit event of "+name, func() bool {
		for _, e := range auditLog(t, dir) {
			if e.Verb == "create" && e.ObjectRef.Name == name && e.ResponseStatus.Code == http.StatusCreated {
				id = e.AuditID
			}
		}
		return id != ""
	})
	return id
}

const validatingWebhook = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: receiver}
webhooks:
- name: receiver.example.com
  clientConfig: {url: %s/admit, caBundle: %s}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  sideEffects: None
  admissionReviewVersions: [v1]
`

func TestControlPlane(t *testing.T) {
	programs, dir := realPrograms(t), tempLab(t)
	r, address, kubeconfig, ca := receive(t)
	up := []string{"up", "--dir=" + dir, "--binaries=" + programs, "--webhook-kubeconfig=" + kubeconfig,
		"--audit-policy=../content/audit-policy.yaml"} // the product's: it must log what the attacks do
	first := finish(t, command(up...))
	if first.code != 0 {
		t.Fatalf("up: exit code %d\n%s", first.code, first.stderr)
	}
	if want := "export KUBECONFIG='" + dir + "/admin.kubeconfig'\n"; !strings.HasPrefix(first.stdout, want) {
		t.Errorf("up prints %s", first.stdout)
	}
	t.Log(strings.TrimSpace(first.stderr))

	t.Run("up again", func(t *testing.T) {
		if got := finish(t, command(up...)); got.code != 0 || got.stderr != "lab: already up\n" || got.stdout != first.stdout {
			t.Errorf("exit code %d, %s%s", got.code, got.stdout, got.stderr)
		}
		if got := finish(t, command("up", "--dir="+dir)); got.code != 2 || !strings.Contains(got.stderr, "a lab with other options is up") {
			t.Errorf("with other options: exit code %d, %s", got.code, got.stderr)
		}
		if got := finish(t, command("status", "--dir="+dir)); got.code != 0 || strings.Count(got.stdout, " pid ") != 4 {
			t.Errorf("status: exit code %d, %s", got.code, got.stdout)
		}
	})
	t.Run("audit", func(t *testing.T) {
		kubectl(t, programs, dir, "admin", "", "create", "configmap", "audited")
		id := logged(t, dir, "audited")
		eventually(t, "the same event at the receiver", func() bool { return r.has(id) })
	})
	t.Run("admission", func(t *testing.T) {
		kubectl(t, programs, dir, "admin", fmt.Sprintf(validatingWebhook, address, encode(ca)), "create", "-f", "-")
		eventually(t, "a review by a caller with the kubeconfig's certificate", func() (asked bool) {
			kubectl(t, programs, dir, "admin", "", "create", "configmap", "reviewed")
			kubectl(t, programs, dir, "admin", "", "delete", "configmap", "reviewed")
			r.do(func() { asked = len(r.reviewed) > 0 && r.reviewed[0] == "the-api-server: reviewed" })
			return asked
		})
	})
	t.Run("receiver fails for a while", func(t *testing.T) {
		r.do(func() { r.refuse = true })
		kubectl(t, programs, dir, "admin", "", "create", "configmap", "delayed")
		id := logged(t, dir, "delayed")
		eventually(t, "an attempt", func() (tried bool) {
			r.do(func() { tried = r.refused > 0 })
			return tried
		})
		r.do(func() { r.refuse = false })
		eventually(t, "the event at the receiver", func() bool { return r.has(id) })
	})
	t.Run("developer", func(t *testing.T) {
		if got := kubectl(t, programs, dir, "developer", "", "auth", "can-i", "create", "pods/exec"); got != "yes\n" {
			t.Errorf("may exec in the default namespace: %s", got)
		}
		cmd := exec.Command(filepath.Join(programs, "kubectl"), "get", "secrets", "--all-namespaces")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "developer.kubeconfig"))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), `User "developer" cannot list resource "secrets"`) {
			t.Errorf("all secrets: %v, %s", err, out)
		}
	})
	t.Run("attacks", func(t *testing.T) { testAttacks(t, programs, dir) })
	t.Run("half dead", func(t *testing.T) {
		running, err := processes(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range running {
			if p.name == "kube-scheduler" {
				syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		if got := finish(t, command("status", "--dir="+dir)); got.code != 1 || !strings.HasPrefix(got.stdout, "broken: kube-scheduler is not running\n") {
			t.Errorf("status: exit code %d, %s", got.code, got.stdout)
		}
		if got := finish(t, command(up...)); got.code != 0 || !strings.Contains(got.stderr, "ready in") {
			t.Errorf("up: exit code %d, %s", got.code, got.stderr)
		}
	})
	t.Run("down", func(t *testing.T) {
		if got := finish(t, command("down", "--dir="+dir)); got.code != 0 {
			t.Errorf("exit code %d, %s", got.code, got.stderr)
		}
		wantNothingRunning(t, dir)
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	})
}

func TestRunUntilInterrupted(t *testing.T) {
	programs, dir := realPrograms(t), tempLab(t)
	cmd := command("run", "--dir="+dir, "--binaries="+programs)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.HasPrefix(line, "export KUBECONFIG=") {
		t.Fatalf("run prints %q, %v", line, err)
	}
	kubectl(t, programs, dir, "admin", "", "get", "namespaces")
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	wantNothingRunning(t, dir)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

func TestAuditPolicyRefused(t *testing.T) {
	programs, dir := realPrograms(t), tempLab(t)
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Everything}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := finish(t, command("up", "--dir="+dir, "--binaries="+programs, "--audit-policy="+policy))
	if got.code != 2 || !strings.Contains(got.stderr, "error: kube-apiserver ended by itself: exit status 1\n") || !strings.Contains(got.stderr, "Everything") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	wantNothingRunning(t, dir)
}
