package control

import (
	"github.com/kubeguardian/kubeguardian/check/backup"
	"github.com/kubeguardian/kubeguardian/check/certificate"
	"github.com/kubeguardian/kubeguardian/check/cloud"
	"github.com/kubeguardian/kubeguardian/check/coverage"
	"github.com/kubeguardian/kubeguardian/check/credential"
	"github.com/kubeguardian/kubeguardian/check/datastore"
	"github.com/kubeguardian/kubeguardian/check/detection"
	"github.com/kubeguardian/kubeguardian/check/drift"
	"github.com/kubeguardian/kubeguardian/check/enforcement"
	"github.com/kubeguardian/kubeguardian/check/exposure"
	"github.com/kubeguardian/kubeguardian/check/limits"
	"github.com/kubeguardian/kubeguardian/check/machine"
	"github.com/kubeguardian/kubeguardian/check/mesh"
	"github.com/kubeguardian/kubeguardian/check/podsecurity"
	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/check/reference"
	"github.com/kubeguardian/kubeguardian/check/registry"
	"github.com/kubeguardian/kubeguardian/check/repository"
	"github.com/kubeguardian/kubeguardian/check/sandbox"
	"github.com/kubeguardian/kubeguardian/check/secret"
	"github.com/kubeguardian/kubeguardian/check/storage"
	"github.com/kubeguardian/kubeguardian/check/subpath"
	"github.com/kubeguardian/kubeguardian/check/version"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/tool"
)

// checks are the analyzers that a control may name as its evaluator. Each
// returns the state of every subject it knows; subject, status, reason, message
// and evidence are theirs, the rest is filled in from the control.
var checks = map[string]func(*evaluation) []finding.Verdict{
	"backup.volumes":              func(e *evaluation) []finding.Verdict { return backup.Volumes(e.inv) },
	"certificate.expiry":          func(e *evaluation) []finding.Verdict { return certificate.Expiry(e.inv, e.now) },
	"cloud.backup":                func(e *evaluation) []finding.Verdict { return cloud.Backups(e.inv, e.evidence, e.now) },
	"cloud.code":                  func(e *evaluation) []finding.Verdict { return cloud.Code(e.evidence) },
	"cloud.endpoint":              func(e *evaluation) []finding.Verdict { return cloud.Endpoints(e.evidence) },
	"cloud.entry-point":           func(e *evaluation) []finding.Verdict { return cloud.EntryPoints(e.inv, e.evidence) },
	"cloud.firewall":              func(e *evaluation) []finding.Verdict { return cloud.Firewalls(e.evidence) },
	"cloud.identity":              func(e *evaluation) []finding.Verdict { return cloud.Identities(e.inv, e.evidence) },
	"cloud.log":                   func(e *evaluation) []finding.Verdict { return cloud.Logs(e.inv, e.evidence) },
	"cloud.metadata":              func(e *evaluation) []finding.Verdict { return cloud.Metadata(e.evidence, e.network.InstanceMetadata()) },
	"credential.config-maps":      func(e *evaluation) []finding.Verdict { return credential.ConfigMaps(e.inv) },
	"datastore.authentication":    func(e *evaluation) []finding.Verdict { return datastore.Authentication(e.inv) },
	"detection.alerts-answered":   func(e *evaluation) []finding.Verdict { return detection.Answered(e.inv, e.evidence, e.now) },
	"detection.audit-alive":       func(e *evaluation) []finding.Verdict { return detection.Audit(e.evidence, e.now) },
	"detection.drift":             func(e *evaluation) []finding.Verdict { return detection.Drift(e.inv, e.evidence, e.now) },
	"detection.sensors-alive":     func(e *evaluation) []finding.Verdict { return detection.Sensors(e.inv, e.evidence, e.now) },
	"drift.live":                  func(e *evaluation) []finding.Verdict { return drift.Live(e.inv) },
	"enforcement.active":          func(e *evaluation) []finding.Verdict { return enforcement.Active(e.inv) },
	"enforcement.audit-only":      func(e *evaluation) []finding.Verdict { return enforcement.AuditOnly(e.inv, e.catalogue.critical) },
	"enforcement.bundle":          func(e *evaluation) []finding.Verdict { return enforcement.Bundle(e.inv, e.evidence) },
	"enforcement.webhooks":        func(e *evaluation) []finding.Verdict { return enforcement.Webhooks(e.inv) },
	"exception.valid":             (*evaluation).exceptions,
	"exposure.debug-paths":        func(e *evaluation) []finding.Verdict { return exposure.DebugPaths(e.inv) },
	"image.attested":              func(e *evaluation) []finding.Verdict { return e.images.Attested() },
	"image.current":               func(e *evaluation) []finding.Verdict { return e.images.Current() },
	"image.exploited":             func(e *evaluation) []finding.Verdict { return e.images.Exploited() },
	"image.fixable":               func(e *evaluation) []finding.Verdict { return e.images.FixablePast() },
	"image.libraries":             func(e *evaluation) []finding.Verdict { return e.images.Libraries() },
	"image.listed":                func(e *evaluation) []finding.Verdict { return e.images.Listed() },
	"image.minimal":               func(e *evaluation) []finding.Verdict { return e.images.Minimal() },
	"image.root":                  func(e *evaluation) []finding.Verdict { return e.images.Root() },
	"image.scanned":               func(e *evaluation) []finding.Verdict { return e.images.Scanned() },
	"image.secrets":               func(e *evaluation) []finding.Verdict { return e.images.Secrets() },
	"image.signed":                func(e *evaluation) []finding.Verdict { return e.images.Signed() },
	"image.traceable":             func(e *evaluation) []finding.Verdict { return e.images.Traceable() },
	"limits.namespaces":           func(e *evaluation) []finding.Verdict { return limits.Namespaces(e.inv) },
	"machine.addresses":           func(e *evaluation) []finding.Verdict { return machine.Addresses(e.inv) },
	"mesh.authorization":          func(e *evaluation) []finding.Verdict { return mesh.Authorization(e.inv, e.network.Exposure) },
	"mesh.mutual-tls":             func(e *evaluation) []finding.Verdict { return mesh.MutualTLS(e.inv) },
	"network.coverage":            func(e *evaluation) []finding.Verdict { return e.network.Coverage() },
	"network.data-stores":         func(e *evaluation) []finding.Verdict { return e.network.DataStores(datastore.Ports) },
	"network.default-deny-egress": func(e *evaluation) []finding.Verdict { return e.network.DefaultDenyEgress() },
	"network.default-deny-ingress": func(e *evaluation) []finding.Verdict {
		return e.network.DefaultDenyIngress()
	},
	"network.enforcement":         func(e *evaluation) []finding.Verdict { return e.network.Enforcement() },
	"network.management":          func(e *evaluation) []finding.Verdict { return e.network.Management() },
	"network.metadata":            func(e *evaluation) []finding.Verdict { return e.network.Metadata() },
	"network.node-access":         func(e *evaluation) []finding.Verdict { return e.network.NodeAccess() },
	"network.selectors":           func(e *evaluation) []finding.Verdict { return e.network.Selectors() },
	"network.unlisted":            func(e *evaluation) []finding.Verdict { return e.network.Unlisted() },
	"node.admission-plugins":      func(e *evaluation) []finding.Verdict { return e.nodes.AdmissionPlugins() },
	"node.anonymous-requests":     func(e *evaluation) []finding.Verdict { return e.nodes.AnonymousRequests() },
	"node.auditing":               func(e *evaluation) []finding.Verdict { return e.nodes.Auditing() },
	"node.authorization":          func(e *evaluation) []finding.Verdict { return e.nodes.Authorization() },
	"node.control-plane-files":    func(e *evaluation) []finding.Verdict { return e.nodes.ControlPlaneFiles() },
	"node.controller-credentials": func(e *evaluation) []finding.Verdict { return e.nodes.ControllerCredentials() },
	"node.default-seccomp":        func(e *evaluation) []finding.Verdict { return e.nodes.DefaultSeccomp() },
	"node.encryption-at-rest":     func(e *evaluation) []finding.Verdict { return e.nodes.EncryptionAtRest() },
	"node.etcd-clients":           func(e *evaluation) []finding.Verdict { return e.nodes.EtcdClients() },
	"node.etcd-data":              func(e *evaluation) []finding.Verdict { return e.nodes.EtcdData() },
	"node.etcd-peers":             func(e *evaluation) []finding.Verdict { return e.nodes.EtcdPeers() },
	"node.external-ips":           func(e *evaluation) []finding.Verdict { return e.nodes.ExternalIPs() },
	"node.hardened":               func(e *evaluation) []finding.Verdict { return e.nodes.Hardened() },
	"node.keys":                   func(e *evaluation) []finding.Verdict { return e.nodes.Keys() },
	"node.kubelet-anonymous":      func(e *evaluation) []finding.Verdict { return e.nodes.KubeletAnonymous() },
	"node.kubelet-authorization":  func(e *evaluation) []finding.Verdict { return e.nodes.KubeletAuthorization() },
	"node.kubelet-certificates":   func(e *evaluation) []finding.Verdict { return e.nodes.KubeletCertificates() },
	"node.kubelet-connections":    func(e *evaluation) []finding.Verdict { return e.nodes.KubeletConnections() },
	"node.kubelet-files":          func(e *evaluation) []finding.Verdict { return e.nodes.KubeletFiles() },
	"node.kubelet-limits":         func(e *evaluation) []finding.Verdict { return e.nodes.KubeletLimits() },
	"node.loopback-only":          func(e *evaluation) []finding.Verdict { return e.nodes.LoopbackOnly() },
	"node.network-files":          func(e *evaluation) []finding.Verdict { return e.nodes.NetworkFiles() },
	"node.patched":                func(e *evaluation) []finding.Verdict { return e.nodes.Patched() },
	"node.profiling":              func(e *evaluation) []finding.Verdict { return e.nodes.Profiling() },
	"node.proxy-metrics":          func(e *evaluation) []finding.Verdict { return e.nodes.ProxyMetrics() },
	"node.read-only-port":         func(e *evaluation) []finding.Verdict { return e.nodes.ReadOnlyPort() },
	"node.service-account-tokens": func(e *evaluation) []finding.Verdict { return e.nodes.ServiceAccountTokens() },
	"node.serving-tls":            func(e *evaluation) []finding.Verdict { return e.nodes.ServingTLS() },
	"node.static-credentials":     func(e *evaluation) []finding.Verdict { return e.nodes.StaticCredentials() },
	"pipeline.dependencies":       func(e *evaluation) []finding.Verdict { return e.pipelines.Dependencies() },
	"pipeline.dynamic":            func(e *evaluation) []finding.Verdict { return e.pipelines.Dynamic(e.inv, e.network.Exposure) },
	"pipeline.open":               func(e *evaluation) []finding.Verdict { return e.pipelines.Open() },
	"pipeline.static":             func(e *evaluation) []finding.Verdict { return e.pipelines.Static() },
	"podsecurity.enforced":        func(e *evaluation) []finding.Verdict { return podsecurity.Enforced(e.inv) },
	"rbac.admin-bindings":         func(e *evaluation) []finding.Verdict { return e.access.AdminBindings() },
	"rbac.admin-reachers":         func(e *evaluation) []finding.Verdict { return e.access.AdminReachers() },
	"rbac.anonymous":              func(e *evaluation) []finding.Verdict { return e.access.Anonymous() },
	"rbac.certifiers":             func(e *evaluation) []finding.Verdict { return e.access.Certifiers() },
	"rbac.config-writers":         func(e *evaluation) []finding.Verdict { return e.access.ConfigWriters() },
	"rbac.dangling":               func(e *evaluation) []finding.Verdict { return e.access.Dangling() },
	"rbac.default-accounts":       func(e *evaluation) []finding.Verdict { return e.access.DefaultAccounts() },
	"rbac.deployers":              func(e *evaluation) []finding.Verdict { return e.access.Deployers() },
	"rbac.destroyers":             func(e *evaluation) []finding.Verdict { return e.access.Destroyers() },
	"rbac.escalators":             func(e *evaluation) []finding.Verdict { return e.access.Escalators() },
	"rbac.everyone":               func(e *evaluation) []finding.Verdict { return e.access.Everyone() },
	"rbac.executors":              func(e *evaluation) []finding.Verdict { return e.access.Executors() },
	"rbac.hook-writers":           func(e *evaluation) []finding.Verdict { return e.access.HookWriters() },
	"rbac.logons":                 func(e *evaluation) []finding.Verdict { return rbac.Logons(e.evidence) },
	"rbac.masters":                func(e *evaluation) []finding.Verdict { return e.access.Masters() },
	"rbac.needless-tokens":        func(e *evaluation) []finding.Verdict { return e.access.NeedlessTokens() },
	"rbac.node-proxies":           func(e *evaluation) []finding.Verdict { return e.access.NodeProxies() },
	"rbac.observers":              func(e *evaluation) []finding.Verdict { return e.access.Observers() },
	"rbac.pod-makers":             func(e *evaluation) []finding.Verdict { return e.access.PodMakers() },
	"rbac.role-writers":           func(e *evaluation) []finding.Verdict { return e.access.RoleWriters() },
	"rbac.secret-readers":         func(e *evaluation) []finding.Verdict { return e.access.SecretReaders() },
	"rbac.shared-accounts":        func(e *evaluation) []finding.Verdict { return e.access.SharedAccounts() },
	"rbac.steerers":               func(e *evaluation) []finding.Verdict { return e.access.Steerers() },
	"rbac.token-makers":           func(e *evaluation) []finding.Verdict { return e.access.TokenMakers() },
	"rbac.token-secrets":          func(e *evaluation) []finding.Verdict { return e.access.TokenSecrets() },
	"rbac.unused":                 func(e *evaluation) []finding.Verdict { return e.access.Unused(e.evidence) },
	"rbac.volume-writers":         func(e *evaluation) []finding.Verdict { return e.access.VolumeWriters() },
	"reference.dangling":          func(e *evaluation) []finding.Verdict { return reference.Dangling(e.inv) },
	"registry.allowed":            func(e *evaluation) []finding.Verdict { return registry.Allowed(e.inv, e.evidence) },
	"repository.credentials":      func(e *evaluation) []finding.Verdict { return repository.Credentials(e.evidence) },
	"repository.manifests":        func(e *evaluation) []finding.Verdict { return repository.Manifests(e.evidence) },
	"repository.owners":           func(e *evaluation) []finding.Verdict { return repository.Owned(e.evidence) },
	"repository.permissions":      func(e *evaluation) []finding.Verdict { return repository.ReadOnly(e.evidence) },
	"repository.pins":             func(e *evaluation) []finding.Verdict { return repository.Pinned(e.evidence) },
	"repository.protection":       func(e *evaluation) []finding.Verdict { return repository.Protected(e.evidence) },
	"repository.scans":            func(e *evaluation) []finding.Verdict { return repository.Scanned(e.evidence) },
	"repository.secrets":          func(e *evaluation) []finding.Verdict { return repository.Secrets(e.evidence) },
	"sandbox.untrusted":           func(e *evaluation) []finding.Verdict { return sandbox.Untrusted(e.inv) },
	"secret.age":                  func(e *evaluation) []finding.Verdict { return secret.Age(e.inv, e.now) },
	"secret.shared":               func(e *evaluation) []finding.Verdict { return secret.Shared(e.inv, e.access.ReadersOf()) },
	"secret.stores":               func(e *evaluation) []finding.Verdict { return secret.Stores(e.inv) },
	"secret.unused":               func(e *evaluation) []finding.Verdict { return secret.Unused(e.inv) },
	"storage.encrypted":           func(e *evaluation) []finding.Verdict { return storage.Encrypted(e.inv) },
	"subpath.mounts":              func(e *evaluation) []finding.Verdict { return subpath.Mounts(e.inv) },
	"version.addons":              func(e *evaluation) []finding.Verdict { return version.Addons(e.inv, e.now) },
	"version.nodes":               func(e *evaluation) []finding.Verdict { return version.Nodes(e.inv, e.now) },
	"version.removed":             func(e *evaluation) []finding.Verdict { return version.Removed(e.inv) },
	"version.runtimes":            func(e *evaluation) []finding.Verdict { return version.Runtimes(e.inv) },
}

// excuses are what a control that is judged by policy may name in unless: other
// objects that make up for what a policy, which sees one object, finds missing.
// Each returns that object, or nil.
var excuses = map[string]func(inv *inventory.Inventory, namespace string) *inventory.Object{
	"limits.cpu":               limits.CPU,
	"limits.ephemeral-storage": limits.EphemeralStorage,
	"limits.memory":            limits.Memory,
}

// Tools returns the matrix of tools, with where each was seen in the input.
func Tools(in Input) []tool.Need {
	return coverage.Detect(tool.BuiltIn(), in.Inventory, in.Evidence)
}
