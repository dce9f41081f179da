package rbac

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var (
	anonymous       = identity{name: "system:anonymous"}
	unauthenticated = identity{"system:unauthenticated", true}
	authenticated   = identity{"system:authenticated", true}
	allAccounts     = identity{"system:serviceaccounts", true}
	masters         = identity{"system:masters", true}
)

// Anonymous says for each binding whether it gives callers without credentials
// more than discovery and health.
func (a *Access) Anonymous() []finding.Verdict {
	return a.eachBinding(func(b *binding) finding.Verdict {
		return a.crowd(b, "callers without credentials", openRule, anonymous, unauthenticated)
	})
}

// Everyone says for each binding whether it gives every user, or every service
// account, more than discovery.
func (a *Access) Everyone() []finding.Verdict {
	return a.eachBinding(func(b *binding) finding.Verdict {
		return a.crowd(b, "everyone who can log on", func(r rbacv1.PolicyRule) bool { return openRule(r) || selfRule(r) }, authenticated, allAccounts)
	})
}

func (a *Access) eachBinding(judge func(*binding) finding.Verdict) []finding.Verdict {
	var out []finding.Verdict
	for _, b := range a.bindings {
		f := judge(b)
		f.Subject = b.Subject()
		out = append(out, f)
	}
	return out
}

// crowd judges a binding that names one of some groups by whether each rule of
// its role is harmless.
func (a *Access) crowd(b *binding, who string, harmless func(rbacv1.PolicyRule) bool, groups ...identity) finding.Verdict {
	named := b.named(func(id identity) bool { return slices.Contains(groups, id) })
	if len(named) == 0 {
		return finding.Verdict{Status: finding.Pass}
	}
	r := a.roles[b.role]
	switch {
	case r == nil && baseline[b.role.name] && b.role.namespace == "":
		return finding.Verdict{Status: finding.Pass, Evidence: "grants discovery"}
	case r == nil:
		return a.withoutRole(b)
	case r.open:
		return finding.Verdict{Status: finding.Unknown, Reason: openReason}
	case r.object != nil && !slices.ContainsFunc(r.rules, func(rule rbacv1.PolicyRule) bool { return !harmless(rule) }):
		return finding.Verdict{Status: finding.Pass, Evidence: "grants discovery"}
	}
	return finding.Verdict{
		Status:   finding.Fail,
		Message:  fmt.Sprintf("gives rights to %s (%s)", who, join(named)),
		Evidence: b.grants() + a.firstRule(r, harmless),
		Grantees: grantees(named...),
	}
}

// named returns the subjects of a binding of which like is true.
func (b *binding) named(like func(identity) bool) []identity {
	return slices.DeleteFunc(slices.Clone(b.subjects), func(id identity) bool { return !like(id) })
}

func (b *binding) grants() string { return "roleRef " + b.role.kind() + "/" + b.role.name }

func (a *Access) firstRule(r *role, harmless func(rbacv1.PolicyRule) bool) string {
	for i, rule := range r.rules {
		if !harmless(rule) {
			return fmt.Sprintf(", rule %d: verbs %s on %s", i+1, list(rule.Verbs), list(append(slices.Clone(rule.Resources), rule.NonResourceURLs...)))
		}
	}
	return ""
}

// withoutRole judges a binding to a role that is not in the inventory: in a
// live cluster it grants nothing.
func (a *Access) withoutRole(b *binding) finding.Verdict {
	if reason := a.unread(b.role.kind()); reason != "" {
		return finding.Verdict{Status: finding.Unknown, Reason: reason}
	}
	if a.inv.Origin == inventory.Files {
		return finding.Verdict{Status: finding.Unknown, Reason: "the " + b.role.kind() + " it refers to is not among the files"}
	}
	return finding.Verdict{Status: finding.Pass, Evidence: "its role does not exist, so that it grants nothing"}
}

// openURLs are the paths by which a caller finds out what a server is, and
// whether it is well.
var openURLs = []string{
	"/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/",
	"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*",
	"/openapi", "/openapi/*", "/version", "/version/",
}

// openRule reports whether a rule gives discovery and health only, or the
// ConfigMap by which nodes find the cluster they are to join.
func openRule(rule rbacv1.PolicyRule) bool {
	reads := !slices.ContainsFunc(rule.Verbs, func(v string) bool { return v != "get" && v != "head" && v != "options" })
	if len(rule.Resources) == 0 {
		return reads && !slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool { return !slices.Contains(openURLs, url) })
	}
	return reads && slices.Equal(rule.Resources, []string{"configmaps"}) && slices.Equal(rule.ResourceNames, []string{"cluster-info"})
}

// selfRule reports whether a rule gives questions about oneself, or the
// certificates to trust, only.
func selfRule(rule rbacv1.PolicyRule) bool {
	asks := func(group string, resources ...string) bool {
		return slices.Equal(rule.APIGroups, []string{group}) && len(rule.NonResourceURLs) == 0 &&
			!slices.ContainsFunc(rule.Resources, func(r string) bool { return !slices.Contains(resources, r) })
	}
	return asks("authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews") ||
		asks("authentication.k8s.io", "selfsubjectreviews") ||
		asks("certificates.k8s.io", "clustertrustbundles") && !overlap(rule.Verbs, "create", "update", "patch", "delete")
}

// Masters says for each binding whether it names the group that stands above
// RBAC, whose members no binding shows and nothing revokes.
func (a *Access) Masters() []finding.Verdict {
	return a.eachBinding(func(b *binding) finding.Verdict {
		switch {
		case !slices.Contains(b.subjects, masters):
			return finding.Verdict{Status: finding.Pass}
		case b.ours():
			return finding.Verdict{Status: finding.NotApplicable, Reason: "Kubernetes creates this binding for itself"}
		}
		return finding.Verdict{
			Status:   finding.Fail,
			Message:  "names the group system:masters, which no admission webhook and no RBAC rule holds back",
			Evidence: b.grants(),
			Grantees: grantees(masters),
		}
	})
}

// ours reports whether Kubernetes creates a binding for itself.
func (b *binding) ours() bool {
	return b.GetLabels()[bootstrap] == bootstrapDefaults && (strings.HasPrefix(b.GetName(), "system:") || b.GetName() == "cluster-admin")
}

// Dangling says for each binding whether its role and its service accounts
// exist. Who creates a missing one takes the rights over.
func (a *Access) Dangling() []finding.Verdict { return a.eachBinding(a.dangling) }

func (a *Access) dangling(b *binding) finding.Verdict {
	if b.ours() {
		return finding.Verdict{Status: finding.NotApplicable, Reason: "Kubernetes creates this binding for itself"}
	}
	var gone []string
	var lost []identity
	var doubt string
	miss := func(what, reason string) {
		if reason == "" {
			gone = append(gone, what)
		} else {
			doubt = what + " is not here: " + reason
		}
	}
	if a.roles[b.role] == nil && !a.wellKnown(b.role) {
		miss(b.role.kind()+" "+b.role.name, a.absence(b.role.namespace, b.role.kind()))
	}
	roleless := len(gone) > 0
	for _, id := range b.subjects {
		ns, name, ok := id.account()
		acc := account{ns, name}
		if !ok || name == defaultAccount || a.accounts[acc] != nil {
			continue
		}
		reason := a.absence(ns)
		if gap := a.inv.Gap("", "ServiceAccount"); gap != "" {
			reason = "ServiceAccount objects could not be read: " + gap
		}
		if miss(id.String(), reason); reason == "" {
			lost = append(lost, id)
		}
	}
	if roleless {
		lost = nil // it is about the binding as a whole
	}
	switch {
	case len(gone) > 0:
		return finding.Verdict{
			Status: finding.Fail, Message: "refers to what does not exist: " + strings.Join(gone[:min(len(gone), maxShown)], ", "), Evidence: b.grants(),
			Grantees: grantees(lost...),
		}
	case doubt != "":
		return finding.Verdict{Status: finding.Unknown, Reason: doubt}
	}
	return finding.Verdict{Status: finding.Pass}
}

// absence says why what is missing in a namespace may exist all the same, or
// "".
func (a *Access) absence(namespace string, kinds ...string) string {
	if reason := a.doubt(namespace, kinds...); reason != "" || namespace != "" || a.inv.Origin == inventory.Cluster {
		return reason
	}
	return "it may exist elsewhere"
}

// wellKnown reports whether every cluster has a ClusterRole.
func (a *Access) wellKnown(key roleKey) bool {
	_, ok := userFacing[key.name]
	return a.inv.Origin == inventory.Files && key.namespace == "" && (ok || strings.HasPrefix(key.name, "system:"))
}

// Deployers says for each binding that grants to what looks like a pipeline
// whether it keeps to one namespace.
func (a *Access) Deployers() []finding.Verdict {
	tools := a.pipelines()
	return a.eachBinding(func(b *binding) finding.Verdict {
		named := b.named(func(id identity) bool { return tools[id] || deploys(id) })
		if len(named) == 0 {
			return finding.Verdict{Status: finding.NotApplicable, Reason: "it grants to nothing that looks like a pipeline"}
		}
		return a.deployer(b, named)
	})
}

func (a *Access) deployer(b *binding, named []identity) finding.Verdict {
	if b.namespace != "" && b.namespace != system {
		return finding.Verdict{Status: finding.Pass, Evidence: "bound in namespace " + b.namespace}
	}
	r := a.roles[b.role]
	if r == nil && !baseline[b.role.name] {
		return a.withoutRole(b)
	}
	if r == nil || r.object != nil && !slices.ContainsFunc(r.rules, writes) {
		return finding.Verdict{Status: finding.Pass, Evidence: "reads only"}
	}
	where := "every namespace"
	if b.namespace == system {
		where = "kube-system"
	}
	return finding.Verdict{
		Status:   finding.Fail,
		Message:  fmt.Sprintf("lets a pipeline (%s) deploy into %s", join(named), where),
		Evidence: b.grants() + a.firstRule(r, func(rule rbacv1.PolicyRule) bool { return !writes(rule) }),
		Grantees: grantees(named...),
	}
}

// writes reports whether a rule changes objects of Kubernetes. Questions about
// access change nothing.
func writes(rule rbacv1.PolicyRule) bool {
	reviews := slices.Equal(rule.APIGroups, []string{"authorization.k8s.io"}) || slices.Equal(rule.APIGroups, []string{"authentication.k8s.io"})
	return len(rule.Resources) > 0 && !reviews && slices.ContainsFunc(rule.Verbs, func(v string) bool {
		return v != "get" && v != "list" && v != "watch"
	})
}

// pipelines returns the accounts of the workloads and of the objects that say
// that they are part of a tool that deploys.
func (a *Access) pipelines() map[identity]bool {
	out := map[identity]bool{}
	for acc, workloads := range a.users {
		for _, w := range workloads {
			if toolLabels(w.GetLabels()) || toolLabels(w.Template.Labels) {
				out[acc.identity()] = true
			}
		}
	}
	for acc, o := range a.accounts {
		if toolLabels(o.GetLabels()) {
			out[acc.identity()] = true
		}
	}
	return out
}

// tools are products that deploy, by the names that they give themselves.
var tools = []string{
	"argocd", "argo-cd", "flux", "fluxcd", "jenkins", "gitlab-runner", "gitlab-agent", "github-runner", "actions-runner",
	"actions-runner-controller", "gha-runner-scale-set", "gha-rs", "tekton", "tekton-pipelines", "spinnaker", "drone-runner-kube",
}

func toolLabels(labels map[string]string) bool {
	for _, key := range []string{"app.kubernetes.io/part-of", "app.kubernetes.io/name", "app.kubernetes.io/instance", "app"} {
		if slices.Contains(tools, labels[key]) {
			return true
		}
	}
	return false
}

// deploys reports whether an identity looks like a pipeline by its name or its
// namespace.
func deploys(id identity) bool {
	ns, name, ok := id.account()
	if !ok {
		name = id.name
	}
	if !ok && strings.HasPrefix(name, "system:") {
		return false
	}
	if slices.Contains(tools, ns) || slices.Contains([]string{"flux-system", "argo", "arc-systems", "actions-runner-system", "ci", "cicd", "ci-cd"}, ns) {
		return true
	}
	words := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return strings.ContainsRune("-_.:@/", c) })
	return slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{
			"ci", "cd", "cicd", "pipeline", "pipelines", "deploy", "deployer", "deployment-bot", "deploybot", "jenkins", "gitlab", "github", "argocd",
			"fluxcd", "flux", "tekton", "spinnaker", "circleci", "drone", "buildkite", "terraform", "gitops",
		}, w)
	})
}
