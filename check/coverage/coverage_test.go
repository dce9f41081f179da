package coverage_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/coverage"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/repository"
	"github.com/kubeguardian/kubeguardian/evidence/terraform"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/tool"
)

const manifests = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: logs, namespace: logging}
spec:
  selector: {matchLabels: {app: logs}}
  template:
    metadata: {labels: {app: logs}, annotations: {vault.hashicorp.com/agent-inject: "true"}}
    spec:
      containers: [{name: logs, image: "cr.fluentbit.io/fluent/fluent-bit:4.1.0"}]
      volumes: [{name: s, csi: {driver: secrets-store.csi.k8s.io}}]
---
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: p}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: backups.velero.io}
spec: {group: velero.io, names: {kind: Backup, plural: backups}, scope: Namespaced, versions: []}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {nodeInfo: {osImage: "Bottlerocket OS 1.50.0 (aws-k8s-1.35)"}}
`

// detected lists the tools of a matrix that were seen, with the first place.
func detected(needs []tool.Need) []string {
	var out []string
	for _, n := range needs {
		for _, t := range n.Tools {
			if len(t.Detected) > 0 {
				out = append(out, n.ID+"/"+t.Name+" "+t.Detected[0])
			}
		}
	}
	return out
}

func TestDetect(t *testing.T) {
	inv, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	set := &evidence.Set{
		Plans: []evidence.Plan{{Origin: evidence.Origin{Source: "plan.json"}, Plan: &terraform.Plan{Kinds: []string{"aws_wafv2_web_acl"}}}},
		Repositories: []evidence.Repository{{Origin: evidence.Origin{Source: "app"}, Tree: &repository.Tree{
			Updates:   []string{"app/.github/dependabot.yml"},
			Workflows: []repository.Workflow{{Steps: []repository.Step{{Use: tool.Use{Tool: "gosec"}, Place: "app/ci.yml:7"}}}},
		}}},
		Verdicts: []evidence.Verdict{{Origin: evidence.Origin{Tool: "kube-bench 0.12", Source: "bench.json"}}},
	}
	got := detected(coverage.Detect(tool.BuiltIn(), inv, set))
	for _, want := range []string{
		"waf/AWS WAF plan.json: aws_wafv2_web_acl",
		"nodes/Bottlerocket stdin:26",
		"nodes/kube-bench bench.json",
		"backup/Velero stdin:17",
		"logs/Fluent Bit stdin:2",
		"policy/Pod Security Admission stdin:22",
		"policy/Kyverno stdin:13",
		"secrets/Vault and OpenBao stdin:2",
		"secrets/Secrets Store CSI driver stdin:2",
		"sast/gosec app/ci.yml:7",
		"updates/Dependabot app/.github/dependabot.yml",
		"compliance/kube-bench bench.json",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not detected", want)
		}
	}
	if len(got) != 12 {
		t.Errorf("%d tools: %s", len(got), strings.Join(got, ", "))
	}
	if again := detected(tool.BuiltIn().Needs); len(again) > 0 {
		t.Errorf("the built-in matrix was changed: %v", again)
	}
	if none := detected(coverage.Detect(tool.BuiltIn(), nil, nil)); len(none) > 0 {
		t.Errorf("of nothing: %v", none)
	}
}

// TestEveryTool shows each tool of the matrix by each of its signs alone.
func TestEveryTool(t *testing.T) {
	for _, n := range tool.BuiltIn().Needs {
		for _, of := range n.Tools {
			for _, shown := range signsOf(t, of) {
				found := false
				for _, d := range coverage.Detect(tool.BuiltIn(), shown.inv, shown.set) {
					for _, have := range d.Tools {
						found = found || d.ID == n.ID && have.Name == of.Name && len(have.Detected) == 1
					}
				}
				if !found {
					t.Errorf("%s: %s is not detected by %s", n.ID, of.Name, shown.what)
				}
			}
		}
	}
}

// A show is an input in which one sign of a tool can be seen.
type show struct {
	what string
	inv  *inventory.Inventory
	set  *evidence.Set
}

func signsOf(t *testing.T, of tool.Tool) []show {
	t.Helper()
	var out []show
	object := func(what, text string) {
		inv, err := inventory.FromFiles(t.Context(), []string{"-"}, strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		out = append(out, show{what, inv, nil})
	}
	for _, image := range of.Images {
		object("image "+image, "apiVersion: v1\nkind: Pod\nmetadata: {name: a1}\nspec: {containers: [{name: c, image: 'r.io/x/"+image+":v1'}]}")
	}
	for _, group := range of.Groups {
		object("group "+group, "apiVersion: "+group+"/v1\nkind: Some\nmetadata: {name: a1}")
	}
	for _, kind := range of.Kinds {
		name, group, _ := strings.Cut(kind, ".")
		object("kind "+kind, "apiVersion: "+group+"/v1\nkind: "+name+"\nmetadata: {name: a1}")
	}
	for _, key := range of.Annotations {
		object("annotation "+key, "apiVersion: v1\nkind: Service\nmetadata: {name: a1, annotations: {"+key+": x}}")
		object("label "+key, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a1, labels: {"+key+": x}}")
	}
	for _, name := range of.Namespaces {
		object("namespace "+name, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+"}")
	}
	for _, driver := range of.Drivers {
		object("driver "+driver, "apiVersion: v1\nkind: Pod\nmetadata: {name: a1}\nspec: {containers: [{name: c, image: i}], volumes: [{name: v, csi: {driver: "+driver+"}}]}")
	}
	for _, system := range of.Systems {
		object("system "+system, "apiVersion: v1\nkind: Node\nmetadata: {name: a1}\nstatus: {nodeInfo: {osImage: '"+system+" 1.2'}}")
	}
	for _, kind := range of.Resources {
		out = append(out, show{"resource " + kind, nil, &evidence.Set{Plans: []evidence.Plan{{Plan: &terraform.Plan{Kinds: []string{kind}}}}}})
	}
	for _, name := range of.Evidence {
		out = append(out, show{"evidence " + name, nil, &evidence.Set{Verdicts: []evidence.Verdict{{Origin: evidence.Origin{Tool: name + " 1.0", Source: "f"}}}}})
	}
	for _, file := range of.Files {
		tree := &repository.Tree{Updates: []string{"app/" + file}}
		out = append(out, show{"file " + file, nil, &evidence.Set{Repositories: []evidence.Repository{{Origin: evidence.Origin{Source: "app"}, Tree: tree}}}})
	}
	if len(of.Steps) > 0 {
		tree := &repository.Tree{Workflows: []repository.Workflow{{Steps: []repository.Step{{Use: tool.Use{Tool: of.Name}, Place: "ci.yml:1"}}}}}
		out = append(out, show{"step", nil, &evidence.Set{Repositories: []evidence.Repository{{Tree: tree}}}})
	}
	return out
}
