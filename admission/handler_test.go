package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/deadline"
)

// builtIn loads the built-in policies.
func builtIn(t testing.TB) *policy.Set {
	t.Helper()
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// failing loads policies that every pod violates, one for each message, with
// this action.
func failing(t testing.TB, action string, messages ...string) *policy.Set {
	t.Helper()
	var text strings.Builder
	for i, message := range messages {
		fmt.Fprintf(&text, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: p%d}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods, namespaces]}]}
  validations: [{expression: 'false', message: %q}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: p%d}
spec: {policyName: p%d, validationActions: [%s]}
---`, i, message, i, i, action)
	}
	set, err := policy.Load(policy.File{Name: "p.yaml", Data: []byte(text.String())})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A recorder keeps decisions.
type recorder struct {
	mu        sync.Mutex
	decisions []finding.Decision
}

func (r *recorder) record(d finding.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decisions = append(r.decisions, d)
}

func (r *recorder) last(t *testing.T) finding.Decision {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.decisions) == 0 {
		t.Fatal("no decision is recorded")
	}
	return r.decisions[len(r.decisions)-1]
}

// everywhere finds a namespace under every name.
func everywhere(_ context.Context, name string) (*corev1.Namespace, error) {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}, nil
}

func newHandler(set *policy.Set, r *recorder) http.Handler {
	return NewHandler(Options{
		Policies:   func() Policies { return set },
		Namespaces: policy.NamespacesFunc(everywhere),
		Record:     r.record,
		Namespace:  "kubeguardian",
		Log:        slog.New(slog.DiscardHandler),
	})
}

// podReview is the review of the creation of a pod, as the API server sends it.
func podReview(namespace, spec string) *admissionv1.AdmissionReview {
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:       "uid-1",
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: namespace,
			Operation: admissionv1.Create,
			UserInfo:  authenticationv1.UserInfo{Username: "ann", Groups: []string{"devs"}},
			Object:    runtime.RawExtension{Raw: fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":%q},"spec":%s}`, namespace, spec)},
			Options:   runtime.RawExtension{Raw: []byte(`{"apiVersion":"meta.k8s.io/v1","kind":"CreateOptions"}`)},
			DryRun:    new(bool),
		},
	}
}

const (
	goodSpec = `{"hostUsers":false,"containers":[{"name":"web","image":"web:1","securityContext":{"allowPrivilegeEscalation":false}}]}`
	badSpec  = `{"hostNetwork":true,"containers":[{"name":"web","image":"web","securityContext":{"privileged":true}}]}`
)

func post(t *testing.T, url string, review *admissionv1.AdmissionReview) *admissionv1.AdmissionResponse {
	t.Helper()
	return postWith(t, http.DefaultClient, url, review)
}

func postWith(t *testing.T, client *http.Client, url string, review *admissionv1.AdmissionReview) *admissionv1.AdmissionResponse {
	t.Helper()
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatalf("status %d: %v", resp.StatusCode, err)
	}
	if answer.APIVersion != "admission.k8s.io/v1" || answer.Kind != "AdmissionReview" || answer.Response == nil || answer.Response.UID != review.Request.UID {
		t.Fatalf("answer = %+v, want a response to %s", answer, review.Request.UID)
	}
	return answer.Response
}

func TestDecisions(t *testing.T) {
	tests := []struct {
		name         string
		set          *policy.Set
		namespace    string
		spec         string
		message      string // of the denial; empty means allowed
		warnings     []string
		annotations  map[string]string
		unconsidered bool // no policy was evaluated
	}{
		{name: "allowed", set: failing(t, "Deny"), namespace: "shop", spec: badSpec},
		{name: "denied", set: failing(t, "Deny", "no"), namespace: "shop", spec: goodSpec, message: "[p0] no"},
		{name: "denied by several", set: failing(t, "Deny", "no", "never"), namespace: "shop", spec: goodSpec, message: "[p0] no\n[p1] never"},
		{name: "warned", set: failing(t, "Warn", "careful"), namespace: "shop", spec: goodSpec, warnings: []string{"[p0] careful"}},
		{name: "audited", set: failing(t, "Audit", "note", "other"), namespace: "shop", spec: goodSpec, annotations: map[string]string{"p0": "note", "p1": "other"}},
		{name: "denied and audited", set: failing(t, "Deny, Audit", "no"), namespace: "shop", spec: goodSpec, message: "[p0] no", annotations: map[string]string{"p0": "no"}},
		{name: "kube-system", set: failing(t, "Deny", "no"), namespace: "kube-system", spec: badSpec, unconsidered: true},
		{name: "kube-public", set: failing(t, "Deny", "no"), namespace: "kube-public", spec: badSpec, unconsidered: true},
		{name: "kube-node-lease", set: failing(t, "Deny", "no"), namespace: "kube-node-lease", spec: badSpec, unconsidered: true},
		{name: "own namespace", set: failing(t, "Deny", "no"), namespace: "kubeguardian", spec: badSpec, unconsidered: true},
		{name: "similar namespace", set: failing(t, "Deny", "no"), namespace: "kube-system2", spec: badSpec, message: "[p0] no"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var r recorder
			server := httptest.NewServer(newHandler(test.set, &r))
			defer server.Close()
			got := post(t, server.URL+ValidatePath, podReview(test.namespace, test.spec))
			if got.Allowed != (test.message == "") || !slices.Equal(got.Warnings, test.warnings) || !maps.Equal(got.AuditAnnotations, test.annotations) {
				t.Errorf("response = %+v, want message %q, warnings %q, annotations %q", got, test.message, test.warnings, test.annotations)
			}
			if !got.Allowed && (got.Result.Code != http.StatusForbidden || got.Result.Reason != metav1.StatusReasonForbidden || got.Result.Message != test.message) {
				t.Errorf("result = %+v, want 403 %q", got.Result, test.message)
			}
			d := r.last(t)
			if d.Allowed != got.Allowed || test.unconsidered && len(d.Violations) > 0 {
				t.Errorf("recorded %+v", d)
			}
		})
	}
}

func TestDecisionIsRecorded(t *testing.T) {
	var r recorder
	server := httptest.NewServer(newHandler(builtIn(t), &r))
	defer server.Close()
	review := podReview("shop", badSpec)
	review.Request.DryRun = new(true)
	got := post(t, server.URL+ValidatePath, review)
	want := "[host-network] the network of the node is used; set hostNetwork to false\n" +
		"[privileged-containers] privileged containers: web; set securityContext.privileged to false"
	if got.Allowed || got.Result.Message != want {
		t.Errorf("response = %+v, want %q", got, want)
	}
	d := r.last(t)
	if d.ID != "uid-1" || d.Operation != "CREATE" || d.User != "ann" || d.Subject.String() != "Pod/shop/web" || d.Subject.APIVersion != "v1" || d.Allowed || !d.DryRun || d.Time.IsZero() {
		t.Errorf("recorded %+v", d)
	}
	if i := slices.IndexFunc(d.Violations, func(v finding.Violation) bool { return v.Policy == "privileged-containers" }); i < 0 || d.Violations[i].Details["containers"] != "web" {
		t.Errorf("violations = %+v, want the privileged container named", d.Violations)
	}
}

func TestNameOfSubject(t *testing.T) {
	tests := []struct {
		name, object string
		request      string
		want         string
	}{
		{"of the request", `{"metadata":{"name":"a"}}`, "web", "web"},
		{"of the object", `{"metadata":{"name":"a"}}`, "", "a"},
		{"generated", `{"metadata":{"generateName":"web-"}}`, "", "web-"},
		{"unknown", `{"metadata":[]}`, "", ""},
		{"no object", `null`, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var r recorder
			server := httptest.NewServer(newHandler(failing(t, "Deny"), &r))
			defer server.Close()
			review := podReview("shop", goodSpec)
			review.Request.Name, review.Request.Object.Raw = test.request, []byte(test.object)
			post(t, server.URL+ValidatePath, review)
			if got := r.last(t).Subject.Name; got != test.want {
				t.Errorf("name = %q, want %q", got, test.want)
			}
		})
	}
}

func TestRefusedRequests(t *testing.T) {
	valid, err := json.Marshal(podReview("shop", goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string { return strings.Replace(string(valid), old, new, 1) }
	tests := []struct {
		name, method, media, body string
		want                      int
		text                      string
	}{
		{"GET", http.MethodGet, "application/json", "", 405, "want POST"},
		{"form", http.MethodPost, "application/x-www-form-urlencoded", "a=b", 415, "want application/json"},
		{"no content type", http.MethodPost, "", "{}", 415, "want application/json"},
		{"empty", http.MethodPost, "application/json", "", 400, "parse AdmissionReview"},
		{"half", http.MethodPost, "application/json", string(valid[:len(valid)/2]), 400, "parse AdmissionReview"},
		{"two documents", http.MethodPost, "application/json", string(valid) + "{}", 400, "parse AdmissionReview"},
		{"no object", http.MethodPost, "application/json", "[]", 400, "parse AdmissionReview"},
		{"old version", http.MethodPost, "application/json", edit("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), 400, `have "admission.k8s.io/v1beta1"`},
		{"other kind", http.MethodPost, "application/json", edit("AdmissionReview", "Pod"), 400, `"Pod"`},
		{"no request", http.MethodPost, "application/json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400, "request is missing"},
		{"no uid", http.MethodPost, "application/json", edit(`"uid-1"`, `""`), 400, "request.uid is missing"},
		{"no operation", http.MethodPost, "application/json", edit(`"CREATE"`, `""`), 400, "request.operation"},
		{"deep user", http.MethodPost, "application/json", edit(`"userInfo":{`, `"deep":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`,"userInfo":{`), 400, "nested deeper than 512 levels"},
		{"large", http.MethodPost, "application/json", strings.Repeat(" ", 49<<20), 413, "larger than 50331648 bytes"},
		{"charset", http.MethodPost, "application/json; charset=utf-8", string(valid), 200, "uid-1"},
	}
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Deny"), &r))
	defer server.Close()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+ValidatePath, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if test.media != "" {
				req.Header.Set("Content-Type", test.media)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != test.want || !strings.Contains(string(text), test.text) {
				t.Errorf("answer = %d %q, want %d %q", resp.StatusCode, text, test.want, test.text)
			}
		})
	}
	if len(r.decisions) != 1 {
		t.Errorf("%d decisions are recorded, want the one of the valid request", len(r.decisions))
	}
}

// TestPanic expects the answer of the failure policy for the one request, that
// it is counted, and that the handler goes on.
func TestPanic(t *testing.T) {
	var broken atomic.Bool
	var r recorder
	set := failing(t, "Deny", "no")
	var causes causes
	server := httptest.NewServer(NewHandler(Options{
		Policies: func() Policies {
			if broken.Load() {
				panic("boom")
			}
			return set
		},
		Record:   r.record,
		Unjudged: causes.add,
		Log:      slog.New(slog.DiscardHandler),
	}))
	defer server.Close()
	broken.Store(true)
	if got := post(t, server.URL+ValidatePath, podReview("shop", goodSpec)); !got.Allowed || len(got.Warnings) != 1 || got.AuditAnnotations["unjudged"] != "panic" {
		t.Errorf("response under Ignore = %+v", got)
	}
	got := post(t, server.URL+ValidateClosedPath, podReview("shop", goodSpec))
	if got.Allowed || got.Result.Code != http.StatusServiceUnavailable || got.Result.Message != "[kubeguardian] not judged (panic): the failure policy Fail refuses it; try again" {
		t.Errorf("response under Fail = %+v", got)
	}
	broken.Store(false)
	if got := post(t, server.URL+ValidatePath, podReview("shop", goodSpec)); got.Allowed || got.Result.Message != "[p0] no" {
		t.Errorf("response after panics = %+v", got)
	}
	if got := causes.all(); !slices.Equal(got, []Cause{Panicked, Panicked}) {
		t.Errorf("causes = %v, want two panics", got)
	}
}

// causes keeps why reviews were not judged.
type causes struct {
	mu   sync.Mutex
	seen []Cause
}

func (c *causes) add(cause Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, cause)
}

func (c *causes) all() []Cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

// TestCancelledRequest expects no decision for a caller that is gone.
func TestCancelledRequest(t *testing.T) {
	var r recorder
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	body, err := json.Marshal(podReview("shop", goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, ValidatePath, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	newHandler(failing(t, "Deny", "no"), &r).ServeHTTP(answer, req)
	if answer.Code != http.StatusInternalServerError || len(r.decisions) > 0 {
		t.Errorf("status %d, %d decisions; want 500 and none", answer.Code, len(r.decisions))
	}
}

// TestPoliciesAreExchanged expects the policies of the time of the request.
func TestPoliciesAreExchanged(t *testing.T) {
	set := failing(t, "Deny", "no")
	var r recorder
	server := httptest.NewServer(NewHandler(Options{
		Policies: func() Policies { return set }, Record: r.record, Log: slog.New(slog.DiscardHandler),
	}))
	defer server.Close()
	if post(t, server.URL+ValidatePath, podReview("shop", goodSpec)).Allowed {
		t.Error("allowed by the first policies")
	}
	set = failing(t, "Deny")
	if !post(t, server.URL+ValidatePath, podReview("shop", goodSpec)).Allowed {
		t.Error("denied by policies that are gone")
	}
}

// TestUnknownNamespaceDenies expects the failure policy of the policies, not
// of the webhook, when a namespace whose labels matter cannot be found. Its name
// is known without it.
func TestUnknownNamespaceDenies(t *testing.T) {
	for selector, want := range map[string]bool{
		"{matchLabels: {strict: 'yes'}}":                               false,
		"{matchLabels: {kubernetes.io/metadata.name: somewhere-else}}": true,
	} {
		set, err := policy.Load(policy.File{Name: "p.yaml", Data: fmt.Appendf(nil, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: strict}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: 'true'}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: strict}
spec: {policyName: strict, validationActions: [Deny], matchResources: {namespaceSelector: %s}}
`, selector)})
		if err != nil {
			t.Fatal(err)
		}
		var r recorder
		server := httptest.NewServer(NewHandler(Options{
			Policies: func() Policies { return set },
			Namespaces: policy.NamespacesFunc(func(context.Context, string) (*corev1.Namespace, error) {
				return nil, errors.New("API server is away")
			}),
			Record: r.record,
			Log:    slog.New(slog.DiscardHandler),
		}))
		got := post(t, server.URL+ValidatePath, podReview("shop", goodSpec))
		server.Close()
		if got.Allowed != want || !want && !strings.Contains(got.Result.Message, "API server is away") {
			t.Errorf("%s: response = %+v", selector, got)
		}
	}
}

// TestOversizedReviewIsDenied expects a denial of what is too large to be read,
// and that the caller can read it while it sends.
func TestOversizedReviewIsDenied(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of MiB")
	}
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Warn"), &r))
	defer server.Close()
	spec := `{"containers":[{"name":"web","image":"` + strings.Repeat(`\u003c`, 9<<20) + `"}]}`
	got := post(t, server.URL+ValidatePath, podReview("shop", spec))
	if got.Allowed || !strings.Contains(got.Result.Message, "too large to be judged") {
		t.Errorf("response = %+v, want a denial", got)
	}
	if d := r.last(t); d.Subject.Kind != "Pod" || d.Subject.Namespace != "shop" || d.User != "ann" || d.Allowed {
		t.Errorf("recorded %+v", d)
	}
	if got := post(t, server.URL+ValidatePath, podReview("kube-system", spec)); !got.Allowed {
		t.Errorf("response in kube-system = %+v", got)
	}
}

// TestLargestReviewIsJudged escapes two objects of 3 MiB as the API server does.
func TestLargestReviewIsJudged(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of MiB")
	}
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Deny", "no"), &r))
	defer server.Close()
	review := podReview("shop", `{"containers":[{"name":"web","image":"`+strings.Repeat(`\u003c`, 3<<20)+`"}]}`)
	review.Request.OldObject = review.Request.Object
	if got := post(t, server.URL+ValidatePath, review); got.Allowed || got.Result.Message != "[p0] no" {
		t.Errorf("response = %+v, want the denial of the policy", got)
	}
}

// bound loads policies that ask for the namespace, where the time runs out,
// with these actions.
func bound(t *testing.T, actions ...string) *policy.Set {
	t.Helper()
	var text strings.Builder
	for i, action := range actions {
		fmt.Fprintf(&text, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: p%d}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: 'namespaceObject.metadata.name == ""', message: never}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: p%d}
spec: {policyName: p%d, validationActions: [%s]}
---`, i, i, i, action)
	}
	set, err := policy.Load(policy.File{Name: "p.yaml", Data: []byte(text.String())})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestOutOfTime(t *testing.T) {
	large := `{"containers":[{"name":"web","image":"` + strings.Repeat("x", 100<<10) + `"}]}`
	tests := []struct {
		name, path, spec string
		actions          []string
		message          string
		warnings         []string
	}{
		{"large, among denials", ValidatePath, large, []string{"Warn", "Deny", "Deny"}, "[p1] the object is too large to be judged in time", nil},
		{"small, fail-open", ValidatePath, goodSpec, []string{"Deny"}, "", []string{"[kubeguardian] not judged (out-of-time): the failure policy Ignore lets it pass"}},
		{"small, fail-closed", ValidateClosedPath, goodSpec, []string{"Deny"}, "[kubeguardian] not judged (out-of-time): the failure policy Fail refuses it; try again", nil},
		{"large, among warnings", ValidatePath, large, []string{"Warn", "Audit"}, "", []string{"[p0] not evaluated for lack of time; policies left: 2"}},
		{"small, among warnings", ValidateClosedPath, goodSpec, []string{"Audit"}, "", []string{"[p0] not evaluated for lack of time; policies left: 1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // it waits for the end of the time, of which a busy machine needs some to begin
			var r recorder
			set := bound(t, test.actions...)
			handler := NewHandler(Options{
				Policies: func() Policies { return set },
				Namespaces: policy.NamespacesFunc(func(ctx context.Context, name string) (*corev1.Namespace, error) {
					<-ctx.Done()
					return everywhere(ctx, name)
				}),
				Record: r.record,
				Log:    slog.New(slog.DiscardHandler),
			})
			body, err := json.Marshal(podReview("shop", test.spec))
			if err != nil {
				t.Fatal(err)
			}
			req := httptest.NewRequest(http.MethodPost, test.path+"?timeout=2s", bytes.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, req)
			if answer.Code != http.StatusOK {
				t.Fatalf("status %d: %s", answer.Code, answer.Body)
			}
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil {
				t.Fatal(err)
			}
			got := review.Response
			if got.Allowed != (test.message == "") || !slices.Equal(got.Warnings, test.warnings) || !got.Allowed && got.Result.Message != test.message {
				t.Errorf("response = %+v, want message %q, warnings %q", got, test.message, test.warnings)
			}
			if r.last(t).Allowed != got.Allowed {
				t.Errorf("recorded %+v", r.last(t))
			}
		})
	}
}

// TestRunaways asks until so many evaluations go on after their time that no more
// are begun. The answer is then that of the failure policy, at once, and large
// objects are not blamed.
func TestRunaways(t *testing.T) {
	var r recorder
	set, release := bound(t, "Deny"), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	handler := NewHandler(Options{
		Policies: func() Policies { return set },
		Namespaces: policy.NamespacesFunc(func(ctx context.Context, name string) (*corev1.Namespace, error) {
			<-release
			return everywhere(ctx, name)
		}),
		Record: r.record,
		Log:    slog.New(slog.DiscardHandler),
	})
	body, err := json.Marshal(podReview("shop", `{"containers":[{"name":"web","image":"`+strings.Repeat("x", 100<<10)+`"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(timeout string) string {
		req := httptest.NewRequest(http.MethodPost, ValidateClosedPath+"?timeout="+timeout, bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, req)
		return answer.Body.String()
	}
	blamed := false
	for i := 0; set.Runaways() < deadline.MaxRunaways; i++ {
		blamed = strings.Contains(ask("100ms"), "too large to be judged in time") || blamed // under load it may get no turn
		if i == 200 {
			t.Fatalf("there are %d runaways only", set.Runaways())
		}
	}
	if !blamed {
		t.Error("no large object is blamed for what it takes")
	}
	if got := ask("30s"); !strings.Contains(got, "not judged (overloaded)") || strings.Contains(got, "too large") {
		t.Errorf("with %d runaways the answer is %s", set.Runaways(), got)
	}
	free()
	for start := time.Now(); set.Runaways() > 0 && time.Since(start) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	if got := ask("30s"); strings.Contains(got, "not judged") || strings.Contains(got, "too large") {
		t.Errorf("after %d runaways the answer is %s", set.Runaways(), got)
	}
}

func TestTimeoutOfURL(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"": 10 * time.Second, "?timeout=3s": 3 * time.Second, "?timeout=2.5s": 2500 * time.Millisecond,
		"?timeout=x": 10 * time.Second, "?timeout=0s": 10 * time.Second, "?timeout=-3s": 10 * time.Second, "?timeout=1h": 30 * time.Second,
	} {
		if got := timeout(httptest.NewRequest(http.MethodPost, "/"+query, nil)); got != want {
			t.Errorf("timeout of %q = %s, want %s", query, got, want)
		}
	}
}

// TestManyVariables sends what cel-go takes long to judge, a pod with very many
// environment variables, and expects a timely answer, privileged or not.
func TestManyVariables(t *testing.T) {
	var env strings.Builder
	for i := range 25_000 {
		fmt.Fprintf(&env, `,{"name":"V%d","value":"v"}`, i)
	}
	var r recorder
	server := httptest.NewServer(newHandler(builtIn(t), &r))
	defer server.Close()
	for _, test := range []struct {
		privileged bool
		timeout    time.Duration
	}{{true, 30 * time.Second}, {false, time.Second}} {
		spec := fmt.Sprintf(`{"containers":[{"name":"web","image":"web:1","securityContext":{"privileged":%v},"env":[%s]}]}`, test.privileged, env.String()[1:])
		start := time.Now()
		got := post(t, server.URL+ValidatePath+"?timeout="+test.timeout.String(), podReview("shop", spec))
		if took := time.Since(start); took > test.timeout+time.Minute { // one that does not look at the clock takes longer
			t.Errorf("privileged %v: took %s", test.privileged, took)
		}
		if test.privileged && (got.Allowed || !strings.HasPrefix(got.Result.Message, "[privileged-containers]")) {
			t.Errorf("response = %+v, want the denial of privileged-containers", got)
		}
	}
}

func FuzzHandler(f *testing.F) {
	for _, spec := range []string{goodSpec, badSpec, "null", "[]", `{"containers":null}`} {
		body, err := json.Marshal(podReview("shop", spec))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","resource":{"resource":"pods","version":"v1"},"operation":"UPDATE","object":{"metadata":1},"oldObject":{}}}`))
	var r recorder
	handler := newHandler(builtIn(f), &r)
	f.Fuzz(func(t *testing.T, body []byte) {
		r.decisions = nil
		req := httptest.NewRequest(http.MethodPost, ValidatePath, bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, req)
		switch answer.Code {
		case http.StatusOK:
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil || review.Response == nil || len(r.decisions) != 1 {
				t.Errorf("answer = %s: %v; %d decisions", answer.Body, err, len(r.decisions))
			}
		case http.StatusBadRequest:
		default:
			t.Errorf("status %d: %s", answer.Code, answer.Body)
		}
	})
}

// BenchmarkReview measures one review, bytes in and bytes out, by all built-in
// policies.
func BenchmarkReview(b *testing.B) {
	denied, allowed, other := podReview("shop", badSpec), podReview("shop", goodSpec), podReview("shop", goodSpec)
	other.Request.Kind.Kind, other.Request.Resource.Resource = "ConfigMap", "configmaps"
	set := builtIn(b)
	handler := NewHandler(Options{
		Policies:   func() Policies { return set },
		Namespaces: policy.NamespacesFunc(everywhere),
		Record:     func(finding.Decision) {},
		Log:        slog.New(slog.DiscardHandler),
	})
	for name, review := range map[string]*admissionv1.AdmissionReview{"denied": denied, "allowed": allowed, "other": other} {
		body, err := json.Marshal(review)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequest(http.MethodPost, ValidatePath, bytes.NewReader(body))
				req.Header.Set("Content-Type", "application/json")
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, req)
				if answer.Code != http.StatusOK {
					b.Fatal(answer.Body)
				}
			}
		})
	}
}
