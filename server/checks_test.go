package server

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/health"
)

// checked returns what the API says of the checks, by their names.
func (r *running) checked() map[string]health.Check {
	r.t.Helper()
	code, body := r.page("/api/v1/health/checks")
	var list struct{ Items []health.Check }
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK {
		r.t.Fatalf("checks: %d %s: %v", code, body, err)
	}
	checks, wrong := map[string]health.Check{}, true
	for _, c := range list.Items {
		checks[c.Name] = c
		if c.State == health.Bad && !wrong {
			r.t.Errorf("%s is listed after what is in order", c.Name)
		}
		wrong = c.State == health.Bad
	}
	return checks
}

// expect fails unless a check is in a state, says so, and what to do if there is
// something to do.
func expect(t *testing.T, checks map[string]health.Check, name string, state health.State, detail string) {
	t.Helper()
	c, found := checks[name]
	if !found || c.State != state || !strings.Contains(c.Detail, detail) {
		t.Errorf("%s: %+v, want %s with %q", name, c, state, detail)
	}
	if (state == health.Bad) != (c.Do != "") && state != health.Off {
		t.Errorf("%s is %s, and to do is %q", name, state, c.Do)
	}
}

// TestChecks breaks one thing after the other, and reads what the page Health says.
func TestChecks(t *testing.T) {
	dir := t.TempDir()
	r := start(t, options(t, dir, "detection: {heartbeat: 0s}\nretention: {alerts: 240h}\n"))
	checks := r.checked()
	if len(checks) != 8 {
		t.Errorf("%d checks: %v", len(checks), checks)
	}
	expect(t, checks, "Audit log", health.OK, "0 events since the start, the last of never.")
	expect(t, checks, "Database", health.OK, "Alerts are kept for 10 days,")
	expect(t, checks, "Detection rules", health.OK, " are loaded, ")
	expect(t, checks, "Policies", health.OK, fmt.Sprintf("%[1]d are loaded, with %[1]d bindings.", r.policies.Len()))
	expect(t, checks, "Posture scan", health.Bad, "The last scan that finished is from never.") // its API server never answers
	expect(t, checks, "Cluster", health.Bad, "The API server answered last at never.")
	expect(t, checks, "Admission", health.Bad, "It is not known whether requests are checked")
	expect(t, checks, "Node agents", health.Off, "Agents cannot report")

	if code, body := r.webhook("/audit", `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{"kind":"Pod"}]}`); code != http.StatusOK {
		t.Fatalf("what is no event: %d %s", code, body)
	}
	expect(t, r.checked(), "Audit log", health.Bad, "1 are no audit events")

	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "kubeguardian.db")+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "DROP TABLE alerts"); err != nil {
		t.Fatal(err)
	}
	if code, _ := r.webhook("/audit", eventList(t)); code == http.StatusOK {
		t.Error("events are taken whose alerts cannot be stored")
	}
	expect(t, r.checked(), "Database", health.Bad, "Nothing can be stored")
}

// TestChecksOfWhatIsOff: what the configuration switches off is no fault, and rules
// that are all silent are one.
func TestChecksOfWhatIsOff(t *testing.T) {
	r := start(t, options(t, t.TempDir(), "admission: {enabled: false}\ndetection: {heartbeat: 0s, priority: emergency}\nbus: {listen: \"127.0.0.1:0\", hostTokens: "+write(t, "n1 0123456789abcdef\n")+"}\n"))
	checks := r.checked()
	expect(t, checks, "Admission", health.Off, "Requests are not checked.")
	expect(t, checks, "Detection rules", health.Bad, "No rule raises alerts.")
	expect(t, checks, "Node agents", health.OK, "All of them report.")
}
