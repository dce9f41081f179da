// Package e2e tests the whole product: the built programs, a real API server
// from the lab, a real browser.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/test/story"
)

// A cluster is the story with a client of its own.
type cluster struct {
	*story.Story
	client kubernetes.Interface
	ids    *auditIDs
}

// start builds the programs, brings up the lab and the server, and takes both
// down when the test ends.
func start(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("brings up an API server")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-C", root, "build").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	s, err := story.Start(t.Context(), story.Options{Root: root, Progress: t.Output(), Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{Story: s, ids: &auditIDs{}}
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { c.ids.next = next; return c.ids })
	c.client = kubernetes.NewForConfigOrDie(cfg)
	return c
}

// auditIDs remembers the audit ids of all requests of a client, in order.
type auditIDs struct {
	next http.RoundTripper
	mu   sync.Mutex
	seen []string
}

// RoundTrip is http.RoundTripper.
func (a *auditIDs) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(req)
	if err == nil {
		a.mu.Lock()
		a.seen = append(a.seen, resp.Header.Get("Audit-Id"))
		a.mu.Unlock()
	}
	return resp, err
}

func (a *auditIDs) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[len(a.seen)-1]
}

// TestGuardedCluster is one story on one API server: later parts stand on the
// earlier ones.
func TestGuardedCluster(t *testing.T) {
	c := start(t)
	t.Run("a fresh cluster raises no alert", c.testQuiet)
	t.Run("published rights suffice", c.testRights)
	t.Run("fixes are proven by the API server", c.testFix)
	t.Run("score rises with the secured application", c.testScore)
	t.Run("attacks", c.testAttacks)
	t.Run("denied request never reaches etcd", c.testDenied)
	t.Run("what is hard to judge is denied", c.testHardToJudge)
	t.Run("a forged audit id hides nothing", c.testForgedAuditID)
	t.Run("warned request is admitted", c.testWarned)
	t.Run("alert carries the identity of its request", c.testAlertIdentity)
	t.Run("kube-system is never blocked", c.testSystemNamespace)
	t.Run("page shows an alert without a reload", c.testPage)
	t.Run("no alert is lost or doubled by SIGKILL", c.testSIGKILL)
	t.Run("webhook registration is repaired", c.testRepair)
	t.Run("cluster works while the server is down", c.testServerDown)
}

// settingUp are rules that who installs the server cannot but match.
var settingUp = map[string]bool{
	"Token of a system account requested": true,
	"Role with dangerous powers":          true,
}

func (c *cluster) testQuiet(t *testing.T) {
	// The audit log is read: this read of it must come to be known.
	if _, err := c.client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitAuditEvent(t, time.Now())
	alerts, err := c.Alerts(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		// The story itself gives the server's account its rights and asks for its
		// token. These are alerts, when the server starts soon enough to hear of it.
		if settingUp[a.Rule] && a.Subject.Name == "kubeguardian" {
			continue
		}
		t.Errorf("%s: %s", a.Rule, a.Output)
	}
}

// testRights reads the cluster with the server's own account: the published
// ClusterRole must allow every kind that controls read, and no secret.
func (c *cluster) testRights(t *testing.T) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Access())
	if err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.FromCluster(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, gap := range inv.Gaps {
		if gap.Kind.Kind != "Secret" {
			t.Errorf("%s: %s", gap.Kind, gap.Reason)
		}
	}
	client := kubernetes.NewForConfigOrDie(cfg)
	if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets = %v, want forbidden", err)
	}
}

func (c *cluster) scan(t *testing.T, report any) {
	t.Helper()
	out, err := c.Scan(t.Context(), "json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), report); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) testScore(t *testing.T) {
	var before, after struct{ Score control.Score }
	if _, err := c.Deploy(t.Context(), "insecure"); err != nil {
		t.Fatal(err)
	}
	c.scan(t, &before)
	c.testReview(t, "insecure", 4)
	if _, err := c.Deploy(t.Context(), "secured"); err != nil {
		t.Fatal(err)
	}
	c.scan(t, &after)
	c.testReview(t, "secured", 0)
	t.Logf("insecure %.1f, secured %.1f", *before.Score.Total, *after.Score.Total)
	if *after.Score.Total <= *before.Score.Total {
		t.Errorf("score %.1f does not rise above %.1f", *after.Score.Total, *before.Score.Total)
	}
}

// testReview reviews what is in the cluster: so many Deployments would be denied.
func (c *cluster) testReview(t *testing.T, variant string, denied int) {
	t.Helper()
	out, err := c.Kubeguardian(t.Context(), "review", "--cluster", "--kubeconfig", c.Access(), "--policies", "testdata/nonroot.yaml", "--format", "text")
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out, "cluster deny Deployment/internship-matcher/"); lines != denied || code != min(denied, 1) {
		t.Errorf("review of the %s application: exit code %d, want %d denials\n%s%v", variant, code, denied, out, err)
	}
}

func (c *cluster) testAttacks(t *testing.T) {
	names, err := c.Attacks()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			outcome, err := c.Attack(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if outcome.Want.Alert == nil && outcome.Want.Denied == "" {
				t.Error("want.yaml asks for neither a denial nor an alert")
			}
			if outcome.Alert != nil {
				t.Logf("alert after %s", outcome.Delay.Round(time.Millisecond))
			}
			if err := c.Undo(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// pod returns a pod that the built-in policies deny when privileged is true
// and only warn about otherwise.
func pod(namespace, name string, privileged bool) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "registry.example.com/tool:1.0",
			SecurityContext: &corev1.SecurityContext{Privileged: &privileged},
		}}},
	}
}

func (c *cluster) testDenied(t *testing.T) {
	ctx, pods := t.Context(), c.client.CoreV1().Pods("default")
	_, err := pods.Create(ctx, pod("default", "denied", true), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "privileged-containers") {
		t.Fatalf("create = %v, want a denial by privileged-containers", err)
	}
	if !strings.Contains(err.Error(), "main") {
		t.Errorf("the message does not name the container: %v", err)
	}
	if _, err := pods.Get(ctx, "denied", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get = %v, want not found", err)
	}
	denied := func(d finding.Decision) bool { return d.Subject.Name == "denied" && !d.Allowed }
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if page, err := c.Decisions(ctx); err == nil && slices.ContainsFunc(page, denied) {
			return
		}
	}
	t.Error("the decision is not recorded")
}

// testHardToJudge hides a privileged container behind work: what is slow to
// judge and what is large on the wire must not slip through.
func (c *cluster) testHardToJudge(t *testing.T) {
	slow := pod("default", "slow", true)
	for i := range 25_000 {
		slow.Spec.Containers[0].Env = append(slow.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: "x"})
	}
	large := pod("default", "large", true)
	large.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "V", Value: strings.Repeat("<", 1_450_000)}}
	for _, p := range []*corev1.Pod{slow, large} {
		_, err := c.client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), "policies.kubeguardian.dev") {
			t.Errorf("create pod %s = %v, want a denial", p.Name, err)
		}
	}
}

// testForgedAuditID sends the same audit id twice, as a client may: the second
// request must have an alert of its own.
func (c *cluster) testForgedAuditID(t *testing.T) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			req.Header.Set("Audit-ID", "forged")
			return next.RoundTrip(req)
		})
	})
	client := kubernetes.NewForConfigOrDie(cfg)
	for _, namespace := range []string{"first", ""} {
		if _, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.await(t, func(a alert.Alert) bool {
		return a.OutputFields["ka.auditid"] == "forged" && a.OutputFields["ka.target.namespace"] == nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip is http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func (c *cluster) testWarned(t *testing.T) {
	warnings := &recorder{}
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.WarningHandler = warnings
	client := kubernetes.NewForConfigOrDie(cfg)
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod("default", "warned", false), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(warnings.texts) == 0 {
		t.Error("no warning came")
	}
}

type recorder struct{ texts []string }

// HandleWarningHeader is rest.WarningHandler.
func (r *recorder) HandleWarningHeader(_ int, _ string, text string) { r.texts = append(r.texts, text) }

var _ rest.WarningHandler = (*recorder)(nil)

func (c *cluster) testAlertIdentity(t *testing.T) {
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "intruder"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "mallory"}},
	}
	if _, err := c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	id := c.ids.last()
	a := c.await(t, func(a alert.Alert) bool { return a.OutputFields["ka.auditid"] == id })
	for field, want := range map[string]string{
		"ka.user.name": "admin", "ka.verb": "create",
		"ka.target.resource": "clusterrolebindings", "ka.target.name": "intruder",
	} {
		if got := fmt.Sprint(a.OutputFields[field]); got != want {
			t.Errorf("%s = %q, want %q", field, got, want)
		}
	}
	if ips := fmt.Sprint(a.OutputFields["ka.sourceips"]); !strings.Contains(ips, "127.0.0.1") {
		t.Errorf("source IPs = %q, want 127.0.0.1 in it", ips)
	}
}

// awaitAuditEvent waits until an audit event that is newer than since came.
func (c *cluster) awaitAuditEvent(t *testing.T, since time.Time) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if last, err := c.LastAuditEvent(t.Context()); err == nil && last.After(since) {
			return
		}
	}
	t.Fatal("no audit event came")
}

// await waits for an alert that matches.
func (c *cluster) await(t *testing.T, match func(alert.Alert) bool) alert.Alert {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		alerts, err := c.Alerts(ctx, "")
		if i := slices.IndexFunc(alerts, match); err == nil && i >= 0 {
			return alerts[i]
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the alert did not come")
	return alert.Alert{}
}

func (c *cluster) testSystemNamespace(t *testing.T) {
	_, err := c.client.CoreV1().Pods("kube-system").Create(t.Context(), pod("kube-system", "privileged", true), metav1.CreateOptions{})
	if err != nil {
		t.Errorf("create in kube-system: %v", err)
	}
}

// testSIGKILL kills the server in the middle of 1,000 audited requests and
// compares the store with what the API server's own audit log implies.
func (c *cluster) testSIGKILL(t *testing.T) {
	const requests = 1000
	ctx := t.Context()
	since := time.Now()
	var group sync.WaitGroup
	killed := make(chan struct{})
	for worker := range 4 {
		group.Go(func() {
			for i := range requests / 4 {
				if worker == 0 && i == requests/8 {
					close(killed)
				}
				if _, err := c.client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); err != nil {
					t.Errorf("list secrets: %v", err)
					return
				}
			}
		})
	}
	<-killed
	if err := c.KillServer(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if err := c.StartServer(ctx); err != nil {
		t.Fatal(err)
	}
	c.compareWithAuditLog(t, since, requests)
}

// compareWithAuditLog waits until the store holds the alerts that the API
// server's audit log implies, each once.
func (c *cluster) compareWithAuditLog(t *testing.T, since time.Time, atLeast int) {
	t.Helper()
	compareWithAuditLog(t, c.AuditLog, since, atLeast, func(query string) ([]alert.Alert, error) { return c.Alerts(t.Context(), query) })
}

func (c *cluster) testRepair(t *testing.T) {
	hooks := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if err := hooks.Delete(t.Context(), "kubeguardian", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if _, err := hooks.Get(t.Context(), "kubeguardian", metav1.GetOptions{}); err == nil {
			return
		}
	}
	t.Error("the deleted webhook configuration did not come back")
}

// testServerDown is last. The server tells afterwards that nobody was asked.
func (c *cluster) testServerDown(t *testing.T) {
	if err := c.StopServer(); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	for _, namespace := range []string{"default", "kube-system"} {
		_, err := c.client.CoreV1().Pods(namespace).Create(t.Context(), pod(namespace, "while-down", true), metav1.CreateOptions{})
		if err != nil {
			t.Errorf("create in %s: %v", namespace, err)
		}
	}
	if _, err := c.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list: %v", err)
	}
	time.Sleep(time.Until(down.Add(10 * time.Second)))
	if err := c.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.await(t, func(a alert.Alert) bool {
		return a.Rule == "Admission is blind" && a.Time.After(down) && strings.Contains(a.Output, "the server did not run")
	})
}
