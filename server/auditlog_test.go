package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file of the audit log is followed, across a restart, and what in it is no
// event is said.
func TestAuditFileBecomesAlerts(t *testing.T) {
	lines, err := os.ReadFile("../content/rules/testdata/secrets-listed.alert.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, want := filepath.Join(dir, "audit.log"), bytes.Count(lines, []byte("\n"))
	if err := os.WriteFile(file, append([]byte("not JSON\n"), lines...), 0o600); err != nil {
		t.Fatal(err)
	}
	extra := "detection: {cooldown: [], auditFiles: [" + file + "]}\n"
	r := start(t, options(t, filepath.Join(dir, "data"), extra))
	r.awaitAlerts(want)
	if _, body := r.page("/api/v1/health"); !strings.Contains(body, "1 audit events could not be read, or not with their bodies: 1 are no JSON.") {
		t.Errorf("health = %s", body)
	}
	if _, body := r.page("/metrics"); !strings.Contains(body, `kubeguardian_audit_events_malformed_total{cause="json"} 1`) ||
		!strings.Contains(body, `kubeguardian_audit_file_gaps_total{file="`+file+`"} 0`) {
		t.Errorf("metrics = %s", body)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	more := bytes.ReplaceAll(lines, []byte(`"auditID":"`), []byte(`"auditID":"again-`))
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(more); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, options(t, filepath.Join(dir, "data"), extra))
	r.awaitAlerts(2 * want)
	if n := r.auditLog.Tails[0].Counters().Events; n != uint64(want) {
		t.Errorf("%d events were read after the restart, want the %d new ones", n, want)
	}
}

func (r *running) awaitAlerts(want int) {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); r.alerts() != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%d alerts, want %d", r.alerts(), want)
		}
	}
}
