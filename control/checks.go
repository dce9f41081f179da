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
	"image.attested":              func(e *evaluation) []finding.Finding { return e.images.Attested() },
	"image.current":               func(e *evaluation) []finding.Finding { return e.images.Current() },
	"image.exploited":             func(e *evaluation) []finding.Finding { return e.images.Exploited() },
	"image.fixable":               func(e *evaluation) []finding.Finding { return e.images.FixablePast() },
	"image.libraries":             func(e *evaluation) []finding.Finding { return e.images.Libraries() },
	"image.listed":                func(e *evaluation) []finding.Finding { return e.images.Listed() },
	"image.minimal":               func(e *evaluation) []finding.Finding { return e.images.Minimal() },
	"image.root":                  func(e *evaluation) []finding.Finding { return e.images.Root() },
	"image.scanned":               func(e *evaluation) []finding.Finding { return e.images.Scanned() },
	"image.secrets":               func(e *evaluation) []finding.Finding { return e.images.Secrets() },
	"image.signed":                func(e *evaluation) []finding.Finding { return e.images.Signed() },
	"image.traceable":             func(e *evaluation) []finding.Finding { return e.images.Traceable() },
	"network.coverage":            func(e *evaluation) []finding.Finding { return e.network.Coverage() },
	"network.default-deny-egress": func(e *evaluation) []finding.Finding { return e.network.DefaultDenyEgress() },
	"network.default-deny-ingress": func(e *evaluation) []finding.Finding {
		return e.network.DefaultDenyIngress()
	},
	"pipeline.dependencies": func(e *evaluation) []finding.Finding { return e.pipelines.Dependencies() },
	"pipeline.dynamic":      func(e *evaluation) []finding.Finding { return e.pipelines.Dynamic(e.inv, e.network.Exposure) },
	"pipeline.open":         func(e *evaluation) []finding.Finding { return e.pipelines.Open() },
	"pipeline.static":       func(e *evaluation) []finding.Finding { return e.pipelines.Static() },
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
