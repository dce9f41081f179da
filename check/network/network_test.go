package network_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/network"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func analyze(t testing.TB, origin inventory.Origin, manifests string, gaps ...inventory.Gap) (*network.Network, *inventory.Inventory) {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	inv, err = inventory.New(origin, inv.Objects(), gaps)
	if err != nil {
		t.Fatal(err)
	}
	n, err := network.New(inv)
	if err != nil {
		t.Fatal(err)
	}
	return n, inv
}

func policy(spec string) string {
	return "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: " + spec + "}\n"
}

func pod(labels, spec string) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {%s}}, spec: {containers: [{name: c, image: i}]%s}}\n", labels, spec)
}

func namespace(name string) string {
	return "---\n{apiVersion: v1, kind: Namespace, metadata: {name: " + name + "}}\n"
}

const shop = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n"

func TestDefaultDeny(t *testing.T) {
	dns := "{ports: [{port: 53, protocol: UDP}], to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}"
	tests := []struct {
		name, policies  string
		ingress, egress finding.Status
	}{
		{"no policy", "", finding.Fail, finding.Fail},
		{"both directions and DNS", policy("{podSelector: {}, policyTypes: [Ingress, Egress], egress: [" + dns + "]}"), finding.Pass, finding.Pass},
		{"without policyTypes it is ingress", policy("{podSelector: {}}"), finding.Pass, finding.Fail},
		{"and egress if there are rules", policy("{podSelector: {}, egress: [" + dns + "]}"), finding.Pass, finding.Pass},
		{"only egress", policy("{podSelector: {}, policyTypes: [Egress], egress: [" + dns + "]}"), finding.Fail, finding.Pass},
		{"egress rules without the type isolate nothing", policy("{podSelector: {}, policyTypes: [Ingress], egress: [" + dns + "]}"), finding.Pass, finding.Fail},
		{"egress without DNS", policy("{podSelector: {}, policyTypes: [Egress]}"), finding.Fail, finding.Fail},
		{"DNS by another policy", policy("{podSelector: {}, policyTypes: [Egress]}") + strings.Replace(policy("{podSelector: {}, policyTypes: [Egress], egress: ["+dns+"]}"), "name: p", "name: dns", 1),
			finding.Fail, finding.Pass},
		{"some pods only", policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}"), finding.Fail, finding.Fail},
		{"some pods by expression", policy("{podSelector: {matchExpressions: [{key: app, operator: Exists}]}, policyTypes: [Ingress]}"), finding.Fail, finding.Fail},
		{"a rule for some peers", policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"), finding.Pass, finding.Fail},
		{"a rule for some ports", policy("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"), finding.Pass, finding.Fail},
		{"a rule without peers admits everybody", policy("{podSelector: {}, ingress: [{}]}"), finding.Fail, finding.Fail},
		{"every namespace is everybody", policy("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"), finding.Fail, finding.Fail},
		{"some pods of every namespace are not", policy("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: prometheus}}}]}]}"), finding.Pass, finding.Fail},
		{"every address is everybody", policy("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"), finding.Pass, finding.Fail},
		{"and so are all but a few", policy("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [169.254.169.254/32]}}]}]}"), finding.Pass, finding.Fail},
		{"some addresses are not", policy("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}"), finding.Pass, finding.Pass},
		{"one open policy undoes a closed one", policy("{podSelector: {}}") + strings.Replace(policy("{podSelector: {}, ingress: [{}]}"), "name: p", "name: q", 1), finding.Fail, finding.Fail},
		{"policy of another namespace", strings.ReplaceAll(policy("{podSelector: {}, policyTypes: [Ingress]}"), "namespace: shop", "namespace: other"), finding.Fail, finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := analyze(t, inventory.Cluster, shop+tt.policies)
			for direction, check := range map[string]struct {
				findings []finding.Verdict
				want     finding.Status
			}{"ingress": {n.DefaultDenyIngress(), tt.ingress}, "egress": {n.DefaultDenyEgress(), tt.egress}} {
				for _, f := range check.findings {
					if f.Subject.Name == "shop" && (f.Status != check.want || f.Status == finding.Fail && f.Message == "") {
						t.Errorf("%s: %+v, want %s", direction, f, check.want)
					}
				}
			}
		})
	}
}

func TestDNS(t *testing.T) {
	tests := []struct {
		name, rule, more string
		want             finding.Status
	}{
		{"port and namespace", "{ports: [{port: 53, protocol: UDP}], to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}", "", finding.Pass},
		{"any namespace", "{ports: [{port: 53, protocol: UDP}], to: [{namespaceSelector: {}}]}", "", finding.Pass},
		{"anyone", "{ports: [{port: 53, protocol: UDP}]}", "", finding.Pass},
		{"address", "{ports: [{port: 53, protocol: UDP}], to: [{ipBlock: {cidr: 10.96.0.10/32}}]}", "", finding.Pass},
		{"range of ports", "{ports: [{port: 1, endPort: 1024, protocol: UDP}]}", "", finding.Pass},
		{"range beside it", "{ports: [{port: 54, endPort: 1024, protocol: UDP}]}", "", finding.Fail},
		{"every UDP port", "{ports: [{protocol: UDP}]}", "", finding.Pass},
		{"port by name", "{ports: [{port: dns, protocol: UDP}]}", "", finding.Pass},
		{"another port by name", "{ports: [{port: http, protocol: UDP}]}", "", finding.Fail},
		{"TCP, the default", "{ports: [{port: 53}]}", "", finding.Fail},
		{"own namespace", "{ports: [{port: 53, protocol: UDP}], to: [{podSelector: {}}]}", "", finding.Fail},
		{"another namespace", "{ports: [{port: 53, protocol: UDP}], to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}", "", finding.Fail},
		{"the namespace that serves DNS here", "{ports: [{port: 53, protocol: UDP}], to: [{namespaceSelector: {matchLabels: {role: names}}}]}",
			"---\n{apiVersion: v1, kind: Namespace, metadata: {name: names, labels: {role: names}}}\n" +
				"---\n{apiVersion: v1, kind: Service, metadata: {name: dns, namespace: names}, spec: {ports: [{port: 53, protocol: UDP}]}}\n", finding.Pass},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := analyze(t, inventory.Files, policy("{podSelector: {}, policyTypes: [Egress], egress: ["+tt.rule+"]}")+tt.more)
			for _, f := range n.DefaultDenyEgress() {
				if f.Subject.Name == "shop" && f.Status != tt.want {
					t.Errorf("%+v, want %s", f, tt.want)
				}
			}
		})
	}
}

// What an inventory does not hold is judged by what it can speak for.
func TestScope(t *testing.T) {
	forbidden := inventory.Gap{Kind: schema.GroupKind{Group: "networking.k8s.io", Kind: "NetworkPolicy"}, Reason: "forbidden"}
	cilium := "---\n{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: shop}, spec: {}}\n"
	some := policy("{podSelector: {matchLabels: {app: db}}}")
	open := policy("{podSelector: {}, ingress: [{}]}")
	web := pod("app: web", "")
	tests := []struct {
		name, manifests    string
		origin             inventory.Origin
		gaps               []inventory.Gap
		namespace, covered finding.Status
	}{
		{"a lone workload", web, inventory.Files, nil, finding.Unknown, finding.Unknown},
		{"with its namespace", shop + web, inventory.Files, nil, finding.Fail, finding.Fail},
		{"with a policy", some + web, inventory.Files, nil, finding.Fail, finding.Fail},
		{"with the policy it needs", policy("{podSelector: {}, policyTypes: [Ingress, Egress]}") + web, inventory.Files, nil, finding.Pass, finding.Pass},
		{"live", shop + web, inventory.Cluster, nil, finding.Fail, finding.Fail},
		{"live without permission", shop + web, inventory.Cluster, []inventory.Gap{forbidden}, finding.Unknown, finding.Unknown},
		{"policies of another kind", shop + web + cilium, inventory.Cluster, nil, finding.Unknown, finding.Unknown},
		{"another kind may close what is open", shop + web + cilium + open, inventory.Cluster, nil, finding.Unknown, finding.Unknown},
		{"no namespace is the default one", strings.ReplaceAll(namespace("default")+web, ", namespace: shop", ""), inventory.Files, nil, finding.Fail, finding.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := analyze(t, tt.origin, tt.manifests, tt.gaps...)
			if got := n.DefaultDenyIngress(); len(got) != 1 || got[0].Status != tt.namespace {
				t.Errorf("namespace: %+v, want one %s", got, tt.namespace)
			}
			got := n.Coverage()
			if len(got) != 1 || got[0].Status != tt.covered || (got[0].Status == finding.Unknown) != (got[0].Reason != "") {
				t.Errorf("coverage: %+v, want one %s", got, tt.covered)
			}
		})
	}
	n, _ := analyze(t, inventory.Cluster, namespace("kube-public")+strings.ReplaceAll(pod("", ""), "shop", "kube-system"))
	got := n.DefaultDenyIngress()
	if got[0].Subject.Name != "kube-public" || got[0].Status != finding.NotApplicable || got[1].Status != finding.Fail {
		t.Errorf("system namespaces: %+v", got)
	}
}

func TestCoverage(t *testing.T) {
	tests := []struct {
		name, manifests string
		want            finding.Status
		message         string
	}{
		{"no policy", pod("app: web", ""), finding.Fail, "no NetworkPolicy selects its pods for ingress and egress"},
		{"by label", pod("app: web, tier: front", "") + policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}"), finding.Pass, ""},
		{"by two labels", pod("app: web", "") + policy("{podSelector: {matchLabels: {app: web, tier: front}}, policyTypes: [Ingress, Egress]}"), finding.Fail,
			"no NetworkPolicy selects its pods for ingress and egress"},
		{"by expression", pod("app: web", "") + policy("{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}, policyTypes: [Ingress, Egress]}"), finding.Pass, ""},
		{"by absence", pod("", "") + policy("{podSelector: {matchExpressions: [{key: open, operator: DoesNotExist}]}, policyTypes: [Ingress, Egress]}"), finding.Pass, ""},
		{"excluded by expression", pod("app: web", "") + policy("{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}"),
			finding.Fail, "no NetworkPolicy selects its pods for ingress and egress"},
		{"one direction", pod("app: web", "") + policy("{podSelector: {}}"), finding.Fail, "no NetworkPolicy selects its pods for egress"},
		{"a direction from each", pod("app: web", "") + policy("{podSelector: {}}") + policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}"), finding.Pass, ""},
		{"on the host's network", pod("app: web", ", hostNetwork: true"), finding.NotApplicable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := analyze(t, inventory.Files, shop+tt.manifests)
			if got := n.Coverage(); len(got) != 1 || got[0].Status != tt.want || got[0].Message != tt.message {
				t.Errorf("%+v, want one %s %q", got, tt.want, tt.message)
			}
		})
	}
}

func TestExposure(t *testing.T) {
	service := func(spec string) string {
		return "---\n{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]" + spec + "}}\n"
	}
	ingress := func(spec string) string {
		return "---\n{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: " + spec + "}\n"
	}
	backend := "{service: {name: web, port: {number: 80}}}"
	route := "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: %s}, spec: {rules: [{backendRefs: [{name: web%s}]}]}}\n"
	web, selects := pod("app: web", ""), ", selector: {app: web}"
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		gaps            []inventory.Gap
		want            finding.Exposure
	}{
		{"no Service in files", web, inventory.Files, nil, finding.ExposureUnknown},
		{"no Service in a cluster", web, inventory.Cluster, nil, finding.InCluster},
		{"Services could not be read", web, inventory.Cluster, []inventory.Gap{{Kind: schema.GroupKind{Kind: "Service"}, Reason: "forbidden"}}, finding.ExposureUnknown},
		{"cluster IP", web + service(selects), inventory.Files, nil, finding.InCluster},
		{"load balancer", web + service(selects+", type: LoadBalancer"), inventory.Files, nil, finding.Internet},
		{"node port", web + service(selects+", type: NodePort"), inventory.Files, nil, finding.Internet},
		{"external IP", web + service(selects+", externalIPs: [203.0.113.1]"), inventory.Files, nil, finding.Internet},
		{"load balancer of others", web + service(", selector: {app: db}, type: LoadBalancer"), inventory.Files, nil, finding.InCluster},
		{"one label short", web + service(", selector: {app: web, tier: front}, type: LoadBalancer"), inventory.Files, nil, finding.InCluster},
		{"load balancer without selector", web + service(", type: LoadBalancer"), inventory.Files, nil, finding.InCluster},
		{"load balancer of another namespace", web + strings.ReplaceAll(service(selects+", type: LoadBalancer"), "shop", "other"), inventory.Cluster, nil, finding.InCluster},
		{"Ingress rule", web + service(selects) + ingress("{rules: [{http: {paths: [{path: /, pathType: Prefix, backend: "+backend+"}]}}]}"), inventory.Files, nil, finding.Internet},
		{"Ingress default backend", web + service(selects) + ingress("{defaultBackend: "+backend+"}"), inventory.Files, nil, finding.Internet},
		{"Ingress to another Service", web + service(selects) + ingress("{defaultBackend: {service: {name: db, port: {number: 80}}}}"), inventory.Files, nil, finding.InCluster},
		{"route", web + service(selects) + fmt.Sprintf(route, "shop", ""), inventory.Files, nil, finding.Internet},
		{"route of another namespace", web + service(selects) + fmt.Sprintf(route, "gateways", ", namespace: shop"), inventory.Files, nil, finding.Internet},
		{"host network", pod("", ", hostNetwork: true"), inventory.Files, nil, finding.Internet},
		{"host port", strings.Replace(web, "image: i", "image: i, ports: [{containerPort: 80, hostPort: 80}]", 1), inventory.Files, nil, finding.Internet},
		{"host port of an init container", pod("", ", initContainers: [{name: d, image: i, ports: [{containerPort: 80, hostPort: 80}]}]"), inventory.Files, nil, finding.Internet},
		{"container port", strings.Replace(web, "image: i", "image: i, ports: [{containerPort: 80}]", 1), inventory.Cluster, nil, finding.InCluster},
		{"system namespace", strings.ReplaceAll(pod("", ", hostNetwork: true"), "shop", "kube-system"), inventory.Files, nil, finding.System},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, inv := analyze(t, tt.origin, tt.manifests, tt.gaps...)
			if got := n.Exposure(inv.Workloads()[0]); got != tt.want {
				t.Errorf("exposure %q, want %q", got, tt.want)
			}
		})
	}
}
