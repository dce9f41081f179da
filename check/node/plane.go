package node

import (
	"net"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

const (
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	etcd              = "etcd"
)

// LoopbackOnly says whether controller manager and scheduler can be reached
// from their own host only.
func (v *View) LoopbackOnly() []finding.Verdict { return v.planes(true, loopbackOnly) }

func loopbackOnly(m *member, out *verdict) {
	for _, name := range []string{controllerManager, scheduler} {
		p := out.program(m, name, "bind-address", "secure-port")
		if p != nil && p.Flags.Value("secure-port") != "0" && !loopback(p.Flags.Value("bind-address")) {
			out.fail("%s can be reached from the network", name)
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ControllerCredentials says whether the controller manager's controllers have
// rights of their own and it can sign and verify what it must.
func (v *View) ControllerCredentials() []finding.Verdict {
	return v.planes(true, controllerCredentials)
}

func controllerCredentials(m *member, out *verdict) {
	p := out.program(m, controllerManager, "use-service-account-credentials", "service-account-private-key-file", "root-ca-file", "feature-gates")
	if p == nil {
		return
	}
	if !p.Flags.Bool("use-service-account-credentials", false) {
		out.fail("all controllers share the rights of the controller manager")
	}
	out.want(p, "service-account-private-key-file", "root-ca-file")
	if !p.Flags.Gate("RotateKubeletServerCertificate", true) {
		out.fail("serving certificates of kubelets are not rotated")
	}
}

// EtcdClients says whether etcd takes clients with a certificate only, and API
// servers come with one.
func (v *View) EtcdClients() []finding.Verdict { return v.planes(true, v.etcdClients) }

func (v *View) etcdClients(m *member, out *verdict) {
	v.etcd(m, out, "", func(p *evidence.Program) {})
	if m.programs[apiServer] == nil {
		return
	}
	flags := []string{"etcd-certfile", "etcd-keyfile", "etcd-cafile"}
	p := out.program(m, apiServer, append(flags, "etcd-servers")...)
	out.want(p, flags...)
	for _, url := range p.Flags.List("etcd-servers") {
		if strings.HasPrefix(url, "http://") {
			out.fail("the API server talks to etcd without TLS (%s)", url)
		}
	}
}

// etcd demands certificates on one of the two doors of etcd: that of clients,
// or with prefix "peer-" that of its peers.
func (v *View) etcd(m *member, out *verdict, prefix string, more func(*evidence.Program)) {
	if m.programs[etcd] == nil && m.programs[apiServer] != nil && m.gap(evidence.PartPrograms) == "" {
		if !slices.ContainsFunc(v.members, func(m *member) bool { return m.programs[etcd] != nil }) {
			out.unknown("etcd runs elsewhere: run kubeguardian scan --node there and give the result by --evidence")
		}
		return
	}
	cert, key, clients, auto := prefix+"cert-file", prefix+"key-file", prefix+"client-cert-auth", prefix+"auto-tls"
	p := out.program(m, etcd, cert, key, clients, auto)
	if p == nil || out.unread(p, "config-file") {
		return
	}
	if p.Unread["environment"] != "" && !p.Flags.Has(cert) {
		out.unknown("etcd may be set up by variables, which are not read: %s", p.Unread["environment"])
		return
	}
	out.want(p, cert, key)
	door := map[string]string{"": "clients", "peer-": "peers"}[prefix]
	if !p.Flags.Bool(clients, false) {
		out.fail("etcd takes %s without a certificate", door)
	}
	if p.Flags.Bool(auto, false) {
		out.fail("etcd makes up its certificate for %s (--%s)", door, auto)
	}
	more(p)
}

// EtcdPeers says whether members of etcd prove who they are to each other, with
// an authority that signs nothing else.
func (v *View) EtcdPeers() []finding.Verdict { return v.planes(true, v.etcdPeers) }

func (v *View) etcdPeers(m *member, out *verdict) {
	v.etcd(m, out, "peer-", func(p *evidence.Program) { authority(m, out, p) })
}

// authority demands that etcd does not trust whom the API server trusts.
func authority(m *member, out *verdict, p *evidence.Program) {
	api := m.programs[apiServer]
	if api == nil {
		out.unknown("the authority of the cluster is not seen on this node, to compare with that of etcd")
		return
	}
	trusted, cluster := p.Flags.Value("trusted-ca-file"), api.Flags.Value("client-ca-file")
	if trusted == "" || cluster == "" {
		return // is a failure of EtcdClients and ServingTLS
	}
	a, b := m.fingerprint(trusted), m.fingerprint(cluster)
	if trusted == cluster || a != "" && a == b {
		out.fail("etcd trusts every certificate of the cluster's authority (%s)", trusted)
	}
}

func (m *member) fingerprint(path string) string {
	if m.record == nil {
		return ""
	}
	for _, f := range m.record.Files {
		if f.Path == path && f.SHA256 != "" {
			return f.SHA256
		}
	}
	return ""
}

// ExternalIPs says whether Services may claim addresses of others.
func (v *View) ExternalIPs() []finding.Verdict {
	by := externalIPPolicy(v.inv)
	out := v.planes(false, func(m *member, out *verdict) {
		if by != nil {
			out.see("%s refuses external IPs", by.Subject())
			return
		}
		p := out.program(m, apiServer, "enable-admission-plugins", "feature-gates")
		if p != nil && !slices.Contains(p.Flags.List("enable-admission-plugins"), "DenyServiceExternalIPs") &&
			p.Flags.Gate("AllowServiceExternalIPs", true) {
			out.fail("whoever may create a Service may take any address as its external IP")
		}
	})
	if len(out) == 0 && by != nil {
		out = []finding.Verdict{{
			Status: finding.Pass, Evidence: by.Subject().String() + " refuses external IPs",
			Subject: finding.Subject{Kind: "ControlPlane"}, EvidenceKind: string(evidence.API), ObservedAt: v.now,
		}}
	}
	return out
}

// externalIPPolicy returns the policy that looks at external IPs of Services
// and denies, or nil.
func externalIPPolicy(inv *inventory.Inventory) *inventory.Object {
	const group = "admissionregistration.k8s.io"
	denying := map[string]bool{}
	for _, o := range inv.Kind(group, "ValidatingAdmissionPolicyBinding") {
		actions, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "validationActions")
		name, _, _ := unstructured.NestedString(o.Object, "spec", "policyName")
		denying[name] = denying[name] || slices.Contains(actions, "Deny")
	}
	for _, o := range inv.Kind(group, "ValidatingAdmissionPolicy") {
		if denying[o.GetName()] && onServices(o) && speaksOf(o, "externalIPs") {
			return o
		}
	}
	for _, o := range inv.Kind("constraints.gatekeeper.sh", "K8sExternalIPs") {
		if action, _, _ := unstructured.NestedString(o.Object, "spec", "enforcementAction"); action == "" || action == "deny" {
			return o
		}
	}
	return nil
}

func onServices(o *inventory.Object) bool {
	rules, _, _ := unstructured.NestedSlice(o.Object, "spec", "matchConstraints", "resourceRules")
	return slices.ContainsFunc(rules, func(rule any) bool {
		fields, _ := rule.(map[string]any)
		resources, _, _ := unstructured.NestedStringSlice(fields, "resources")
		return slices.Contains(resources, "services") || slices.Contains(resources, "*")
	})
}

func speaksOf(o *inventory.Object, word string) bool {
	validations, _, _ := unstructured.NestedSlice(o.Object, "spec", "validations")
	return slices.ContainsFunc(validations, func(v any) bool {
		fields, _ := v.(map[string]any)
		expression, _ := fields["expression"].(string)
		return strings.Contains(expression, word)
	})
}
