package fix_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/fix"
)

func fixOf(in fix.Input) (*fix.Plan, error) { return fix.Propose(context.Background(), in) }

// TestDocuments changes one object among others, however they are put into a
// file.
func TestDocuments(t *testing.T) {
	pod := func(name string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {hostPID: true, containers: [{name: a, image: b}]}\n"
	}
	item := func(name string) string {
		return "- apiVersion: v1\n  kind: Pod\n  metadata: {name: " + name + "}\n  spec: {hostPID: true, containers: [{name: a, image: b}]}\n"
	}
	tests := map[string]string{
		"one":                               pod("a"),
		"a byte order mark":                 "\xef\xbb\xbf" + pod("a"),
		"comments around":                   "# first\n\n---\n# second\n" + pod("a") + "# third\n",
		"several":                           pod("a") + "---\n" + pod("b") + "--- # more\n" + pod("c"),
		"an empty one":                      "---\n---\n" + pod("a") + "---\n# nothing\n",
		"ends of documents":                 pod("a") + "...\n---\n" + pod("b") + "...\n",
		"a text with marks":                 "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  x: |\n    ---\n    y\n---\n" + pod("a"),
		"a list":                            "apiVersion: v1\nkind: List\nitems:\n" + item("a") + item("b"),
		"lists in a list":                   "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: PodList\n  items:\n  " + strings.ReplaceAll(strings.TrimSpace(item("a")), "\n", "\n  ") + "\n",
		"two of one name":                   pod("a") + "---\n" + pod("a"),
		"two of one name in a list":         "apiVersion: v1\nkind: List\nitems:\n" + item("a") + item("a"),
		"no end of line":                    strings.TrimSuffix(pod("a"), "\n"),
		"lines of Windows":                  strings.ReplaceAll(pod("a")+"---\n"+pod("b"), "\n", "\r\n"),
		"letters of several bytes":          "# äöü 漢字\n" + strings.Replace(pod("a"), "spec: {", "spec: {nodeName: \"ü漢\", ", 1),
		"JSON":                              `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"hostPID": true, "containers": [{"name": "a", "image": "b"}]}}`,
		"a list without kinds, as JSON has": `{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"a"},"spec":{"hostPID":true,"containers":[{"name":"a","image":"b"}]}}]}`,
		"a merge":                           "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: &m {labels: {x: z}, name: a}\n  spec: {hostPID: true, containers: [{name: a, image: b}]}\n- apiVersion: v1\n  kind: Pod\n  metadata: {<<: *m, name: b}\n  spec: {hostPID: true, containers: [{name: a, image: b}]}\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			want := strings.NewReplacer("hostPID: true", "hostPID: false", `"hostPID": true`, `"hostPID": false`, `"hostPID":true`, `"hostPID":false`).Replace(text)
			got, p := fixed(t, text, "CON-SEC-10")
			if got != want {
				t.Errorf("got\n%q\nwant\n%q\nrefused %v", got, want, p.Refused)
			}
		})
	}
}

// A directive belongs to the document that follows it, which is not taken apart.
func TestDirective(t *testing.T) {
	text := "%YAML 1.1\n---\n" + weak
	if got, p := fixed(t, text, "CON-SEC-10"); got != text && !strings.Contains(got, "hostPID: false # needed?") {
		t.Errorf("got\n%s\nrefused %v", got, p.Refused)
	}
}

func TestInputErrors(t *testing.T) {
	dir := folder(t, map[string]string{
		"chart/Chart.yaml": "name: x\n", "chart/templates/a.yaml": "{{ x }}\n", "over/kustomization.yaml": "resources: []\n",
		"deep/a/b/kustomization.yml": "resources: []\n", "broken/a.yaml": "a: [\n", "hidden/.git/Chart.yaml": "x: y\n", "hidden/pod.yaml": weak,
	})
	tests := []struct{ path, want, hint string }{
		{"chart", "chart: a Helm chart cannot be changed in place", "helm template"},
		{"over", "over: a kustomization cannot be changed in place", "kubectl kustomize"},
		{"over/kustomization.yaml", "over: a kustomization cannot be changed in place", "kubectl kustomize"},
		{"deep", "deep/a/b: a kustomization cannot be changed in place", "kubectl kustomize"},
		{"broken", "a.yaml:", ""},
		{"none", "no such file or directory", ""},
		{"hidden", "", ""},
	}
	for _, tt := range tests {
		_, err := fixOf(input(t, dir+"/"+tt.path))
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.path, err, tt.want)
			continue
		}
		var hinted interface{ Hint() string }
		if tt.hint != "" && (!errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), tt.hint)) {
			t.Errorf("%s: no hint %q", tt.path, tt.hint)
		}
	}
}

const shop = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"

// TestWherePoliciesGo puts policies beside the manifests of a folder, behind
// those of a file that was named, and nowhere else.
func TestWherePoliciesGo(t *testing.T) {
	pod := strings.Replace(weak, "name: web", "name: web\n  namespace: shop", 1)
	tests := []struct {
		name  string
		files map[string]string
		paths []string
		want  string // the file that changes, "" for a refusal
		start string // of what is added
	}{
		{"a folder", map[string]string{"a/space.yaml": shop, "b/pod.yaml": pod}, []string{""}, "a/networkpolicy-shop.yaml", "# "},
		{"a file", map[string]string{"all.yaml": shop + "---\n" + pod}, []string{"all.yaml"}, "all.yaml", "---\n# "},
		{"a file that does not end", map[string]string{"all.yaml": strings.TrimSpace(pod + "---\n" + shop)}, []string{"all.yaml"}, "all.yaml", "\n---\n# "},
		{"a file of Windows", map[string]string{"all.yaml": strings.ReplaceAll(shop+"---\n"+pod, "\n", "\r\n")}, []string{"all.yaml"}, "all.yaml", "---\r\n# "},
		{"a file that is there", map[string]string{
			"space.yaml": shop, "networkpolicy-shop.yaml": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec: {podSelector: {matchLabels: {a: b}}}\n",
		}, []string{""}, "networkpolicy-shop.yaml", "---\n# "},
		{"a file that is something else", map[string]string{"space.yaml": shop, "networkpolicy-shop.yaml": "a: b\n"}, []string{""}, "", "exists already, and holds no manifests"},
		{"JSON", map[string]string{"space.json": `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`}, []string{"space.json"}, "", "a JSON file cannot take a second document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.files)
			in := input(t)
			for _, path := range tt.paths {
				in.Paths = append(in.Paths, strings.TrimSuffix(dir+"/"+path, "/"))
			}
			in.Controls = []string{"CLU-NET-02"}
			p := propose(t, in)
			if tt.want == "" {
				if len(p.Files) > 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, tt.start) {
					t.Errorf("files %v, refused %v", p.Files, p.Refused)
				}
				return
			}
			if len(p.Files) != 1 || p.Files[0].Name != dir+"/"+tt.want {
				t.Fatalf("files %v, refused %v", p.Files, p.Refused)
			}
			added, ok := strings.CutPrefix(string(p.Files[0].After), string(p.Files[0].Before))
			if !ok || !strings.HasPrefix(added, tt.start) || !strings.Contains(added, "name: default-deny-ingress") {
				t.Errorf("added %q", added)
			}
			if _, err := p.Write(); err != nil {
				t.Fatal(err)
			}
			if again := propose(t, in); len(again.Files) > 0 {
				t.Errorf("a second time changes\n%s", again.Diff())
			}
		})
	}
}

// What only a person can do is counted by control, with the first subject.
func TestManual(t *testing.T) {
	_, p := fixed(t, weak+"---\n"+strings.Replace(weak, "name: web", "name: other", 1), "CON-RES-01", "CON-IMG-01", "CON-SEC-10")
	if len(p.Changes) != 2 || len(p.Manual) != 2 {
		t.Fatalf("changes %v, manual %v", p.Changes, p.Manual)
	}
	for _, m := range p.Manual {
		want := map[string]bool{"CON-IMG-01": false, "CON-RES-01": true}
		if value, known := want[m.Control]; !known || value != m.Value || len(m.Subjects) != 2 || m.Text == "" {
			t.Errorf("manual %+v", m)
		}
	}
	if *p.After.Total <= *p.Before.Total {
		t.Errorf("score %.2f -> %.2f", *p.Before.Total, *p.After.Total)
	}
}

// Off the host's network a pod is held by policies, which must be there: alone,
// that change is not offered, with them it is.
func TestOffTheHostNetwork(t *testing.T) {
	manifest := shop + "---\n" + strings.NewReplacer("name: web", "name: web\n  namespace: shop\n  labels: {app: web}", "hostPID", "hostNetwork").Replace(weak)
	_, p := fixed(t, manifest, "CON-SEC-11")
	if len(p.Changes) > 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, "CLU-NET-04 would apply then, and have to be met as well, by Pod/shop/web") {
		t.Errorf("changes %v, refused %v", p.Changes, p.Refused)
	}
	after, p := fixed(t, manifest, "CON-SEC-11", "CLU-NET-02", "CLU-NET-03")
	if len(p.Changes) != 3 || !strings.Contains(after, "hostNetwork: false") {
		t.Errorf("changes %v, refused %v", p.Changes, p.Refused)
	}
}

// What a pod declares must not be cut by policies that did not hold it before.
func TestOffTheHostNetworkIntoPolicies(t *testing.T) {
	manifest := shop + `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {hostNetwork: true, containers: [{name: c, image: i, env: [{name: DB_HOST, value: db}]}]}
`
	_, p := fixed(t, manifest, "CON-SEC-11")
	if len(p.Changes) > 0 || len(p.Refused) != 2 || !strings.Contains(p.Refused[0].Reason, "web names db in DB_HOST would be cut: Pod/shop/web to Pod/shop/db") {
		t.Errorf("changes %v, refused %v", p.Changes, p.Refused)
	}
	if _, p := fixed(t, strings.Replace(manifest, "value: db", "value: none", 1), "CON-SEC-11"); len(p.Changes) != 2 {
		t.Errorf("nothing is declared: changes %v, refused %v", p.Changes, p.Refused)
	}
}

// Where egress cannot be closed, ingress is, and it is said why.
func TestEgressThatIsUnclear(t *testing.T) {
	manifest := shop + "---\n" + strings.Replace(strings.Replace(weak, "name: web", "name: web\n  namespace: shop\n  labels: {app: web}", 1),
		"image: b", "image: b, env: [{name: PARTNER_HOST, value: partner.example.com}]", 1)
	after, p := fixed(t, manifest, "CLU-NET-02", "CLU-NET-03", "CLU-NET-04")
	if len(p.Changes) != 1 || p.Changes[0].Control != "CLU-NET-02" || strings.Contains(after, "Egress") {
		t.Errorf("changes %v\n%s", p.Changes, after)
	}
	if len(p.Refused) != 2 || !strings.Contains(p.Refused[0].Reason, "web names partner.example.com in PARTNER_HOST, but not on which port") {
		t.Errorf("refused %v", p.Refused)
	}
}

// The score of a plan is that of its files.
func TestScoreIsOfTheFiles(t *testing.T) {
	after, p := fixed(t, shop+"---\n"+strings.Replace(weak, "name: web", "name: web\n  namespace: shop", 1))
	_, again := fixed(t, after)
	if len(again.Changes) > 0 || total(again.Before) != total(p.After) {
		t.Errorf("score %.3f after the changes, %.3f when they are read", total(p.After), total(again.Before))
	}
}

func total(s control.Score) float64 { return *s.Total }
