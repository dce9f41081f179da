package inventory

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestKustomizations(t *testing.T) {
	const (
		deployment = "# ours\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n" +
			"  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: web, image: web}]}\n"
		service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
		base    = "-- base/kustomization.yaml --\nresources: [deployment.yaml, service.yaml]\n-- base/deployment.yaml --\n" + deployment +
			"-- base/service.yaml --\n" + service
		chart = "-- charts/app/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\n-- charts/app/values.yaml --\nname: default\nother: kept\n" +
			"-- charts/app/templates/pod.yaml --\n# a template\n{{- if .Values.name }}\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}-{{ .Values.name }}-{{ .Values.other }}\n  namespace: {{ .Release.Namespace }}\n{{- end }}\n" +
			"-- charts/app/templates/test.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: test\n  annotations: {helm.sh/hook: test}\n" +
			"-- charts/app/crds/crd.yaml --\napiVersion: example.com/v1\nkind: Gate\nmetadata: {name: gate}\n"
	)
	tests := []struct{ name, archive, paths, want, err, hint string }{
		{
			name: "every overlay is a variant, the base is not judged again, and what is not used is",
			archive: base + "-- dev/kustomization.yaml --\nresources: [../base]\nnamePrefix: dev-\n-- prod/kustomization.yaml --\nresources: [../base]\nnamespace: prod\n" +
				"patches: [{path: patch.yaml}]\n-- prod/patch.yaml --\n{apiVersion: v1, kind: Service, metadata: {name: web, labels: {x: y}}}\n-- base/forgotten.yaml --\n{apiVersion: v1, kind: Pod, metadata: {name: forgotten}}\n",
			want: "base/deployment.yaml:2 Deployment/dev-web from dev\nbase/service.yaml:1 Service/dev-web from dev\nbase/deployment.yaml:2 Deployment/prod/web from prod\n" +
				"base/service.yaml:1 Service/prod/web from prod\nbase/forgotten.yaml:1 Pod/forgotten\n",
		},
		{
			name: "a base that is named is built", archive: base + "-- dev/kustomization.yaml --\nresources: [../base]\n", paths: "base/kustomization.yaml",
			want: "base/deployment.yaml:2 Deployment/web\nbase/service.yaml:1 Service/web\n",
		},
		{
			name: "components and generators",
			archive: base + "-- app/kustomization.yaml --\nresources: [../base]\ncomponents: [../debug]\nconfigMapGenerator: [{name: settings, literals: [url=https://example.com]}]\ncommonAnnotations: {see: https://example.com}\n" +
				"-- debug/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [pod.yaml]\n-- debug/pod.yaml --\n{apiVersion: v1, kind: Pod, metadata: {name: debug}}\n" +
				"-- alone/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamePrefix: x-\n",
			want: "base/deployment.yaml:2 Deployment/web from app\nbase/service.yaml:1 Service/web from app\ndebug/pod.yaml:1 Pod/debug from app\napp/kustomization.yaml ConfigMap/settings-b6m879h4d7\n" +
				"skip alone: a component that no kustomization here uses\n",
		},
		{
			name:    "charts are rendered, and judged as the kustomization has them",
			archive: chart + "-- kustomization.yaml --\nnamespace: shop\nhelmCharts: [{name: app, releaseName: rel, valuesInline: {name: inline}, skipTests: true}]\nnameSuffix: -x\n",
			want:    "charts/app/templates/pod.yaml:3 Pod/shop/rel-inline-kept-x from .\n",
		},
		{
			name: "values of charts, and their definitions",
			archive: chart + "-- kustomization.yaml --\nhelmCharts:\n- {name: app, valuesFile: v.yaml, additionalValuesFiles: [w.yaml], valuesInline: {name: inline}, valuesMerge: merge, includeCRDs: true, namespace: own}\n" +
				"-- v.yaml --\nname: file\n-- w.yaml --\nother: added\n",
			want: "charts/app/crds/crd.yaml:1 Gate/gate from .\ncharts/app/templates/pod.yaml:3 Pod/own/release-name-file-added from .\ncharts/app/templates/test.yaml:1 Pod/test from .\n",
		},
		{
			name: "a chart in a repository", archive: "-- kustomization.yaml --\nhelmCharts: [{name: app, repo: https://example.com/charts, version: 1.0.0}]\n",
			err: ".: helmCharts: chart app is not in charts, and nothing is fetched for a scan", hint: "helm pull app --repo https://example.com/charts",
		},
		{
			name: "a chart outside of the charts", archive: "-- kustomization.yaml --\nhelmCharts: [{name: ../../etc}]\n",
			err: `.: helmCharts: "../../etc" is not the name of a chart`,
		},
		{
			name: "a remote base", archive: "-- app/kustomization.yaml --\nresources: ['github.com/org/repo//base?ref=v1']\n",
			err: `app: "github.com/org/repo//base?ref=v1" is remote: nothing is fetched for a scan`, hint: "kubectl kustomize app | kubeguardian scan -",
		},
		{
			name: "a remote file in a base", archive: "-- app/kustomization.yaml --\nresources: [../base]\n-- base/kustomization.yaml --\nresources: [HTTPS://example.com/x.yaml]\n",
			err: `base: "HTTPS://example.com/x.yaml" is remote: nothing is fetched for a scan`,
		},
		{
			name: "remote files of a generator", archive: "-- kustomization.yaml --\nconfigMapGenerator: [{name: a, files: [key=http://example.com/x]}]\n",
			err: `.: "http://example.com/x" is remote: nothing is fetched for a scan`,
		},
		{
			name: "remote files of a plugin", archive: "-- kustomization.yaml --\ngenerators: [g.yaml]\n-- g.yaml --\napiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: a}\nfiles: [k=http://example.com/x]\n",
			err: `.: "k=http://example.com/x" is remote: nothing is fetched for a scan`,
		},
		{
			name: "a plugin that is a program", archive: "-- kustomization.yaml --\ngenerators: [g.yaml]\n-- g.yaml --\napiVersion: example.com/v1\nkind: Gen\nmetadata:\n  name: a\n  annotations: {config.kubernetes.io/function: 'exec: {path: ./run.sh}'}\n",
			err: ".: loading generator plugins: failed to load generator: external plugins disabled; unable to load external plugin 'Gen'", hint: "plugins are not run",
		},
		{
			name: "a circle", archive: "-- a/kustomization.yaml --\nresources: [../b]\n-- b/kustomization.yaml --\nresources: [../a]\n",
			err: "a: kustomizations refer to each other in a circle: a -> b -> a\nb: kustomizations refer to each other in a circle: b -> a -> b",
		},
		{
			name: "the folder around", archive: "-- a/kustomization.yaml --\nresources: [..]\n-- kustomization.yaml --\nresources: [a]\n", paths: "a",
			err: "a: kustomizations refer to each other in a circle: a -> . -> a",
		},
		{
			name: "a file that is not there", archive: "-- kustomization.yaml --\nresources: [nowhere.yaml]\n",
			err: "nowhere.yaml: no such file or directory",
		},
		{
			name: "a file outside", archive: "-- app/kustomization.yaml --\nresources: [../pod.yaml]\n-- pod.yaml --\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n", paths: "app",
			err: "app: accumulating resources: accumulation err='accumulating resources from '../pod.yaml': security; file 'pod.yaml' is not in or below 'app'': must build at directory: 'pod.yaml': file is not directory",
		},
		{
			name: "two of them", archive: "-- kustomization.yaml --\nresources: []\n-- kustomization.yml --\nresources: []\n",
			err: ".: it has both kustomization.yaml and kustomization.yml",
		},
		{
			name: "an unknown field", archive: "-- kustomization.yaml --\nresource: [a.yaml]\n",
			err: `kustomization.yaml: invalid Kustomization: json: unknown field "resource"`,
		},
		{
			name: "an alias bomb", archive: "-- kustomization.yaml --\nresources: [pod.yaml]\n-- pod.yaml --\na: &a [x,x,x,x,x,x,x,x,x]\n" + bomb(),
			err: ".: accumulating resources: accumulation err='accumulating resources from 'pod.yaml': pod.yaml:1: aliases expand to more than 200000 values': must build at directory: 'pod.yaml': file is not directory",
		},
		{
			name: "a resource that is wrong stands alone", archive: "-- kustomization.yaml --\nresources: [pod.yaml]\n-- pod.yaml --\n# a\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwrok: true}\n",
			err: "pod.yaml:2: unknown field spec.hostNetwrok: did you mean hostNetwork?",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			paths := strings.Fields(test.paths)
			if len(paths) == 0 {
				paths = []string{"."}
			}
			inv, err := read(t, test.archive, paths, "")
			if err != nil {
				if got := err.Error(); got != test.err || !strings.Contains(hintOf(err), test.hint) {
					t.Errorf("error\n%v (hint %q)\nwant\n%s (%s)", got, hintOf(err), test.err, test.hint)
				}
				return
			}
			if got := sorted(describeInventory(inv)); got != sorted(test.want) {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

func bomb() string {
	var b strings.Builder
	for c := 'b'; c <= 'i'; c++ {
		fmt.Fprintf(&b, "%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	return b.String()
}

// TestKustomizationsThatMultiply uses each of a chain of kustomizations twice.
func TestKustomizationsThatMultiply(t *testing.T) {
	archive := "-- 0/kustomization.yaml --\nresources: [pod.yaml]\n-- 0/pod.yaml --\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n"
	for i := range 20 {
		for _, side := range []string{"a", "b"} {
			archive += strings.NewReplacer("NEXT", string(rune('A'+i)), "LAST", string(rune('A'+i-1)), "SIDE", side).Replace(
				"-- NEXTSIDE/kustomization.yaml --\nresources: [../LASTa, ../LASTb]\nnamePrefix: SIDE-\n")
		}
	}
	archive = strings.ReplaceAll(archive, "../@a, ../@b", "../0")
	_, err := read(t, archive, []string{"Ta"}, "")
	if want := "Ta: more than 1000 kustomizations in it, or more than 32 deep"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestKustomizationLinks(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, target := range map[string]string{"loop.yaml": "loop.yaml", "out.yaml": "/etc/hostname"} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	for resource, want := range map[string]string{
		"loop.yaml": "too many levels of symbolic links", "out.yaml": "security; file",
	} {
		if err := os.WriteFile("kustomization.yaml", []byte("resources: ["+resource+"]"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := FromFiles(t.Context(), []string{"kustomization.yaml"}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", resource, err, want)
		}
	}
}

func FuzzKustomization(f *testing.F) {
	f.Add("resources: [pod.yaml]\nnamePrefix: x-\n", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n")
	f.Add("patches: [{path: pod.yaml}]\nconfigMapGenerator: [{name: a, literals: [a=b]}]\n", "kind: Pod\n")
	f.Fuzz(func(t *testing.T, kustomization, pod string) {
		t.Chdir(t.TempDir())
		for name, text := range map[string]string{"kustomization.yaml": kustomization, "pod.yaml": pod} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		inv, err := FromFiles(t.Context(), []string{"."}, nil)
		if (inv == nil) == (err == nil) {
			t.Fatalf("inventory %v, error %v", inv, err)
		}
	})
}
