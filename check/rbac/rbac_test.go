package rbac_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func analyze(t testing.TB, origin inventory.Origin, manifests string, gaps ...inventory.Gap) *rbac.Access {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(manifests))
	if err != nil {
		t.Fatal(err)
	}
	inv, err = inventory.New(origin, inv.Objects(), gaps)
	if err != nil {
		t.Fatal(err)
	}
	a, err := rbac.New(inv)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// show writes findings as "Kind/namespace/name status", sorted.
func show(findings []finding.Verdict) string {
	var lines []string
	for _, f := range findings {
		lines = append(lines, fmt.Sprintf("%s %s", f.Subject, f.Status))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// role, clusterRole and the like write one object, each on one line.
func role(kind, name, rules string) string {
	return fmt.Sprintf("---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: %s, metadata: {name: %q, namespace: %s}, rules: [%s]}\n",
		kind, name, map[string]string{"Role": "shop"}[kind], rules)
}

func builtIn(name, rules string) string {
	return fmt.Sprintf("---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: %q, labels: {kubernetes.io/bootstrapping: rbac-defaults}}, rules: [%s]}\n",
		name, rules)
}

func bind(kind, name, roleKind, roleName string, subjects ...string) string {
	return fmt.Sprintf("---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: %s, metadata: {name: %q, namespace: %s}, "+
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: %q}, subjects: [%s]}\n",
		kind, name, map[string]string{"RoleBinding": "shop"}[kind], roleKind, roleName, strings.Join(subjects, ", "))
}

func user(name string) string {
	return fmt.Sprintf("{apiGroup: rbac.authorization.k8s.io, kind: User, name: %q}", name)
}
func group(name string) string {
	return fmt.Sprintf("{apiGroup: rbac.authorization.k8s.io, kind: Group, name: %q}", name)
}
func sa(namespace, name string) string {
	return fmt.Sprintf("{kind: ServiceAccount, namespace: %q, name: %q}", namespace, name)
}

func rule(groups, resources, verbs, more string) string {
	return fmt.Sprintf("{apiGroups: [%s], resources: [%s], verbs: [%s]%s}", groups, resources, verbs, more)
}

func pod(name, spec string) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop}, spec: {containers: [{name: c, image: i}]%s}}\n", name, spec)
}

const (
	shop = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n"
	all  = `{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}`
)

// What one rule grants, as the API server matches rules.
func TestRights(t *testing.T) {
	tests := []struct {
		name, rule                    string
		secrets, escalators, executor bool
	}{
		{"everything", all, true, true, true},
		{"get secrets", rule(`""`, "secrets", "get", ""), true, false, false},
		{"list secrets", rule(`""`, "secrets", "list", ""), true, false, false},
		{"watch secrets", rule(`""`, "secrets", "watch", ""), true, false, false},
		{"every verb on secrets", rule(`""`, "secrets", `"*"`, ""), true, false, false},
		{"every core resource", rule(`""`, `"*"`, "get", ""), true, false, true},
		{"named secrets", rule(`""`, "secrets", "get, list", ", resourceNames: [db]"), false, false, false},
		{"create secrets", rule(`""`, "secrets", "create, delete", ""), false, false, false},
		{"secrets of another group", rule("example.com", "secrets", "get", ""), false, false, false},
		{"every resource of another group", rule("example.com", `"*"`, `"*"`, ""), false, false, false},
		{"subresources of secrets", rule(`""`, `"secrets/*"`, "get", ""), false, false, false},
		{"bind cluster roles", rule("rbac.authorization.k8s.io", "clusterroles", "bind", ""), false, true, false},
		{"escalate roles", rule("rbac.authorization.k8s.io", "roles", "escalate", ""), false, true, false},
		{"every verb on roles", rule("rbac.authorization.k8s.io", "roles", `"*"`, ""), false, true, false},
		{"write roles", rule("rbac.authorization.k8s.io", "roles, rolebindings", "create, update, patch", ""), false, false, false},
		{"bind something else", rule("example.com", "roles", "bind", ""), false, false, false},
		{"bind pods", rule(`""`, "pods", "bind", ""), false, false, false},
		{"impersonate users", rule(`""`, "users", "impersonate", ""), false, true, false},
		{"bind a named harmless role", rule("rbac.authorization.k8s.io", "clusterroles", "bind", ", resourceNames: [view]"), false, false, false},
		{"bind a named powerful role", rule("rbac.authorization.k8s.io", "clusterroles", "bind", ", resourceNames: [view, edit]"), false, true, false},
		{"bind cluster-admin by name", rule("rbac.authorization.k8s.io", "clusterroles", "bind", ", resourceNames: [cluster-admin]"), false, true, false},
		{"escalate a named role", rule("rbac.authorization.k8s.io", "clusterroles", "escalate", ", resourceNames: [view]"), false, true, false},
		{"every verb on a named role", rule("rbac.authorization.k8s.io", "clusterroles", `"*"`, ", resourceNames: [view]"), false, true, false},
		{"impersonate a named account", rule(`""`, "serviceaccounts", "impersonate", ", resourceNames: [ci]"), false, false, false},
		{"impersonate a named user", rule(`""`, "users", "impersonate", ", resourceNames: [jane]"), false, false, false},
		{"impersonate a system user", rule(`""`, "users", "impersonate", `, resourceNames: [jane, "system:admin"]`), false, true, false},
		{"impersonate a named group", rule(`""`, "groups", "impersonate", ", resourceNames: [devs]"), false, false, false},
		{"impersonate administrators", rule(`""`, "groups", "impersonate", `, resourceNames: ["system:masters"]`), false, true, false},
		{"impersonate extra", rule("authentication.k8s.io", "userextras/scopes", "impersonate", ""), false, true, false},
		{"impersonate in a foreign group", rule("example.com", "users", "impersonate", ""), false, false, false},
		{"read accounts", rule(`""`, "serviceaccounts", "get, list", ""), false, false, false},
		{"exec", rule(`""`, "pods/exec", "create", ""), false, false, true},
		{"exec by get", rule(`""`, "pods/exec", "get", ""), false, false, true},
		{"exec into a named pod", rule(`""`, "pods/exec", "create", ", resourceNames: [db-0]"), false, false, true},
		{"exec of every resource", rule(`""`, `"*/exec"`, "create", ""), false, false, true},
		{"attach", rule(`""`, "pods/attach", "create", ""), false, false, true},
		{"port-forward", rule(`""`, "pods/portforward", "create", ""), false, false, true},
		{"ephemeral containers", rule(`""`, "pods/ephemeralcontainers", "patch", ""), false, false, true},
		{"reading ephemeral containers", rule(`""`, "pods/ephemeralcontainers", "get", ""), false, false, false},
		{"pods alone", rule(`""`, "pods", `"*"`, ""), false, false, false},
		{"a star that covers nothing", rule(`""`, `"pods/*"`, "create", ""), false, false, false},
		{"logs", rule(`""`, "pods/log", "get", ""), false, false, false},
		{"scale of everything", rule(`"*"`, `"*/scale"`, `"*"`, ""), false, false, false},
		{"non-resource URLs", `{nonResourceURLs: ["*"], verbs: ["*"]}`, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, kind := range []string{"Role", "ClusterRole"} {
				a := analyze(t, inventory.Files, role(kind, "r", tt.rule))
				for _, check := range []struct {
					name     string
					findings []finding.Verdict
					fails    bool
				}{
					{"secrets", a.SecretReaders(), tt.secrets}, {"escalate", a.Escalators(), tt.escalators}, {"execute", a.Executors(), tt.executor},
				} {
					if len(check.findings) != 1 || (check.findings[0].Status == finding.Fail) != check.fails {
						t.Errorf("%s %s: %s, want fail %v", kind, check.name, show(check.findings), check.fails)
					}
				}
			}
		})
	}
}

func TestRightsAreShown(t *testing.T) {
	a := analyze(t, inventory.Files, role("Role", "r", rule(`""`, "pods", "get", "")+", "+rule(`""`, "secrets", "list", ""))+
		bind("RoleBinding", "b", "Role", "r", sa("shop", "ci"), group("devs")))
	f := a.SecretReaders()[0]
	want := `rule 2: verbs "list" on "secrets" in groups ""; granted to service account shop/ci, group devs`
	if f.Evidence != want {
		t.Errorf("evidence %q, want %q", f.Evidence, want)
	}
}

func TestAggregation(t *testing.T) {
	parts := `---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: top}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: top}}]}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: middle, labels: {to: top}}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: middle}}]}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: part, labels: {to: middle}}, rules: [{apiGroups: [""], resources: [secrets], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: circle, labels: {to: circle}}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: circle}}]}, rules: []}
`
	files := analyze(t, inventory.Files, parts)
	if got, want := show(files.SecretReaders()), "ClusterRole/circle unknown\nClusterRole/middle fail\nClusterRole/part fail\nClusterRole/top fail"; got != want {
		t.Errorf("files:\n%s\nwant:\n%s", got, want)
	}
	live := analyze(t, inventory.Cluster, parts)
	if got := show(live.SecretReaders()); !strings.Contains(got, "ClusterRole/circle pass") {
		t.Errorf("a live cluster holds all parts:\n%s", got)
	}
}

// Roles that the API server creates for itself are not reported, unless they
// are changed or handed out beyond what they are for.
func TestBuiltInRoles(t *testing.T) {
	secrets := rule(`""`, "secrets", "get, list, watch", "")
	exec := rule(`""`, "pods/exec", "create", "")
	tests := []struct {
		name, manifests, secrets, executors string
	}{
		{"unchanged", builtIn("edit", secrets+", "+exec), "ClusterRole/edit not-applicable", "ClusterRole/edit not-applicable"},
		{"system role", builtIn("system:node", secrets), "ClusterRole/system:node not-applicable", "ClusterRole/system:node not-applicable"},
		{"changed", builtIn("system:node", secrets+", "+exec), "ClusterRole/system:node not-applicable", "ClusterRole/system:node fail"},
		{"the label excuses nothing", builtIn("system:mine", secrets), "ClusterRole/system:mine fail", "ClusterRole/system:mine not-applicable"},
		{"nor does the name", role("ClusterRole", "system:node", secrets), "ClusterRole/system:node fail", "ClusterRole/system:node pass"},
		{"in one namespace", builtIn("edit", secrets+", "+exec) + bind("RoleBinding", "b", "ClusterRole", "edit", sa("shop", "ci")),
			"ClusterRole/edit not-applicable", "ClusterRole/edit not-applicable"},
		{"handed out everywhere", builtIn("edit", secrets+", "+exec) + bind("ClusterRoleBinding", "b", "ClusterRole", "edit", sa("shop", "ci")),
			"ClusterRole/edit fail", "ClusterRole/edit fail"},
		{"handed to administrators", builtIn("edit", secrets+", "+exec) + bind("ClusterRoleBinding", "b", "ClusterRole", "edit", group("system:masters")),
			"ClusterRole/edit not-applicable", "ClusterRole/edit not-applicable"},
		{"handed out, without the role among the files", bind("ClusterRoleBinding", "b", "ClusterRole", "admin", sa("shop", "ci")),
			"ClusterRole/admin fail", "ClusterRole/admin fail"},
		{"view holds nothing of this", bind("ClusterRoleBinding", "b", "ClusterRole", "view", sa("shop", "ci")), "", ""},
		{"cluster-admin is spoken of elsewhere", builtIn("cluster-admin", all) + bind("ClusterRoleBinding", "b", "ClusterRole", "cluster-admin", sa("shop", "ci")),
			"ClusterRole/cluster-admin not-applicable", "ClusterRole/cluster-admin not-applicable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := analyze(t, inventory.Files, tt.manifests)
			if got := show(a.SecretReaders()); got != tt.secrets {
				t.Errorf("secrets: %s, want %s", got, tt.secrets)
			}
			if got := show(a.Executors()); got != tt.executors {
				t.Errorf("execute: %s, want %s", got, tt.executors)
			}
		})
	}
}

func TestAdminBindings(t *testing.T) {
	admin := builtIn("cluster-admin", all)
	crb := func(role string, subjects ...string) string {
		return bind("ClusterRoleBinding", "b", "ClusterRole", role, subjects...)
	}
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		want            finding.Status
	}{
		{"service account", admin + crb("cluster-admin", sa("shop", "ci")), inventory.Cluster, finding.Fail},
		{"component in kube-system", admin + crb("cluster-admin", sa("kube-system", "storage")), inventory.Cluster, finding.NotApplicable},
		{"every node", admin + crb("cluster-admin", group("system:nodes")), inventory.Cluster, finding.Fail},
		{"scheduler", admin + crb("cluster-admin", user("system:kube-scheduler")), inventory.Cluster, finding.NotApplicable},
		{"service account by its user name", admin + crb("cluster-admin", user("system:serviceaccount:shop:ci")), inventory.Cluster, finding.Fail},
		{"person", admin + crb("cluster-admin", user("jane")), inventory.Cluster, finding.Fail},
		{"anonymous", admin + crb("cluster-admin", user("system:anonymous")), inventory.Cluster, finding.Fail},
		{"everybody", admin + crb("cluster-admin", group("system:authenticated")), inventory.Cluster, finding.Fail},
		{"all service accounts", admin + crb("cluster-admin", group("system:serviceaccounts:shop")), inventory.Cluster, finding.Fail},
		{"administrators", admin + crb("cluster-admin", group("system:masters")), inventory.Cluster, finding.NotApplicable},
		{"administrators of kubeadm", admin + crb("cluster-admin", group("kubeadm:cluster-admins")), inventory.Cluster, finding.NotApplicable},
		{"administrators and a person", admin + crb("cluster-admin", group("system:masters"), user("jane")), inventory.Cluster, finding.Fail},
		{"nobody", admin + crb("cluster-admin"), inventory.Cluster, finding.Pass},
		{"an equal role under another name", role("ClusterRole", "helper", all) + crb("helper", sa("shop", "ci")), inventory.Cluster, finding.Fail},
		{"a role short of a wildcard", role("ClusterRole", "helper", rule(`"*"`, `"*"`, "get, list", "")) + crb("helper", sa("shop", "ci")), inventory.Cluster, finding.Pass},
		{"named objects only", role("ClusterRole", "helper", rule(`"*"`, `"*"`, `"*"`, ", resourceNames: [x]")) + crb("helper", sa("shop", "ci")), inventory.Cluster, finding.Pass},
		{"a role called cluster-admin that is not", role("ClusterRole", "cluster-admin", rule(`""`, "pods", "get", "")) + crb("cluster-admin", sa("shop", "ci")), inventory.Cluster, finding.Pass},
		{"dangling", crb("gone", sa("shop", "ci")), inventory.Cluster, finding.Pass},
		{"in files, cluster-admin is known", crb("cluster-admin", sa("shop", "ci")), inventory.Files, finding.Fail},
		{"in files, view is known", crb("view", sa("shop", "ci")), inventory.Files, finding.Pass},
		{"in files, another role is not", crb("gone", sa("shop", "ci")), inventory.Files, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := analyze(t, tt.origin, tt.manifests).AdminBindings()
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("findings %+v, want one %s", got, tt.want)
			}
		})
	}
	inOneNamespace := admin + bind("RoleBinding", "b", "ClusterRole", "cluster-admin", sa("shop", "ci"))
	if got := analyze(t, inventory.Cluster, inOneNamespace).AdminBindings(); len(got) != 0 {
		t.Errorf("a RoleBinding is no subject: %s", show(got))
	}
}

func TestDefaultAccounts(t *testing.T) {
	account := "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop}}\n"
	reader := role("Role", "r", rule(`""`, "pods", "get", ""))
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		want            string
	}{
		{"used without a name", pod("web", ""), inventory.Files, "Pod/shop/web fail"},
		{"used by name", pod("web", ", serviceAccountName: default"), inventory.Files, "Pod/shop/web fail"},
		{"another account", pod("web", ", serviceAccountName: web"), inventory.Files, "Pod/shop/web pass"},
		{"another account by the old name", pod("web", ", serviceAccount: web"), inventory.Files, "Pod/shop/web pass"},
		{"not bound", account, inventory.Cluster, "ServiceAccount/shop/default pass"},
		{"not bound in files", account, inventory.Files, "ServiceAccount/shop/default unknown"},
		{"not bound in files of the namespace", account + shop, inventory.Files, "ServiceAccount/shop/default pass"},
		{"bound", account + reader + bind("RoleBinding", "b", "Role", "r", sa("shop", "default")), inventory.Cluster, "ServiceAccount/shop/default fail"},
		{"bound without namespace", account + reader + bind("RoleBinding", "b", "Role", "r", sa("", "default")), inventory.Files, "ServiceAccount/shop/default fail"},
		{"bound as a user", account + reader + bind("RoleBinding", "b", "Role", "r", user("system:serviceaccount:shop:default")), inventory.Cluster, "ServiceAccount/shop/default fail"},
		{"bound by its group", account + reader + bind("RoleBinding", "b", "Role", "r", group("system:serviceaccounts:shop")), inventory.Cluster, "ServiceAccount/shop/default fail"},
		{"bound, without an object", reader + bind("RoleBinding", "b", "Role", "r", sa("shop", "default")), inventory.Files, "ServiceAccount/shop/default fail"},
		{"dangling binding", account + bind("RoleBinding", "b", "Role", "gone", sa("shop", "default")), inventory.Cluster, "ServiceAccount/shop/default pass"},
		{"binding to a role elsewhere", account + bind("RoleBinding", "b", "ClusterRole", "view", sa("shop", "default")), inventory.Files, "ServiceAccount/shop/default fail"},
		{"discovery is no right", account + builtIn("system:discovery", `{nonResourceURLs: ["/api"], verbs: [get]}`) +
			bind("ClusterRoleBinding", "b", "ClusterRole", "system:discovery", group("system:authenticated")), inventory.Cluster, "ServiceAccount/shop/default pass"},
		{"other accounts are no subject", reader + bind("RoleBinding", "b", "Role", "r", sa("shop", "web")), inventory.Files, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(analyze(t, tt.origin, tt.manifests).DefaultAccounts()); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestNeedlessTokens(t *testing.T) {
	account := func(more string) string {
		return "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: shop}" + more + "}\n"
	}
	bound := role("Role", "r", rule(`""`, "pods", "get", "")) + bind("RoleBinding", "b", "Role", "r", sa("shop", "web"))
	web := ", serviceAccountName: web"
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		gaps            []inventory.Gap
		want            finding.Status
	}{
		{"mounted without rights", shop + account("") + pod("p", web), inventory.Files, nil, finding.Fail},
		{"in a live cluster", account("") + pod("p", web), inventory.Cluster, nil, finding.Fail},
		{"the account says no", account(", automountServiceAccountToken: false") + pod("p", web), inventory.Files, nil, finding.Pass},
		{"the pod says no", account("") + pod("p", web+", automountServiceAccountToken: false"), inventory.Files, nil, finding.Pass},
		{"the pod overrules the account", shop + account(", automountServiceAccountToken: false") + pod("p", web+", automountServiceAccountToken: true"), inventory.Files, nil, finding.Fail},
		{"a projected token", shop + account("") + pod("p", web+", automountServiceAccountToken: false, volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: t}}]}}]"), inventory.Files, nil, finding.Fail},
		{"a projected token for another audience", shop + account("") + pod("p", web+", automountServiceAccountToken: false, volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: t, audience: vault}}]}}]"), inventory.Files, nil, finding.Pass},
		{"the account has a role", shop + account("") + pod("p", web) + bound, inventory.Files, nil, finding.Pass},
		{"an empty role is none", shop + account("") + pod("p", web) + role("Role", "r", "") + bind("RoleBinding", "b", "Role", "r", sa("shop", "web")), inventory.Files, nil, finding.Fail},
		{"a role of another namespace's account", shop + account("") + pod("p", web) + role("Role", "r", rule(`""`, "pods", "get", "")) +
			bind("RoleBinding", "b", "Role", "r", sa("other", "web")), inventory.Files, nil, finding.Fail},
		{"the account is elsewhere", shop + pod("p", web), inventory.Files, nil, finding.Unknown},
		{"the namespace is elsewhere", account("") + pod("p", web), inventory.Files, nil, finding.Unknown},
		{"the default account needs no object", shop + pod("p", ""), inventory.Files, nil, finding.Fail},
		{"accounts could not be read", pod("p", web), inventory.Cluster, []inventory.Gap{{Kind: schema.GroupKind{Kind: "ServiceAccount"}, Reason: "forbidden"}}, finding.Unknown},
		{"bindings could not be read", account("") + pod("p", web), inventory.Cluster,
			[]inventory.Gap{{Kind: schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}, Reason: "forbidden"}}, finding.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := analyze(t, tt.origin, tt.manifests, tt.gaps...).NeedlessTokens()
			if len(got) != 1 || got[0].Status != tt.want {
				t.Errorf("findings %+v, want one %s", got, tt.want)
			}
		})
	}
}

func TestSharedAccounts(t *testing.T) {
	deployment := func(name, labels, account string) string {
		return fmt.Sprintf("---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: %s, namespace: shop, labels: {%s}}, spec: {selector: {matchLabels: {role: worker}}, "+
			"template: {metadata: {labels: {role: worker}}, spec: {serviceAccountName: %s, containers: [{name: c, image: i}]}}}}\n", name, labels, account)
	}
	pods := []inventory.Gap{{Kind: schema.GroupKind{Kind: "Pod"}, Reason: "forbidden"}}
	tests := []struct {
		name, manifests string
		origin          inventory.Origin
		gaps            []inventory.Gap
		want            string
	}{
		{"two applications", deployment("a", "", "red") + deployment("b", "", "red"), inventory.Files, nil, "Deployment/shop/a fail\nDeployment/shop/b fail"},
		{"an account each", shop + deployment("a", "", "red") + deployment("b", "", "blue"), inventory.Files, nil, "Deployment/shop/a pass\nDeployment/shop/b pass"},
		{"one application", shop + deployment("a", "app.kubernetes.io/name: s", "red") + deployment("b", "app.kubernetes.io/name: s", "red"), inventory.Files, nil,
			"Deployment/shop/a pass\nDeployment/shop/b pass"},
		{"two instances of one", deployment("a", "app.kubernetes.io/name: s, app.kubernetes.io/instance: i", "red") +
			deployment("b", "app.kubernetes.io/name: s, app.kubernetes.io/instance: j", "red"), inventory.Files, nil, "Deployment/shop/a fail\nDeployment/shop/b fail"},
		{"one by the app label", shop + deployment("a", "app: s", "red") + deployment("b", "app: s", "red"), inventory.Files, nil, "Deployment/shop/a pass\nDeployment/shop/b pass"},
		{"a lone file", deployment("a", "", "red"), inventory.Files, nil, "Deployment/shop/a unknown"},
		{"a live cluster", deployment("a", "", "red"), inventory.Cluster, nil, "Deployment/shop/a pass"},
		{"a live cluster without its pods", deployment("a", "", "red"), inventory.Cluster, pods, "Deployment/shop/a unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(analyze(t, tt.origin, tt.manifests, tt.gaps...).SharedAccounts()); got != tt.want {
				t.Errorf("%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// Who stands behind an RBAC object decides how exposed it is.
func TestWorkloads(t *testing.T) {
	a := analyze(t, inventory.Files, pod("web", ", serviceAccountName: web")+pod("db", ", serviceAccountName: db")+
		role("Role", "one", "")+bind("RoleBinding", "one", "Role", "one", sa("shop", "web"))+
		role("ClusterRole", "all", "")+bind("ClusterRoleBinding", "all", "ClusterRole", "all", group("system:serviceaccounts"))+
		role("Role", "people", "")+bind("RoleBinding", "people", "Role", "people", user("jane")))
	for subject, want := range map[finding.Subject]string{
		{Kind: "Role", Namespace: "shop", Name: "one"}:           "[web]",
		{Kind: "RoleBinding", Namespace: "shop", Name: "one"}:    "[web]",
		{Kind: "ClusterRole", Name: "all"}:                       "[db web]",
		{Kind: "ClusterRoleBinding", Name: "all"}:                "[db web]",
		{Kind: "Role", Namespace: "shop", Name: "people"}:        "[]",
		{Kind: "Role", Namespace: "other", Name: "one"}:          "[]",
		{Kind: "ServiceAccount", Namespace: "shop", Name: "db"}:  "[db]",
		{Kind: "ServiceAccount", Namespace: "shop", Name: "out"}: "[]",
	} {
		names := map[string]bool{}
		for _, w := range a.Workloads(subject) {
			names[w.GetName()] = true
		}
		if got := fmt.Sprint(slices.Sorted(maps.Keys(names))); got != want {
			t.Errorf("%s: %s, want %s", subject, got, want)
		}
	}
}
