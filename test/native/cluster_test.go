// Package native compares what package policy makes of native admission
// policies with what a real API server makes of them.
package native

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A cluster is the lab's API server, with a client for the administrator and
// one for the user whose requests are judged.
type cluster struct {
	admin  dynamic.Interface
	kube   kubernetes.Interface // of the administrator
	user   dynamic.Interface
	rest   rest.Interface // of the user, for what is no plain object
	answer *answers
	log    string
}

// The user whose requests are judged, and what it may not do is the rest.
const (
	userName  = "ann"
	userGroup = "devs"
)

// answers notes what the API server says beside the response of each request.
type answers struct {
	next     http.RoundTripper
	mu       sync.Mutex
	audit    string
	warnings []string
}

// RoundTrip is http.RoundTripper.
func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(req)
	if err == nil {
		a.mu.Lock()
		a.audit = resp.Header.Get("Audit-Id")
		a.mu.Unlock()
	}
	return resp, err
}

// HandleWarningHeaderWithContext is rest.WarningHandlerWithContext.
func (a *answers) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = append(a.warnings, text)
}

// take returns what was noted since the last time.
func (a *answers) take() (audit string, warnings []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	audit, warnings = a.audit, a.warnings
	a.audit, a.warnings = "", nil
	return audit, warnings
}

// start brings up the lab, and takes it down when the test ends.
func start(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("brings up an API server")
	}
	dir := t.TempDir()
	lab, state := filepath.Join(dir, "lab"), filepath.Join(dir, "state")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", lab, ".")
	build.Dir = filepath.Join("..", "..", "lab")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the lab: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(lab, "down", "--dir", state).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
	})
	if out, err := exec.CommandContext(t.Context(), lab, "up", "--dir", state).CombinedOutput(); err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS, cfg.WarningHandler = -1, rest.NoWarnings{} // what the administrator does is not judged
	c := &cluster{answer: &answers{}, log: filepath.Join(state, "audit.jsonl")}
	c.admin, c.kube = dynamic.NewForConfigOrDie(cfg), kubernetes.NewForConfigOrDie(cfg)
	as := rest.CopyConfig(cfg)
	as.Impersonate = rest.ImpersonationConfig{UserName: userName, Groups: []string{userGroup, "system:authenticated"}}
	as.WarningHandlerWithContext = c.answer
	as.Wrap(func(next http.RoundTripper) http.RoundTripper { c.answer.next = next; return c.answer })
	c.user, c.rest = dynamic.NewForConfigOrDie(as), kubernetes.NewForConfigOrDie(as).CoreV1().RESTClient()
	return c
}

// at returns where objects of a resource are.
func at(client dynamic.Interface, r schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return client.Resource(r)
	}
	return client.Resource(r).Namespace(namespace)
}

// create makes an object for real.
func (c *cluster) create(t *testing.T, r schema.GroupVersionResource, u *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	out, err := at(c.admin, r, u.GetNamespace()).Create(t.Context(), u, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
	}
	return out
}

// await probes until something is so, for a minute.
func await(t *testing.T, what string, probe func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = probe(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// An answer is what the API server said to one request.
type answer struct {
	object   *unstructured.Unstructured // nil when refused
	status   *metav1.Status             // nil when admitted
	warnings []string
	auditID  string
}

// asked puts together the answer to the request that was made last.
func (c *cluster) asked(t *testing.T, object *unstructured.Unstructured, err error) answer {
	t.Helper()
	a := answer{object: object}
	a.auditID, a.warnings = c.answer.take()
	var status *apierrors.StatusError
	if err != nil && !errors.As(err, &status) {
		t.Fatalf("request: %v", err)
	}
	if status != nil {
		a.object, a.status = nil, &status.ErrStatus
	}
	return a
}

// annotations reads the audit log and returns the annotations of policies by
// audit id.
func (c *cluster) annotations(t *testing.T) map[string]map[string]string {
	t.Helper()
	f, err := os.Open(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var event struct {
			AuditID     string            `json:"auditID"`
			Stage       string            `json:"stage"`
			Annotations map[string]string `json:"annotations"`
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		if event.Stage != "ResponseComplete" {
			continue
		}
		for key := range event.Annotations {
			policy, _, _ := strings.Cut(key, "/")
			if strings.Contains(policy, ".k8s.io") && policy != "validation.policy.admission.k8s.io" {
				delete(event.Annotations, key)
			}
		}
		out[event.AuditID] = event.Annotations
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func (a answer) String() string {
	if a.status == nil {
		return fmt.Sprintf("admitted, warnings %q", a.warnings)
	}
	return fmt.Sprintf("%d %s %q, warnings %q", a.status.Code, a.status.Reason, a.status.Message, a.warnings)
}
