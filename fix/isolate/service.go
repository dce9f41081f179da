package isolate

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A service is one Service with the workloads that it selects.
type service struct {
	namespace, name string
	selector        map[string]string
	spec            corev1.ServiceSpec
	workloads       []*inventory.Workload
	dns             bool
}

func (p *Planner) readServices() error {
	for _, o := range p.inv.Kind("", "Service") {
		var s corev1.Service
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s); err != nil {
			return fmt.Errorf("read %s: %w", o.Subject(), err)
		}
		one := &service{namespace: p.inv.NamespaceOf(o), name: o.GetName(), selector: s.Spec.Selector, spec: s.Spec}
		if len(s.Spec.Selector) > 0 {
			for _, w := range p.world.workloads[one.namespace] {
				if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(w.Template.Labels)) {
					one.workloads = append(one.workloads, w)
				}
			}
		}
		one.dns = slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool { return port.Port == 53 && port.Protocol == corev1.ProtocolUDP })
		p.services[one.namespace+"/"+one.name] = one
	}
	return nil
}

// ports returns the ports of the pods behind a Service: behind one of its own
// ports, if it has that, else behind all.
func (s *service) ports(asked int) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	only := slices.ContainsFunc(s.spec.Ports, func(port corev1.ServicePort) bool { return int(port.Port) == asked })
	for _, sp := range s.spec.Ports {
		if only && int(sp.Port) != asked {
			continue
		}
		out = append(out, s.behind(sp))
		if s.spec.ClusterIP == corev1.ClusterIPNone {
			out = append(out, port(protocol(sp.Protocol), sp.Port)) // without translation
		}
	}
	return slices.CompactFunc(out, func(a, b networkingv1.NetworkPolicyPort) bool { return portText(a) == portText(b) })
}

// behind returns the port of the pods that a port of a Service leads to: as a
// number, if all pods that are known agree.
func (s *service) behind(sp corev1.ServicePort) networkingv1.NetworkPolicyPort {
	target := sp.TargetPort
	switch {
	case target == intstr.IntOrString{}:
		return port(protocol(sp.Protocol), sp.Port)
	case target.Type == intstr.Int:
		return port(protocol(sp.Protocol), target.IntVal)
	}
	n := int32(0)
	for i, w := range s.workloads {
		if at := number(target, w); i == 0 {
			n = at
		} else if at != n {
			n = 0
		}
	}
	if n == 0 {
		return port(protocol(sp.Protocol), target.StrVal)
	}
	return port(protocol(sp.Protocol), n)
}

func protocol(p corev1.Protocol) string { return cmp.Or(string(p), "TCP") }

// replicas lets the pods of a StatefulSet that has several, and a Service for
// them, talk to each other.
func (p *Planner) replicas(w *inventory.Workload) {
	spec, _ := w.Object.Object["spec"].(map[string]any)
	count, _ := spec["replicas"].(int64)
	name, _ := spec["serviceName"].(string)
	s := p.services[p.inv.NamespaceOf(w.Object)+"/"+name]
	if w.GetKind() == "StatefulSet" && count > 1 && s != nil && slices.Contains(s.workloads, w) {
		p.flows = append(p.flows, flow{from: w, to: w, service: s, ports: s.ports(0), why: "the pods of " + w.GetName() + " form a cluster"})
	}
}

// entries adds what leads into the cluster from outside: entry points, Services
// that open a door by themselves, ports of the node.
func (p *Planner) entries() {
	for _, o := range p.inv.Objects() {
		group := o.GroupVersionKind().Group
		if o.GetKind() == "Ingress" && (group == "networking.k8s.io" || group == "extensions") || group == "gateway.networking.k8s.io" {
			p.backends(o.Object["spec"], p.inv.NamespaceOf(o), o.GetKind()+" "+o.GetName()+" leads here")
		}
	}
	for _, s := range p.services {
		if t := s.spec.Type; t == corev1.ServiceTypeLoadBalancer || t == corev1.ServiceTypeNodePort || len(s.spec.ExternalIPs) > 0 {
			p.admit(s, 0, fmt.Sprintf("Service %s opens a door to the outside", s.name))
		}
	}
	for _, w := range p.inv.Workloads() {
		for _, c := range containers(w) {
			for _, cp := range c.Ports {
				if cp.HostPort > 0 {
					p.flows = append(p.flows, flow{to: w, ports: []networkingv1.NetworkPolicyPort{port(protocol(cp.Protocol), cp.ContainerPort)}, why: "a port of the node leads here"})
				}
			}
		}
	}
}

// admit lets anyone reach the pods of a Service.
func (p *Planner) admit(s *service, asked int, why string) {
	for _, w := range s.workloads {
		p.flows = append(p.flows, flow{to: w, service: s, ports: s.ports(asked), why: why})
	}
}

// backends finds the Services that an entry point leads to: "service" of an
// Ingress, "backendRefs" of a route.
func (p *Planner) backends(node any, ns, why string) {
	switch v := node.(type) {
	case []any:
		for _, item := range v {
			p.backends(item, ns, why)
		}
	case map[string]any:
		if ref, ok := v["service"].(map[string]any); ok {
			at, _ := ref["port"].(map[string]any)
			p.backend(ns, ref["name"], at["number"], why)
		}
		if refs, ok := v["backendRefs"].([]any); ok {
			for _, item := range refs {
				ref, _ := item.(map[string]any)
				other, _ := ref["namespace"].(string)
				p.backend(cmp.Or(other, ns), ref["name"], ref["port"], why)
			}
		}
		for _, child := range v {
			p.backends(child, ns, why)
		}
	}
}

func (p *Planner) backend(namespace string, name, number any, why string) {
	text, _ := name.(string)
	n, _ := number.(int64)
	if s := p.services[namespace+"/"+text]; s != nil {
		p.admit(s, int(n), why)
	}
}

// callers adds what the API server calls, and who calls the API server.
func (p *Planner) callers() error {
	for _, o := range p.inv.Objects() {
		switch o.GetKind() {
		case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "CustomResourceDefinition", "APIService":
			p.called(o.Object, o.GetKind()+" "+o.GetName()+" has the API server call it")
		}
	}
	access, err := rbac.New(p.inv)
	if err != nil {
		return err
	}
	granted := map[*inventory.Workload]bool{}
	for _, kind := range []string{"RoleBinding", "ClusterRoleBinding"} {
		for _, o := range p.inv.Kind("rbac.authorization.k8s.io", kind) {
			for _, w := range access.Workloads(o.Subject()) {
				granted[w] = true
			}
		}
	}
	for _, w := range p.inv.Workloads() {
		if mounted := w.Template.Spec.AutomountServiceAccountToken; granted[w] && (mounted == nil || *mounted) {
			p.toServer(w)
		}
	}
	return nil
}

// called finds the Services that an object has the API server call.
func (p *Planner) called(node any, why string) {
	switch v := node.(type) {
	case []any:
		for _, item := range v {
			p.called(item, why)
		}
	case map[string]any:
		if ref, ok := v["service"].(map[string]any); ok {
			if namespace, ok := ref["namespace"].(string); ok {
				p.backend(namespace, ref["name"], ref["port"], why)
			}
		}
		for _, child := range v {
			p.called(child, why)
		}
	}
}

// toServer lets a workload reach the API server: at its addresses, if they are
// known, else on its ports anywhere but at the metadata service.
func (p *Planner) toServer(w *inventory.Workload) {
	why := w.GetName() + " has rights in the API"
	ports := []networkingv1.NetworkPolicyPort{port("TCP", 443), port("TCP", 6443)}
	blocks := []*networkingv1.IPBlock{}
	for _, o := range p.inv.Kind("discovery.k8s.io", "EndpointSlice") {
		var slice discoveryv1.EndpointSlice
		if o.GetLabels()[discoveryv1.LabelServiceName] != "kubernetes" || p.inv.NamespaceOf(o) != "default" ||
			runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &slice) != nil || slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, e := range slice.Endpoints {
			for _, address := range e.Addresses {
				blocks = append(blocks, &networkingv1.IPBlock{CIDR: address + "/32"})
			}
		}
	}
	if len(blocks) == 0 {
		blocks = append(blocks, &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{Metadata}})
	}
	for _, block := range blocks {
		p.flows = append(p.flows, flow{from: w, peer: &networkingv1.NetworkPolicyPeer{IPBlock: block}, ports: ports, why: why})
	}
}
