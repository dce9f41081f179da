package e2e

import (
	"os"
	"testing"
	"time"

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

// impliedAlerts replays the API server's audit log and returns the ids of the
// alerts that its events since a time raise.
func (c *cluster) impliedAlerts(t *testing.T, since time.Time) map[string]bool {
	t.Helper()
	log, err := os.Open(c.AuditLog)
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
