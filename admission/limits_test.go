package admission

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// many returns n different messages of a length.
func many(n, length int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%04d %s", i, strings.Repeat("ü", length/2))
	}
	return out
}

// TestMessagesAreCutWithCount expects what the API server can pass on, whole
// characters, and the number of what is left out.
func TestMessagesAreCutWithCount(t *testing.T) {
	var r recorder
	respond := func(action string, messages []string) (message string, warnings []string, annotations map[string]string) {
		t.Helper()
		server := httptest.NewServer(newHandler(failing(t, action, messages...), &r))
		defer server.Close()
		got := post(t, server.URL+ValidatePath, podReview("shop", goodSpec))
		if got.Result != nil {
			message = got.Result.Message
		}
		return message, got.Warnings, got.AuditAnnotations
	}
	if message, _, _ := respond("Deny", many(1, 20_000)); len(message) > maxMessageBytes || len(message) < maxMessageBytes-4 || !utf8.ValidString(message) {
		t.Errorf("one long message has %d bytes", len(message))
	}
	message, _, _ := respond("Deny", many(50, 500))
	shown := strings.Count(message, "[p")
	if want := fmt.Sprintf("\nand %d more of 50 reasons", 50-shown); shown < 10 || !strings.HasSuffix(message, want) || len(message) > maxMessageBytes+len(want) {
		t.Errorf("message has %d bytes, %d reasons and ends in %q, want %q", len(message), shown, message[max(len(message)-40, 0):], want)
	}
	_, warnings, _ := respond("Warn", many(50, 500))
	total := 0
	for _, w := range warnings {
		if len(w) > maxWarningBytes || !utf8.ValidString(w) {
			t.Errorf("warning of %d bytes: %s", len(w), w)
		}
		total += len(w)
	}
	if last := warnings[len(warnings)-1]; total > 4096 || last != fmt.Sprintf("[kubeguardian] and %d more of 50 warnings", 51-len(warnings)) {
		t.Errorf("%d warnings of %d bytes, the last %q", len(warnings), total, last)
	}
	_, _, annotations := respond("Audit", many(50, 2000))
	if got := annotations[omittedKey]; got != fmt.Sprintf("%d more violations", 51-len(annotations)) {
		t.Errorf("%d annotations, omitted: %q", len(annotations), got)
	}
}

// TestFieldIsNamed expects the path that a policy gives in the message and, for
// programs, in the causes.
func TestFieldIsNamed(t *testing.T) {
	set, err := policy.Load(policy.File{Name: "p.yaml", Data: []byte(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: host-network}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: '!object.spec.?hostNetwork.orValue(false)', message: 'set it to false'}]
  auditAnnotations: [{key: field, valueExpression: "'spec.hostNetwork'"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: host-network}
spec: {policyName: host-network, validationActions: [Deny]}
`)})
	if err != nil {
		t.Fatal(err)
	}
	var r recorder
	server := httptest.NewServer(newHandler(set, &r))
	defer server.Close()
	got := post(t, server.URL+ValidatePath, podReview("shop", badSpec))
	if got.Allowed || got.Result.Message != "[host-network] spec.hostNetwork: set it to false" {
		t.Fatalf("response = %+v", got)
	}
	details := got.Result.Details
	if details.Kind != "Pod" || details.Name != "web" || details.Group != "" || len(details.Causes) != 1 || details.Causes[0].Field != "spec.hostNetwork" || details.Causes[0].Type != "host-network" {
		t.Errorf("details = %+v", details)
	}
}

// TestDeepObjectIsDenied expects a denial and not an error, which a failure
// policy could let pass, and that the depth of an honest object is no trouble.
func TestDeepObjectIsDenied(t *testing.T) {
	nested := func(levels int) string {
		return `{"containers":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + `,"note":"` + strings.Repeat("[", 2*maxDepth) + `\""}`
	}
	for _, test := range []struct {
		levels  int
		delete  bool
		dryRun  bool
		allowed bool
	}{{levels: 300, allowed: true}, {levels: 600}, {levels: 9000, dryRun: true}, {levels: 600, delete: true}} {
		var r recorder
		server := httptest.NewServer(newHandler(failing(t, "Audit", "note"), &r))
		review := podReview("shop", nested(test.levels))
		review.Request.DryRun = &test.dryRun
		if test.delete {
			review.Request.Operation = "DELETE"
			review.Request.OldObject.Raw, review.Request.Object.Raw = review.Request.Object.Raw, nil
		}
		got := post(t, server.URL+ValidatePath, review)
		server.Close()
		if got.Allowed != test.allowed || !got.Allowed && !strings.Contains(got.Result.Message, "nested deeper than 512 levels") {
			t.Errorf("%d levels: response = %+v", test.levels, got)
		}
		if d := r.last(t); d.Subject.Namespace != "shop" || d.DryRun != test.dryRun || d.Allowed != got.Allowed {
			t.Errorf("%d levels: recorded %+v", test.levels, d)
		}
	}
}

// TestManyAtOnce sends 1,000 reviews at the same moment and expects a verdict
// for each.
func TestManyAtOnce(t *testing.T) {
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Deny", "no"), &r))
	defer server.Close()
	body, err := json.Marshal(podReview("shop", goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	start := make(chan struct{})
	var group sync.WaitGroup
	for range 1000 {
		group.Go(func() {
			<-start
			resp, err := client.Post(server.URL+ValidatePath, "application/json", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "[p0] no") {
				t.Errorf("status %d: %s %v", resp.StatusCode, text, err)
			}
		})
	}
	close(start)
	group.Wait()
	if len(r.decisions) != 1000 {
		t.Errorf("%d decisions, want 1000", len(r.decisions))
	}
}

// TestOverload holds all the memory that reviews may take, and then the turns of
// evaluation, and expects a clear answer before the timeout for the next one.
func TestOverload(t *testing.T) {
	set := failing(t, "Warn", "careful")
	var causes causes
	var r recorder
	h := NewHandler(Options{
		Policies: func() Policies { return set }, Record: r.record, Unjudged: causes.add, Log: slog.New(slog.DiscardHandler),
	}).(*handler)
	server := httptest.NewServer(h)
	defer server.Close()
	body, err := json.Marshal(podReview("shop", goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	all, err := h.small.take(t.Context(), "somebody", maxSmallInFlight, func() {})
	if err != nil {
		t.Fatal(err)
	}
	all.came()
	resp, err := http.Post(server.URL+ValidatePath+"?timeout=100ms", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("without memory: %d, retry after %q; want 429 after 1", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	all.leave()

	var group sync.WaitGroup
	for h.evaluations.TryAcquire(1) { // all turns are taken
	}
	group.Go(func() {
		if got := post(t, server.URL+ValidatePath, podReview("shop", goodSpec)); !got.Allowed || len(got.Warnings) != 1 {
			t.Errorf("response after the wait = %+v", got)
		}
	})
	got := post(t, server.URL+ValidateClosedPath+"?timeout=5s", podReview("shop", goodSpec))
	if got.Allowed || !strings.Contains(got.Result.Message, "not judged (overloaded)") {
		t.Errorf("response without a turn = %+v", got)
	}
	h.evaluations.Release(1)
	group.Wait()
	if got := causes.all(); len(got) != 2 || got[0] != Overloaded || got[1] != Overloaded {
		t.Errorf("causes = %v, want overloaded twice", got)
	}
}

// TestSlowSender expects that a body that does not come in time holds nothing.
func TestSlowSender(t *testing.T) {
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Deny"), &r))
	defer server.Close()
	body, send := io.Pipe()
	defer send.Close()
	start := time.Now()
	resp, err := http.Post(server.URL+ValidatePath+"?timeout=100ms", "application/json", body)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d, want 400", resp.StatusCode)
		}
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the answer took %s", took)
	}
}

// TestDryRunIsJudged expects the same verdict for a dry run, recorded as one.
func TestDryRunIsJudged(t *testing.T) {
	var r recorder
	server := httptest.NewServer(newHandler(failing(t, "Deny", "no"), &r))
	defer server.Close()
	review := podReview("shop", goodSpec)
	review.Request.DryRun = new(true)
	if got := post(t, server.URL+ValidatePath, review); got.Allowed {
		t.Errorf("response = %+v", got)
	}
	if d := r.last(t); !d.DryRun || d.Allowed || d.Outcome() != finding.Denied {
		t.Errorf("recorded %+v", d)
	}
}

// TestLargeReviewsShareAConnection sends more than may be in memory over one
// HTTP/2 connection, as an API server does: those that wait for memory must not
// keep the others from being read.
func TestLargeReviewsShareAConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred MiB")
	}
	a := openAuthority(t, t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var r recorder
	srv := &http.Server{Handler: newHandler(failing(t, "Deny", "no"), &r), TLSConfig: a.ServerTLS("127.0.0.1"), HTTP2: HTTP2()}
	go srv.ServeTLS(ln, "", "")
	defer srv.Close()
	client := client(a, func(*tls.Config) {})
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	url := "https://" + ln.Addr().String() + ValidatePath + "?timeout=30s"
	large := podReview("shop", `{"containers":[{"name":"web","image":"`+strings.Repeat("x", 6<<20)+`"}]}`)
	if got := postWith(t, client, url, podReview("shop", goodSpec)); got.Allowed { // the connection is made
		t.Errorf("response = %+v", got)
	}
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if got := postWith(t, client, url, large); got.Allowed || got.Result.Message != "[p0] no" {
				t.Errorf("response = %+v", got)
			}
		})
	}
	group.Wait()
}

// TestDepthOfStrings: what is inside a string has no depth, however it ends.
func TestDepthOfStrings(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+1)
	for text, want := range map[string]bool{
		deep: true, `"` + deep: false, `"\"` + deep + `"`: false, `"\\"` + deep: true, `"\\\"` + deep + `"`: false,
		`["a",` + deep: true, `{"a":"b"}` + strings.Repeat("[]", 2*maxDepth): false, `"`: false, `"\`: false, ``: false,
	} {
		if got := tooDeep([]byte(text)); got != want {
			t.Errorf("%.20s: too deep = %v, want %v", text, got, want)
		}
	}
}
