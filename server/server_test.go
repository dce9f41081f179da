package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// silent listens like an API server that never answers, so that a server stays
// up while it waits for its cluster.
func silent(t *testing.T) *rest.Config {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &rest.Config{Host: "http://" + ln.Addr().String()}
}

// free returns a loopback address that nothing listens on, and that the kernel
// gives to no connection meanwhile: its port is below those.
func free(t *testing.T) string {
	t.Helper()
	var last error
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000)))
		if last = err; err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal(last)
	return ""
}

func options(t *testing.T, dir, extra string) Options {
	t.Helper()
	cfg, err := config.Parse("config.yaml", fmt.Appendf(nil, "cluster: test\ndataDir: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\n%s",
		dir, free(t), free(t), extra))
	if err != nil {
		t.Fatal(err)
	}
	return Options{Config: cfg, Cluster: silent(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test"}
}

// A running server, with a client that is the API server's and one that is the
// user's.
type running struct {
	*Server
	t         *testing.T
	stop      func() error // ends it and returns what Run returned
	apiServer *http.Client
	token     string
}

func start(t *testing.T, opts Options) *running {
	t.Helper()
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{Server: s, t: t}
	r.stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the server ended: %v", err)
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	kubeconfig, err := APIServerKubeconfig(t.Context(), opts.Config, opts.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if r.apiServer, err = rest.HTTPClientFor(client); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(opts.Config.Web.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	r.token = strings.TrimSpace(string(token))
	return r
}

// do returns the status and body of a request.
func (r *running) do(client *http.Client, method, url, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func (r *running) page(path string) (int, string) {
	return r.do(http.DefaultClient, http.MethodGet, r.WebURL()+path, "")
}

func (r *running) webhook(path, body string) (int, string) {
	return r.do(r.apiServer, http.MethodPost, "https://"+r.webhookListener.Addr().String()+path, body)
}

// began is when the tests did: events that come again are of the same time.
var began = time.Now()

// eventList returns real audit events that raise one alert each.
func eventList(t *testing.T) string {
	t.Helper()
	lines, err := os.ReadFile("../content/rules/testdata/secrets-listed.alert.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	const recorded = "2026-11-22T03:25:05" // retention would remove what is as old
	if !bytes.Contains(lines, []byte(recorded)) {
		t.Fatalf("no event is of %s", recorded)
	}
	lines = bytes.ReplaceAll(lines, []byte(recorded), began.UTC().AppendFormat(nil, "2006-01-02T15:04:05"))
	items := bytes.Join(bytes.Split(bytes.TrimSpace(lines), []byte("\n")), []byte(","))
	return `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + string(items) + `]}`
}

func (r *running) alerts() int {
	r.t.Helper()
	code, body := r.page("/api/v1/alerts")
	var list struct {
		Items []struct{ ID, Cluster string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK {
		r.t.Fatalf("alerts: %d %s: %v", code, body, err)
	}
	for _, a := range list.Items {
		if a.Cluster != "test" {
			r.t.Errorf("alert %s is of cluster %q", a.ID, a.Cluster)
		}
	}
	return len(list.Items)
}

func TestAuditEventsBecomeAlerts(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	events := eventList(t)
	if code, body := r.webhook("/audit", events); code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, body)
	}
	raised := r.alerts()
	if raised == 0 {
		t.Fatal("no alert")
	}
	r.webhook("/audit", events) // the API server sends again what it is not sure of
	if again := r.alerts(); again != raised {
		t.Errorf("%d alerts after the same batch came again, want %d", again, raised)
	}
	_, metrics := r.page("/metrics")
	for _, want := range []string{
		"kubeguardian_audit_batches_total 2\n",
		fmt.Sprintf("kubeguardian_alerts_total{priority=\"Warning\",rule=\"Secrets listed\"} %d\n", raised),
		`kubeguardian_build_info{version="test"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics do not have %s", want)
		}
	}
}

// TestRepeatsAreCounted: what happens again is counted by what is kept, once,
// also when its batch comes twice or the server starts anew.
func TestRepeatsAreCounted(t *testing.T) {
	dir := t.TempDir()
	r := start(t, options(t, dir, ""))
	send := func(prefix string) {
		t.Helper()
		body := strings.ReplaceAll(eventList(t), `"auditID":"`, `"auditID":"`+prefix)
		if code, body := r.webhook("/audit", body); code != http.StatusOK {
			t.Fatalf("audit: %d %s", code, body)
		}
	}
	send("first-")
	kept := r.alerts()
	for range 2 {
		send("second-")
	}
	if _, metrics := r.page("/metrics"); !strings.Contains(metrics, fmt.Sprintf("kubeguardian_alerts_repeated_total{priority=\"Warning\",rule=\"Secrets listed\"} %d\n", kept)) {
		t.Errorf("metrics do not have %d repeats:\n%s", kept, metrics)
	}
	if err := errors.Join(r.stop(), r.Stop()); err != nil {
		t.Fatal(err)
	}
	r = start(t, options(t, dir, ""))
	send("second-")
	send("third-")
	_, body := r.page("/api/v1/alerts")
	var list struct{ Items []alert.Record }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Items) != kept || kept == 0 {
		t.Fatalf("%d alerts, %v; want %d", len(list.Items), err, kept)
	}
	for _, a := range list.Items {
		if a.Repeats == nil || a.Repeats.Count != 2 || !a.Repeats.First.Equal(a.Time) {
			t.Errorf("alert %s has %+v, want 2 repeats", a.ID, a.Repeats)
		}
	}
}

// TestUnsafeBatchIsRefused: what cannot be stored must not be acknowledged.
func TestUnsafeBatchIsRefused(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := r.webhook("/audit", eventList(t)); code != http.StatusServiceUnavailable {
		t.Errorf("audit without a store: %d %s, want 503", code, body)
	}
	if problems := strings.Join(r.health().Problems, " "); !strings.Contains(problems, "Nothing can be stored") {
		t.Errorf("the health does not say so: %s", problems)
	}
}

func TestOnlyTheAPIServerMaySendEvents(t *testing.T) {
	r := start(t, options(t, t.TempDir(), "admission: {requireClientCertificate: true}\n"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.authority.CABundle())
	anonymous := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for _, path := range []string{"/audit", "/admit"} {
		code, body := r.do(anonymous, http.MethodPost, "https://"+r.webhookListener.Addr().String()+path, eventList(t))
		if code != http.StatusUnauthorized {
			t.Errorf("%s without a client certificate: %d %s, want 401", path, code, body)
		}
	}
	if n := r.alerts(); n != 0 {
		t.Errorf("%d alerts from a forged batch", n)
	}
	if _, metrics := r.page("/metrics"); !strings.Contains(metrics, "kubeguardian_audit_batches_rejected_total{cause=\"unauthorized\"} 1\n") {
		t.Error("the forged batch is not counted")
	}
}

func review(kind, resource, object string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE",
		"kind":{"group":"rbac.authorization.k8s.io","version":"v1","kind":%q},"resource":{"group":"rbac.authorization.k8s.io","version":"v1","resource":%q},
		"name":"intruder","userInfo":{"username":"mallory"},"object":%s}}`, kind, resource, object)
}

const adminBinding = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"intruder"},
	"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"User","name":"mallory"}]}`

func TestAdmissionWarnsAndRemembers(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	code, body := r.webhook("/admit", review("ClusterRoleBinding", "clusterrolebindings", adminBinding))
	if code != http.StatusOK || !strings.Contains(body, `"allowed":true`) || !strings.Contains(body, "cluster-admin-bindings") {
		t.Fatalf("review: %d %s", code, body)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, body = r.page("/api/v1/decisions"); strings.Contains(body, `"intruder"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the decision is not recorded: %s", body)
		}
	}
	if _, metrics := r.page("/metrics"); !strings.Contains(metrics, `kubeguardian_admission_decisions_total{decision="allowed",dry_run="false",operation="CREATE"} 1`) {
		t.Error("the decision is not counted")
	}
}

// TestOwnPoliciesReplaceTheBuiltIn: the score still stands on the built-in
// ones, which define the controls.
func TestOwnPoliciesReplaceTheBuiltIn(t *testing.T) {
	folder := t.TempDir()
	own := `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-bindings}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [rbac.authorization.k8s.io], apiVersions: [v1], operations: [CREATE], resources: [clusterrolebindings]}]}
  validations: [{expression: "false", message: nobody binds}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-bindings}
spec: {policyName: no-bindings, validationActions: [Deny]}
`
	if err := os.WriteFile(filepath.Join(folder, "own.yml"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, options(t, t.TempDir(), fmt.Sprintf("admission: {policies: [%s]}\n", folder)))
	_, body := r.webhook("/admit", review("ClusterRoleBinding", "clusterrolebindings", adminBinding))
	if !strings.Contains(body, `"allowed":false`) || !strings.Contains(body, "nobody binds") || strings.Contains(body, "cluster-admin-bindings") {
		t.Errorf("review: %s", body)
	}
	if r.defining.Policy("privileged-containers") == nil {
		t.Error("the score has lost the built-in policies")
	}
}

func TestHealthAndReadiness(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	if code, body := r.page("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, body := r.page("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "not been scanned") {
		t.Errorf("readyz before the first scan: %d %s", code, body)
	}
	code, body := r.page("/api/v1/health")
	if code != http.StatusOK || !strings.Contains(body, "has not been read yet") || !strings.Contains(body, "not registered yet") {
		t.Errorf("health: %d %s", code, body)
	}
}

// TestEvidenceAges: while the API server is away, what was seen before is not
// taken as seen now.
func TestEvidenceAges(t *testing.T) {
	s, err := New(t.Context(), options(t, t.TempDir(), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	namespace := &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
			"name": "shop", "labels": map[string]any{"pod-security.kubernetes.io/enforce": "restricted"},
		},
	}}}
	inv, err := inventory.New(inventory.Cluster, []*inventory.Object{namespace}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.state.contact = now
	s.scan(t.Context(), inv)
	passed := func(at time.Time) (n int) {
		findings, _, err := s.findings(t.Context(), inv, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			if f.Status == finding.Pass {
				n++
			}
		}
		return n
	}
	if passed(now) == 0 {
		t.Error("nothing passed while the API server answers")
	}
	if passed(now.Add(5*time.Minute)) == 0 {
		t.Error("fresh evidence is not used while the API server is away")
	}
	if n := passed(now.Add(time.Hour)); n != 0 {
		t.Errorf("%d controls still pass an hour after the API server answered last", n)
	}
}

// TestLostPermissionIsNoFix: failures of a kind that may no longer be read stay
// until they are seen fixed.
func TestLostPermissionIsNoFix(t *testing.T) {
	s, err := New(t.Context(), options(t, t.TempDir(), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	privileged := &inventory.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web", "namespace": "shop"},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{
			"name": "main", "image": "registry.example.com/web:1", "securityContext": map[string]any{"privileged": true},
		}}}}},
	}}}
	s.state.contact = time.Now()
	scan := func(objects []*inventory.Object, gaps ...inventory.Gap) float64 {
		inv, err := inventory.New(inventory.Cluster, objects, gaps)
		if err != nil {
			t.Fatal(err)
		}
		s.scan(t.Context(), inv)
		score, _, _ := s.posture()
		return *score.Levels[2].Score
	}
	before := scan([]*inventory.Object{privileged})
	lost := inventory.Gap{Kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, Reason: "not permitted to list deployments"}
	if after := scan(nil, lost); after > before {
		t.Errorf("container level %.2f rises to %.2f when deployments may no longer be listed", before, after)
	}
	findings, err := s.store.Findings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(findings, func(f finding.Finding) bool {
		return f.Control == "CON-SEC-01" && f.Status == finding.Fail && f.Subject.Name == "web"
	}) {
		t.Error("the failure is gone")
	}
}

func TestUnreachableClusterEndsTheServer(t *testing.T) {
	opts := options(t, t.TempDir(), "")
	opts.Cluster = &rest.Config{Host: "http://" + free(t)}
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Run = %v, want that the cluster cannot be reached", err)
	}
}

// TestOverloadedClusterIsAskedAgain: an API server that cannot answer now keeps
// nobody from what else the server does.
func TestOverloadedClusterIsAskedAgain(t *testing.T) {
	asked := make(chan struct{}, 100)
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/namespaces" { // what is read first
			select {
			case asked <- struct{}{}:
			default:
			}
		}
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	defer busy.Close()
	opts := options(t, t.TempDir(), "")
	opts.Cluster = &rest.Config{Host: busy.URL}
	r := start(t, opts)
	for range 2 {
		select {
		case <-asked:
		case <-time.After(time.Minute):
			t.Fatal("the cluster is not asked again")
		}
	}
	if code, _ := r.page("/healthz"); code != http.StatusOK {
		t.Errorf("the page answers %d", code)
	}
	if err := r.stop(); err != nil {
		t.Errorf("it ended: %v", err)
	}
}

// TestNewUndoesItself: a port in use leaves nothing open, and the server starts
// once it is free.
func TestNewUndoesItself(t *testing.T) {
	opts := options(t, t.TempDir(), "")
	ln, err := net.Listen("tcp", opts.Config.Web.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "bind web listener") {
		t.Fatalf("New = %v, %v, want that the port is in use", s, err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	r := start(t, opts)
	if code, _ := r.page("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}

func TestDataDirectoryHasOneServer(t *testing.T) {
	dir := t.TempDir()
	start(t, options(t, dir, ""))
	if _, err := New(t.Context(), options(t, dir, "")); err == nil || !strings.Contains(err.Error(), "another server uses it") {
		t.Errorf("New = %v, want that the directory is in use", err)
	}
}

// TestStopEndsLiveStreams: a page that is open must not keep the server up.
func TestStopEndsLiveStreams(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.WebURL()+"/api/v1/alerts/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := r.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream was cut, not ended: %v", err)
	}
}
