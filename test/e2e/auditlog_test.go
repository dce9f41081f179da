package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
)

// builtinRules compiles the rules that the server runs by default.
func builtinRules(t *testing.T) *rule.Set {
	t.Helper()
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	set, err := rule.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// impliedAlerts replays an API server's audit log and returns the ids of the
// alerts that its events since a time raise.
func impliedAlerts(t *testing.T, file string, since time.Time) map[string]bool {
	t.Helper()
	log, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	rules, enrich, ids := builtinRules(t), enrichment.New(), map[string]bool{}
	_, err = k8saudit.Decode(log, func(e *event.Event) error {
		enrich.Enrich(e)
		if e.Time.After(since) {
			for _, a := range rules.Match(e, rule.First) {
				ids[a.ID] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// compareWithAuditLog replays an API server's audit log through the built-in
// rules and waits until a server has the same alerts, each once.
func compareWithAuditLog(t *testing.T, file string, since time.Time, atLeast int, list func(query string) ([]alert.Alert, error)) {
	t.Helper()
	query := url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}}.Encode()
	var lost, extra []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		want := impliedAlerts(t, file, since)
		alerts, err := list(query)
		if err != nil {
			t.Fatal(err)
		}
		stored := map[string]int{}
		for _, a := range alerts {
			if a.Source == "k8s_audit" { // not what the server says of itself
				stored[a.ID]++
			}
		}
		lost, extra = nil, nil
		for id := range want {
			if stored[id] == 0 {
				lost = append(lost, id)
			}
		}
		for id, n := range stored {
			if n != 1 || !want[id] {
				extra = append(extra, id)
			}
		}
		if len(lost) == 0 && len(extra) == 0 && len(want) >= atLeast {
			t.Logf("%d alerts, each once", len(want))
			return
		}
	}
	t.Fatalf("%d alerts lost, %d doubled or unexplained", len(lost), len(extra))
}

// A logReader is a server that reads the audit log of an API server from its
// file, and has no other input.
type logReader struct {
	*replica
	lab      *deployment
	auditLog string // of the API server
	link     string // which the server reads
}

func readLog(t *testing.T) *logReader {
	t.Helper()
	d := newLab(t)
	r := &logReader{lab: d, auditLog: d.path("lab/audit.jsonl"), link: d.path("log/audit.log")}
	if err := errors.Join(os.Mkdir(d.path("log"), 0o700), os.Symlink(r.auditLog, r.link)); err != nil {
		t.Fatal(err)
	}
	r.replica = &replica{name: "server", program: d.bin("kubeguardian"), dir: d.path("data"), config: d.path("config.yaml"), web: free(t), webhook: free(t)}
	text := fmt.Sprintf("dataDir: %s\nkubeconfig: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\nadmission: {enabled: false}\ndetection: {auditFiles: [%s], heartbeat: 1s, cooldown: []}\n",
		r.dir, d.path("server.kubeconfig"), r.web, r.webhook, r.link)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	return r
}

// point makes the server's log be another file, as after a change of the API
// server's flags.
func (r *logReader) point(t *testing.T, file string) {
	t.Helper()
	if err := errors.Join(os.Symlink(file, r.link+".new"), os.Rename(r.link+".new", r.link)); err != nil {
		t.Fatal(err)
	}
}

// kill ends the server as a crash would.
func (r *logReader) kill(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.exited
}

// list returns alerts, of all pages.
func (r *logReader) list(query string) (all []alert.Alert, err error) {
	for cursor := ""; ; {
		body, err := r.get("/api/v1/alerts?limit=1000&before=" + url.QueryEscape(cursor) + "&" + query)
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []alert.Alert `json:"items"`
			Next  string        `json:"next"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			return nil, fmt.Errorf("%w: %s", err, body)
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

func (r *logReader) awaitReady(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if r.ready() {
			return
		}
	}
	t.Fatalf("the server is not ready\n%s", r.log())
}

// TestAuditLogFile is a server that follows the log's file.
func TestAuditLogFile(t *testing.T) {
	r := readLog(t)
	r.awaitReady(t)
	t.Run("no alert is lost or doubled by SIGKILL", r.testSIGKILL)
	t.Run("a log that shows nothing is blind", r.testBlind)
}

// testSIGKILL kills the server three times under load.
func (r *logReader) testSIGKILL(t *testing.T) {
	const requests = 1000
	since := time.Now()
	var group sync.WaitGroup
	var done atomic.Int64
	for range 4 {
		group.Go(func() {
			for range requests / 4 {
				if _, err := r.lab.client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); err != nil {
					t.Errorf("list secrets: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	for kills := range 3 {
		for done.Load() < int64(requests*(kills+1)/5) && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		r.kill(t)
		r.start(t)
		if kills == 1 {
			r.awaitReady(t)
		}
	}
	group.Wait()
	r.awaitReady(t)
	compareWithAuditLog(t, r.auditLog, since, requests, r.list)
}

// testBlind takes the log away from the server, and gives it back.
func (r *logReader) testBlind(t *testing.T) {
	empty := r.lab.path("empty.log")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitMetric(t, "kubeguardian_audit_blind 0")
	r.point(t, empty)
	if a := r.awaitAlert(t, "Audit log is blind"); a.Priority != alert.Critical || a.Subject.Kind != "AuditLog" {
		t.Errorf("alert = %+v", a)
	}
	r.awaitMetric(t, "kubeguardian_audit_blind 1")
	if health, err := r.get("/api/v1/health"); err != nil || !strings.Contains(health, "The audit log is blind since") {
		t.Errorf("health = %s, %v", health, err)
	}
	r.point(t, r.auditLog)
	r.awaitAlert(t, "Audit log is no longer blind")
	r.awaitMetric(t, "kubeguardian_audit_blind 0")
	r.awaitMetric(t, "kubeguardian_audit_delay_seconds_count")
}

func (r *logReader) awaitMetric(t *testing.T, line string) {
	t.Helper()
	var body string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var err error
		if body, err = r.get("/metrics"); err == nil && strings.Contains(body, "\n"+line) {
			return
		}
	}
	t.Errorf("no metric %q in\n%s", line, body)
}
