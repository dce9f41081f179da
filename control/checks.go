package control

import (
	"github.com/kubeguardian/kubeguardian/check/credential"
	"github.com/kubeguardian/kubeguardian/check/limits"
	"github.com/kubeguardian/kubeguardian/check/podsecurity"
	"github.com/kubeguardian/kubeguardian/check/registry"
	"github.com/kubeguardian/kubeguardian/check/sandbox"
	"github.com/kubeguardian/kubeguardian/check/subpath"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// checks are the analyzers that a control may name as its evaluator. Each
// returns the state of every subject it knows; subject, status, reason, message
// and evidence are theirs, the rest is filled in from the control.
var checks = map[string]func(*evaluation) []finding.Finding{
	"credential.config-maps":      func(e *evaluation) []finding.Finding { return credential.ConfigMaps(e.inv) },
	"exception.valid":             (*evaluation).exceptions,
	"network.coverage":            func(e *evaluation) []finding.Finding { return e.network.Coverage() },
	"network.default-deny-egress": func(e *evaluation) []finding.Finding { return e.network.DefaultDenyEgress() },
	"network.default-deny-ingress": func(e *evaluation) []finding.Finding {
		return e.network.DefaultDenyIngress()
	},
	"podsecurity.enforced":  func(e *evaluation) []finding.Finding { return podsecurity.Enforced(e.inv) },
	"rbac.admin-bindings":   func(e *evaluation) []finding.Finding { return e.access.AdminBindings() },
	"rbac.default-accounts": func(e *evaluation) []finding.Finding { return e.access.DefaultAccounts() },
	"rbac.escalators":       func(e *evaluation) []finding.Finding { return e.access.Escalators() },
	"rbac.executors":        func(e *evaluation) []finding.Finding { return e.access.Executors() },
	"rbac.needless-tokens":  func(e *evaluation) []finding.Finding { return e.access.NeedlessTokens() },
	"rbac.secret-readers":   func(e *evaluation) []finding.Finding { return e.access.SecretReaders() },
	"rbac.shared-accounts":  func(e *evaluation) []finding.Finding { return e.access.SharedAccounts() },
	"registry.allowed":      func(e *evaluation) []finding.Finding { return registry.Allowed(e.inv, e.evidence) },
	"sandbox.untrusted":     func(e *evaluation) []finding.Finding { return sandbox.Untrusted(e.inv) },
	"subpath.mounts":        func(e *evaluation) []finding.Finding { return subpath.Mounts(e.inv) },
}

// excuses are what a control that is judged by policy may name in unless: other
// objects that make up for what a policy, which sees one object, finds missing.
// Each returns that object, or nil.
var excuses = map[string]func(inv *inventory.Inventory, namespace string) *inventory.Object{
	"limits.cpu":               limits.CPU,
	"limits.ephemeral-storage": limits.EphemeralStorage,
	"limits.memory":            limits.Memory,
}
