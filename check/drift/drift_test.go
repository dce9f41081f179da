package drift_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/drift"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func judge(t *testing.T, origin inventory.Origin, manifests string) []finding.Verdict {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	if inv, err = inventory.New(origin, inv.Objects(), nil); err != nil {
		t.Fatal(err)
	}
	return drift.Live(inv)
}

func TestGitOps(t *testing.T) {
	application := func(status string) string {
		return "{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: shop, namespace: argocd}, status: {" + status + "}}"
	}
	flux := func(spec, status string) string {
		return "{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: shop, namespace: flux-system, generation: 3}, spec: {" + spec + "}, status: {" + status + "}}"
	}
	for name, tt := range map[string]struct {
		manifest string
		want     finding.Status
		says     string
	}{
		"synced":       {application("sync: {status: Synced}"), finding.Pass, ""},
		"out of sync":  {application("sync: {status: OutOfSync}, resources: [{kind: Service, namespace: shop, name: web, status: OutOfSync}, {kind: ConfigMap, name: c, status: Synced}]"), finding.Fail, "OutOfSync: Service/shop/web"},
		"not compared": {application("sync: {status: Unknown}"), finding.Unknown, ""},
		"no status":    {application(""), finding.Unknown, ""},
		"ready":        {flux("", "observedGeneration: 3, conditions: [{type: Ready, status: 'True'}]"), finding.Pass, ""},
		"not ready":    {flux("", "observedGeneration: 3, conditions: [{type: Ready, status: 'False', reason: BuildFailed}]"), finding.Fail, "BuildFailed"},
		"of before":    {flux("", "observedGeneration: 2, conditions: [{type: Ready, status: 'True'}]"), finding.Unknown, ""},
		"suspended":    {flux("suspend: true", "observedGeneration: 3, conditions: [{type: Ready, status: 'True'}]"), finding.Fail, "suspend"},
		"a release":    {strings.NewReplacer("kustomize.toolkit.fluxcd.io/v1", "helm.toolkit.fluxcd.io/v2", "Kustomization", "HelmRelease").Replace(flux("", "observedGeneration: 3, conditions: [{type: Ready, status: 'True'}]")), finding.Pass, ""},
	} {
		got := judge(t, inventory.Cluster, tt.manifest)
		if len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Evidence, tt.says) {
			t.Errorf("%s: %+v, want %s %q", name, got, tt.want, tt.says)
		}
		if got := judge(t, inventory.Files, tt.manifest); got != nil {
			t.Errorf("%s: files %+v", name, got)
		}
	}
}

func TestEdited(t *testing.T) {
	deployment := func(applied, live string) string {
		annotation := ""
		if applied != "" {
			quoted, err := json.Marshal(applied)
			if err != nil {
				t.Fatal(err)
			}
			annotation = "kubectl.kubernetes.io/last-applied-configuration: " + string(quoted)
		}
		return fmt.Sprintf("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, annotations: {%s}}, spec: {%s, selector: {matchLabels: {a: b}}, "+
			"template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Always, containers: [{name: c, image: 'web:1', resources: {limits: {cpu: '1', memory: 1Gi}}, ports: [{containerPort: 80, protocol: TCP}]}]}}}}", annotation, live)
	}
	applied := func(image, more string) string {
		return `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2,"template":{"metadata":{"creationTimestamp":null},"spec":{"volumes":[],"containers":[{"name":"c","image":"` +
			image + `","resources":{"limits":{"cpu":"1000m","memory":"1024Mi"}},"ports":[{"containerPort":80}]` + more + `}]}}}}`
	}
	for name, tt := range map[string]struct {
		manifest string
		want     finding.Status
		says     string
	}{
		"as applied":        {deployment(applied("web:1", ""), "replicas: 2"), finding.Pass, ""},
		"scaled":            {deployment(applied("web:1", ""), "replicas: 9"), finding.Pass, ""},
		"another image":     {deployment(applied("web:2", ""), "replicas: 2"), finding.Fail, "spec.template.spec.containers[0].image"},
		"something removed": {deployment(applied("web:1", `,"securityContext":{"readOnlyRootFilesystem":true}`), "replicas: 2"), finding.Fail, "containers[0].securityContext"},
		"false and absent":  {deployment(applied("web:1", `,"tty":false`), "replicas: 2"), finding.Pass, ""},
		"broken":            {deployment("{", "replicas: 2"), finding.Unknown, ""},
		"not applied":       {deployment("", "replicas: 2"), finding.Unknown, ""},
	} {
		got := judge(t, inventory.Cluster, tt.manifest)
		if len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Evidence, tt.says) {
			t.Errorf("%s: %+v, want %s %q", name, got, tt.want, tt.says)
		}
	}
}

func FuzzEdited(f *testing.F) {
	f.Add(`{"spec":{"replicas":2,"template":{"spec":{"containers":[{"image":"a"}]}}}}`)
	f.Add(`{"spec":{"template":[null,{}]}}`)
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(
		"{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {kubectl.kubernetes.io/last-applied-configuration: x}}, spec: {containers: [{name: c, image: a}]}}"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, applied string) {
		o := &inventory.Object{Unstructured: inv.Objects()[0].DeepCopy()}
		o.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": applied})
		live, err := inventory.New(inventory.Cluster, []*inventory.Object{o}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := drift.Live(live); len(got) != 1 {
			t.Errorf("%+v", got)
		}
	})
}
