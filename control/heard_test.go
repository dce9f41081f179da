package control_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

var elsewhereNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// kubeBench is a report on 4.2.1, which INF-KUB-01 is mapped to.
func kubeBench(node, status string) *evidence.Set {
	return &evidence.Set{Verdicts: []evidence.Verdict{{
		Origin:    evidence.Origin{Kind: evidence.Node, Tool: "kube-bench", Source: "bench.json", SeenAt: elsewhereNow.Add(-time.Hour)},
		Framework: "cis-1.12", Item: "4.2.1", Subject: node, Pass: status == "PASS",
	}}}
}

// record is of a node with a kubelet that has a configuration file.
func record(name string) evidence.NodeRecord {
	return evidence.NodeRecord{Name: name, SeenAt: elsewhereNow, Programs: []evidence.Program{{
		Name: "kubelet", Flags: evidence.Flags{"config": {"/c"}},
	}}}
}

// TestHeard lets kube-bench speak where nobody of ours looked, and only there.
func TestHeard(t *testing.T) {
	const object = "{apiVersion: v1, kind: Node, metadata: {name: %s}}\n---\n"
	for name, tt := range map[string]struct {
		nodes    string // of the cluster
		evidence *evidence.Set
		ours     []string // nodes with a record
		want     string
	}{
		"nobody":                     {"a b", nil, nil, "a unknown, b unknown"},
		"one of two":                 {"a b", kubeBench("a", "PASS"), nil, "a pass, b unknown"},
		"the only one":               {"a", kubeBench("", "FAIL"), nil, "a fail"},
		"one of two, nobody knows":   {"a b", kubeBench("", "FAIL"), nil, "a unknown, b unknown,  fail"},
		"ours says it":               {"a b", kubeBench("a", "FAIL"), []string{"a"}, "a pass, b unknown"},
		"the only one that is left":  {"a b", kubeBench("", "PASS"), []string{"a"}, "a pass, b pass"},
		"all are settled":            {"a", kubeBench("", "FAIL"), []string{"a"}, "a pass"},
		"another node than ours":     {"", kubeBench("c", "FAIL"), []string{"a"}, "a pass, c fail"},
		"a node that nobody lists":   {"a", kubeBench("c", "FAIL"), nil, "a unknown, c fail"},
		"neither cluster nor record": {"", kubeBench("c", "PASS"), nil, "c pass"},
	} {
		t.Run(name, func(t *testing.T) {
			manifests := ""
			for node := range strings.FieldsSeq(tt.nodes) {
				manifests += fmt.Sprintf(object, node)
			}
			set := &evidence.Set{}
			if tt.evidence != nil {
				set = tt.evidence
			}
			for _, node := range tt.ours {
				set.Nodes = append(set.Nodes, record(node))
			}
			catalogue, policies := builtIn(t)
			findings, err := catalogue.Evaluate(context.Background(), control.Input{
				Inventory: live(t, manifests), Policies: policies, Evidence: set, Now: elsewhereNow,
			})
			if err != nil {
				t.Fatal(err)
			}
			findings = slices.DeleteFunc(findings, func(f finding.Finding) bool { return f.Control != "INF-KUB-01" })
			var got []string
			for _, f := range findings {
				got = append(got, f.Subject.Name+" "+string(f.Status))
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("%q, want %q", strings.Join(got, ", "), tt.want)
			}
		})
	}
}
