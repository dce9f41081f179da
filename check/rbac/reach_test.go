package rbac_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// aggregator is an account that every cluster has and that can give itself
// every right.
const aggregator = `---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: clusterrole-aggregation-controller, namespace: kube-system}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: "system:controller:clusterrole-aggregation-controller", labels: {kubernetes.io/bootstrapping: rbac-defaults}},
 rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [escalate, get, list, patch, update, watch]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: "system:controller:clusterrole-aggregation-controller", labels: {kubernetes.io/bootstrapping: rbac-defaults}},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:controller:clusterrole-aggregation-controller"},
 subjects: [{kind: ServiceAccount, name: clusterrole-aggregation-controller, namespace: kube-system}]}
`

// everywhere grants rules to shop/web in every namespace, here in shop.
func everywhere(rules string) string {
	return role("ClusterRole", "web", rules) + bind("ClusterRoleBinding", "web", "ClusterRole", "web", sa("shop", "web"))
}
func here(rules string) string {
	return role("Role", "web", rules) + bind("RoleBinding", "web", "Role", "web", sa("shop", "web"))
}

func TestAdminReachers(t *testing.T) {
	const rbacGroup, certs, admission = "rbac.authorization.k8s.io", "certificates.k8s.io", "admissionregistration.k8s.io"
	web := pod("web", ", serviceAccountName: web")
	boss := role("ClusterRole", "boss", all) + bind("ClusterRoleBinding", "boss", "ClusterRole", "boss", sa("shop", "boss"))
	bossPod := boss + pod("boss", ", serviceAccountName: boss")
	far := role("ClusterRole", "boss", all) + bind("ClusterRoleBinding", "boss", "ClusterRole", "boss", sa("infra", "boss"))
	tests := []struct {
		name, manifests string
		want            finding.Status
	}{
		{"nothing", "", finding.Pass},
		{"every right", everywhere(all), finding.Fail},
		{"every right here", here(all), finding.Pass},
		{"every right here, beside an administrator", here(all) + boss, finding.Fail},
		{"read everything", everywhere(rule(`"*"`, `"*"`, "get, list, watch", "")), finding.Unknown}, // a token may be in a Secret
		{"read pods", everywhere(rule(`""`, "pods", "get, list, watch", "")), finding.Pass},
		{"make pods everywhere", everywhere(rule(`""`, "pods", "create", "")), finding.Fail},
		{"make pods here", here(rule(`""`, "pods", "create", "")), finding.Pass},
		{"make pods beside an administrator", here(rule(`""`, "pods", "create", "")) + boss, finding.Fail},
		{"make pods, the administrator elsewhere", here(rule(`""`, "pods", "create", "")) + far, finding.Pass},
		{"make jobs", here(rule("batch", "jobs", "create", "")) + boss, finding.Fail},
		{"patch a named deployment", here(rule("apps", "deployments", "patch", ", resourceNames: [web]")) + boss, finding.Fail},
		{"patch a named pod", here(rule(`""`, "pods", "patch", ", resourceNames: [web]")) + boss, finding.Pass},
		{"create a named pod is no right", here(rule(`""`, "pods", "create", ", resourceNames: [web]")) + boss, finding.Pass},
		{"exec beside an administrator's pod", here(rule(`""`, "pods/exec", "create", "")) + bossPod, finding.Fail},
		{"exec without such a pod", here(rule(`""`, "pods/exec", "create", "")) + boss, finding.Pass},
		{"connect to ports of it", here(rule(`""`, "pods/portforward", "create", "")) + bossPod, finding.Pass},
		{"a debug container in it", here(rule(`""`, "pods/ephemeralcontainers", "patch", "")) + bossPod, finding.Fail},
		{"tokens everywhere", everywhere(rule(`""`, "serviceaccounts/token", "create", "")), finding.Fail},
		{"tokens of the administrator by name", here(rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [boss]")) + boss, finding.Fail},
		{"tokens of another by name", here(rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [other]")) + boss, finding.Pass},
		{"read secrets here", here(rule(`""`, "secrets", "get", "")) + boss, finding.Unknown},
		{"read secrets, no administrator", here(rule(`""`, "secrets", "get", "")), finding.Pass},
		{"read and make secrets", here(rule(`""`, "secrets", "get, create", "")) + boss, finding.Fail},
		{"make secrets alone", here(rule(`""`, "secrets", "create", "")) + boss, finding.Pass},
		{"impersonate the administrator", here(rule(`""`, "serviceaccounts", "impersonate", ", resourceNames: [boss]")) + boss, finding.Fail},
		{"impersonate users", everywhere(rule(`""`, "users", "impersonate", "")), finding.Fail},
		{"impersonate users in one namespace is no right", here(rule(`""`, "users", "impersonate", "")), finding.Pass},
		{"impersonate system:masters", everywhere(rule(`""`, "groups", "impersonate", `, resourceNames: ["system:masters"]`)), finding.Fail},
		{"impersonate a person", everywhere(rule(`""`, "users", "impersonate", ", resourceNames: [jane]")), finding.Pass},
		{"impersonate a person who is administrator", everywhere(rule(`""`, "users", "impersonate", ", resourceNames: [jane]")) +
			bind("ClusterRoleBinding", "jane", "ClusterRole", "boss", user("jane")) + role("ClusterRole", "boss", all), finding.Fail},
		{"bind everything", everywhere(rule(rbacGroup, "clusterroles", "bind", "") + ", " + rule(rbacGroup, "clusterrolebindings", "create", "")), finding.Fail},
		{"bind without writing bindings", everywhere(rule(rbacGroup, "clusterroles", "bind", "")), finding.Pass},
		{"write bindings without bind", everywhere(rule(rbacGroup, "clusterrolebindings", "create", "")), finding.Pass},
		{"bind a named role that makes pods", everywhere(rule(rbacGroup, "clusterroles", "bind", ", resourceNames: [maker]")+", "+rule(rbacGroup, "clusterrolebindings", "create", "")) +
			role("ClusterRole", "maker", rule(`""`, "pods", "create", "")), finding.Fail},
		{"bind a named role that reads pods", everywhere(rule(rbacGroup, "clusterroles", "bind", ", resourceNames: [reader]")+", "+rule(rbacGroup, "clusterrolebindings", "create", "")) +
			role("ClusterRole", "reader", rule(`""`, "pods", "get", "")), finding.Pass},
		{"escalate", everywhere(rule(rbacGroup, "clusterroles", "escalate, patch", "")), finding.Fail},
		{"escalate without changing", everywhere(rule(rbacGroup, "clusterroles", "escalate", "")), finding.Pass},
		{"escalate here", here(rule(rbacGroup, "roles", "escalate, update", "")) + boss, finding.Fail},
		{"bind here", here(rule(rbacGroup, "clusterroles", "bind", "")+", "+rule(rbacGroup, "rolebindings", "create", "")) + boss, finding.Fail},
		{"sign certificates", everywhere(rule(certs, "certificatesigningrequests", "create", "") + ", " + rule(certs, "certificatesigningrequests/approval", "update", "") +
			", " + rule(certs, "signers", "approve", `, resourceNames: [kubernetes.io/kube-apiserver-client]`)), finding.Fail},
		{"sign others' certificates", everywhere(rule(certs, "certificatesigningrequests", "create", "") + ", " + rule(certs, "certificatesigningrequests/approval", "update", "") +
			", " + rule(certs, "signers", "approve", `, resourceNames: [example.com/internal]`)), finding.Pass},
		{"change what is admitted", everywhere(rule(admission, "mutatingwebhookconfigurations", "create", "")), finding.Fail},
		{"refuse what is admitted", everywhere(rule(admission, "validatingwebhookconfigurations", "create", "")), finding.Pass},
		{"kubelets", everywhere(rule(`""`, "nodes/proxy", "get", "")) + bossPod, finding.Fail},
		{"kubelets, no such pod", everywhere(rule(`""`, "nodes/proxy", "get", "")), finding.Pass},
		{"volumes and pods", everywhere(rule(`""`, "persistentvolumes", "create", "")) + role("Role", "p", rule(`""`, "pods", "create", "")) +
			bind("RoleBinding", "p", "Role", "p", sa("shop", "web")) + far + strings.ReplaceAll(pod("boss", ", serviceAccountName: boss"), "namespace: shop", "namespace: infra"), finding.Fail},
		{"by its group", role("ClusterRole", "boss", all) + bind("ClusterRoleBinding", "b", "ClusterRole", "boss", group("system:serviceaccounts:shop")), finding.Fail},
		{"two steps", here(rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [mid]")) + role("Role", "mid", rule("apps", "deployments", "create", "")) +
			bind("RoleBinding", "mid", "Role", "mid", sa("shop", "mid")) + boss, finding.Fail},
		{"a circle", here(rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [mid]")) + role("Role", "mid", rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [web]")) +
			bind("RoleBinding", "mid", "Role", "mid", sa("shop", "mid")), finding.Pass},
		{"a dangling binding", bind("ClusterRoleBinding", "b", "ClusterRole", "gone", sa("shop", "web")), finding.Pass},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 3 { // the order of maps must not matter
				a := analyze(t, inventory.Cluster, web+aggregator+tt.manifests)
				for _, f := range a.AdminReachers() {
					if f.Subject.Name == "web" && f.Status != tt.want {
						t.Fatalf("%s %s%s, want %s", f.Status, f.Reason, f.Evidence, tt.want)
					}
				}
			}
		})
	}
}

func TestShortestChain(t *testing.T) {
	manifests := pod("web", ", serviceAccountName: web") +
		here(rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [long, short]")) +
		role("Role", "long", rule(`""`, "serviceaccounts/token", "create", ", resourceNames: [short]")) + bind("RoleBinding", "long", "Role", "long", sa("shop", "long")) +
		role("ClusterRole", "boss", all) + bind("ClusterRoleBinding", "boss", "ClusterRole", "boss", sa("shop", "short")) +
		"---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: short, namespace: shop}}\n"
	f := analyze(t, inventory.Cluster, manifests).AdminReachers()[0]
	want := "service account shop/web may impersonate it or make a token for it (RoleBinding/shop/web) → service account shop/short" +
		" may hold every right (ClusterRoleBinding/boss) → administrator of the cluster"
	if f.Evidence != want {
		t.Errorf("%s\nwant\n%s", f.Evidence, want)
	}
	through := pod("web", ", serviceAccountName: web") + here(rule(`""`, "pods", "create", "")) +
		role("ClusterRole", "boss", all) + bind("ClusterRoleBinding", "boss", "ClusterRole", "boss", sa("shop", "boss"))
	f = analyze(t, inventory.Cluster, through).AdminReachers()[0]
	want = "service account shop/web may run a pod (RoleBinding/shop/web) → any service account of shop, such as service account shop/boss" +
		" may hold every right (ClusterRoleBinding/boss) → administrator of the cluster"
	if f.Evidence != want {
		t.Errorf("%s\nwant\n%s", f.Evidence, want)
	}
}

// What is not among the files may exist elsewhere.
func TestAdminReachersInFiles(t *testing.T) {
	web := pod("web", ", serviceAccountName: web")
	for name, tt := range map[string]struct {
		manifests string
		want      finding.Status
	}{
		"alone":                           {"", finding.Unknown},
		"with its namespace":              {shop, finding.Pass},
		"a role elsewhere":                {shop + bind("RoleBinding", "b", "ClusterRole", "gone", sa("shop", "web")), finding.Unknown},
		"a known role":                    {shop + bind("RoleBinding", "b", "ClusterRole", "view", sa("shop", "web")), finding.Pass},
		"cluster-admin":                   {bind("ClusterRoleBinding", "b", "ClusterRole", "cluster-admin", sa("shop", "web")), finding.Fail},
		"edit everywhere, so kube-system": {shop + bind("ClusterRoleBinding", "b", "ClusterRole", "edit", sa("shop", "web")), finding.Unknown},
		"a token in a Secret": {here(rule(`""`, "secrets", "get", "")) + role("ClusterRole", "boss", all) + bind("ClusterRoleBinding", "boss", "ClusterRole", "boss", sa("shop", "boss")) +
			"---\n{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: t, namespace: shop, annotations: {kubernetes.io/service-account.name: boss}}}\n", finding.Fail},
	} {
		t.Run(name, func(t *testing.T) {
			if got := analyze(t, inventory.Files, web+tt.manifests).AdminReachers(); len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

// large is a cluster of n bindings in n/10 namespaces.
func large(n int) string {
	var b strings.Builder
	b.WriteString(aggregator)
	for i := range n {
		ns := fmt.Sprintf("ns-%d", i/10)
		fmt.Fprintf(&b, "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r%d, namespace: %s}, rules: [%s, %s]}\n",
			i, ns, rule(`""`, "pods, services, configmaps", "get, list", ""), rule("apps", "deployments", "patch", fmt.Sprintf(", resourceNames: [d%d]", i)))
		fmt.Fprintf(&b, "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b%d, namespace: %s}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r%d}, subjects: [%s]}\n",
			i, ns, i, sa(ns, fmt.Sprintf("a%d", i)))
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: %s}, spec: {serviceAccountName: a%d, containers: [{name: c, image: i}]}}\n", i, ns, i)
	}
	return b.String()
}

func BenchmarkAdminReachers(b *testing.B) {
	a := analyze(b, inventory.Cluster, large(10_000))
	for b.Loop() {
		if got := a.AdminReachers(); len(got) != 10_000 || got[0].Status != finding.Pass {
			b.Fatalf("%d findings, %+v", len(got), got[0])
		}
	}
}

func BenchmarkNew(b *testing.B) {
	inv, err := inventory.FromFiles(b.Context(), []string{"-"}, strings.NewReader(large(10_000)))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := rbac.New(inv); err != nil {
			b.Fatal(err)
		}
	}
}
