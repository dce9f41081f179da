package watch

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/alert"
)

// newWatch returns a watch over the webhook of a cluster, and the rules of the alerts
// that it raises, newest first.
func newWatch(t *testing.T, apiServer, file string) (w *Watch, raised func() []string) {
	t.Helper()
	config := &rest.Config{Host: apiServer}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	heartbeat, err := admission.NewHeartbeat(config, "kubeguardian")
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	return New(Options{
		Heartbeat: heartbeat, BreakGlass: admission.NewBreakGlass(client, "kubeguardian"), File: file, Alone: true,
		Removing: func() bool { return false }, Log: slog.New(slog.DiscardHandler),
		Raise: func(_ context.Context, _ alert.Priority, rule, _, _ string) { rules = slices.Insert(rules, 0, rule) },
	}), func() []string { return rules }
}

// TestBlindAdmissionAlerts lets probes through unasked, then asks, as an API
// server would.
func TestBlindAdmissionAlerts(t *testing.T) {
	var asks atomic.Bool
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 4096)
		n, _ := r.Body.Read(body)
		if _, nonce, ok := strings.Cut(string(body[:n]), `heartbeat":"`); ok && asks.Load() {
			nonce, _, _ = strings.Cut(nonce, `"`)
			w.Header().Add("Warning", fmt.Sprintf(`299 - "[heartbeat.kubeguardian.dev] %s"`, nonce))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"apiVersion":"v1","kind":"ConfigMap"}`)
	}))
	defer apiServer.Close()
	file := filepath.Join(t.TempDir(), "heartbeat")
	w, raised := newWatch(t, apiServer.URL, file)
	var log bytes.Buffer
	w.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	for range BlindAfter - 1 {
		w.beat(t.Context())
	}
	if log.Len() > 0 { // a server that has just started is not registered yet
		t.Errorf("%d misses are logged: %s", BlindAfter-1, log.String())
	}
	if got := raised(); len(got) != 0 {
		t.Errorf("alerts after %d misses: %q", BlindAfter-1, got)
	}
	for range 3 {
		w.beat(t.Context())
	}
	if got := raised(); !slices.Equal(got, []string{RuleBlind}) {
		t.Errorf("alerts = %q, want one that admission is blind", got)
	}
	if said := log.String(); strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, "admission is blind") {
		t.Errorf("the log is %s", said)
	}
	if problems := strings.Join(w.Problems(), "\n"); !strings.Contains(problems, "Admission is blind since") || !w.Blind() {
		t.Errorf("problems: %s", problems)
	}
	asks.Store(true)
	w.beat(t.Context())
	if got := raised(); !slices.Equal(got, []string{RuleSees, RuleBlind}) {
		t.Errorf("alerts = %q, want the end of it", got)
	}
	if strings.Contains(strings.Join(w.Problems(), "\n"), "blind") || w.Blind() {
		t.Errorf("problems: %q", w.Problems())
	}
	// A start after a long time says that nobody looked.
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, long, long); err != nil {
		t.Fatal(err)
	}
	w, raised = newWatch(t, apiServer.URL, file)
	w.beat(t.Context())
	w.beat(t.Context())
	if got := raised(); !slices.Equal(got, []string{RuleBlind}) {
		t.Errorf("alerts = %q, want that nobody looked", got)
	}
}

// TestBreakGlassAlerts reads the object that people write.
func TestBreakGlassAlerts(t *testing.T) {
	var data atomic.Value
	data.Store("")
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"break-glass","namespace":"kubeguardian","creationTimestamp":%q},"data":{%s}}`,
			time.Now().UTC().Truncate(time.Hour).Format(time.RFC3339), data.Load())
	}))
	defer apiServer.Close()
	w, raised := newWatch(t, apiServer.URL, filepath.Join(t.TempDir(), "heartbeat"))
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, step := range []struct {
		data    string
		alerts  []string
		problem string
	}{
		{"", nil, ""},
		{fmt.Sprintf(`"until":%q,"reason":"INC-1"`, until), []string{RuleBreakGlass}, "Denials only warn until " + until + " (break-glass: INC-1)."},
		{fmt.Sprintf(`"until":%q,"reason":"INC-1"`, until), []string{RuleBreakGlass}, "INC-1"},
		{`"until":"soon","reason":"INC-1"`, []string{RuleEnforced, RuleBreakGlass}, "Whether the break-glass is used is not known"},
	} {
		data.Store(step.data)
		w.checkBreakGlass(t.Context())
		if got := raised(); !slices.Equal(got, step.alerts) {
			t.Errorf("after {%s}: alerts = %q, want %q", step.data, got, step.alerts)
		}
		if problems := strings.Join(w.Problems(), "\n"); !strings.Contains(problems, step.problem) {
			t.Errorf("after {%s}: problems: %s", step.data, problems)
		}
	}
}
