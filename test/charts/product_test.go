package charts

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/helm"
)

const product = "../../charts/kubeguardian"

var update = flag.Bool("update", false, "write the golden manifests of the chart")

// renderProduct renders KubeGuardian's chart.
func renderProduct(values map[string]any) ([]helm.Rendered, error) {
	files, err := helm.Read(product)
	if err != nil {
		return nil, err
	}
	ours := func(string, []byte) error { return nil }
	return helm.Render(context.Background(), "charts/kubeguardian", files, helm.Release{
		Name: "guard", Namespace: "kubeguardian", Values: values, KubeVersion: "v1.37.0", Check: ours})
}

// variants are the ways in which the chart is held to what is written here.
func variants() map[string]map[string]any {
	type object = map[string]any
	return map[string]map[string]any{
		"default": nil,
		"all": {
			"image":         object{"repository": "registry.internal/guard", "tag": "1.2.3", "pullSecrets": []any{"pull"}},
			"server":        object{"digest": "sha256:" + strings.Repeat("a", 64), "tlsSecret": "page", "clusterIP": "10.96.0.77", "config": object{"cluster": "production", "webhook": object{"drain": "10s"}}, "persistence": object{"keep": true, "storageClass": "fast"}},
			"agent":         object{"digest": "sha256:" + strings.Repeat("b", 64), "config": object{"priority": "notice"}},
			"crds":          object{"keep": true},
			"policies":      object{"fromCluster": true},
			"monitoring":    object{"podMonitor": true, "prometheusRule": true, "dashboards": true, "labels": object{"release": "prometheus"}},
			"networkPolicy": object{"monitoring": []any{object{"namespaceSelector": object{"matchLabels": object{"kubernetes.io/metadata.name": "monitoring"}}}}},
		},
		"small": {
			"agent":         object{"enabled": false},
			"crds":          object{"install": false},
			"networkPolicy": object{"enabled": false},
			"server":        object{"persistence": object{"enabled": false}},
		},
		"replicas": {
			"server":   object{"replicas": 2, "tokenSecret": "login"},
			"database": object{"urlSecret": "database"},
			"bus":      object{"external": object{"url": "tls://nats-0.nats.svc:4222,tls://nats-1.nats.svc:4223", "credentialsSecret": "nats", "ca": true, "replicas": 3}},
			"networkPolicy": object{
				"database": []any{object{"ipBlock": object{"cidr": "192.0.2.5/32"}}},
				"bus":      []any{object{"namespaceSelector": object{"matchLabels": object{"kubernetes.io/metadata.name": "nats"}}}},
			},
		},
		"apart": {
			"server": object{"replicas": 3, "minAvailable": "50%", "authoritySecret": "authority", "topologySpreadConstraints": []any{
				object{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}}},
			"database": object{"urlSecret": "database"},
			"agent":    object{"enabled": false},
		},
		"hub": {
			"server": object{"config": object{"cluster": "central"}},
			"bus":    object{"leafNodes": object{"enabled": true, "hosts": []any{"hub.example.org"}, "clusters": object{"eu-1": "Vn2UcIuIkUuMxMXcgyzZcGYb1F4Tb2IOC9DcKm0wMRs"}, "serviceType": "LoadBalancer", "serviceAnnotations": object{"example.org/internal": "true"}, "clients": []any{object{"ipBlock": object{"cidr": "192.0.2.0/24"}}}}},
		},
		"spoke": {
			"server": object{"config": object{"cluster": "eu-1"}},
			"bus":    object{"hub": object{"url": "tls://hub.example.org:7422", "keySecret": "hub", "ca": true}},
		},
		"enforcing": {"agent": object{"enforcement": true, "config": object{
			"enforce":   []any{object{"rules": []any{"Drifted program started"}, "action": "kill"}, object{"tags": []any{"mitre_command_and_control"}, "action": "block-egress", "for": "1m"}},
			"zeroDrift": []any{object{"mode": "alert"}},
		}}},
		"privileged": {"agent": object{"privileged": true, "namespace": "", "priorityClassName": ""}},
	}
}

// TestGolden shows in a change of the chart what it changes in a cluster.
func TestGolden(t *testing.T) {
	for name, values := range variants() {
		t.Run(name, func(t *testing.T) {
			files, err := renderProduct(values)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			for _, f := range files {
				if strings.TrimSpace(f.Text) != "" {
					got.WriteString("# " + filepath.ToSlash(f.File) + "\n" + strings.TrimSpace(f.Text) + "\n---\n")
				}
			}
			golden := filepath.Join("testdata", "kubeguardian-"+name+".yaml")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("the chart makes other objects than %s has; see what changed with: go test ./test/charts -run Golden -update && git diff", golden)
			}
		})
	}
}

// productObjects renders the chart and decodes each object strictly by its Go
// type, by "Kind/name". Those of the Prometheus Operator have none.
func productObjects(t *testing.T, values map[string]any) map[string]runtime.Object {
	t.Helper()
	files, err := renderProduct(values)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	out, seen := map[string]runtime.Object{}, map[string]bool{}
	for _, doc := range documents(t, files) {
		u := read(t, doc)
		if len(u.Object) == 0 {
			continue
		}
		key := u.GetKind() + "/" + u.GetName()
		if in := u.GetNamespace() + "/" + key; seen[in] {
			t.Errorf("%s is there twice", in)
		} else {
			seen[in] = true
		}
		if out[key] = u; u.GroupVersionKind().Group == "monitoring.coreos.com" {
			continue
		}
		if out[key], _, err = strict.Decode(doc, nil, nil); err != nil {
			t.Fatalf("%s: %v\n%s", key, err, doc)
		}
	}
	return out
}

// templates are the pods of the chart, by the names of what makes them.
func templates(all map[string]runtime.Object) map[string]corev1.PodTemplateSpec {
	out := map[string]corev1.PodTemplateSpec{}
	for name, object := range all {
		switch o := object.(type) {
		case *appsv1.Deployment:
			out[name] = o.Spec.Template
		case *appsv1.DaemonSet:
			out[name] = o.Spec.Template
		case *batchv1.Job:
			out[name] = o.Spec.Template
		}
	}
	return out
}

// TestEverythingIsOfTheRelease holds all objects to the namespaces of the
// release, and to labels by which they are known.
func TestEverythingIsOfTheRelease(t *testing.T) {
	for name, values := range variants() {
		for key, object := range productObjects(t, values) {
			o := object.(metav1.Object)
			global := strings.HasPrefix(key, "Cluster") || strings.HasPrefix(key, "CustomResource") || strings.HasPrefix(key, "Namespace/")
			if in := o.GetNamespace(); (in == "") != global || in != "" && in != "kubeguardian" && in != "kubeguardian-agent" {
				t.Errorf("%s: %s is in namespace %q", name, key, in)
			}
			if o.GetLabels()["app.kubernetes.io/instance"] != "guard" {
				t.Errorf("%s: %s does not say of which release it is", name, key)
			}
		}
	}
}

// TestPodSecurity lets only the agent be less than restricted, and that without
// being privileged unless it is told to.
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for variant, values := range variants() {
		for name, pod := range templates(productObjects(t, values)) {
			results := evaluator.EvaluatePod(psapi.LevelVersion{Level: psapi.LevelRestricted, Version: psapi.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
			if r := policy.AggregateCheckResults(results); r.Allowed == strings.HasPrefix(name, "DaemonSet/") {
				t.Errorf("%s: %s at restricted: %t %s", variant, name, r.Allowed, r.ForbiddenDetail())
			}
			c := pod.Spec.Containers[0]
			if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%s: %s can write to its root file system", variant, name)
			}
			if privileged := c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged; privileged != (variant == "privileged" && strings.HasPrefix(name, "DaemonSet/")) {
				t.Errorf("%s: %s privileged: %t", variant, name, privileged)
			}
			for _, v := range pod.Spec.Volumes {
				if v.HostPath != nil {
					t.Errorf("%s: %s mounts %s of the host", variant, name, v.HostPath.Path)
				}
			}
		}
	}
	if ns := get[*corev1.Namespace](t, productObjects(t, nil), "Namespace/kubeguardian-agent"); ns.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("the agents' namespace admits %q", ns.Labels["pod-security.kubernetes.io/enforce"])
	}
}

// TestConfigurations reads what the programs will read.
func TestConfigurations(t *testing.T) {
	for name, values := range variants() {
		all := productObjects(t, values)
		c, err := config.Parse("server.yaml", []byte(get[*corev1.ConfigMap](t, all, "ConfigMap/kubeguardian").Data["config.yaml"]))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		service := get[*corev1.Service](t, all, "Service/kubeguardian")
		if c.Webhook.Service.Name != service.Name || c.Webhook.Service.Namespace != service.Namespace || int32(c.Webhook.Service.Port) != service.Spec.Ports[0].Port {
			t.Errorf("%s: the API server is sent to %+v", name, c.Webhook.Service)
		}
		if name == "all" && (c.Cluster != "production" || !c.Admission.FromCluster || c.Web.CertFile == "" || c.Webhook.Drain.Seconds() != 10) {
			t.Errorf("%s: values are lost: %+v", name, c)
		}
		pod := templates(all)["Deployment/kubeguardian"]
		if !selects(t, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, pod) {
			t.Errorf("%s: the Service does not select the server", name)
		}
		if hub := name == "hub"; hub != (c.Bus.LeafNodes.Listen == ":7422" && c.Bus.LeafNodes.Clusters != "" && get[*corev1.ConfigMap](t, all, "ConfigMap/kubeguardian-clusters").Data["clusters"] != "") {
			t.Errorf("%s: clusters can report: %v: %+v", name, !hub, c.Bus.LeafNodes)
		}
		if spoke := name == "spoke"; spoke != (c.Bus.Hub.URL != "" && c.Bus.Hub.CAFile != "") {
			t.Errorf("%s: it reports to a hub: %v: %+v", name, !spoke, c.Bus.Hub)
		}
		if login := c.Web.Login.Token; login != (name != "apart") || name == "replicas" && c.Web.TokenFile != "/etc/kubeguardian/login/token" {
			t.Errorf("%s: login by token: %v, which is in %s", name, login, c.Web.TokenFile)
		}
		if name == "small" || name == "apart" {
			continue
		}
		a, err := agent.ParseConfig("agent.yaml", []byte(get[*corev1.ConfigMap](t, all, "ConfigMap/kubeguardian-agent").Data["config.yaml"]))
		if err != nil || a.Root != "/proc/1/root" || a.Status != ":9400" {
			t.Errorf("%s: the agent reads %+v (%v)", name, a, err)
			continue
		}
		if external := c.Bus.External.URL; external != "" && a.Server.URL != external ||
			external == "" && (!slices.Contains(c.Bus.Hosts, strings.TrimSuffix(strings.TrimPrefix(a.Server.URL, "tls://"), ":4222")) || !strings.HasSuffix(c.Bus.Listen, ":4222")) {
			t.Errorf("%s: the agent reports to %s, and the server has %+v", name, a.Server.URL, c.Bus)
		}
	}
}

// TestRights compares the rights of the chart with those of content, which
// `kubeguardian setup rbac` prints and the server is tested with: rule by rule,
// in the order of the file.
func TestRights(t *testing.T) {
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, clientscheme.Scheme, clientscheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	all := productObjects(t, map[string]any{"policies": map[string]any{"fromCluster": true}})
	described, err := os.ReadFile("../../docs/rbac.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, doc := range documents(t, []helm.Rendered{{File: "rbac.yaml", Text: string(content.RBAC())}}) {
		object, kind, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var want, have []rbacv1.PolicyRule
		key := kind.Kind + "/" + object.(metav1.Object).GetName()
		switch role := object.(type) {
		case *rbacv1.ClusterRole:
			want, have = role.Rules, get[*rbacv1.ClusterRole](t, all, key).Rules
		case *rbacv1.Role:
			want, have = role.Rules, get[*rbacv1.Role](t, all, key).Rules
		default:
			continue
		}
		seen++
		if !slices.EqualFunc(have, want, func(a, b rbacv1.PolicyRule) bool { return a.String() == b.String() }) {
			t.Errorf("%s has\n%v, want\n%v", key, have, want)
		}
		for _, rule := range have {
			for _, resource := range rule.Resources {
				if !strings.Contains(string(described), "`"+resource+"`") {
					t.Errorf("docs/rbac.md does not say what %s of %v is for", resource, rule.APIGroups)
				}
			}
		}
	}
	if seen != 4 {
		t.Errorf("%d roles were compared, want 4", seen)
	}
	for key := range all {
		if strings.Contains(key, "Role/") && strings.Contains(key, "agent") {
			t.Errorf("the agent has rights: %s", key)
		}
	}
}

// TestUninstallComesFirst wants the webhook to go before the server.
func TestUninstallComesFirst(t *testing.T) {
	all := productObjects(t, nil)
	for _, key := range []string{"ConfigMap/uninstall", "Job/kubeguardian-uninstall"} {
		o := all[key].(metav1.Object)
		if o.GetAnnotations()["helm.sh/hook"] != "pre-delete" || !strings.Contains(o.GetAnnotations()["helm.sh/hook-delete-policy"], "hook-succeeded") {
			t.Errorf("%s: %v", key, o.GetAnnotations())
		}
	}
	if args := templates(all)["Job/kubeguardian-uninstall"].Spec.Containers[0].Args; args[0] != "uninstall" {
		t.Errorf("the job runs %v", args)
	}
}

func TestDefinitionsAreOurs(t *testing.T) {
	have, err := os.ReadFile(product + "/files/crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, content.CRDs()) {
		t.Error("charts/kubeguardian/files/crds.yaml is not a copy of content/crds.yaml")
	}
	for keep, want := range map[bool]string{true: "keep", false: ""} {
		all := productObjects(t, map[string]any{"crds": map[string]any{"keep": keep}})
		for _, name := range []string{"securityexceptions", "imagepolicies"} {
			crd := get[*apiextensionsv1.CustomResourceDefinition](t, all, "CustomResourceDefinition/"+name+".kubeguardian.dev")
			if crd.Annotations["helm.sh/resource-policy"] != want {
				t.Errorf("%s: keep is %t, and its policy %q", name, keep, crd.Annotations["helm.sh/resource-policy"])
			}
		}
	}
}

func TestProductValuesAreChecked(t *testing.T) {
	type object = map[string]any
	for name, values := range map[string]map[string]any{
		"unknown value":             {"servers": 2},
		"digest":                    {"server": object{"digest": "latest"}},
		"size":                      {"server": object{"persistence": object{"size": "much"}}},
		"replicas":                  {"server": object{"replicas": 0}},
		"no database":               {"server": object{"replicas": 2}},
		"no bus":                    {"server": object{"replicas": 2}, "database": object{"urlSecret": "database"}},
		"nameless hub":              {"bus": object{"leafNodes": object{"enabled": true}}},
		"keyless spoke":             {"bus": object{"hub": object{"url": "tls://hub.example.org:7422"}}},
		"port of a bus":             {"bus": object{"external": object{"url": "tls://nats.nats.svc"}}},
		"nothing to trust a bus by": {"bus": object{"external": object{"url": "tls://nats.nats.svc:4222", "ca": true}}},
		"budget":                    {"server": object{"minAvailable": "all"}},
		"capability":                {"agent": object{"capabilities": []any{"all of them"}}},
		"cidr":                      {"networkPolicy": object{"apiServer": object{"cidrs": []any{"everywhere"}}}},
	} {
		if _, err := renderProduct(values); err == nil {
			t.Errorf("%s: %v is taken", name, values)
		}
	}
	if len(variants()) != 9 || !slices.Contains(slices.Collect(maps.Keys(variants())), "default") {
		t.Error("the defaults are not among the variants")
	}
}

// TestOwnScan holds the chart to our own controls: what fails is what the
// documentation says.
func TestOwnScan(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command line")
	}
	program := filepath.Join(t.TempDir(), "kubeguardian")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/kubeguardian").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program, "scan", product, "--format", "json").Output()
	if len(out) == 0 {
		t.Fatal(err)
	}
	var report struct {
		Findings []struct{ Control, Status, Message string }
	}
	if err := stdjson.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "### What our own scan says of it")
	section, _, _ = strings.Cut(section, "\n## ")
	want := map[string]bool{}
	for _, control := range regexp.MustCompile(`[A-Z]{3}-[A-Z]{3}-[0-9]{2}`).FindAllString(section, -1) {
		want[control] = true
	}
	if !found || len(want) < 5 || len(report.Findings) < 50 {
		t.Fatalf("%d controls in the documentation, %d findings", len(want), len(report.Findings))
	}
	failed := map[string]bool{}
	for _, f := range report.Findings {
		if f.Status == "fail" {
			failed[f.Control] = true
			if !want[f.Control] {
				t.Errorf("%s fails: %s", f.Control, f.Message)
			}
		}
	}
	for control := range want {
		if !failed[control] {
			t.Errorf("%s does not fail any more: take it out of docs/install.md", control)
		}
	}
}
