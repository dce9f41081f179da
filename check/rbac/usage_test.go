package rbac_test

import (
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var (
	noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	week = noon.Add(-8 * 24 * time.Hour)
)

func use(user, verb, group, resource, namespace string, from time.Time) evidence.Use {
	return evidence.Use{Origin: evidence.Origin{Kind: evidence.Audit, SeenAt: noon}, User: user, Verb: verb, Group: group, Resource: resource, Namespace: namespace, From: from}
}

func TestUnused(t *testing.T) {
	const web = "system:serviceaccount:shop:web"
	pods := here(rule(`""`, "pods", "get, list", ""))
	tests := []struct {
		name, manifests string
		uses            []evidence.Use
		want            finding.Status
		evidence        string
	}{
		{"all used", pods, []evidence.Use{use(web, "get", "", "pods", "shop", week), use(web, "list", "", "pods", "shop", week)}, finding.Pass, "every right was used from 2026-11-18 to 2026-11-26"},
		{"one is not", pods, []evidence.Use{use(web, "get", "", "pods", "shop", week)}, finding.Fail, `not used: "list pods"; used: "get pods"`},
		{"used elsewhere by another binding", pods, []evidence.Use{use(web, "get", "", "pods", "shop", week), use(web, "list", "", "pods", "other", week)}, finding.Fail, `not used: "list pods"; used: "get pods"`},
		{"used by someone else", pods, []evidence.Use{use("jane", "get", "", "pods", "shop", week)}, finding.Fail, `not used: "get pods", "list pods"; used: none`},
		{"a subresource is another right", pods, []evidence.Use{use(web, "get", "", "pods", "shop", week), use(web, "list", "", "pods/log", "shop", week)}, finding.Fail, `not used: "list pods"; used: "get pods"`},
		{"another group", here(rule("apps", "deployments", "get", "")), []evidence.Use{use(web, "get", "extensions", "deployments", "shop", week)}, finding.Fail, `not used: "get deployments.apps"; used: none`},
		{"a wildcard", here(rule(`"*"`, `"*"`, `"*"`, "")), []evidence.Use{use(web, "get", "", "pods", "shop", week)}, finding.Pass, "every right was used from 2026-11-18 to 2026-11-26"},
		{"by its group", role("Role", "r", rule(`""`, "pods", "get", "")) + bind("RoleBinding", "b", "Role", "r", group("system:serviceaccounts:shop")), []evidence.Use{use(web, "get", "", "pods", "shop", week)}, finding.Pass, "every right was used from 2026-11-18 to 2026-11-26"},
		{"a short log", pods, []evidence.Use{use(web, "get", "", "pods", "shop", noon.Add(-time.Hour))}, finding.Unknown, ""},
		{"no log", pods, nil, finding.Unknown, ""},
		{"not granted", role("Role", "r", rule(`""`, "pods", "get", "")), []evidence.Use{use(web, "get", "", "pods", "shop", week)}, finding.NotApplicable, ""},
		{"no rules", here(""), nil, finding.NotApplicable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := analyze(t, inventory.Cluster, tt.manifests).Unused(&evidence.Set{Uses: tt.uses})
			if len(got) != 1 || got[0].Status != tt.want || got[0].Evidence != tt.evidence {
				t.Errorf("%+v, want %s: %s", got, tt.want, tt.evidence)
			}
			if judged := tt.want == finding.Pass || tt.want == finding.Fail; judged && !got[0].ObservedAt.Equal(noon) {
				t.Errorf("observed at %v", got[0].ObservedAt)
			}
		})
	}
}

func TestLogons(t *testing.T) {
	by := func(user, verb, resource, credential string) evidence.Use {
		u := use(user, verb, "", resource, "shop", week)
		u.Credential = credential
		return u
	}
	node := by("system:node:a", "get", "pods", "X509SHA256")
	for name, tt := range map[string]struct {
		uses []evidence.Use
		want finding.Status
	}{
		"a person by token":                {[]evidence.Use{node, by("jane", "get", "pods", "JTI")}, finding.Pass},
		"a person by certificate":          {[]evidence.Use{node, by("jane", "get", "pods", "X509SHA256")}, finding.Fail},
		"a bootstrap token at work":        {[]evidence.Use{by("system:bootstrap:abcdef", "list", "pods", "")}, finding.Fail},
		"a bootstrap token joins":          {[]evidence.Use{node, by("jane", "get", "pods", "JTI"), by("system:bootstrap:abcdef", "create", "certificatesigningrequests", "")}, finding.Pass},
		"no people":                        {[]evidence.Use{node}, ""},
		"a server that does not say how":   {[]evidence.Use{by("jane", "get", "pods", "")}, ""},
		"no log":                           {nil, ""},
		"components may have certificates": {[]evidence.Use{node, by("system:kube-scheduler", "get", "pods", "X509SHA256")}, ""},
	} {
		got := rbac.Logons(&evidence.Set{Uses: tt.uses})
		if tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || got[0].Status != tt.want) {
			t.Errorf("%s: %+v, want %q", name, got, tt.want)
		}
	}
}
