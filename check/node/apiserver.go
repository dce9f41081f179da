package node

import (
	"cmp"
	"crypto/tls"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

const apiServer = "kube-apiserver"

// AnonymousRequests says whether API servers refuse requests without
// credentials, but for those to health endpoints.
func (v *View) AnonymousRequests() []finding.Verdict { return v.planes(true, anonymousRequests) }

func anonymousRequests(m *member, out *verdict) {
	p := out.program(m, apiServer, "anonymous-auth", "authentication-config")
	switch {
	case p == nil || !p.Flags.Bool("anonymous-auth", true): // the flag and the file exclude each other
	case out.unread(p, "authentication-config"):
	case p.Anonymous == nil:
		out.fail("the API server takes requests without credentials")
	case p.Anonymous.Enabled && len(p.Anonymous.Paths) == 0:
		out.fail("the API server takes requests without credentials on every path")
	case p.Anonymous.Enabled:
		health := []string{"/healthz", "/livez", "/readyz"}
		for _, path := range p.Anonymous.Paths {
			if !slices.Contains(health, path) {
				out.fail("the API server takes requests without credentials on %s", path)
			}
		}
	}
}

// Authorization says whether API servers ask Node and RBAC, and never allow
// everything.
func (v *View) Authorization() []finding.Verdict { return v.planes(true, authorization) }

func authorization(m *member, out *verdict) {
	p := out.program(m, apiServer, "authorization-mode", "authorization-config")
	if p == nil || out.unread(p, "authorization-config") {
		return
	}
	modes := p.Flags.List("authorization-mode")
	if p.Flags.Has("authorization-config") {
		modes = p.Authorizers
	}
	if len(modes) == 0 {
		modes = []string{"AlwaysAllow"} // the default
	}
	if slices.Contains(modes, "AlwaysAllow") {
		out.fail("the API server allows every request (AlwaysAllow)")
		return
	}
	for _, mode := range []string{"Node", "RBAC"} {
		if !slices.Contains(modes, mode) {
			out.fail("the API server does not authorize by %s, only by %s", mode, strings.Join(modes, ", "))
		}
	}
}

// StaticCredentials says whether API servers take tokens or passwords from a
// file.
func (v *View) StaticCredentials() []finding.Verdict { return v.planes(true, staticCredentials) }

func staticCredentials(m *member, out *verdict) {
	p := out.program(m, apiServer, "token-auth-file", "basic-auth-file")
	if p == nil {
		return
	}
	for _, flag := range []string{"token-auth-file", "basic-auth-file"} {
		if p.Flags.Has(flag) {
			out.fail("the API server takes credentials from the file of --%s", flag)
		}
	}
}

// EncryptionAtRest says whether API servers encrypt Secrets before they store
// them.
func (v *View) EncryptionAtRest() []finding.Verdict { return v.planes(false, encryptionAtRest) }

func encryptionAtRest(m *member, out *verdict) {
	p := out.program(m, apiServer, "encryption-provider-config")
	switch {
	case p == nil || out.unread(p, "encryption-provider-config"):
		return
	case !p.Flags.Has("encryption-provider-config"):
		out.fail("secrets are stored as they are: the API server has no encryption configuration")
		return
	}
	for _, rule := range p.Encryption {
		if !slices.ContainsFunc(rule.Resources, func(r string) bool { return r == "secrets" || r == "*." || r == "*.*" }) {
			continue
		}
		first := "no provider"
		if len(rule.Providers) > 0 {
			first = rule.Providers[0]
		}
		if !slices.Contains([]string{"kms v2", "secretbox", "aescbc"}, first) {
			out.fail("secrets are written with %s", first)
		}
		out.see("providers for secrets: %s", strings.Join(rule.Providers, ", "))
		return // the first entry counts
	}
	out.fail("no entry of the encryption configuration is for secrets")
}

// ServingTLS says whether API servers have a certificate of their own, know
// the authority of clients, and offer strong ciphers only.
func (v *View) ServingTLS() []finding.Verdict { return v.planes(true, servingTLS) }

func servingTLS(m *member, out *verdict) {
	p := out.program(m, apiServer, "tls-cert-file", "tls-private-key-file", "client-ca-file", "tls-cipher-suites", "tls-min-version")
	if p == nil {
		return
	}
	out.want(p, "tls-cert-file", "tls-private-key-file", "client-ca-file")
	suites := p.Flags.List("tls-cipher-suites")
	switch weak := weakCiphers(suites); {
	case p.Flags.Value("tls-min-version") == "VersionTLS13": // has strong ones only
	case len(suites) == 0:
		out.fail("%s offers CBC ciphers, which are on unless --tls-cipher-suites says otherwise", p.Name)
	case len(weak) > 0:
		out.fail("%s offers weak ciphers: %s", p.Name, strings.Join(weak, ", "))
	}
}

// weakCiphers returns the suites that are broken, keep no past secret, or are
// in CBC mode.
func weakCiphers(suites []string) []string {
	var out []string
	for _, s := range suites {
		insecure := slices.ContainsFunc(tls.InsecureCipherSuites(), func(c *tls.CipherSuite) bool { return c.Name == s })
		if insecure || strings.Contains(s, "_CBC_") {
			out = append(out, s)
		}
	}
	return out
}

// KubeletConnections says whether API servers prove who they are to kubelets
// and make sure whom they talk to.
func (v *View) KubeletConnections() []finding.Verdict { return v.planes(true, kubeletConnections) }

func kubeletConnections(m *member, out *verdict) {
	flags := []string{"kubelet-client-certificate", "kubelet-client-key", "kubelet-certificate-authority"}
	if p := out.program(m, apiServer, flags...); p != nil {
		out.want(p, flags...)
	}
}

// AdmissionPlugins says whether API servers run the plugins that the model of
// rights rests on.
func (v *View) AdmissionPlugins() []finding.Verdict { return v.planes(true, admissionPlugins) }

func admissionPlugins(m *member, out *verdict) {
	p := out.program(m, apiServer, "enable-admission-plugins", "disable-admission-plugins")
	if p == nil {
		return
	}
	enabled, disabled := p.Flags.List("enable-admission-plugins"), p.Flags.List("disable-admission-plugins")
	if !slices.Contains(enabled, "NodeRestriction") || slices.Contains(disabled, "NodeRestriction") {
		out.fail("admission plugin NodeRestriction is off")
	}
	for _, plugin := range []string{"NamespaceLifecycle", "ServiceAccount"} { // on by default
		if slices.Contains(disabled, plugin) {
			out.fail("admission plugin %s is off", plugin)
		}
	}
	if slices.Contains(enabled, "AlwaysAdmit") {
		out.fail("admission plugin AlwaysAdmit is on")
	}
}

// ServiceAccountTokens says whether API servers look tokens up, sign them with
// a key of their own, and let them expire when they say so.
func (v *View) ServiceAccountTokens() []finding.Verdict { return v.planes(true, serviceAccountTokens) }

func serviceAccountTokens(m *member, out *verdict) {
	p := out.program(m, apiServer, "service-account-lookup", "service-account-key-file",
		"service-account-signing-endpoint", "service-account-extend-token-expiration")
	if p == nil {
		return
	}
	if !p.Flags.Bool("service-account-lookup", true) {
		out.fail("tokens of deleted service accounts stay valid (--service-account-lookup=false)")
	}
	key := p.Flags.Value("service-account-key-file")
	switch {
	case p.Flags.Has("service-account-signing-endpoint"):
	case key == "":
		out.fail("service-account tokens are signed with the key of the server's certificate")
	case key == p.Flags.Value("tls-private-key-file"):
		out.fail("service-account tokens and TLS share the key %s", key)
	}
	if p.Flags.Bool("service-account-extend-token-expiration", true) {
		out.fail("tokens of pods live a year instead of an hour (--service-account-extend-token-expiration)")
	}
}

// Profiling says whether the components of the control plane show profiles of
// themselves.
func (v *View) Profiling() []finding.Verdict { return v.planes(true, profiling) }

func profiling(m *member, out *verdict) {
	for _, name := range planePrograms[1:] {
		p := out.program(m, name, "profiling")
		if p == nil {
			continue
		}
		on := p.Flags.Bool("profiling", true)
		if name == "kube-scheduler" && p.Flags.Has("config") { // the flag is then ignored
			if out.unread(p, "config") {
				continue
			}
			on = cmp.Or(p.Settings["enableProfiling"], "true") != "false"
		}
		if on {
			out.fail("%s serves profiles of itself", name)
		}
	}
}

// Auditing says whether API servers write an audit log that holds what matters
// for long enough.
func (v *View) Auditing() []finding.Verdict { return v.planes(false, auditing) }

func auditing(m *member, out *verdict) {
	p := out.program(m, apiServer, "audit-policy-file", "audit-log-path", "audit-webhook-config-file",
		"audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize")
	if p == nil {
		return
	}
	file := p.Flags.Value("audit-log-path")
	switch {
	case !p.Flags.Has("audit-policy-file"):
		out.fail("the API server has no audit policy, and so no audit log")
		return
	case file == "" && !p.Flags.Has("audit-webhook-config-file"):
		out.fail("the audit log goes nowhere: neither --audit-log-path nor --audit-webhook-config-file is given")
	}
	if file != "" && file != "-" {
		retention(p, out)
	}
	if !out.unread(p, "audit-policy-file") {
		for _, gap := range unaudited(p.AuditPolicy) {
			out.fail("the audit policy leaves out %s", gap)
		}
	}
}

// retention demands 30 days, 10 files and 100 MB. Without a flag, and with 0,
// more is kept.
func retention(p *evidence.Program, out *verdict) {
	for _, limit := range []struct {
		flag, unit string
		least      int
	}{{"audit-log-maxage", "days", 30}, {"audit-log-maxbackup", "old files", 10}, {"audit-log-maxsize", "MB in a file", 100}} {
		if n, err := strconv.Atoi(p.Flags.Value(limit.flag)); err == nil && n > 0 && n < limit.least {
			out.fail("the audit log keeps %d %s, at least %d are wanted", n, limit.unit, limit.least)
		}
	}
}
