package network

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// PublicMark is the annotation or label by which a Service, an Ingress, a
// Gateway or a whole Namespace is listed as public, with the value "true".
const PublicMark = "kubeguardian.dev/public"

// An entry is an object that lets traffic into the cluster, and the Services
// that it leads to.
type entry struct {
	*inventory.Object
	leads []service
	why   string // how it is open; "" if it is not
}

// entries returns the Services, Ingresses and Gateways.
func (n *Network) entries() []entry {
	var out []entry
	for _, o := range n.inv.Kind("", "Service") {
		name := service{n.inv.NamespaceOf(o), o.GetName()}
		out = append(out, entry{o, []service{name}, openService(n.services[name])})
	}
	for _, o := range n.inv.Kind("networking.k8s.io", "Ingress") {
		out = append(out, entry{o, sortedServices(o.Object["spec"], n.inv.NamespaceOf(o)), "an Ingress"})
	}
	for _, o := range n.inv.Kind(gatewayGroup, "Gateway") {
		e := entry{o, n.routedBy(o), "a Gateway"}
		if class, _, _ := unstructured.NestedString(o.Object, "spec", "gatewayClassName"); class == "istio-waypoint" {
			e.why = ""
		}
		out = append(out, e)
	}
	return out
}

const gatewayGroup = "gateway.networking.k8s.io"

func sortedServices(spec any, ns string) []service {
	found := map[service]bool{}
	backends(spec, ns, found)
	var out []service
	for s := range found {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b service) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	return out
}

// routedBy returns the Services that the routes of a Gateway lead to.
func (n *Network) routedBy(gateway *inventory.Object) []service {
	var out []service
	for _, kind := range []string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"} {
		for _, route := range n.inv.Kind(gatewayGroup, kind) {
			parents, _, _ := unstructured.NestedSlice(route.Object, "spec", "parentRefs")
			for _, p := range parents {
				p, _ := p.(map[string]any)
				ns, _ := p["namespace"].(string)
				if p["name"] == gateway.GetName() && cmp.Or(ns, n.inv.NamespaceOf(route)) == n.inv.NamespaceOf(gateway) {
					out = append(out, sortedServices(route.Object["spec"], n.inv.NamespaceOf(route))...)
				}
			}
		}
	}
	return out
}

// openService says how a Service lets in traffic from outside, or "".
func openService(s *serviceObject) string {
	switch {
	case s == nil:
		return ""
	case len(s.spec.ExternalIPs) > 0:
		return "external IPs"
	case s.spec.Type == corev1.ServiceTypeNodePort:
		return "a NodePort"
	case s.spec.Type == corev1.ServiceTypeLoadBalancer && !internal(s.Object):
		return "a LoadBalancer"
	}
	return ""
}

// internal reports whether the cloud is asked for a load balancer that only its
// own network reaches.
func internal(o *inventory.Object) bool {
	for key, values := range map[string][]string{
		"service.beta.kubernetes.io/aws-load-balancer-internal":   {"true", "0.0.0.0/0"},
		"service.beta.kubernetes.io/aws-load-balancer-scheme":     {"internal"},
		"service.beta.kubernetes.io/azure-load-balancer-internal": {"true"},
		"networking.gke.io/load-balancer-type":                    {"Internal"},
		"cloud.google.com/load-balancer-type":                     {"Internal"},
	} {
		if slices.Contains(values, o.GetAnnotations()[key]) {
			return true
		}
	}
	return false
}

// Unlisted says for each Service, Ingress and Gateway that is reachable from
// outside whether it is listed as public, see [PublicMark].
func (n *Network) Unlisted() []finding.Verdict {
	var out []finding.Verdict
	for _, e := range n.entries() {
		f := n.unlisted(e)
		f.Subject = e.Subject()
		f.Exposure = n.exposureOf(e)
		out = append(out, f)
	}
	return out
}

// exposureOf is that of a Service that opens a way in by itself; of others the
// caller knows it.
func (n *Network) exposureOf(e entry) finding.Exposure {
	if e.why != "" && !System(n.inv.NamespaceOf(e.Object)) {
		return finding.Internet
	}
	return finding.ExposureUnknown
}

func (n *Network) unlisted(e entry) finding.Verdict {
	name := n.inv.NamespaceOf(e.Object)
	ns := n.inv.Get("", "Namespace", "", name)
	switch {
	case e.why == "":
		return finding.Verdict{Status: finding.NotApplicable, Reason: "not reachable from outside"}
	case marked(e.Object):
		return finding.Verdict{Status: finding.Pass, Evidence: PublicMark + " on the object"}
	case ns == nil:
		return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("namespace %s, which may carry %s, was not read", name, PublicMark)}
	case marked(ns):
		return finding.Verdict{Status: finding.Pass, Evidence: PublicMark + " on " + ns.Subject().String()}
	}
	return finding.Verdict{Status: finding.Fail, Message: fmt.Sprintf("opens a way in from outside by %s and is not listed as public", e.why)}
}

func marked(o *inventory.Object) bool {
	return o.GetAnnotations()[PublicMark] == "true" || o.GetLabels()[PublicMark] == "true"
}

// Management says for each Service, Ingress and Gateway whether it opens a
// management interface to the outside.
func (n *Network) Management() []finding.Verdict {
	var out []finding.Verdict
	for _, e := range n.entries() {
		f := n.management(e)
		f.Subject = e.Subject()
		f.Exposure = n.exposureOf(e)
		out = append(out, f)
	}
	return out
}

func (n *Network) management(e entry) finding.Verdict {
	unseen := ""
	for _, name := range e.leads {
		s := n.services[name]
		what := manages(name, s)
		switch {
		case what != "" && e.why == "":
			return finding.Verdict{Status: finding.Pass, Evidence: what + ", not reachable from outside"}
		case what != "" && guarded(e.Object, s) != "":
			return finding.Verdict{Status: finding.Pass, Evidence: what + ", guarded by " + guarded(e.Object, s)}
		case what != "":
			return finding.Verdict{Status: finding.Fail, Message: fmt.Sprintf("opens %s to the outside by %s", what, e.why), Evidence: "Service " + name.namespace + "/" + name.name}
		case n.inv.Origin == inventory.Files && (s == nil || len(s.spec.Selector) > 0 && len(s.workloads) == 0):
			unseen = name.name
		}
	}
	switch {
	case e.why == "":
		return finding.Verdict{Status: finding.NotApplicable, Reason: "no known management interface, and not reachable from outside"}
	case unseen != "":
		return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf("what is behind Service %s is not among the files", unseen)}
	}
	return finding.Verdict{Status: finding.Pass}
}

// guarded says what keeps strangers from an entry, or "".
func guarded(o *inventory.Object, s *serviceObject) string {
	for _, key := range []string{"auth-url", "auth-tls-secret", "whitelist-source-range", "allowlist-source-range"} {
		if o.GetAnnotations()["nginx.ingress.kubernetes.io/"+key] != "" {
			return "its annotation " + key
		}
	}
	if s != nil && s.Object == o && len(s.spec.LoadBalancerSourceRanges) > 0 && s.spec.Type == corev1.ServiceTypeLoadBalancer &&
		!slices.ContainsFunc(s.spec.LoadBalancerSourceRanges, func(r string) bool { return strings.HasSuffix(strings.TrimSpace(r), "/0") }) {
		return "loadBalancerSourceRanges"
	}
	return ""
}

// consoles are programs that manage something, by the last part of the name of
// their image, or of their Service.
var consoles = map[string]string{
	"adminer": "Adminer", "alertmanager": "Alertmanager", "argo-server": "Argo Workflows", "argocd": "Argo CD", "argocd-server": "Argo CD",
	"argocli": "Argo Workflows", "cadvisor": "cAdvisor", "centraldashboard": "the Kubeflow dashboard", "dashboard-api": "the Kubernetes dashboard",
	"dashboard-web": "the Kubernetes dashboard", "etcd": "etcd", "grafana": "Grafana", "grafana-oss": "Grafana", "grafana-enterprise": "Grafana",
	"headlamp": "Headlamp", "hubble-ui": "Hubble", "jenkins": "Jenkins", "kiali": "Kiali", "kibana": "Kibana", "kube-ops-view": "kube-ops-view",
	"kubernetes-dashboard": "the Kubernetes dashboard", "kubernetes-dashboard-kong-proxy": "the Kubernetes dashboard", "longhorn-frontend": "Longhorn",
	"longhorn-ui": "Longhorn", "mongo-express": "mongo-express", "ml-pipeline-ui": "Kubeflow Pipelines", "octant": "Octant",
	"opensearch-dashboards": "OpenSearch Dashboards", "pgadmin": "pgAdmin", "pgadmin4": "pgAdmin", "phpmyadmin": "phpMyAdmin",
	"portainer": "Portainer", "portainer-ce": "Portainer", "portainer-ee": "Portainer", "prometheus": "Prometheus", "rancher": "Rancher",
	"redis-commander": "Redis Commander", "redisinsight": "RedisInsight", "tekton-dashboard": "the Tekton dashboard", "weave-scope-app": "Weave Scope",
}

// consolePorts are ports on which programs are managed.
var consolePorts = map[int32]string{
	2379: "etcd", 2380: "etcd", 8265: "the Ray dashboard", 10250: "the kubelet", 10255: "the kubelet", 15672: "the RabbitMQ management console",
}

// manages says which management interface is behind a Service, or "".
func manages(name service, s *serviceObject) string {
	if what := consoles[name.name]; what != "" || s == nil {
		return what
	}
	for _, p := range s.spec.Ports {
		for _, port := range []int32{p.Port, p.TargetPort.IntVal} {
			if what := consolePorts[port]; what != "" {
				return what
			}
		}
	}
	for _, w := range s.workloads {
		for _, c := range w.Template.Spec.Containers {
			image := baseName(c.Image)
			if strings.HasSuffix(repository(c.Image), "kubernetesui/dashboard") {
				image = "kubernetes-dashboard"
			}
			if what := consoles[image]; what != "" {
				return what
			}
		}
	}
	return ""
}

// repository returns the name of an image without tag and digest.
func repository(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	return name
}

// baseName returns the last part of the name of an image.
func baseName(image string) string {
	name := repository(image)
	return name[strings.LastIndex(name, "/")+1:]
}
