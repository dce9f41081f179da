package rbac

import (
	"slices"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// SecretReaders says for each role whether it reads secrets that it does not
// name.
func (a *Access) SecretReaders() []finding.Verdict {
	return a.eachRole(readSecrets, "reads every secret of its scope")
}

// Escalators says for each role whether it lets its holder take other rights or
// identities.
func (a *Access) Escalators() []finding.Verdict {
	return a.eachRole(escalate, "may bind or escalate roles, or impersonate others")
}

// Executors says for each role whether it opens the inside of pods.
func (a *Access) Executors() []finding.Verdict {
	return a.eachRole(execute, "may run commands in pods or connect to them")
}

// PodMakers says for each role whether it makes pods, or what makes them.
func (a *Access) PodMakers() []finding.Verdict {
	return a.eachRole(makePods, "may run pods as every service account of its scope")
}

// RoleWriters says for each role whether it writes roles or bindings.
func (a *Access) RoleWriters() []finding.Verdict {
	return a.eachRole(writeRoles, "may write roles or bindings")
}

// NodeProxies says for each ClusterRole whether it opens the API of kubelets.
// Nodes have no namespace, so that a Role cannot.
func (a *Access) NodeProxies() []finding.Verdict {
	return clusterRoles(a.eachRole(proxyNodes, "reaches the kubelet of every node, past admission and audit"))
}

// TokenMakers says for each role whether it makes tokens for accounts that it
// does not name.
func (a *Access) TokenMakers() []finding.Verdict {
	return a.eachRole(makeTokens, "may make a token for every service account of its scope")
}

// Certifiers says for each ClusterRole whether it can issue certificates that
// the API server takes for logon.
func (a *Access) Certifiers() []finding.Verdict {
	return clusterRoles(a.eachRole(certify, "may approve a certificate for any user"))
}

// HookWriters says for each ClusterRole whether it writes webhooks or policies
// of admission.
func (a *Access) HookWriters() []finding.Verdict {
	return clusterRoles(a.eachRole(writeHooks, "may write webhooks or policies that see and change what the API server admits"))
}

// VolumeWriters says for each ClusterRole whether it writes persistent volumes.
func (a *Access) VolumeWriters() []finding.Verdict {
	return clusterRoles(a.eachRole(writeVolumes, "may make a volume of any folder of a node"))
}

// Destroyers says for each role whether it deletes workloads or events that it
// does not name.
func (a *Access) Destroyers() []finding.Verdict {
	return a.eachRole(destroy, "may delete every workload or event of its scope")
}

func clusterRoles(findings []finding.Verdict) []finding.Verdict {
	return slices.DeleteFunc(findings, func(f finding.Verdict) bool { return f.Subject.Kind != "ClusterRole" })
}

// eachRole judges every role by whether it has all of some rights.
func (a *Access) eachRole(right rights, message string) []finding.Verdict {
	var out []finding.Verdict
	for _, r := range a.order {
		if r.object == nil && len(r.handedOut(right)) == 0 {
			continue // a known role that is not in the inventory
		}
		f := a.judge(r, right, message)
		f.Subject = r.subject()
		out = append(out, f)
	}
	return out
}

func (a *Access) judge(r *role, right rights, message string) finding.Verdict {
	held := r.granted
	if !r.deviates(right) {
		held = r.handedOut(right)
		if len(held) == 0 {
			return finding.Verdict{Status: finding.NotApplicable, Reason: BuiltInReason}
		}
		message += "; a ClusterRoleBinding hands it out for all namespaces"
	}
	switch {
	case r.rights&right == right:
		return finding.Verdict{Status: finding.Fail, Message: message, Evidence: a.evidence(r, right, held)}
	case r.open:
		return finding.Verdict{Status: finding.Unknown, Reason: openReason}
	}
	return finding.Verdict{Status: finding.Pass}
}

const openReason = "it aggregates ClusterRoles that may not be among the files"

// handedOut returns the bindings that grant a role of Kubernetes itself, which
// is meant to have a right, to others in every namespace. The roles for users
// are meant for one namespace at a time; cluster-admin is what
// [Access.AdminBindings] speaks of.
func (r *role) handedOut(right rights) []*binding {
	if _, ok := userFacing[r.name]; !ok || r.namespace != "" || r.meant&everything != 0 || r.meant&right == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.granted), func(b *binding) bool {
		return b.namespace != "" || !b.outside()
	})
}

// outside reports whether a binding grants to anyone but components and
// administrators of Kubernetes.
func (b *binding) outside() bool {
	return slices.ContainsFunc(b.subjects, func(id identity) bool { return !id.system() })
}

func (a *Access) evidence(r *role, right rights, held []*binding) string {
	granted := "no binding grants it"
	if len(held) > 0 {
		var who []identity
		for _, b := range held {
			who = append(who, b.subjects...)
		}
		granted = "granted to " + join(who)
	}
	if rule := a.show(r.rules, right); rule != "" {
		return rule + "; " + granted
	}
	return granted
}

// ConfigWriters says for each role whether it writes ConfigMaps of kube-system.
func (a *Access) ConfigWriters() []finding.Verdict {
	return a.eachGrant(scoped{
		right: writeConfig, message: "may write ConfigMaps in kube-system, by which Kubernetes resolves names and knows its users",
		counts: func(b *binding) bool { return b.namespace == "" || b.namespace == system },
		elsewhere: func(r *role) string {
			if r.namespace != "" && r.namespace != system {
				return "a Role of another namespace than kube-system"
			}
			return ""
		},
	})
}

// Steerers says for each role whether others than components of the network
// write network policies, or where traffic goes.
func (a *Access) Steerers() []finding.Verdict {
	return a.eachGrant(scoped{
		right: steer, message: "may lift network policies, or lead traffic elsewhere",
		counts: func(b *binding) bool { return !platform(b) },
	})
}

// Observers says for each ClusterRole whether it reads pods, their logs or
// ConfigMaps of all namespaces.
func (a *Access) Observers() []finding.Verdict {
	return clusterRoles(a.eachGrant(scoped{
		right: observe, message: "reads pods, their logs or ConfigMaps of every namespace",
		counts: func(b *binding) bool { return b.namespace == "" },
	}))
}

// system is the namespace of Kubernetes' own components.
const system = "kube-system"

// platform reports whether a binding grants only to components of the network,
// which live in namespaces of their own.
func platform(b *binding) bool {
	return !slices.ContainsFunc(b.subjects, func(id identity) bool {
		ns, _, ok := id.account()
		return !ok || !slices.Contains([]string{
			system, "calico-apiserver", "calico-system", "cilium", "cilium-secrets", "istio-system", "kube-flannel",
			"kube-ovn", "linkerd", "metallb-system", "openshift-network-operator", "openshift-ovn-kubernetes", "tigera-operator",
		}, ns)
	})
}

// scoped is a right that matters by where a role is bound.
type scoped struct {
	right     rights
	message   string
	counts    func(*binding) bool // whether it matters there
	elsewhere func(*role) string  // why a role cannot be bound there; may be nil
}

// eachGrant judges every role by whether it has a right, and is bound where the
// right matters to anyone but Kubernetes' own.
func (a *Access) eachGrant(s scoped) []finding.Verdict {
	var out []finding.Verdict
	for _, r := range a.order {
		if r.object == nil && len(r.handedOut(s.right)) == 0 {
			continue
		}
		f := a.judgeGrant(r, s)
		f.Subject = r.subject()
		out = append(out, f)
	}
	return out
}

func (a *Access) judgeGrant(r *role, s scoped) finding.Verdict {
	if s.elsewhere != nil {
		if reason := s.elsewhere(r); reason != "" {
			return finding.Verdict{Status: finding.NotApplicable, Reason: reason}
		}
	}
	held := slices.DeleteFunc(slices.Clone(r.granted), func(b *binding) bool { return !s.counts(b) || !b.outside() })
	if !r.deviates(s.right) {
		held = slices.DeleteFunc(r.handedOut(s.right), func(b *binding) bool { return !s.counts(b) })
		if len(held) == 0 {
			return finding.Verdict{Status: finding.NotApplicable, Reason: BuiltInReason}
		}
	}
	switch {
	case r.rights&s.right == 0 && r.open:
		return finding.Verdict{Status: finding.Unknown, Reason: openReason}
	case r.rights&s.right == 0:
		return finding.Verdict{Status: finding.Pass}
	case len(held) > 0:
		return finding.Verdict{Status: finding.Fail, Message: s.message, Evidence: a.evidence(r, s.right, held)}
	case a.unread("RoleBinding", "ClusterRoleBinding") != "":
		return finding.Verdict{Status: finding.Unknown, Reason: a.unread("RoleBinding", "ClusterRoleBinding")}
	case len(r.granted) == 0 && a.inv.Origin == inventory.Files:
		return finding.Verdict{Status: finding.Unknown, Reason: "no binding of it is among the files: where it holds is not known"}
	}
	return finding.Verdict{Status: finding.Pass, Evidence: "no binding gives it to others where it matters"}
}
