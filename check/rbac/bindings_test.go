package rbac_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// TestGrantees names the subjects that a failure of a binding is about, and
// none that are as they should be.
func TestGrantees(t *testing.T) {
	jane, ci := user("jane"), "{kind: ServiceAccount, namespace: ci, name: runner}"
	for _, tt := range []struct {
		name  string
		check func(*rbac.Access) []finding.Verdict
		extra string
		who   []string
		want  string
	}{
		{"admin", (*rbac.Access).AdminBindings, "", []string{jane, ci, group("system:masters")}, "[User/jane ServiceAccount/ci/runner]"},
		{"admin by user name", (*rbac.Access).AdminBindings, "", []string{user("system:serviceaccount:ci:runner"), ci}, "[ServiceAccount/ci/runner]"},
		{"anonymous", (*rbac.Access).Anonymous, "", []string{jane, user("system:anonymous"), group("system:unauthenticated")}, "[User/system:anonymous Group/system:unauthenticated]"},
		{"everyone", (*rbac.Access).Everyone, "", []string{jane, group("system:authenticated")}, "[Group/system:authenticated]"},
		{"masters", (*rbac.Access).Masters, "", []string{jane, group("system:masters")}, "[Group/system:masters]"},
		{"dangling", (*rbac.Access).Dangling, "---\n{apiVersion: v1, kind: Namespace, metadata: {name: ci}}\n", []string{jane, ci}, "[ServiceAccount/ci/runner]"},
		{"deployers", (*rbac.Access).Deployers, "", []string{jane, ci, user("terraform")}, "[ServiceAccount/ci/runner User/terraform]"},
		{"who is as it should be", (*rbac.Access).Masters, "", []string{jane}, "[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			admin := role("ClusterRole", "cluster-admin", rule(`"*"`, `"*"`, `"*"`, ""))
			a := analyze(t, inventory.Cluster, admin+tt.extra+bind("ClusterRoleBinding", "b", "ClusterRole", "cluster-admin", tt.who...))
			found := tt.check(a)
			if got := fmt.Sprint(found[0].Grantees); len(found) != 1 || got != tt.want {
				t.Errorf("%s about %s, want %s", found[0].Status, got, tt.want)
			}
		})
	}
}

func TestBindings(t *testing.T) {
	const (
		pass, fail, unknown, na = finding.Pass, finding.Fail, finding.Unknown, finding.NotApplicable
		cluster, files          = inventory.Cluster, inventory.Files
	)
	urls := func(urls string) string { return "{nonResourceURLs: [" + urls + "], verbs: [get]}" }
	crb := func(role string, subjects ...string) string {
		return bind("ClusterRoleBinding", "b", "ClusterRole", role, subjects...)
	}
	ours := func(name, role string, subjects ...string) string {
		return `---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: "` + name + `", labels: {kubernetes.io/bootstrapping: rbac-defaults}},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "` + role + `"}, subjects: [` + subjects[0] + `]}
`
	}
	web := "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: shop}}\n"
	reader := role("ClusterRole", "reader", rule(`""`, "pods", "get, list", ""))
	writer := role("ClusterRole", "writer", rule("apps", "deployments", "patch", ""))
	anonymous, everyone, masters := (*rbac.Access).Anonymous, (*rbac.Access).Everyone, (*rbac.Access).Masters
	dangling, deployers := (*rbac.Access).Dangling, (*rbac.Access).Deployers
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		check           func(*rbac.Access) []finding.Verdict
		want            finding.Status
	}{
		{"a person", reader + crb("reader", user("jane")), cluster, anonymous, pass},
		{"anonymous reads pods", reader + crb("reader", user("system:anonymous")), cluster, anonymous, fail},
		{"the group reads pods", reader + crb("reader", group("system:unauthenticated")), cluster, anonymous, fail},
		{"a group of that name as a user", reader + crb("reader", user("system:unauthenticated")), cluster, anonymous, pass},
		{"health", role("ClusterRole", "h", urls("/healthz, /livez")) + crb("h", group("system:unauthenticated")), cluster, anonymous, pass},
		{"metrics", role("ClusterRole", "h", urls("/healthz, /metrics")) + crb("h", group("system:unauthenticated")), cluster, anonymous, fail},
		{"what joins nodes", role("Role", "info", rule(`""`, "configmaps", "get", ", resourceNames: [cluster-info]")) + bind("RoleBinding", "b", "Role", "info", user("system:anonymous")), cluster, anonymous, pass},
		{"public info of files", crb("system:public-info-viewer", group("system:unauthenticated")), files, anonymous, pass},
		{"a role elsewhere", crb("gone", group("system:unauthenticated")), files, anonymous, unknown},
		{"a role that is gone", crb("gone", group("system:unauthenticated")), cluster, anonymous, pass},
		{"cluster-admin of files", crb("cluster-admin", group("system:unauthenticated")), files, anonymous, fail},
		{"basic user without credentials", role("ClusterRole", "system:basic-user", rule("authorization.k8s.io", "selfsubjectaccessreviews", "create", "")) +
			crb("system:basic-user", group("system:unauthenticated")), cluster, anonymous, fail},

		{"basic user", role("ClusterRole", "system:basic-user", rule("authorization.k8s.io", "selfsubjectaccessreviews, selfsubjectrulesreviews", "create", "")) +
			crb("system:basic-user", group("system:authenticated")), cluster, everyone, pass},
		{"basic user with more", role("ClusterRole", "system:basic-user", rule(`""`, "pods", "get", "")) + crb("system:basic-user", group("system:authenticated")), cluster, everyone, fail},
		{"everyone reads pods", reader + crb("reader", group("system:authenticated")), cluster, everyone, fail},
		{"all accounts write", writer + bind("RoleBinding", "b", "ClusterRole", "writer", group("system:serviceaccounts")), cluster, everyone, fail},
		{"accounts of a namespace", writer + crb("writer", group("system:serviceaccounts:shop")), cluster, everyone, pass},
		{"trust bundles", role("ClusterRole", "t", rule("certificates.k8s.io", "clustertrustbundles", "get, list, watch", "")) + crb("t", group("system:serviceaccounts")), cluster, everyone, pass},
		{"aggregated in files", "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: t}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}}\n" +
			crb("t", group("system:serviceaccounts")), files, everyone, unknown},

		{"the binding of Kubernetes", ours("cluster-admin", "cluster-admin", group("system:masters")), cluster, masters, na},
		{"another", crb("view", group("system:masters")), cluster, masters, fail},
		{"the label alone", ours("mine", "cluster-admin", group("system:masters")), cluster, masters, fail},
		{"a user of that name", crb("view", user("system:masters")), cluster, masters, pass},

		{"whole", web + reader + crb("reader", sa("shop", "web")), cluster, dangling, pass},
		{"no role", web + crb("reader", sa("shop", "web")), cluster, dangling, fail},
		{"no account", reader + crb("reader", sa("shop", "web")), cluster, dangling, fail},
		{"the default account needs no object", reader + crb("reader", sa("shop", "default")), cluster, dangling, pass},
		{"people are not objects", reader + crb("reader", user("jane"), group("devs")), cluster, dangling, pass},
		{"components of Kubernetes", reader + ours("system:controller:x", "reader", sa("kube-system", "x")), cluster, dangling, na},
		{"no account among the files", reader + crb("reader", sa("shop", "web")), files, dangling, unknown},
		{"no account in files of the namespace", shop + reader + crb("reader", sa("shop", "web")), files, dangling, fail},
		{"no role among the files", web + crb("reader", sa("shop", "web")), files, dangling, unknown},
		{"a known role", web + crb("view", sa("shop", "web")), files, dangling, pass},

		{"no pipeline", writer + crb("writer", sa("shop", "web")), cluster, deployers, na},
		{"a pipeline everywhere", writer + crb("writer", sa("shop", "ci-deployer")), cluster, deployers, fail},
		{"a pipeline that reads", reader + crb("reader", sa("shop", "ci")), cluster, deployers, pass},
		{"a pipeline in its namespace", writer + bind("RoleBinding", "b", "ClusterRole", "writer", sa("shop", "ci")), cluster, deployers, pass},
		{"in kube-system", writer + "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: kube-system}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: writer}, subjects: [" +
			sa("shop", "ci") + "]}\n", cluster, deployers, fail},
		{"a user of the pipeline", crb("cluster-admin", user("github-actions")), files, deployers, fail},
		{"in the namespace of a tool", writer + crb("writer", sa("flux-system", "kustomize-controller")), cluster, deployers, fail},
		{"by the label of a workload", writer + crb("writer", sa("shop", "robot")) +
			"---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, labels: {app.kubernetes.io/part-of: argocd}}, spec: {serviceAccountName: robot, containers: [{name: c, image: i}]}}\n", cluster, deployers, fail},
		{"an unknown role", crb("gone", sa("shop", "ci")), files, deployers, unknown},
		{"a controller of deployments", writer + crb("writer", sa("kube-system", "deployment-controller")), cluster, deployers, na},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.check(analyze(t, tt.origin, tt.manifests))
			if len(got) != 1 || got[0].Status != tt.want || got[0].Subject.Kind == "" {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
	lost := inventory.Gap{Kind: schema.GroupKind{Kind: "ServiceAccount"}, Reason: "forbidden"}
	if got := analyze(t, cluster, reader+crb("reader", sa("shop", "web")), lost).Dangling(); got[0].Status != unknown {
		t.Errorf("accounts that could not be read: %+v", got)
	}
}

// Which server takes the verb get for a command in a pod.
func TestExecByVersion(t *testing.T) {
	node := func(version string) string {
		return "---\n{apiVersion: v1, kind: Node, metadata: {name: a}, status: {nodeInfo: {kubeletVersion: " + version + "}}}\n"
	}
	byGet := role("Role", "r", rule(`""`, "pods/exec", "get", ""))
	for name, tt := range map[string]struct {
		manifests string
		want      finding.Status
	}{
		"old":            {byGet + node("v1.34.9"), finding.Fail},
		"new":            {byGet + node("v1.35.0"), finding.Pass},
		"of a provider":  {byGet + node("v1.36.1-eks-0a1b2c"), finding.Pass},
		"not known":      {byGet, finding.Fail},
		"create, on new": {role("Role", "r", rule(`""`, "pods/exec", "create", "")) + node("v1.37.0"), finding.Fail},
		"the kubelet":    {node("v1.37.0"), ""},
	} {
		got := analyze(t, inventory.Cluster, tt.manifests).Executors()
		if tt.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Status != tt.want {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
	kubelet := role("ClusterRole", "k", rule(`""`, "nodes/proxy", "get", "")) + node("v1.37.0")
	if got := analyze(t, inventory.Cluster, kubelet).NodeProxies(); got[0].Status != finding.Fail {
		t.Errorf("the API of the kubelet still goes by the method: %+v", got)
	}
}

// Rights that matter by where they are bound.
func TestGrants(t *testing.T) {
	config := rule(`""`, "configmaps", "get, update", "")
	policies := rule("networking.k8s.io", "networkpolicies", "patch", "")
	logs := rule(`""`, "pods/log", "get", "")
	inSystem := func(kind string, subjects string) string {
		return "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: s, namespace: kube-system}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: " + kind + ", name: r}, subjects: [" + subjects + "]}\n"
	}
	writers, steerers, observers := (*rbac.Access).ConfigWriters, (*rbac.Access).Steerers, (*rbac.Access).Observers
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		check           func(*rbac.Access) []finding.Verdict
		want            string
	}{
		{"config everywhere", role("ClusterRole", "r", config) + bind("ClusterRoleBinding", "b", "ClusterRole", "r", sa("shop", "web")), inventory.Cluster, writers, "ClusterRole/r fail"},
		{"config in a namespace", role("ClusterRole", "r", config) + bind("RoleBinding", "b", "ClusterRole", "r", sa("shop", "web")), inventory.Cluster, writers, "ClusterRole/r pass"},
		{"config in kube-system", role("ClusterRole", "r", config) + inSystem("ClusterRole", user("jane")), inventory.Cluster, writers, "ClusterRole/r fail"},
		{"config in kube-system for a component", role("ClusterRole", "r", config) + inSystem("ClusterRole", sa("kube-system", "dns")), inventory.Cluster, writers, "ClusterRole/r pass"},
		{"coredns by name", role("ClusterRole", "r", rule(`""`, "configmaps", "update", ", resourceNames: [coredns]")) + inSystem("ClusterRole", user("jane")), inventory.Cluster, writers, "ClusterRole/r fail"},
		{"its own by name", role("ClusterRole", "r", rule(`""`, "configmaps", "update", ", resourceNames: [leader]")) + inSystem("ClusterRole", user("jane")), inventory.Cluster, writers, "ClusterRole/r pass"},
		{"a Role of another namespace", role("Role", "r", config), inventory.Cluster, writers, "Role/shop/r not-applicable"},
		{"not bound in files", role("ClusterRole", "r", config), inventory.Files, writers, "ClusterRole/r unknown"},
		{"not bound in a cluster", role("ClusterRole", "r", config), inventory.Cluster, writers, "ClusterRole/r pass"},
		{"policies", role("Role", "r", policies) + bind("RoleBinding", "b", "Role", "r", sa("shop", "web")), inventory.Cluster, steerers, "Role/shop/r fail"},
		{"policies for the network", role("ClusterRole", "r", policies) + bind("ClusterRoleBinding", "b", "ClusterRole", "r", sa("calico-system", "calico")), inventory.Cluster, steerers, "ClusterRole/r pass"},
		{"policies, read", role("ClusterRole", "r", rule("networking.k8s.io", "networkpolicies", "get", "")) + bind("ClusterRoleBinding", "b", "ClusterRole", "r", user("jane")), inventory.Cluster, steerers, "ClusterRole/r pass"},
		{"edit handed out everywhere", bind("ClusterRoleBinding", "b", "ClusterRole", "edit", sa("shop", "web")), inventory.Files, steerers, "ClusterRole/edit fail"},
		{"logs everywhere", role("ClusterRole", "r", logs) + bind("ClusterRoleBinding", "b", "ClusterRole", "r", group("devs")), inventory.Cluster, observers, "ClusterRole/r fail"},
		{"logs in a namespace", role("ClusterRole", "r", logs) + bind("RoleBinding", "b", "ClusterRole", "r", group("devs")), inventory.Cluster, observers, "ClusterRole/r pass"},
		{"logs in a Role", role("Role", "r", logs), inventory.Cluster, observers, ""},
		{"view handed out everywhere", bind("ClusterRoleBinding", "b", "ClusterRole", "view", group("devs")), inventory.Files, observers, "ClusterRole/view fail"},
		{"view in a namespace", builtIn("view", logs) + bind("RoleBinding", "b", "ClusterRole", "view", group("devs")), inventory.Cluster, observers, "ClusterRole/view not-applicable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(tt.check(analyze(t, tt.origin, tt.manifests))); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
