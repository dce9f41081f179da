package rbac

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// rights is a set of rights that deserve attention.
type rights uint64

const (
	wildcard     rights = 1 << iota // "*" among the verbs, resources or groups of a rule
	everything                      // every verb on every resource of every group
	readSecrets                     // secrets that the rule does not name
	escalate                        // bind, escalate or impersonate
	execute                         // commands in, or connections to, any pod
	makePods                        // pods, or what makes pods
	writeRoles                      // roles and bindings
	proxyNodes                      // the API of the kubelet
	makeTokens                      // for accounts that the rule does not name
	approve                         // certificate requests
	signClients                     // with the signers that the API server takes for logon
	writeHooks                      // webhooks and policies of admission
	writeVolumes                    // persistent volumes
	destroy                         // workloads or events
	writeConfig                     // ConfigMaps, or those named that Kubernetes itself reads
	steer                           // network policies, and where traffic goes
	observe                         // pods, their logs, ConfigMaps

	// Steps on the way to other identities, see reach.go.
	enter              // run commands in pods
	enterByGet         // the same by the verb get, which servers before 1.35 took
	makeSecrets        // create secrets
	becomeAnyone       // impersonate users or groups that the rule does not name
	becomeAccounts     // impersonate service accounts
	bindRoles          // bind roles that the rule does not name
	escalateRoles      // escalate Roles
	escalateAll        // escalate ClusterRoles
	changeRoles        // change Roles
	changeClusterRoles // change ClusterRoles
	bindHere           // write RoleBindings
	bindEverywhere     // write ClusterRoleBindings
	requestCerts       // create certificate requests
	mutate             // webhooks and policies that change what is admitted
	named              // some of these for objects that the rule names
)

// certify is to sign oneself any identity: it takes both.
const certify = approve | signClients

// A tuple is a right that rules give on some resources of a group by any of
// some verbs.
type tuple struct {
	right     rights
	group     string
	resources []string
	verbs     []string
	// names says that a rule which names its objects gives the right too.
	names bool
}

const admissionGroup, certificateGroup = "admissionregistration.k8s.io", "certificates.k8s.io"

// tuples are the rights that a rule shows by itself.
var tuples = []tuple{
	{readSecrets, "", words("secrets"), words("get list watch"), false},
	{execute | enter, "", words("pods/exec pods/attach"), words("create"), true},
	{execute, "", words("pods/portforward"), words("create"), true},
	{enterByGet, "", words("pods/exec pods/attach pods/portforward"), words("get"), true},
	{execute | enter, "", words("pods/ephemeralcontainers"), words("update patch"), true},
	{makePods, "", words("pods"), words("create update patch"), false},
	{makePods, "", words("replicationcontrollers"), words("create"), false},
	{makePods, "", words("replicationcontrollers"), words("update patch"), true},
	{makePods, "apps", words("deployments daemonsets statefulsets replicasets"), words("create"), false},
	{makePods, "apps", words("deployments daemonsets statefulsets replicasets"), words("update patch"), true},
	{makePods, "batch", words("jobs cronjobs"), words("create"), false},
	{makePods, "batch", words("jobs cronjobs"), words("update patch"), true},
	{writeRoles, rbacv1.GroupName, words("roles clusterroles rolebindings clusterrolebindings"), words("create update patch"), false},
	{proxyNodes, "", words("nodes/proxy"), words("get create update patch delete"), true},
	{makeTokens, "", words("serviceaccounts/token"), words("create"), false},
	{approve, certificateGroup, words("certificatesigningrequests/approval"), words("update patch"), true},
	{writeHooks, admissionGroup, words("validatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicybindings"), words("create update patch"), false},
	{writeHooks | mutate, admissionGroup, words("mutatingwebhookconfigurations mutatingadmissionpolicies mutatingadmissionpolicybindings"), words("create update patch"), false},
	{writeVolumes, "", words("persistentvolumes"), words("create update patch"), false},
	{destroy, "", words("pods replicationcontrollers events"), words("delete deletecollection"), false},
	{destroy, "apps", words("deployments daemonsets statefulsets replicasets"), words("delete deletecollection"), false},
	{destroy, "batch", words("jobs cronjobs"), words("delete deletecollection"), false},
	{destroy, "events.k8s.io", words("events"), words("delete deletecollection"), false},
	{writeConfig, "", words("configmaps"), words("create update patch delete deletecollection"), false},
	{steer, "networking.k8s.io", words("networkpolicies ingresses"), words("create update patch delete deletecollection"), false},
	{steer, "policy.networking.k8s.io", words("adminnetworkpolicies baselineadminnetworkpolicies clusternetworkpolicies"), words("create update patch delete deletecollection"), false},
	{steer, "", words("services/status endpoints"), words("create update patch"), false},
	{steer, "discovery.k8s.io", words("endpointslices"), words("create update patch delete deletecollection"), false},
	{observe, "", words("pods pods/log configmaps"), words("get list watch"), false},

	{makeSecrets, "", words("secrets"), words("create"), false},
	{becomeAccounts, "", words("serviceaccounts"), words("impersonate"), false},
	{bindRoles, rbacv1.GroupName, words("clusterroles"), words("bind"), false},
	{escalateRoles, rbacv1.GroupName, words("roles"), words("escalate"), false},
	{escalateAll, rbacv1.GroupName, words("clusterroles"), words("escalate"), false},
	{changeRoles, rbacv1.GroupName, words("roles"), words("update patch"), false},
	{changeClusterRoles, rbacv1.GroupName, words("clusterroles"), words("update patch"), false},
	{bindHere, rbacv1.GroupName, words("rolebindings"), words("create update patch"), false},
	{bindEverywhere, rbacv1.GroupName, words("clusterrolebindings"), words("create update patch"), false},
	{requestCerts, certificateGroup, words("certificatesigningrequests"), words("create"), false},
}

func words(s string) []string { return strings.Fields(s) }

// in reports whether a rule gives the right of a tuple. The API server cannot
// match a name against what is yet to be created, so that such a rule never
// grants create of an object; of a subresource it does.
func (t tuple) in(rule rbacv1.PolicyRule) bool {
	if !overlap(rule.APIGroups, t.group) || !t.names && len(rule.ResourceNames) > 0 {
		return false
	}
	return overlap(rule.Verbs, t.verbs...) && slices.ContainsFunc(t.resources, func(r string) bool { return covers(rule.Resources, r) })
}

// rightsOf returns what rules give. Until 1.35 the API server took the verb get
// for commands in pods over websockets; byGet says that this one may.
func rightsOf(rules []rbacv1.PolicyRule, byGet bool) rights {
	var r rights
	for _, rule := range rules {
		r |= rightsIn(rule, byGet)
	}
	return r
}

func rightsIn(rule rbacv1.PolicyRule, byGet bool) rights {
	var r rights
	set := func(right rights, holds bool) {
		if holds {
			r |= right
		}
	}
	star := func(list []string) bool { return slices.Contains(list, "*") }
	set(wildcard, star(rule.Verbs) || star(rule.APIGroups) || star(rule.Resources))
	set(everything, star(rule.Verbs) && star(rule.APIGroups) && star(rule.Resources) && len(rule.ResourceNames) == 0)
	for _, t := range tuples {
		set(t.right, t.in(rule))
	}
	if r&enterByGet != 0 && byGet {
		r |= execute
		set(enter, allows(rule, "", "pods/exec", "get") || allows(rule, "", "pods/attach", "get"))
	}
	set(escalate, allowsBinding(rule) || allowsImpersonation(rule))
	set(becomeAnyone, allowsAnyone(rule))
	set(bindRoles, allows(rule, rbacv1.GroupName, "clusterroles", "bind") && slices.Contains(rule.ResourceNames, "cluster-admin"))
	set(signClients, allows(rule, certificateGroup, "signers", "approve", "sign") && names(rule, signsLogons))
	set(writeConfig, allows(rule, "", "configmaps", "update", "patch", "delete") && len(rule.ResourceNames) > 0 && names(rule, systemConfig))
	set(named, len(rule.ResourceNames) > 0 && (allows(rule, rbacv1.GroupName, "clusterroles", "bind") ||
		allows(rule, "", "serviceaccounts/token", "create") || overlap(rule.Verbs, "impersonate")))
	return r
}

// signsLogons reports whether the API server takes certificates of a signer for
// logon. "domain/*" names every signer of a domain.
func signsLogons(signer string) bool {
	return signer == "kubernetes.io/kube-apiserver-client" || signer == "kubernetes.io/kube-apiserver-client-kubelet" || signer == "kubernetes.io/*"
}

// systemConfig reports whether components of Kubernetes or of a cloud read the
// ConfigMap of this name in kube-system.
func systemConfig(name string) bool {
	switch name {
	case "aws-auth", "cluster-info", "coredns", "coredns-custom", "extension-apiserver-authentication", "kube-dns",
		"kube-proxy", "kube-proxy-config", "kubeadm-config", "kubelet-config", "node-local-dns":
		return true
	}
	return false
}

// allowsBinding reports whether a rule lets its holder bind roles that it does
// not name, or that take other rights themselves, or escalate any: to escalate
// a named role is to give it every right.
func allowsBinding(rule rbacv1.PolicyRule) bool {
	on := func(verb string) bool {
		return allows(rule, rbacv1.GroupName, "roles", verb) || allows(rule, rbacv1.GroupName, "clusterroles", verb)
	}
	return on("escalate") || on("bind") && names(rule, func(name string) bool { return userFacing[name]&escalate != 0 })
}

func systemUser(name string) bool { return identity{name: name}.system() }
func systemGroup(name string) bool {
	return identity{name, true}.system() || strings.HasPrefix(name, "system:")
}

// allowsImpersonation reports whether a rule lets its holder become someone
// whom it does not name, or a component or administrator of Kubernetes.
func allowsImpersonation(rule rbacv1.PolicyRule) bool {
	may := func(resource string, privileged func(string) bool) bool {
		return allows(rule, "", resource, "impersonate") && names(rule, privileged)
	}
	if may("users", systemUser) || may("groups", systemGroup) || may("serviceaccounts", func(string) bool { return false }) {
		return true
	}
	if !overlap(rule.Verbs, "impersonate") || !overlap(rule.APIGroups, "authentication.k8s.io") {
		return false
	}
	return slices.ContainsFunc(rule.Resources, func(r string) bool {
		return r == "*" || r == "uids" || r == "userextras" || strings.HasPrefix(r, "userextras/")
	})
}

// allowsAnyone reports whether a rule lets its holder become an administrator
// or a component of the control plane.
func allowsAnyone(rule rbacv1.PolicyRule) bool {
	admins := func(group string) bool { return identity{group, true}.system() }
	return allows(rule, "", "users", "impersonate") && names(rule, func(string) bool { return false }) ||
		allows(rule, "", "groups", "impersonate") && names(rule, admins)
}

// names reports whether a rule names no object, or one that counts.
func names(rule rbacv1.PolicyRule, counts func(name string) bool) bool {
	return len(rule.ResourceNames) == 0 || slices.ContainsFunc(rule.ResourceNames, counts)
}

// allows reports whether a rule allows any of the verbs on a resource.
func allows(rule rbacv1.PolicyRule, group, resource string, verbs ...string) bool {
	return overlap(rule.APIGroups, group) && covers(rule.Resources, resource) && overlap(rule.Verbs, verbs...)
}

func overlap(list []string, any ...string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return s == "*" || slices.Contains(any, s) })
}

// covers reports whether the resources of a rule include one. "*" includes
// subresources, "*/exec" is exec of every resource, "pods/*" is nothing.
func covers(list []string, resource string) bool {
	if overlap(list, resource) {
		return true
	}
	_, sub, ok := strings.Cut(resource, "/")
	return ok && slices.Contains(list, "*/"+sub)
}

// show writes the first rule that gives one of some rights, as evidence.
func (a *Access) show(rules []rbacv1.PolicyRule, right rights) string {
	for i, rule := range rules {
		if rightsIn(rule, a.byGet)&right == 0 {
			continue
		}
		return fmt.Sprintf("rule %d: verbs %s on %s in groups %s", i+1, list(rule.Verbs), list(rule.Resources), list(rule.APIGroups))
	}
	return ""
}

// maxShown bounds a list in a finding.
const maxShown = 8

func list(items []string) string {
	quoted := make([]string, 0, maxShown)
	for _, item := range items[:min(len(items), maxShown)] {
		quoted = append(quoted, fmt.Sprintf("%q", item))
	}
	text := strings.Join(quoted, ", ")
	if more := len(items) - maxShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
