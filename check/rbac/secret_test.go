package rbac_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestReadersOf(t *testing.T) {
	const pods = `
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: shop}
spec: {serviceAccountName: one, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: blog}
spec: {serviceAccountName: two, containers: [{name: c, image: i}]}
`
	role := func(kind, ns, rules string) string {
		return "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: " + kind + ", metadata: {name: r" + ns + "}, rules: [" + rules + "]}\n"
	}
	bind := func(kind, ns, role, subject string) string {
		return "---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: " + kind + ", metadata: {name: b" + ns + "}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: " + role + ", name: r}, subjects: [" + subject + "]}\n"
	}
	const two, all = "{kind: ServiceAccount, name: two, namespace: blog}", "{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts'}"
	read := "{apiGroups: [''], resources: [secrets], verbs: [get]}"
	tests := []struct{ name, access, want string }{
		{"nobody", "", ""},
		{"in the namespace", role("Role", ", namespace: shop", read) + bind("RoleBinding", ", namespace: shop", "Role", two), "two"},
		{"in another", role("Role", ", namespace: blog", read) + bind("RoleBinding", ", namespace: blog", "Role", two), ""},
		{"everywhere", role("ClusterRole", "", read) + bind("ClusterRoleBinding", "", "ClusterRole", two), "two"},
		{"a role for all, bound here", role("ClusterRole", "", read) + bind("RoleBinding", ", namespace: shop", "ClusterRole", two), "two"},
		{"by their group", role("ClusterRole", "", read) + bind("ClusterRoleBinding", "", "ClusterRole", all), "one two"},
		{"this name", role("ClusterRole", "", "{apiGroups: [''], resources: [secrets], resourceNames: [a], verbs: [get]}") + bind("ClusterRoleBinding", "", "ClusterRole", two), "two"},
		{"another name", role("ClusterRole", "", "{apiGroups: [''], resources: [secrets], resourceNames: [b], verbs: [get]}") + bind("ClusterRoleBinding", "", "ClusterRole", two), ""},
		{"writes only", role("ClusterRole", "", "{apiGroups: [''], resources: [secrets], verbs: [create]}") + bind("ClusterRoleBinding", "", "ClusterRole", two), ""},
		{"everything", role("ClusterRole", "", "{apiGroups: ['*'], resources: ['*'], verbs: ['*']}") + bind("ClusterRoleBinding", "", "ClusterRole", two), "two"},
		{"another resource", role("ClusterRole", "", "{apiGroups: [''], resources: [configmaps], verbs: [get]}") + bind("ClusterRoleBinding", "", "ClusterRole", two), ""},
		{"a role that is not there", bind("ClusterRoleBinding", "", "ClusterRole", two), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(pods+tt.access))
			if err != nil {
				t.Fatal(err)
			}
			access, err := rbac.New(inv)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range access.ReadersOf()("shop", "a") {
				got = append(got, w.GetName())
			}
			slices.Sort(got)
			if text := strings.Join(slices.Compact(got), " "); text != tt.want {
				t.Errorf("readers %q, want %q", text, tt.want)
			}
		})
	}
}
