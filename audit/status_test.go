package audit_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/finding"
)

// TestStatuses expects the status of a constraint to count all violations, and to
// list the first of the strongest.
func TestStatuses(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 999, time.UTC)
	r := audit.Result{}
	for i := range 30 {
		enforcement := "dryrun"
		if i%10 == 5 {
			enforcement = "deny"
		}
		r.Found = append(r.Found, audit.Found{
			Subject: finding.Subject{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: fmt.Sprintf("web-%02d", i)},
			Violations: []finding.Violation{
				{Policy: "Owned", Binding: "all", Enforcement: enforcement, Message: "no owner"},
				{Policy: "Owned", Binding: "some", Enforcement: "warn", Message: strings.Repeat("é", 200)},
			},
		})
	}
	statuses := r.Statuses(at, 4)
	all := statuses.Of("Owned", "all")
	var names []string
	for _, v := range all.Violations {
		names = append(names, v.EnforcementAction+" "+v.Name)
	}
	if got := strings.Join(names, ", "); all.TotalViolations != 30 || got != "deny web-05, deny web-15, deny web-25, dryrun web-00" {
		t.Errorf("%d violations, listed are %s", all.TotalViolations, got)
	}
	if some := statuses.Of("Owned", "some"); len(some.Violations) != 4 || some.Violations[0].Message != strings.Repeat("é", 128) {
		t.Errorf("listed are %v", some.Violations)
	}
	text, err := json.Marshal(statuses.Of("Owned", "none"))
	if err != nil || string(text) != `{"auditTimestamp":"2026-03-01T12:00:00Z","totalViolations":0}` {
		t.Errorf("without violations: %s, %v", text, err)
	}
	text, err = json.Marshal(all.Violations[0])
	if want := `{"enforcementAction":"deny","group":"apps","version":"v1","kind":"Deployment","namespace":"shop","name":"web-05","message":"no owner"}`; err != nil || string(text) != want {
		t.Errorf("a violation is %s, %v", text, err)
	}
}
