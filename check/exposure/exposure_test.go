package exposure

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func read(t testing.TB, origin inventory.Origin, documents ...string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	inv, err = inventory.New(origin, inv.Objects(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestPrivate(t *testing.T) {
	tests := []struct{ path, want string }{
		{"/", ""}, {"", ""}, {"/shop", ""}, {"/metrics", "metrics"}, {"/Metrics/", "metrics"}, {"/api/v1/metrics", "metrics"},
		{"/metricsapi", ""}, {"/my-metrics", ""}, {"/administration", ""}, {"/admin", "admin"}, {"/actuator/health", "actuator"},
		{"/debug/pprof/heap", "debug"}, {"/.git/config", ".git"}, {"/swagger.json", "swagger.json"}, {"/swagger-ui(/|$)(.*)", "swagger-ui"},
		{"^/admin$", "admin"}, {"///", ""}, {"/_cat/indices", "_cat"},
	}
	for _, tt := range tests {
		if got := private(tt.path); got != tt.want {
			t.Errorf("private(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestWithin(t *testing.T) {
	tests := []struct {
		path, prefix string
		want         bool
	}{
		{"/metrics", "/", true}, {"/metrics", "", true}, {"/metrics", "/metrics", true}, {"/metrics/a", "/metrics/", true},
		{"/metricsapi", "/metrics", false}, {"/metrics", "/shop", false}, {"/", "/shop", false},
	}
	for _, tt := range tests {
		if got := within(tt.path, tt.prefix); got != tt.want {
			t.Errorf("within(%q, %q) = %v", tt.path, tt.prefix, got)
		}
	}
}

func pod(annotations, container string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {%s}}, spec: {containers: [{name: web, image: i, ports: [{name: http, containerPort: 8080}, {name: ops, containerPort: 9090}]%s}]}}", annotations, container)
}

func service(ports string) string {
	return "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [" + ports + "]}}"
}

func ingress(path, kind, port string) string {
	return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: {rules: [{http: {paths: [{path: %q, pathType: %s, backend: {service: {name: web, port: {%s}}}}]}}]}}", path, kind, port)
}

func routeObject(match, backend string) string {
	return fmt.Sprintf("{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}, spec: {rules: [{%sbackendRefs: [{%s}]}]}}", match, backend)
}

func TestDebugPaths(t *testing.T) {
	scraped := func(port string) string {
		return "prometheus.io/scrape: 'true', prometheus.io/port: '" + port + "'"
	}
	probe := func(path, port string) string {
		return ", livenessProbe: {httpGet: {path: " + path + ", port: " + port + "}}"
	}
	named, numbered := service("{name: web, port: 80, targetPort: http}"), service("{port: 80, targetPort: 8080}")
	tests := []struct {
		name      string
		origin    inventory.Origin
		documents []string
		want      finding.Status
	}{
		{"shop", inventory.Files, []string{pod("", ""), named, ingress("/", "Prefix", "name: web")}, finding.Pass},
		{"metrics on the port", inventory.Files, []string{pod(scraped("8080"), ""), named, ingress("/", "Prefix", "name: web")}, finding.Fail},
		{"by number", inventory.Files, []string{pod(scraped("8080"), ""), numbered, ingress("/", "Prefix", "number: 80")}, finding.Fail},
		{"on another port", inventory.Files, []string{pod(scraped("9090"), ""), named, ingress("/", "Prefix", "name: web")}, finding.Pass},
		{"the other port is routed", inventory.Files, []string{pod(scraped("9090"), ""), service("{name: web, port: 80, targetPort: http}, {name: ops, port: 90, targetPort: ops}"), ingress("/", "Prefix", "number: 90")}, finding.Fail},
		{"metrics elsewhere on the port", inventory.Files, []string{pod(scraped("8080")+", prometheus.io/path: /internal/stats", ""), named, ingress("/shop", "Prefix", "name: web")}, finding.Pass},
		{"not scraped", inventory.Files, []string{pod("prometheus.io/port: '8080'", ""), named, ingress("/", "Prefix", "name: web")}, finding.Pass},
		{"only this path", inventory.Files, []string{pod(scraped("8080"), ""), named, ingress("/", "Exact", "name: web")}, finding.Pass},
		{"probe below", inventory.Files, []string{pod("", probe("/actuator/health", "8080")), named, ingress("/", "Prefix", "name: web")}, finding.Fail},
		{"probe by the name of its port", inventory.Files, []string{pod("", probe("/actuator/health", "http")), named, ingress("/", "Prefix", "name: web")}, finding.Fail},
		{"probe on another port", inventory.Files, []string{pod("", probe("/actuator/health", "ops")), named, ingress("/", "Prefix", "name: web")}, finding.Pass},
		{"harmless probe", inventory.Files, []string{pod("", probe("/healthz", "http")), named, ingress("/", "Prefix", "name: web")}, finding.Pass},
		{"admin path, wherever it leads", inventory.Files, []string{ingress("/admin", "Prefix", "name: web")}, finding.Fail},
		{"Service not read", inventory.Files, []string{ingress("/", "Prefix", "name: web")}, finding.Unknown},
		{"pods not read", inventory.Files, []string{named, ingress("/", "Prefix", "name: web")}, finding.Unknown},
		{"no pods in a cluster", inventory.Cluster, []string{named, ingress("/", "Prefix", "name: web")}, finding.Pass},
		{"route", inventory.Files, []string{pod("", ""), numbered, routeObject("matches: [{path: {type: PathPrefix, value: /shop}}], ", "name: web, port: 80")}, finding.Pass},
		{"route for everything", inventory.Files, []string{pod(scraped("8080"), ""), numbered, routeObject("", "name: web, port: 80")}, finding.Fail},
		{"route to a path", inventory.Files, []string{pod("", ""), numbered, routeObject("matches: [{path: {type: Exact, value: /debug/vars}}], ", "name: web, port: 80")}, finding.Fail},
		{"route by a header", inventory.Files, []string{pod(scraped("8080"), ""), numbered, routeObject("matches: [{headers: [{name: a, value: b}]}], ", "name: web, port: 80")}, finding.Fail},
		{"route of another namespace", inventory.Cluster, []string{pod(scraped("8080"), ""), numbered, strings.Replace(routeObject("", "name: web, namespace: shop, port: 80"), "namespace: shop}", "namespace: gateways}", 1)}, finding.Fail},
		{"nothing behind", inventory.Files, []string{"{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: {}}"}, finding.NotApplicable},
		{"route that is none", inventory.Files, []string{"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}, spec: {rules: 7}}"}, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := DebugPaths(read(t, tt.origin, tt.documents...))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Fatalf("%+v, want %s", got, tt.want)
			}
			if got[0].Status == finding.Fail && got[0].Message == "" || got[0].Status == finding.Unknown && got[0].Reason == "" {
				t.Errorf("%+v does not say why", got[0])
			}
		})
	}
}

func TestDefaultBackend(t *testing.T) {
	all := "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}}"
	got := DebugPaths(read(t, inventory.Files, pod("prometheus.io/scrape: 'true', prometheus.io/port: '8080'", ""), service("{port: 80, targetPort: 8080}"), all))
	if len(got) != 1 || got[0].Status != finding.Fail || !strings.Contains(got[0].Message, "/metrics of Pod/shop/web") {
		t.Errorf("%+v", got)
	}
}
