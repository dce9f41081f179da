package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const watchedRule = `- rule: Watched
  desc: d
  source: k8s_audit
  condition: ka.verb in (list, watch, deletecollection)
  output: o
  priority: info
`

// A change of the rule files takes effect; one that is wrong does not, and the
// rules before it stay in force.
func TestRulesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(watchedRule, "ka.verb in", "ka.user.name in", 1))
	r := start(t, options(t, dir, "detection: {rules: ["+file+"]}"))
	metric := func(want string) {
		t.Helper()
		for range 100 {
			if _, metrics := r.page("/metrics"); strings.Contains(metrics, want+"\n") {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("metrics never have %s", want)
	}
	send := func() int {
		t.Helper()
		if code, body := r.webhook("/audit", eventList(t)); code != http.StatusOK {
			t.Fatalf("audit: %d %s", code, body)
		}
		return r.alerts()
	}
	if got := send(); got != 0 {
		t.Fatalf("%d alerts of a rule that cannot match", got)
	}
	write(watchedRule)
	metric(`kubeguardian_rules_reloads_total{result="loaded"} 1`)
	raised := send()
	if raised == 0 {
		t.Fatal("the changed rule raises no alert")
	}
	write(strings.Replace(watchedRule, "rule: Watched", "rule: Other", 1) + "- rule: Broken\n  condition: ka.vreb = x\n")
	metric("kubeguardian_rules_refused 1")
	if got := send(); got != raised {
		t.Errorf("%d alerts, want %d: the refused file has another rule", got, raised)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	metric(`kubeguardian_rules_reloads_total{result="refused"} 2`)
	write(strings.Replace(watchedRule, "rule: Watched", "rule: Other", 1))
	metric("kubeguardian_rules_refused 0")
	if got := send(); got != 2*raised {
		t.Errorf("%d alerts, want %d of two rules", got, 2*raised)
	}
}
