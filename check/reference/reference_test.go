package reference

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func read(t *testing.T, origin inventory.Origin, gaps []inventory.Gap, documents ...string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	inv, err = inventory.New(origin, inv.Objects(), gaps)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

const (
	shop = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}"
	pod  = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}, spec: {containers: [{name: c, image: i}]}}"
)

func serviceObject(spec string) string {
	return "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: " + spec + "}"
}

func ingress(backends ...string) string {
	var paths []string
	for _, b := range backends {
		paths = append(paths, "{path: /, pathType: Prefix, backend: {"+b+"}}")
	}
	return "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: {rules: [{host: h}, {http: {paths: [" + strings.Join(paths, ", ") + "]}}]}}"
}

func route(refs string) string {
	return "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}, spec: {rules: [{backendRefs: [" + refs + "]}]}}"
}

func autoscaler(version, kind, name string) string {
	return fmt.Sprintf("{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: shop}, spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: %s, kind: %s, name: %s}}}", version, kind, name)
}

// of returns the state of the object of a kind.
func of(t *testing.T, inv *inventory.Inventory, kind string) finding.Verdict {
	t.Helper()
	for _, f := range Dangling(inv) {
		if f.Subject.Kind == kind {
			return f
		}
	}
	t.Fatalf("no finding on a %s", kind)
	return finding.Verdict{}
}

func TestDangling(t *testing.T) {
	deployment := "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}}"
	good := serviceObject("{selector: {app: web}, ports: [{name: http, port: 80}]}")
	byName, byNumber := "service: {name: web, port: {name: http}}", "service: {name: web, port: {number: 80}}"
	tests := []struct {
		name, kind string
		documents  []string
		want       finding.Status
		message    string
	}{
		{"pods", "Service", []string{shop, pod, good}, finding.Pass, ""},
		{"two labels", "Service", []string{shop, pod, serviceObject("{selector: {app: web, tier: front}}")}, finding.Pass, ""},
		{"one label too many", "Service", []string{shop, pod, serviceObject("{selector: {app: web, tier: back}}")}, finding.Fail, "points at pods with app=web,tier=back, which does not exist"},
		{"pods of another namespace", "Service", []string{shop, strings.Replace(pod, "namespace: shop", "namespace: blog", 1), good}, finding.Fail, ""},
		{"no selector", "Service", []string{shop, serviceObject("{ports: [{port: 80}]}")}, finding.NotApplicable, ""},
		{"a name outside", "Service", []string{shop, serviceObject("{type: ExternalName, externalName: a.example}")}, finding.NotApplicable, ""},
		{"namespace elsewhere", "Service", []string{good}, finding.Unknown, ""},

		{"Service by name of its port", "Ingress", []string{shop, pod, good, ingress(byName)}, finding.Pass, ""},
		{"by number", "Ingress", []string{shop, pod, good, ingress(byNumber)}, finding.Pass, ""},
		{"no such name", "Ingress", []string{shop, pod, good, ingress(byName, "service: {name: web, port: {name: https}}")}, finding.Fail, "points at port https of Service web, which does not exist"},
		{"no such number", "Ingress", []string{shop, pod, good, ingress("service: {name: web, port: {number: 81}}")}, finding.Fail, "points at port 81 of Service web, which does not exist"},
		{"no such Service", "Ingress", []string{shop, pod, good, ingress(byName, "service: {name: db, port: {number: 80}}")}, finding.Fail, "points at Service db, which does not exist"},
		{"a bucket", "Ingress", []string{shop, ingress("resource: {apiGroup: s.example, kind: Bucket, name: b}")}, finding.Pass, ""},
		{"default backend", "Ingress", []string{shop, "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: {defaultBackend: {" + byName + "}}}"}, finding.Fail, ""},

		{"route", "HTTPRoute", []string{shop, pod, good, route("{name: web, port: 80}")}, finding.Pass, ""},
		{"second of a route", "HTTPRoute", []string{shop, pod, good, route("{name: web, port: 80}, {name: canary, port: 80}")}, finding.Fail, "points at Service canary, which does not exist"},
		{"route to another kind", "HTTPRoute", []string{shop, route("{group: s.example, kind: Bucket, name: b}")}, finding.Pass, ""},
		{"route into another namespace", "HTTPRoute", []string{shop, route("{name: web, namespace: blog, port: 80}")}, finding.Unknown, ""},
		{"route that is none", "HTTPRoute", []string{shop, strings.Replace(route(""), "[{backendRefs: []}]", "7", 1)}, finding.Unknown, ""},

		{"autoscaler", "HorizontalPodAutoscaler", []string{shop, deployment, autoscaler("apps/v1", "Deployment", "web")}, finding.Pass, ""},
		{"autoscaler of another version", "HorizontalPodAutoscaler", []string{shop, deployment, autoscaler("apps/v1beta1", "Deployment", "web")}, finding.Pass, ""},
		{"of another kind", "HorizontalPodAutoscaler", []string{shop, deployment, autoscaler("apps/v1", "StatefulSet", "web")}, finding.Fail, "points at StatefulSet web, which does not exist"},
		{"of a custom kind", "HorizontalPodAutoscaler", []string{shop, autoscaler("argoproj.io/v1alpha1", "Rollout", "web")}, finding.NotApplicable, ""},
		{"of no version", "HorizontalPodAutoscaler", []string{shop, autoscaler("a/b/c", "Deployment", "web")}, finding.Unknown, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := of(t, read(t, inventory.Files, nil, tt.documents...), tt.kind)
			if f.Status != tt.want || tt.message != "" && f.Message != tt.message {
				t.Fatalf("%s %q %q, want %s %q", f.Status, f.Message, f.Reason, tt.want, tt.message)
			}
			if (f.Status == finding.Fail) != (f.Message != "") || (f.Status == finding.Unknown || f.Status == finding.NotApplicable) != (f.Reason != "") {
				t.Errorf("%+v does not say why", f)
			}
		})
	}
}

// What could not be read may exist.
func TestGaps(t *testing.T) {
	gap := func(group, kind string) []inventory.Gap {
		return []inventory.Gap{{Kind: schema.GroupKind{Group: group, Kind: kind}, Reason: "forbidden"}}
	}
	tests := []struct {
		name, document, kind string
		gaps                 []inventory.Gap
		want                 finding.Status
	}{
		{"pods", serviceObject("{selector: {app: web}}"), "Service", gap("", "Pod"), finding.Unknown},
		{"deployments", serviceObject("{selector: {app: web}}"), "Service", gap("apps", "Deployment"), finding.Unknown},
		{"something else", serviceObject("{selector: {app: web}}"), "Service", gap("", "ConfigMap"), finding.Fail},
		{"services", ingress("service: {name: web, port: {number: 80}}"), "Ingress", gap("", "Service"), finding.Unknown},
		{"targets", autoscaler("apps/v1", "Deployment", "web"), "HorizontalPodAutoscaler", gap("apps", "Deployment"), finding.Unknown},
		{"other targets", autoscaler("apps/v1", "Deployment", "web"), "HorizontalPodAutoscaler", gap("apps", "StatefulSet"), finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if f := of(t, read(t, inventory.Cluster, tt.gaps, tt.document), tt.kind); f.Status != tt.want {
				t.Errorf("%+v, want %s", f, tt.want)
			}
		})
	}
}

// An object that is not of its kind's shape is unknown, not an error.
func TestShapes(t *testing.T) {
	for _, kind := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "Service"}, {Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"}, {Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": "none"}}
		u.SetGroupVersionKind(kind)
		u.SetName("web")
		inv, err := inventory.New(inventory.Cluster, []*inventory.Object{{Unstructured: u}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f := of(t, inv, kind.Kind); f.Status != finding.Unknown || f.Reason == "" {
			t.Errorf("%s: %+v", kind.Kind, f)
		}
	}
}
