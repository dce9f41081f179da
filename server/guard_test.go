package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/alert"
)

// raised returns the rules of the stored alerts, newest first.
func raised(t *testing.T, s *Server) []string {
	t.Helper()
	page, _, err := s.store.Alerts(t.Context(), alert.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, a := range page {
		rules = append(rules, a.Rule)
	}
	return rules
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
	opts := options(t, t.TempDir(), "")
	opts.Cluster = &rest.Config{Host: apiServer.URL}
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	var w watchman
	for range blindAfter - 1 {
		s.beat(t.Context(), &w)
	}
	if got := raised(t, s); len(got) != 0 {
		t.Errorf("alerts after %d misses: %q", blindAfter-1, got)
	}
	for range 3 {
		s.beat(t.Context(), &w)
	}
	if got := raised(t, s); !slices.Equal(got, []string{ruleBlind}) {
		t.Errorf("alerts = %q, want one that admission is blind", got)
	}
	if problems := strings.Join(s.health().Problems, "\n"); !strings.Contains(problems, "Admission is blind since") {
		t.Errorf("health: %s", problems)
	}
	asks.Store(true)
	s.beat(t.Context(), &w)
	if got := raised(t, s); !slices.Equal(got, []string{ruleSees, ruleBlind}) {
		t.Errorf("alerts = %q, want the end of it", got)
	}
	if strings.Contains(strings.Join(s.health().Problems, "\n"), "blind") {
		t.Errorf("health: %q", s.health().Problems)
	}
	// A start after a long time says that nobody looked.
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(opts.Config.DataDir, "heartbeat"), long, long); err != nil {
		t.Fatal(err)
	}
	w = watchman{}
	s.beat(t.Context(), &w)
	s.beat(t.Context(), &w)
	if got := raised(t, s); !slices.Equal(got, []string{ruleBlind, ruleSees, ruleBlind}) {
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
	opts := options(t, t.TempDir(), "")
	opts.Cluster = &rest.Config{Host: apiServer.URL}
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	var w watchman
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, step := range []struct {
		data   string
		alerts []string
		health string
	}{
		{"", nil, ""},
		{fmt.Sprintf(`"until":%q,"reason":"INC-1"`, until), []string{ruleBreakGlass}, "Denials only warn until " + until + " (break-glass: INC-1)."},
		{fmt.Sprintf(`"until":%q,"reason":"INC-1"`, until), []string{ruleBreakGlass}, "INC-1"},
		{`"until":"soon","reason":"INC-1"`, []string{ruleEnforced, ruleBreakGlass}, "Whether the break-glass is used is not known"},
	} {
		data.Store(step.data)
		s.checkBreakGlass(t.Context(), &w)
		if got := raised(t, s); !slices.Equal(got, step.alerts) {
			t.Errorf("after {%s}: alerts = %q, want %q", step.data, got, step.alerts)
		}
		if problems := strings.Join(s.health().Problems, "\n"); !strings.Contains(problems, step.health) {
			t.Errorf("after {%s}: health: %s", step.data, problems)
		}
	}
}

// TestDrain expects that a server that was told to end first says so, and
// answers on meanwhile.
func TestDrain(t *testing.T) {
	opts := options(t, t.TempDir(), "")
	opts.Config.Webhook.Drain = 2 * time.Second
	r := start(t, opts)
	if code, body := r.page("/healthz"); code != http.StatusOK {
		t.Fatalf("healthz: %d %s", code, body)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, body := r.page("/readyz"); strings.Contains(body, "the server ends") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not say that it ends")
		}
	}
	code, body := r.webhook("/admit", review("ClusterRoleBinding", "clusterrolebindings", adminBinding))
	if code != http.StatusOK || !strings.Contains(body, `"allowed":true`) {
		t.Errorf("review while it ends: %d %s", code, body)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestClientAuthority expects a start to fail when it is not known who may call.
func TestClientAuthority(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.crt")
	start := func() error {
		opts := options(t, t.TempDir(), "")
		opts.Config.Webhook.ClientCAFile, opts.Config.Webhook.ClientNames = file, []string{"kube-apiserver"}
		s, err := New(t.Context(), opts)
		if err == nil {
			err = s.Stop()
		}
		return err
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "read webhook.clientCAFile: open "+file) {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), file+": read authority of client certificates") {
		t.Errorf("with a file of text: %v", err)
	}
}
