package admission

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/policy"
)

func breakGlassObject(written time.Time, data map[string]string) *corev1.ConfigMap {
	at := metav1.NewTime(written)
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "kubeguardian", Name: BreakGlassObject, CreationTimestamp: metav1.NewTime(written.Add(-time.Hour)),
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl", Time: &at}},
		},
		Data: data,
	}
}

func TestParseRelaxation(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		data map[string]string
		want time.Time
		err  string
	}{
		{"empty", nil, time.Time{}, ""},
		{"only a reason", map[string]string{"reason": "INC-1"}, time.Time{}, ""},
		{"an hour", map[string]string{"until": "2026-05-01T13:00:00Z", "reason": "INC-1"}, now.Add(time.Hour), ""},
		{"another zone", map[string]string{"until": "2026-05-01T15:00:00+02:00", "reason": "INC-1"}, now.Add(time.Hour), ""},
		{"for ever", map[string]string{"until": "2099-01-01T00:00:00Z", "reason": "INC-1"}, now.Add(4 * time.Hour), ""},
		{"no reason", map[string]string{"until": "2026-05-01T13:00:00Z"}, time.Time{}, "data.reason is missing"},
		{"no time", map[string]string{"until": "an hour", "reason": "INC-1"}, time.Time{}, `have "an hour"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseRelaxation(breakGlassObject(now, test.data))
			if !got.Until.Equal(test.want) || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("relaxation = %+v, %v; want until %s, %q", got, err, test.want, test.err)
			}
		})
	}
}

func FuzzParseRelaxation(f *testing.F) {
	f.Add("2026-05-01T13:00:00Z", "INC-1")
	f.Add("", "\xff\n")
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, until, reason string) {
		got, err := ParseRelaxation(breakGlassObject(now, map[string]string{"until": until, "reason": reason}))
		if err != nil && got != (Relaxation{}) || got.Until.After(now.Add(maxRelaxation)) || len(got.Reason) > maxWarningBytes {
			t.Errorf("relaxation = %+v, %v", got, err)
		}
	})
}

// TestBreakGlass switches enforcement off by the object, and sees it end by
// itself.
func TestBreakGlass(t *testing.T) {
	now := time.Now()
	client := fake.NewClientset(breakGlassObject(now, nil))
	glass := NewBreakGlass(client, "kubeguardian")
	glass.now = func() time.Time { return now }
	set := failing(t, "Deny", "no")
	var r recorder
	var causes causes
	h := newMutator(&r, &causes)
	h.Policies, h.BreakGlass, h.Namespaces = func() Policies { return set }, glass, policy.NamespacesFunc(everywhere)
	server := httptest.NewServer(h)
	defer server.Close()
	check := func(want bool) {
		t.Helper()
		got := post(t, server.URL+ValidateClosedPath, podReview("shop", goodSpec))
		if got.Allowed != want || r.last(t).Allowed != want {
			t.Errorf("response = %+v, recorded %+v; want allowed: %v", got, r.last(t), want)
		}
		if want && (got.AuditAnnotations["break-glass"] != "INC-1" || len(got.Warnings) != 1 || !strings.HasSuffix(got.Warnings[0], "else denied: no")) {
			t.Errorf("response = %+v", got)
		}
		if change := post(t, server.URL+MutatePath, podReview("shop", goodSpec)); (change.Patch == nil) != want {
			t.Errorf("with break-glass %v: patch = %s", want, change.Patch)
		}
	}
	if err := glass.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(false)
	used := breakGlassObject(now, map[string]string{"until": now.Add(time.Hour).Format(time.RFC3339), "reason": "INC-1"})
	if _, err := client.CoreV1().ConfigMaps("kubeguardian").Update(t.Context(), used, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := glass.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(true)
	now = now.Add(61 * time.Minute)
	check(false)
	used.Data["until"] = "soon"
	if _, err := client.CoreV1().ConfigMaps("kubeguardian").Update(t.Context(), used, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := glass.Check(t.Context()); err == nil {
		t.Error("a time that cannot be read is no error")
	}
	if err := client.CoreV1().ConfigMaps("kubeguardian").Delete(t.Context(), BreakGlassObject, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := glass.Check(t.Context()); err != nil {
		t.Errorf("without the object: %v", err)
	}
	check(false)
}

// TestHeartbeat sends probes through a server that stands for the API server:
// it asks the webhook and passes its warnings on, or does not ask.
func TestHeartbeat(t *testing.T) {
	var r recorder
	webhook := newHandler(failing(t, "Deny", "no"), &r)
	asks, replays := true, ""
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		patch, err := io.ReadAll(req.Body)
		if err != nil || req.URL.Query().Get("dryRun") != "All" {
			t.Errorf("probe = %s %s: %v", req.URL, patch, err)
		}
		review := podReview("kubeguardian", goodSpec)
		review.Request.Resource.Resource, review.Request.Name, review.Request.Operation = "configmaps", HeartbeatObject, admissionv1.Update
		review.Request.DryRun, review.Request.Object.Raw = new(true), patch
		if replays != "" {
			w.Header().Add("Warning", `299 - "`+replays+`"`)
		}
		if asks {
			for _, warning := range postTo(t, webhook, ValidatePath, review).Warnings {
				w.Header().Add("Warning", `299 - "`+warning+`"`)
				replays = warning
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}); err != nil {
			t.Error(err)
		}
	}))
	heartbeat, err := NewHeartbeat(&rest.Config{Host: apiServer.URL}, "kubeguardian")
	if err != nil {
		t.Fatal(err)
	}
	if err := heartbeat.Beat(t.Context()); err != nil {
		t.Errorf("the webhook is asked: %v", err)
	}
	asks = false // and the answer of before comes again
	if err := heartbeat.Beat(t.Context()); !errors.Is(err, ErrBlind) {
		t.Errorf("the webhook is not asked: %v, want that admission is blind", err)
	}
	asks = true
	if err := heartbeat.Beat(t.Context()); err != nil {
		t.Errorf("the webhook is asked again: %v", err)
	}
	apiServer.Close()
	if err := heartbeat.Beat(t.Context()); err == nil || errors.Is(err, ErrBlind) {
		t.Errorf("without an API server: %v, want another error", err)
	}
	if len(r.decisions) != 0 {
		t.Errorf("%d probes are recorded as decisions", len(r.decisions))
	}
}

func postTo(t *testing.T, handler http.Handler, path string, review *admissionv1.AdmissionReview) *admissionv1.AdmissionResponse {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	return post(t, server.URL+path, review)
}

// TestOnlyProbesAreProbes expects a verdict for what merely resembles a probe.
func TestOnlyProbesAreProbes(t *testing.T) {
	var r recorder
	handler := newHandler(failing(t, "Deny", "no"), &r)
	review := podReview("shop", goodSpec)
	review.Request.Name, review.Request.DryRun = HeartbeatObject, new(true)
	if got := postTo(t, handler, ValidatePath, review); got.Allowed {
		t.Errorf("response = %+v", got)
	}
}
