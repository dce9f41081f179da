package control_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
)

const (
	wordOfMouth = "\n- " + `{id: INF-AAA-01, title: a, severity: high, subjects: [Cluster], definition: d, why: w, fix: {class: guide, text: f}, evidence: [cloud], evaluator: attestation, attestation: no tool sees it}`
	bySensor    = "\n- " + `{id: INF-AAA-03, title: c, severity: high, subjects: [Node], definition: d, why: w, fix: {class: guide, text: f}, evidence: [runtime], evaluator: detection.sensors-alive}`
	byCIS       = "\n- " + `{id: INF-AAA-02, title: b, severity: high, subjects: [ControlPlane], definition: d, why: w, fix: {class: guide, text: f}, evidence: [node], evaluator: attestation, attestation: no tool sees it, frameworks: {cis-1.10: [1.2.1], cis-1.12: [1.2.1, 1.2.2]}}`
)

var day = time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)

func statement(control string, expires time.Time) evidence.Statement {
	return evidence.Statement{
		Origin: evidence.Origin{Kind: evidence.Attestation, Source: "ops.yaml:2"}, Control: control, By: "Ada", At: day.AddDate(0, 0, -10),
		Text: "seen", Expires: expires,
	}
}

func verdict(framework, item, node string, pass bool, age time.Duration) evidence.Verdict {
	return evidence.Verdict{
		Origin:    evidence.Origin{Kind: evidence.Node, Tool: "bench", Source: "bench.json", SeenAt: day.Add(-age)},
		Framework: framework, Item: item, Subject: node, Pass: pass, Message: "read it",
	}
}

// TestElsewhere tries what is said of a control of which neither the objects
// nor our own evidence says anything.
func TestElsewhere(t *testing.T) {
	c := load(t, map[string][]string{"infrastructure": {wordOfMouth, byCIS, bySensor}})
	tests := []struct {
		name  string
		given evidence.Set
		id    string
		want  finding.Status
		about string // in reason, message or evidence
	}{
		{"statement", evidence.Set{Statements: []evidence.Statement{statement("INF-AAA-01", day.AddDate(0, 1, 0))}}, "INF-AAA-01", finding.Pass, "Ada vouches for it until 2026-12-26: seen (ops.yaml:2)"},
		{"expired statement", evidence.Set{Statements: []evidence.Statement{statement("INF-AAA-01", day.AddDate(0, 0, -1))}}, "INF-AAA-01", finding.Unknown, "the statement of Ada (ops.yaml:2) expired on 2026-11-25"},
		{"statement on another", evidence.Set{Statements: []evidence.Statement{statement("INF-AAA-02", day.AddDate(0, 1, 0))}}, "INF-AAA-01", finding.Unknown, "only a statement"},
		{"all items pass", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.12", "1.2.1", "n", true, 0), verdict("cis-1.12", "1.2.2", "n", true, 0)}}, "INF-AAA-02", finding.Pass, "bench in bench.json"},
		{"one item fails", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.12", "1.2.1", "n", true, 0), verdict("cis-1.12", "1.2.2", "n", false, 0)}}, "INF-AAA-02", finding.Fail, "cis-1.12 1.2.2: read it"},
		{"one item is missing", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.12", "1.2.1", "n", true, 0)}}, "INF-AAA-02", finding.Unknown, "no verdict on 1.2.2"},
		{"older version", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.10", "1.2.1", "n", true, 0)}}, "INF-AAA-02", finding.Pass, ""},
		{"newest counts", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.10", "1.2.1", "n", false, time.Hour), verdict("cis-1.10", "1.2.1", "n", true, 0)}}, "INF-AAA-02", finding.Pass, ""},
		{"stale pass", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.10", "1.2.1", "n", true, 25*time.Hour)}}, "INF-AAA-02", finding.Unknown, "evidence is 25h0m0s old, good for 24h0m0s"},
		{"stale failure", evidence.Set{Verdicts: []evidence.Verdict{verdict("cis-1.10", "1.2.1", "n", false, 25*time.Hour)}}, "INF-AAA-02", finding.Fail, ""},
		{"the server itself asks", evidence.Set{Heartbeats: []evidence.Heartbeat{{Stream: evidence.AuditStream, At: day}}}, "INF-AAA-03", finding.Unknown, "nothing that watches the cluster says anything of it"},
		{"a statement does not outweigh a failure", evidence.Set{
			Verdicts:   []evidence.Verdict{verdict("cis-1.10", "1.2.1", "n", false, 0)},
			Statements: []evidence.Statement{statement("INF-AAA-02", day.AddDate(0, 1, 0))},
		}, "INF-AAA-02", finding.Fail, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := control.Input{Inventory: read(t, "{apiVersion: v1, kind: Namespace, metadata: {name: a}}"), Evidence: &tt.given, Now: day}
			findings, err := c.Evaluate(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, f := range findings {
				if f.Control != tt.id {
					continue
				}
				n++
				if said := f.Reason + f.Message + f.Evidence; f.Status != tt.want || !strings.Contains(said, tt.about) {
					t.Errorf("%s: %s", f.Status, said)
				}
			}
			if n != 1 {
				t.Errorf("%d states", n)
			}
		})
	}
}

// An input that holds nothing has no score; the least piece of evidence, or an
// object, makes all that is not known show.
func TestNothingHasNoScore(t *testing.T) {
	c := load(t, map[string][]string{"infrastructure": {wordOfMouth, byCIS}})
	nothing, err := c.Evaluate(t.Context(), control.Input{Inventory: live(t, "")})
	if err != nil || len(nothing) != 0 {
		t.Errorf("%v, %v", nothing, err)
	}
	one := &evidence.Set{Statements: []evidence.Statement{statement("INF-AAA-01", day.AddDate(0, 1, 0))}}
	some, err := c.Evaluate(t.Context(), control.Input{Inventory: live(t, ""), Evidence: one, Now: day})
	if err != nil || len(some) != 2 {
		t.Fatalf("%v, %v", some, err)
	}
	if s := control.Summarize(c, some); s.Total == nil || *s.Total != 50 || s.High != 100 {
		t.Errorf("score %+v", s)
	}
}

// What is excepted is shown as such, and never as a pass.
func TestExceptionsAreApplied(t *testing.T) {
	c, set := builtIn(t)
	in := control.Input{
		Inventory: read(t, "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: b, labels: {app: a}}, spec: {hostPID: true, containers: [{name: c, image: d}]}}"),
		Policies:  set, Now: day,
	}
	before, err := c.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	in.Exceptions = []exception.Exception{{Name: "x", Source: "x.yaml:1", Spec: exception.Spec{
		Controls: []string{"CON-SEC-10"}, Scope: exception.Scope{Labels: map[string]string{"app": "a"}}, Owner: "o", Reason: "r",
		Created: exception.Date{Time: day}, Expires: exception.Date{Time: day.AddDate(0, 1, 0)}, ApprovedBy: []string{"a"},
	}}}
	after, err := c.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	excepted := 0
	for _, f := range after {
		if f.Status == finding.Excepted {
			excepted++
			if f.Control != "CON-SEC-10" || f.Reason != "accepted by o until 2026-12-26: r (x)" {
				t.Errorf("%s: %s", f.Control, f.Reason)
			}
		}
	}
	if outcomes := c.Outcomes(in, after); excepted != 1 || outcomes[0].Accepted != 1 || outcomes[0].Problem != "" {
		t.Errorf("%d excepted, %+v", excepted, outcomes)
	}
	pass := func(findings []finding.Finding) float64 { return control.Summarize(c, findings).Levels[2].Pass }
	if pass(before) != pass(after) {
		t.Errorf("the pass share went from %v to %v", pass(before), pass(after))
	}
}
