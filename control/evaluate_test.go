package control_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

func builtIn(t testing.TB) (*control.Catalogue, *policy.Set) {
	t.Helper()
	c, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	return c, set
}

func read(t testing.TB, manifests string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// live returns the objects of manifests as a cluster would show them.
func live(t testing.TB, manifests string, gaps ...inventory.Gap) *inventory.Inventory {
	t.Helper()
	var objects []*inventory.Object
	if manifests != "" {
		objects = read(t, manifests).Objects()
	}
	for _, o := range objects {
		o.Source = ""
	}
	inv, err := inventory.New(inventory.Cluster, objects, gaps)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func evaluate(t testing.TB, inv *inventory.Inventory, set *policy.Set) []finding.Finding {
	t.Helper()
	c, all := builtIn(t)
	if set == nil {
		set = all
	}
	findings, err := c.Evaluate(context.Background(), control.Input{Inventory: inv, Policies: set})
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// about returns the findings of one control for subjects whose String has the
// given end.
func about(findings []finding.Finding, id, subject string) []finding.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f finding.Finding) bool {
		return f.Control != id || !strings.HasSuffix(f.Subject.String(), subject)
	})
}

const application = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx
        securityContext: {privileged: true}
      - name: sidecar
        image: nginx@sha256:0000000000000000000000000000000000000000000000000000000000000000
        securityContext: {privileged: true}
      volumes:
      - name: root
        hostPath: {path: /}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - {name: db, image: postgres}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {SMTP_PASSWORD: correct-horse}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: everything, namespace: shop}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: everything, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: everything}
subjects: [{kind: ServiceAccount, name: default, namespace: shop}]
`

func TestEvaluate(t *testing.T) {
	findings := evaluate(t, read(t, application), nil)
	tests := []struct {
		name, control, subject string
		want                   finding.Finding
	}{
		{"a policy fails and names the containers", "CON-SEC-01", "Deployment/shop/web", finding.Finding{
			Definition: &finding.Definition{Severity: finding.Critical, Level: finding.Container},
			Detail:     &finding.Detail{Evidence: "policy privileged-containers"},
			Status:     finding.Fail, Exposure: finding.Internet, Subject: &finding.Subject{Container: "web,sidecar"},
		}},
		{"a policy passes", "CON-SEC-01", "Deployment/shop/db", finding.Finding{
			Definition: &finding.Definition{Severity: finding.Critical, Level: finding.Container},
			Detail:     &finding.Detail{},
			Status:     finding.Pass, Exposure: finding.InCluster, Subject: &finding.Subject{},
		}},
		{"a policy does not apply", "CON-IMG-12", "Deployment/shop/db", finding.Finding{
			Definition: &finding.Definition{Severity: finding.Low, Level: finding.Container},
			Detail:     &finding.Detail{},
			Status:     finding.Pass, Exposure: finding.InCluster, Subject: &finding.Subject{},
		}},
		{"a check fails", "APP-SEC-02", "ConfigMap/shop/settings", finding.Finding{
			Definition: &finding.Definition{Severity: finding.High, Level: finding.Application},
			Detail:     &finding.Detail{Evidence: `key "SMTP_PASSWORD": value under the name of a secret (values not shown)`},
			Status:     finding.Fail, Exposure: finding.Internet, Subject: &finding.Subject{},
		}},
		{"a role is as exposed as who holds it", "CLU-RBA-02", "Role/shop/everything", finding.Finding{
			Definition: &finding.Definition{Severity: finding.High, Level: finding.Cluster},
			Detail:     &finding.Detail{Evidence: "policy wildcard-roles"},
			Status:     finding.Fail, Exposure: finding.Internet, Subject: &finding.Subject{},
		}},
		{"a namespace is as exposed as what is in it", "CLU-NET-02", "Namespace/shop", finding.Finding{
			Definition: &finding.Definition{Severity: finding.High, Level: finding.Cluster},
			Detail:     &finding.Detail{Evidence: "0 NetworkPolicies in the namespace"},
			Status:     finding.Fail, Exposure: finding.Internet, Subject: &finding.Subject{},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := about(findings, tt.control, tt.subject)
			if len(got) != 1 {
				t.Fatalf("%d findings: %+v", len(got), got)
			}
			f := got[0]
			if f.Status != tt.want.Status || f.Exposure != tt.want.Exposure || f.Severity != tt.want.Severity || f.Level != tt.want.Level ||
				f.Subject.Container != tt.want.Subject.Container || f.Evidence != tt.want.Evidence {
				t.Errorf("finding %+v, want %+v", f, tt.want)
			}
			if failed := f.Status == finding.Fail; failed != (f.Message != "") || failed != (f.Fix != "") {
				t.Errorf("message %q, fix %q", f.Message, f.Fix)
			}
			if f.Title == "" || len(f.Frameworks) == 0 || f.ObservedAt.IsZero() || !strings.HasPrefix(f.Subject.Source, "-:") && !strings.Contains(f.Subject.Source, ":") {
				t.Errorf("incomplete: %+v", f)
			}
		})
	}
}

// Every pair of control and subject has one state, gains are what scoring again
// gives, no value of a credential is in a finding, and nothing depends on the
// order of the objects.
func TestEvaluateInvariants(t *testing.T) {
	c, set := builtIn(t)
	inv := read(t, application)
	findings := evaluate(t, inv, nil)
	seen := map[string]bool{}
	before := control.Summarize(c, findings)
	for i, f := range findings {
		pair := fmt.Sprint(f.Control, f.Subject.APIVersion, f.Subject, f.Subject.Source)
		if seen[pair] {
			t.Errorf("two states of %s", pair)
		}
		seen[pair] = true
		if strings.Contains(fmt.Sprintf("%+v", f), "correct-horse") {
			t.Errorf("%s shows the credential", f.Control)
		}
		if (f.Status == finding.Unknown || f.Status == finding.NotApplicable) != (f.Reason != "") {
			t.Errorf("%s %s has reason %q", f.Status, f.Control, f.Reason)
		}
		fixed := slices.Clone(findings)
		if f.Status == finding.Fail {
			fixed[i].Status = finding.Pass
		}
		if gain := *control.Summarize(c, fixed).Total - *before.Total; math.Abs(gain-f.Gain) > 1e-9 {
			t.Errorf("gain of %s %s is %v, want %v", f.Control, f.Subject, f.Gain, gain)
		}
	}
	reversed := slices.Clone(inv.Objects())
	slices.Reverse(reversed)
	other, err := inventory.New(inventory.Files, reversed, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Evaluate(context.Background(), control.Input{Inventory: other, Policies: set})
	if err != nil {
		t.Fatal(err)
	}
	for i := range again {
		again[i].Amend(func(d *finding.Detail) { d.ObservedAt = findings[i].ObservedAt })
	}
	if !reflect.DeepEqual(again, findings) {
		t.Error("the order of the objects changes the findings")
	}
}

func TestEvaluateUnknown(t *testing.T) {
	c, _ := builtIn(t)
	empty, err := policy.Load()
	if err != nil {
		t.Fatal(err)
	}
	pod := "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: [{name: web, image: nginx}]}}"
	tests := []struct {
		name             string
		inv              *inventory.Inventory
		set              *policy.Set
		control, subject string
		reason           string
	}{
		{"no policy for the control", read(t, pod), empty, "CON-SEC-01", "Pod/shop/web", "no policy with annotation kubeguardian.dev/control: CON-SEC-01 is loaded"},
		{"a lone file says nothing about its namespace", read(t, pod), nil, "CLU-NET-02", "Namespace/shop", "neither the Namespace nor a NetworkPolicy of it is among the files; policies may exist elsewhere"},
		{"workloads that could not be read", live(t, pod, inventory.Gap{Kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, Reason: "forbidden"}), nil,
			"CON-SEC-01", "Deployment", "Deployment objects could not be read: forbidden"},
		{"subjects of a check that could not be read", live(t, pod, inventory.Gap{Kind: schema.GroupKind{Kind: "ConfigMap"}, Reason: "forbidden"}), nil,
			"APP-SEC-02", "ConfigMap", "ConfigMap objects could not be read: forbidden"},
		{"policies that could not be read", live(t, pod, inventory.Gap{Kind: schema.GroupKind{Group: "networking.k8s.io", Kind: "NetworkPolicy"}, Reason: "forbidden"}), nil,
			"CLU-NET-04", "Pod/shop/web", "NetworkPolicies could not be read: forbidden"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			findings := evaluate(t, tt.inv, tt.set)
			got := about(findings, tt.control, tt.subject)
			if len(got) != 1 || got[0].Status != finding.Unknown || got[0].Reason != tt.reason {
				t.Fatalf("findings %+v, want one unknown: %s", got, tt.reason)
			}
			if s := control.Summarize(c, findings); s.High <= s.Low {
				t.Errorf("range %v to %v has no room for what is unknown", s.Low, s.High)
			}
		})
	}
}

func TestEvaluateCanBeStopped(t *testing.T) {
	c, set := builtIn(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Evaluate(ctx, control.Input{Inventory: read(t, application), Policies: set}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestEvaluateRejectsMisshapenObjects(t *testing.T) {
	c, set := builtIn(t)
	for kind, text := range map[string]string{
		"NetworkPolicy": "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, spec: {podSelector: {matchExpressions: [{key: a, operator: Likes}]}}}",
		"ClusterRole":   "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: x}, aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: Likes}]}]}}",
	} {
		t.Run(kind, func(t *testing.T) {
			_, err := c.Evaluate(context.Background(), control.Input{Inventory: read(t, text), Policies: set})
			if err == nil || !strings.Contains(err.Error(), kind+"/") || !strings.Contains(err.Error(), "Likes") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestSystemNamespacesWeighLess(t *testing.T) {
	pod := strings.ReplaceAll(application, "shop", "kube-system") + `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: kube-system}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
`
	for _, f := range evaluate(t, live(t, pod), nil) {
		if f.Exposure != finding.System {
			t.Errorf("%s %s has exposure %q", f.Control, f.Subject, f.Exposure)
		}
	}
}

// deployments writes n Deployments with what a typical one has.
func deployments(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app-%d, namespace: ns-%d, labels: {app: app-%[1]d}}
spec:
  replicas: 2
  selector: {matchLabels: {app: app-%[1]d}}
  template:
    metadata: {labels: {app: app-%[1]d}}
    spec:
      serviceAccountName: app-%[1]d
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: registry.example.com/app:1.%[1]d
        env: [{name: LOG_LEVEL, value: info}, {name: PORT, value: "8080"}]
        ports: [{containerPort: 8080}]
        resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {}}]
`, i, i/50)
	}
	return b.String()
}

func BenchmarkEvaluate(b *testing.B) {
	c, set := builtIn(b)
	inv := read(b, deployments(1000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Evaluate(context.Background(), control.Input{Inventory: inv, Policies: set}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "objects/s")
}

func BenchmarkSummarize(b *testing.B) {
	c, set := builtIn(b)
	findings, err := c.Evaluate(context.Background(), control.Input{Inventory: read(b, deployments(1000)), Policies: set})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		control.Summarize(c, findings)
	}
}
