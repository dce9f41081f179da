package mesh

import (
	"context"
	"fmt"
	"strings"
	"testing"

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

func space(more string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: shop%s}}", more)
}

func pod(labels, annotations, containers string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web%s}, annotations: {%s}}, spec: {containers: [{name: web, image: i}%s]}}", labels, annotations, containers)
}

func peer(ns, name, spec string) string {
	return fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: %s, namespace: %s}, spec: %s}", name, ns, spec)
}

func TestMembership(t *testing.T) {
	tests := []struct{ name, space, pod, want string }{
		{"none", "", pod("", "", ""), none},
		{"namespace injects", ", labels: {istio-injection: enabled}", pod("", "", ""), istio},
		{"namespace does not", ", labels: {istio-injection: disabled}", pod("", "", ""), none},
		{"pod refuses", ", labels: {istio-injection: enabled}", pod(", sidecar.istio.io/inject: 'false'", "", ""), none},
		{"pod refuses by annotation", ", labels: {istio-injection: enabled}", pod("", "sidecar.istio.io/inject: 'false'", ""), none},
		{"pod asks", "", pod(", sidecar.istio.io/inject: 'true'", "", ""), istio},
		{"revision", ", labels: {istio.io/rev: stable}", pod("", "", ""), istio},
		{"ambient", ", labels: {istio.io/dataplane-mode: ambient}", pod("", "", ""), istio},
		{"pod leaves ambient", ", labels: {istio.io/dataplane-mode: ambient}", pod(", istio.io/dataplane-mode: none", "", ""), none},
		{"injected already", "", pod("", "", ", {name: istio-proxy, image: p}"), istio},
		{"Linkerd", ", annotations: {linkerd.io/inject: enabled}", pod("", "", ""), linkerd},
		{"pod leaves Linkerd", ", annotations: {linkerd.io/inject: enabled}", pod("", "linkerd.io/inject: disabled", ""), none},
		{"Linkerd injected already", "", pod("", "", ", {name: linkerd-proxy, image: p}"), linkerd},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv := read(t, inventory.Files, nil, space(tt.space), tt.pod)
			if got := of(inv, inv.Workloads()[0]); got != tt.want {
				t.Errorf("of = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMutualTLS(t *testing.T) {
	injected := space(", labels: {istio-injection: enabled}")
	web := pod("", "", "")
	strict, permissive := "{mtls: {mode: STRICT}}", "{mtls: {mode: PERMISSIVE}}"
	mine := "{selector: {matchLabels: {app: web}}, mtls: {mode: %s}}"
	forbidden := []inventory.Gap{{Kind: schema.GroupKind{Group: "security.istio.io", Kind: "PeerAuthentication"}, Reason: "forbidden"}}
	tests := []struct {
		name      string
		origin    inventory.Origin
		gaps      []inventory.Gap
		documents []string
		want      finding.Status
	}{
		{"strict in the namespace", inventory.Files, nil, []string{injected, web, peer("shop", "p", strict)}, finding.Pass},
		{"of another namespace", inventory.Cluster, nil, []string{injected, web, peer("blog", "p", strict)}, finding.Fail},
		{"for the mesh", inventory.Files, nil, []string{injected, web, peer("istio-system", "p", strict)}, finding.Pass},
		{"the namespace loosens the mesh", inventory.Files, nil, []string{injected, web, peer("istio-system", "p", strict), peer("shop", "p", permissive)}, finding.Fail},
		{"the namespace inherits from the mesh", inventory.Files, nil, []string{injected, web, peer("istio-system", "p", strict), peer("shop", "p", "{mtls: {mode: UNSET}}")}, finding.Pass},
		{"the workload tightens", inventory.Files, nil, []string{injected, web, peer("shop", "a", permissive), peer("shop", "b", fmt.Sprintf(mine, "STRICT"))}, finding.Pass},
		{"the workload loosens", inventory.Files, nil, []string{injected, web, peer("shop", "a", strict), peer("shop", "b", fmt.Sprintf(mine, "DISABLE"))}, finding.Fail},
		{"another workload loosens", inventory.Files, nil, []string{injected, web, peer("shop", "a", strict), peer("shop", "b", "{selector: {matchLabels: {app: db}}, mtls: {mode: DISABLE}}")}, finding.Pass},
		{"a port is open", inventory.Files, nil, []string{injected, web, peer("shop", "a", "{mtls: {mode: STRICT}, portLevelMtls: {'80': {mode: PERMISSIVE}}}")}, finding.Fail},
		{"a port is strict too", inventory.Files, nil, []string{injected, web, peer("shop", "a", "{mtls: {mode: STRICT}, portLevelMtls: {'80': {mode: STRICT}}}")}, finding.Pass},
		{"nothing said in files", inventory.Files, nil, []string{injected, web}, finding.Unknown},
		{"nothing said in a cluster", inventory.Cluster, nil, []string{injected, web}, finding.Fail},
		{"nothing readable in a cluster", inventory.Cluster, forbidden, []string{injected, web}, finding.Unknown},
		{"strict outside the mesh", inventory.Cluster, nil, []string{space(""), web, peer("shop", "p", strict)}, finding.Unknown},
		{"Linkerd says nothing", inventory.Cluster, nil, []string{space(", annotations: {linkerd.io/inject: enabled}"), web}, finding.Unknown},
		{"Linkerd denies", inventory.Cluster, nil, []string{space(", annotations: {linkerd.io/inject: enabled}"), pod("", "config.linkerd.io/default-inbound-policy: deny", "")}, finding.Pass},
		{"the pod loosens Linkerd", inventory.Cluster, nil, []string{space(", annotations: {linkerd.io/inject: enabled, config.linkerd.io/default-inbound-policy: deny}"), pod("", "config.linkerd.io/default-inbound-policy: cluster-unauthenticated", "")}, finding.Fail},
		{"system", inventory.Cluster, nil, []string{strings.ReplaceAll(web, "shop", "kube-system")}, finding.NotApplicable},
		{"a mesh makes up for the application", inventory.Files, nil, []string{injected, strings.Replace(web, "image: i", "image: i, env: [{name: U, value: 'postgres://d/x?sslmode=disable'}]", 1), peer("shop", "p", strict)}, finding.Pass},
		{"nothing does", inventory.Files, nil, []string{space(""), strings.Replace(web, "image: i", "image: i, env: [{name: PGSSLMODE, value: disable}]", 1)}, finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := MutualTLS(read(t, tt.origin, tt.gaps, tt.documents...))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Fatalf("%+v, want %s", got, tt.want)
			}
			if got[0].Status == finding.Fail && got[0].Message == "" || got[0].Status == finding.Unknown && got[0].Reason == "" {
				t.Errorf("%+v does not say why", got[0])
			}
		})
	}
}

// A finding shows where TLS is turned off, never the address, which may hold a
// password.
func TestAddressesStayHidden(t *testing.T) {
	web := strings.Replace(pod("", "", ""), "image: i", "image: i, env: [{name: U, value: 'postgres://u:hunter2@d/x?sslmode=disable'}]", 1)
	got := MutualTLS(read(t, inventory.Files, nil, web))
	if text := fmt.Sprintf("%+v", got); got[0].Status != finding.Fail || strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}

func TestCilium(t *testing.T) {
	policy := func(kind, ns, spec string) string {
		return fmt.Sprintf("{apiVersion: cilium.io/v2, kind: %s, metadata: {name: p%s}, spec: %s}", kind, ns, spec)
	}
	required := "ingress: [{authentication: {mode: required}}]"
	tests := []struct {
		name, policy string
		want         finding.Status
	}{
		{"own", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {matchLabels: {app: web}}, "+required+"}"), finding.Pass},
		{"every pod", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {}, "+required+"}"), finding.Pass},
		{"with the source of the label", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {matchLabels: {'k8s:app': web}}, "+required+"}"), finding.Pass},
		{"another pod", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {matchLabels: {app: db}}, "+required+"}"), finding.Unknown},
		{"another namespace", policy("CiliumNetworkPolicy", ", namespace: blog", "{endpointSelector: {}, "+required+"}"), finding.Unknown},
		{"whole cluster", policy("CiliumClusterwideNetworkPolicy", "", "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': shop}}, "+required+"}"), finding.Pass},
		{"whole cluster but for us", policy("CiliumClusterwideNetworkPolicy", "", "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': blog}}, "+required+"}"), finding.Unknown},
		{"one rule without", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {}, ingress: [{authentication: {mode: required}}, {}]}"), finding.Unknown},
		{"not required", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {}, ingress: [{authentication: {mode: disabled}}]}"), finding.Unknown},
		{"no rule", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {}}"), finding.Unknown},
		{"not of its shape", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: 7, "+required+"}"), finding.Unknown},
		{"bad operator", policy("CiliumNetworkPolicy", ", namespace: shop", "{endpointSelector: {matchExpressions: [{key: a, operator: Near}]}, "+required+"}"), finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := MutualTLS(read(t, inventory.Cluster, nil, space(""), pod("", "", ""), tt.policy))
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

func TestAuthorization(t *testing.T) {
	injected, web := space(", labels: {istio-injection: enabled}"), pod("", "", "")
	service := "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{port: 80}]}}"
	istioPolicy := func(ns, spec string) string {
		return fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: %s}, spec: %s}", ns, spec)
	}
	linkerdPolicy := func(kind, name string) string {
		return fmt.Sprintf("{apiVersion: policy.linkerd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {targetRef: {kind: %s, name: %s}}}", kind, name)
	}
	server := func(label string) string {
		return "{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {name: s, namespace: shop}, spec: {podSelector: {matchLabels: {app: " + label + "}}, port: 80}}"
	}
	rule := "rules: [{to: [{operation: {methods: [GET]}}]}]"
	tests := []struct {
		name      string
		exposure  finding.Exposure
		origin    inventory.Origin
		documents []string
		want      finding.Status
	}{
		{"not exposed", finding.InCluster, inventory.Cluster, []string{injected, web}, finding.NotApplicable},
		{"system", finding.System, inventory.Cluster, []string{injected, web}, finding.NotApplicable},
		{"exposure not known", finding.ExposureUnknown, inventory.Files, []string{injected, web}, finding.Unknown},
		{"no policy", finding.Internet, inventory.Cluster, []string{injected, web}, finding.Fail},
		{"no mesh", finding.Internet, inventory.Cluster, []string{space(""), web}, finding.Unknown},
		{"namespace elsewhere", finding.Internet, inventory.Files, []string{pod("", "", ", {name: istio-proxy, image: p}")}, finding.Unknown},
		{"whole namespace", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("shop", "{"+rule+"}")}, finding.Pass},
		{"whole mesh", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("istio-system", "{"+rule+"}")}, finding.Pass},
		{"another namespace", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("blog", "{"+rule+"}")}, finding.Fail},
		{"another workload", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("shop", "{selector: {matchLabels: {app: db}}, "+rule+"}")}, finding.Fail},
		{"everything allowed", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("shop", "{action: ALLOW, rules: [{}]}")}, finding.Fail},
		{"everything denied", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("shop", "{action: DENY, rules: [{}]}")}, finding.Pass},
		{"only noted", finding.Internet, inventory.Cluster, []string{injected, web, istioPolicy("shop", "{action: AUDIT, "+rule+"}")}, finding.Fail},
		{"for its Service", finding.Internet, inventory.Cluster, []string{injected, web, service, istioPolicy("shop", "{targetRefs: [{kind: Service, name: web}], "+rule+"}")}, finding.Pass},
		{"for another Service", finding.Internet, inventory.Cluster, []string{injected, web, service, istioPolicy("shop", "{targetRef: {kind: Service, name: db}, "+rule+"}")}, finding.Fail},
		{"for a gateway", finding.Internet, inventory.Cluster, []string{injected, web, service, istioPolicy("shop", "{targetRefs: [{kind: Gateway, name: web}], "+rule+"}")}, finding.Fail},
		{"Linkerd", finding.Internet, inventory.Cluster, []string{injected, web, server("web"), linkerdPolicy("Server", "s")}, finding.Pass},
		{"Linkerd for the namespace", finding.Internet, inventory.Cluster, []string{injected, web, linkerdPolicy("Namespace", "shop")}, finding.Pass},
		{"Linkerd for others", finding.Internet, inventory.Cluster, []string{injected, web, server("db"), linkerdPolicy("Server", "s")}, finding.Fail},
		{"Linkerd without its server", finding.Internet, inventory.Cluster, []string{injected, web, linkerdPolicy("Server", "s")}, finding.Fail},
		{"Envoy Gateway", finding.Internet, inventory.Files, []string{space(""), web, "{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: SecurityPolicy, metadata: {name: p, namespace: shop}, spec: {authorization: {defaultAction: Deny}}}"}, finding.Pass},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Authorization(read(t, tt.origin, nil, tt.documents...), func(*inventory.Workload) finding.Exposure { return tt.exposure })
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}
