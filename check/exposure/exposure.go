// Package exposure says which paths of applications are open to the outside
// that are meant for developers and operators: debug pages, metrics, consoles.
package exposure

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// words are parts of a path that are not for the public.
var words = []string{
	"_cat", ".env", ".git", "actuator", "admin", "api-docs", "console", "debug", "dump", "graphiql", "h2-console", "heapdump", "jmx-console",
	"jolokia", "manager", "metrics", "phpmyadmin", "pprof", "server-status", "swagger", "swagger-ui", "swagger.json", "threaddump",
}

// A route is a path that leads from outside to a port of a Service.
type route struct {
	path      string
	prefix    bool
	namespace string
	service   string
	port      string // name or number; "" for any
}

// DebugPaths says for each Ingress and HTTPRoute whether it opens a path that
// is not for the public: by its own paths, or because it opens everything of a
// port on which the workload behind it says that it has such a path.
func DebugPaths(inv *inventory.Inventory) []finding.Verdict {
	v := view{inv, map[string][]*inventory.Workload{}}
	for _, w := range inv.Workloads() {
		v.workloads[inv.NamespaceOf(w.Object)] = append(v.workloads[inv.NamespaceOf(w.Object)], w)
	}
	var out []finding.Verdict
	for _, o := range inv.Kind("networking.k8s.io", "Ingress") {
		var i networkingv1.Ingress
		err := convert(o, &i)
		out = append(out, v.judge(o, ingressRoutes(inv.NamespaceOf(o), i.Spec), err))
	}
	for _, o := range inv.Kind("gateway.networking.k8s.io", "HTTPRoute") {
		var r httpRoute
		err := convert(o, &r)
		out = append(out, v.judge(o, r.routes(inv.NamespaceOf(o)), err))
	}
	return out
}

func convert(o *inventory.Object, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		return fmt.Errorf("read %s: %w", o.Subject(), err)
	}
	return nil
}

func ingressRoutes(ns string, spec networkingv1.IngressSpec) []route {
	var out []route
	add := func(path string, prefix bool, b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil {
			port := b.Service.Port.Name
			if b.Service.Port.Number > 0 {
				port = fmt.Sprint(b.Service.Port.Number)
			}
			out = append(out, route{path, prefix, ns, b.Service.Name, port})
		}
	}
	add("/", true, spec.DefaultBackend)
	for _, rule := range spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, p := range rule.HTTP.Paths {
			add(p.Path, p.PathType == nil || *p.PathType != networkingv1.PathTypeExact, &p.Backend)
		}
	}
	return out
}

// An httpRoute has the fields of an HTTPRoute that matter here.
type httpRoute struct {
	Spec struct {
		Rules []struct {
			Matches []struct {
				Path *struct {
					Type  string `json:"type"`
					Value string `json:"value"`
				} `json:"path"`
			} `json:"matches"`
			BackendRefs []struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
				Port      int32  `json:"port"`
			} `json:"backendRefs"`
		} `json:"rules"`
	} `json:"spec"`
}

func (r *httpRoute) routes(ns string) []route {
	var out []route
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			to := route{"/", true, cmp.Or(b.Namespace, ns), b.Name, fmt.Sprint(b.Port)}
			if len(rule.Matches) == 0 {
				out = append(out, to)
			}
			for _, m := range rule.Matches {
				at := to
				if m.Path != nil {
					at.path, at.prefix = m.Path.Value, m.Path.Type != "Exact"
				}
				out = append(out, at)
			}
		}
	}
	return out
}

// A view is an inventory with its workloads by namespace.
type view struct {
	*inventory.Inventory
	workloads map[string][]*inventory.Workload
}

func (v view) judge(o *inventory.Object, routes []route, unreadable error) finding.Verdict {
	f := finding.Verdict{Status: finding.Pass, Subject: o.Subject()}
	if unreadable != nil {
		f.Status, f.Reason = finding.Unknown, unreadable.Error()
		return f
	}
	unseen := ""
	for _, r := range routes {
		if word := private(r.path); word != "" {
			f.Status, f.Message, f.Evidence = finding.Fail, fmt.Sprintf("opens %s to the outside", r.path), "Service "+r.service
			return f
		}
		what, seen := v.behind(r)
		if what != "" {
			f.Status, f.Message = finding.Fail, fmt.Sprintf("opens %s to the outside, and with it %s", r.path, what)
			return f
		}
		if !seen {
			unseen = r.service
		}
	}
	switch {
	case len(routes) == 0:
		f.Status, f.Reason = finding.NotApplicable, "leads to no Service"
	case unseen != "":
		f.Status, f.Reason = finding.Unknown, fmt.Sprintf("what is behind Service %s was not read", unseen)
	}
	return f
}

// private returns the part of a path that is not for the public, or "".
func private(path string) string {
	for part := range strings.SplitSeq(strings.ToLower(path), "/") {
		part, _, _ = strings.Cut(strings.Trim(part, "^$"), "(")
		if slices.Contains(words, part) {
			return part
		}
	}
	return ""
}

// behind returns what a workload itself says of a path that is not for the
// public, on the port that a route opens as a whole.
func (v view) behind(r route) (what string, seen bool) {
	o := v.Get("", "Service", r.namespace, r.service)
	if o == nil {
		return "", v.Origin == inventory.Cluster
	}
	var svc corev1.Service
	if convert(o, &svc) != nil {
		return "", false
	}
	if len(svc.Spec.Selector) == 0 {
		return "", true
	}
	seen = v.Origin == inventory.Cluster
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	for _, w := range v.workloads[r.namespace] {
		if !selector.Matches(labels.Set(w.Template.Labels)) {
			continue
		}
		seen = true
		for _, port := range targets(svc.Spec, r.port, w) {
			if what := admits(w, port, r); what != "" {
				return what + " of " + w.Subject().String(), true
			}
		}
	}
	return "", seen
}

// targets returns the ports of the pods that a port of a Service leads to.
func targets(spec corev1.ServiceSpec, port string, w *inventory.Workload) []int32 {
	var out []int32
	for _, p := range spec.Ports {
		if port != "" && port != p.Name && port != fmt.Sprint(p.Port) {
			continue
		}
		target := cmp.Or(p.TargetPort.IntVal, p.Port)
		for _, c := range w.Template.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name != "" && cp.Name == p.TargetPort.StrVal {
					target = cp.ContainerPort
				}
			}
		}
		out = append(out, target)
	}
	return out
}

// admits returns what a workload has on a port below the path of a route: what
// it gives to Prometheus, and what its probes ask for.
func admits(w *inventory.Workload, port int32, r route) string {
	reached := func(path string) bool { return path == r.path || r.prefix && within(path, r.path) }
	notes := w.Template.Annotations
	if path := cmp.Or(notes["prometheus.io/path"], "/metrics"); notes["prometheus.io/scrape"] == "true" &&
		notes["prometheus.io/port"] == fmt.Sprint(port) && reached(path) {
		return path
	}
	for _, c := range w.Template.Spec.Containers {
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if probe == nil || probe.HTTPGet == nil {
				continue
			}
			on := probe.HTTPGet.Port.IntVal
			for _, cp := range c.Ports {
				if cp.Name != "" && cp.Name == probe.HTTPGet.Port.StrVal {
					on = cp.ContainerPort
				}
			}
			if word := private(probe.HTTPGet.Path); word != "" && on == port && reached("/"+word) {
				return "/" + word
			}
		}
	}
	return ""
}

// within reports whether a path lies below a prefix, part by part.
func within(path, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}
