package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/health"
)

const watchedRule = `- rule: Watched
  desc: d
  source: k8s_audit
  condition: ka.verb in (list, watch, deletecollection)
  output: o
  priority: notice
`

// quietRule always matches and is not urgent enough to alert.
const quietRule = "- {rule: Quiet, desc: d, source: k8s_audit, condition: ka.verb exists, output: o, priority: info}\n"

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
	write(strings.Replace(watchedRule, "ka.verb in", "ka.user.name in", 1) + quietRule)
	r := start(t, options(t, dir, "detection: {rules: ["+file+"], priority: notice, match: all}"))
	metric := r.metric
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
	write(watchedRule + quietRule)
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
	expect(t, r.checked(), "Detection rules", health.Bad, "Changed files are refused, and the rules before them are in force: "+file)
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

// metric waits for a line of the metrics.
func (r *running) metric(want string) {
	r.t.Helper()
	eventually(r.t, "metrics have "+want, func() (bool, string) {
		_, metrics := r.page("/metrics")
		return strings.Contains(metrics, want+"\n"), ""
	})
}

// Files that build on the built-in rules do so too when they change.
func TestBuiltinRulesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.yaml")
	own := "- {list: trusted_users, items: [USER], override: {items: append}}\n"
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, options(t, dir, "detection: {rules: [builtin, "+file+"]}"))
	before := len(r.rules.Load().Rules())
	if err := os.WriteFile(file, []byte(own+watchedRule), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 1200 {
		if got := len(r.rules.Load().Rules()); got == before+1 && before > 1 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%d rules, then %d", before, len(r.rules.Load().Rules()))
}

// What no sensor feeds is said, not passed over.
func TestUnfedRulesAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.yaml")
	if err := os.WriteFile(file, []byte("- {rule: A, desc: d, condition: evt.type = open, output: o, priority: notice, colour: red}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := options(t, dir, "detection: {rules: ["+file+"]}")
	var log bytes.Buffer
	opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"no sensor feeds the rules for system calls: they are loaded and stay silent", "rules=1", "LOAD_UNKNOWN_KEY"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
}

// What the configuration says of rules is in their alerts.
func TestRulesAreShaped(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.yaml")
	if err := os.WriteFile(file, []byte(watchedRule+strings.Replace(watchedRule, "Watched", "Off", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, options(t, dir, "detection:\n  rules: ["+file+`]
  match: all
  select: [{rule: "O*", enabled: false}]
  static: [{name: region, value: eu-1}]
  append: [{rule: Watched, output: "in %static.region", fields: [{name: by, format: "<%ka.user.name>"}]}]
`))
	if code, body := r.webhook("/audit", eventList(t)); code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, body)
	}
	_, body := r.page("/api/v1/alerts")
	for _, want := range []string{`"rule":"Watched"`, "Notice o in eu-1", `"static.region":"eu-1"`, `"by":"<`} {
		if !strings.Contains(strings.ReplaceAll(body, `\u003c`, "<"), want) {
			t.Errorf("alerts have no %s: %.1000s", want, body)
		}
	}
	if strings.Contains(body, `"rule":"Off"`) {
		t.Error("a rule that is switched off alerts")
	}
}
