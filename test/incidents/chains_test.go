// Package incidents runs attack chains, as events of an audit log and of nodes,
// through the built-in rules and the correlation of their alerts.
package incidents

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A chain is an attack, with what becomes of it, and its benign twin: the same
// verbs by whoever may use them, which brings nobody out of bed.
type chain struct {
	Defaults map[string]any // that all audit events have
	Kernel   map[string]any // that all events of nodes have
	Attack   []step
	Stages   int // of the attack that must be in its one incident, at least
	Story    string
	Twin     []step
}

// A step is one event of the audit log or of a node, without its times.
type step struct {
	After  string // the one before it
	Pages  bool   // the incident pages by now at the latest
	Event  map[string]any
	Kernel map[string]any
}

func TestChains(t *testing.T) {
	names, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	rules := builtInRules(t)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var c chain
			if err := yaml.UnmarshalStrict(data, &c); err != nil {
				t.Fatal(err)
			}
			c.attack(t, rules)
			c.twin(t, rules)
		})
	}
}

// rules are the built-in ones, and that by which an agent knows which commands
// enter containers.
type rules struct{ all, entered *rule.Set }

func builtInRules(t *testing.T) rules {
	t.Helper()
	files, err := content.Read[rule.File](content.Rules())
	if err != nil {
		t.Fatal(err)
	}
	all, err := rule.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	only := rule.Options{Select: []rule.Selection{{Rule: "*"}, {Rule: correlate.EnteredRule, On: true}}}
	entered, results := only.Load(files...)
	if entered == nil {
		t.Fatal(rule.Mistakes(results))
	}
	return rules{all, entered}
}

// attack expects one incident, with enough stages, that pages in time.
func (c *chain) attack(t *testing.T, rules rules) {
	r := newRun(t, rules)
	marked := false
	for i, s := range c.Attack {
		r.play(t, c, i, s)
		marked = marked || s.Pages
		if marked && len(r.paging()) == 0 {
			t.Errorf("step %d: nobody is paged\n%s", i, r)
		}
	}
	r.settle()
	if len(r.incidents) != 1 {
		t.Fatalf("%d incidents\n%s", len(r.incidents), r)
	}
	found := slices.Collect(maps.Values(r.incidents))[0]
	if len(found.Signals) < c.Stages {
		t.Errorf("%d stages are linked, want %d\n%s", len(found.Signals), c.Stages, r)
	}
	if found.Story != c.Story {
		t.Errorf("story is\n%s\nwant\n%s", found.Story, c.Story)
	}
}

// twin expects that nobody is paged.
func (c *chain) twin(t *testing.T, rules rules) {
	r := newRun(t, rules)
	for i, s := range c.Twin {
		r.play(t, c, i, s)
	}
	r.settle()
	if len(c.Twin) == 0 || len(r.paging()) > 0 {
		t.Errorf("the twin of %d steps pages\n%s", len(c.Twin), r)
	}
}

// A run is the way of events from the audit log to incidents.
type run struct {
	rules
	enrich    *enrichment.Enricher
	reader    *correlate.AuditReader
	commands  *correlate.Execs       // that entered containers
	details   map[string]alert.Alert // of commands, by process
	correlate *incident.Correlator
	now       time.Time
	incidents map[string]*incident.Incident
}

func newRun(t *testing.T, rules rules) *run {
	t.Helper()
	reader, err := correlate.NewAuditReader()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{
		rules: rules, enrich: enrichment.New(), reader: reader, commands: correlate.New(correlate.Options{}), details: map[string]alert.Alert{},
		correlate: incident.NewCorrelator(nil), now: time.Date(2026, time.March, 2, 3, 0, 0, 0, time.UTC), incidents: map[string]*incident.Incident{},
	}
	r.commands.Heard("", r.now.Add(-time.Hour))
	return r
}

func (r *run) paging() (out []string) {
	for _, i := range r.incidents {
		if i.Pages(r.now) {
			out = append(out, i.Story)
		}
	}
	return out
}

func (r *run) String() string {
	var b strings.Builder
	for _, i := range r.incidents {
		fmt.Fprintf(&b, "%s score %d, paged %v: %s\n", i.ID, i.Score, !i.Paged.IsZero(), i.Story)
		for _, s := range i.Signals {
			fmt.Fprintf(&b, "  %s %s: %s\n    %v\n", s.Priority, s.Rule, s.Output, s.Entities)
		}
	}
	return b.String()
}

// play sends one event, and its alert on.
func (r *run) play(t *testing.T, c *chain, n int, s step) {
	t.Helper()
	after, err := time.ParseDuration(s.After)
	if err != nil && s.After != "" {
		t.Fatal(err)
	}
	r.now = r.now.Add(after)
	r.judge()
	if s.Kernel != nil {
		r.kernel(t, merge(map[string]any{
			"id": fmt.Sprint("step-", n), "time": r.now.Format(time.RFC3339Nano), "result": 0, "hostname": "worker-1",
		}, c.Kernel, s.Kernel))
		return
	}
	r.audit(t, merge(map[string]any{
		"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "stage": "ResponseComplete",
		"auditID": fmt.Sprint("step-", n), "responseStatus": map[string]any{"code": 200},
		"requestReceivedTimestamp": r.now.Format(time.RFC3339Nano), "stageTimestamp": r.now.Format(time.RFC3339Nano),
	}, c.Defaults, s.Event))
}

// kernel is what agent and server do with an event of a node.
func (r *run) kernel(t *testing.T, fields map[string]any) {
	t.Helper()
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	e, err := syscall.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	e.Record.(*syscall.Event).Complete()
	for _, a := range r.all.Match(e, rule.First) {
		r.enrich.Involve(&a)
		r.add(&a)
	}
	for _, a := range r.entered.Match(e, rule.First) {
		if command, ok := correlate.FromAlert(a); ok {
			r.details[command.Process] = a
			r.verdicts(r.commands.Command(command, r.now))
		}
	}
}

// judge judges commands by an audit log that has come so far: in a cluster there
// is always something to log.
func (r *run) judge() {
	r.commands.Heard("", r.now)
	r.verdicts(r.commands.Judge(r.now))
}

// settle waits for what the audit log may still say of the last commands.
func (r *run) settle() {
	r.now = r.now.Add(time.Minute)
	r.judge()
}

func (r *run) verdicts(verdicts []correlate.Verdict) {
	for _, v := range verdicts {
		if v.Outcome != correlate.Unexplained {
			continue
		}
		a := v.Alert("")
		a.Entities = slices.Concat(r.details[v.Exec.Process].Entities, a.Entities)
		r.enrich.Involve(&a)
		r.add(&a)
	}
}

func (r *run) audit(t *testing.T, fields map[string]any) {
	t.Helper()
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k8saudit.Decode(bytes.NewReader(data), func(e *event.Event) error {
		if request, ok := r.reader.Request(e); ok {
			r.verdicts(r.commands.Request(request))
		}
		r.enrich.Enrich(e)
		for _, a := range r.enrich.Attribute(e, r.all.Match(e, rule.First)) {
			r.add(&a)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (r *run) add(a *alert.Alert) {
	out := r.correlate.Add("", incident.FromAlert(a))
	for _, m := range out.Merged {
		delete(r.incidents, m.ID)
	}
	if out.Incident != nil {
		r.incidents[out.Incident.ID] = out.Incident
	}
}

// merge puts later fields over earlier ones.
func merge(parts ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, part := range parts {
		for key, value := range part {
			if inner, ok := value.(map[string]any); ok {
				old, _ := out[key].(map[string]any)
				value = merge(old, inner)
			}
			out[key] = value
		}
	}
	return out
}
