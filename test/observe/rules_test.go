// Package observe tests what people watch KubeGuardian by: the rules and the
// dashboards of the chart, with the metrics of a real server and a real agent in
// a real Prometheus.
package observe

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	rulesFile = "../../charts/kubeguardian/files/rules.yaml"
	testsFile = "testdata/rules_test.yaml"
)

// tool returns a program of Prometheus.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
	return path
}

// A ruleFile is what Prometheus reads.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Record, Alert, Expr string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) ruleFile {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var out ruleFile
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRules runs promtool over the rules of the chart.
func TestRules(t *testing.T) {
	promtool := tool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", rulesFile}, {"test", "rules", testsFile}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestEachAlertIsTested wants each alert to be tried both ways, and to say what
// is wrong and what to do.
func TestEachAlertIsTested(t *testing.T) {
	text, err := os.ReadFile(testsFile)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			count++
			if !strings.Contains(string(text), "alertname: "+r.Alert+"}") || !strings.Contains(string(text), `{alertname="`+r.Alert+`"}`) {
				t.Errorf("%s is not tested, with what fires it and with what does not", r.Alert)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s says too little: %v %v", r.Alert, r.Labels, r.Annotations)
			}
		}
	}
	if count < 10 {
		t.Errorf("%d alerts were found", count)
	}
}

// metric matches what an expression asks for: metrics, and what rules record.
var metric = regexp.MustCompile(`\b(?:kubeguardian|process|go)[:_][a-z0-9_:]+\b`)

// metrics returns the metrics of an expression.
func metrics(expr string) []string {
	expr = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(expr, "")
	return metric.FindAllString(expr, -1)
}
