package limits_test

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/limits"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestNamespaces(t *testing.T) {
	const (
		shop    = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n"
		quota   = "---\n{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, namespace: shop}, spec: {hard: {pods: '10'}}}\n"
		limit   = "---\n{apiVersion: v1, kind: LimitRange, metadata: {name: l, namespace: shop}, spec: {limits: [{type: Container, default: {cpu: 1}}]}}\n"
		another = "---\n{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, namespace: other}, spec: {hard: {pods: '10'}}}\n"
	)
	lost := []inventory.Gap{{Kind: schema.GroupKind{Kind: "ResourceQuota"}, Reason: "forbidden"}}
	for name, tt := range map[string]struct {
		manifests string
		gaps      []inventory.Gap
		want      finding.Status
		says      string
	}{
		"both":                     {shop + quota + limit, nil, finding.Pass, ""},
		"no quota":                 {shop + limit, nil, finding.Fail, "has no ResourceQuota"},
		"no limits":                {shop + quota, nil, finding.Fail, "has no LimitRange"},
		"neither":                  {shop, nil, finding.Fail, "has no ResourceQuota and no LimitRange"},
		"the quota of another one": {shop + another + limit, nil, finding.Fail, "has no ResourceQuota"},
		"quotas not read":          {shop + limit, lost, finding.Unknown, "forbidden"},
		"of Kubernetes":            {strings.ReplaceAll(shop, "shop", "kube-system"), nil, finding.NotApplicable, ""},
	} {
		inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(tt.manifests))
		if err != nil {
			t.Fatal(err)
		}
		if inv, err = inventory.New(inventory.Cluster, inv.Objects(), tt.gaps); err != nil {
			t.Fatal(err)
		}
		if got := limits.Namespaces(inv); len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Message+got[0].Reason, tt.says) {
			t.Errorf("%s: %+v, want %s %q", name, got, tt.want, tt.says)
		}
	}
}
