package machine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/check/machine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestAddresses(t *testing.T) {
	const cloud = ", spec: {providerID: 'aws:///eu-west-1a/i-0'}"
	for name, tt := range map[string]struct {
		addresses, more string
		want            finding.Status
	}{
		"private":                    {"{type: InternalIP, address: 10.0.0.4}, {type: Hostname, address: a}", cloud, finding.Pass},
		"external":                   {"{type: InternalIP, address: 10.0.0.4}, {type: ExternalIP, address: 203.0.113.7}", cloud, finding.Fail},
		"external, but private":      {"{type: ExternalIP, address: 192.168.1.4}", cloud, finding.Pass},
		"shared with the provider":   {"{type: ExternalIP, address: 100.64.1.4}", cloud, finding.Pass},
		"public without translation": {"{type: InternalIP, address: 203.0.113.7}", "", finding.Fail},
		"a public name":              {"{type: ExternalDNS, address: a.example.com}", cloud, finding.Fail},
		"IPv6":                       {"{type: InternalIP, address: '2001:db8::1'}", cloud, finding.Fail},
		"private IPv6":               {"{type: InternalIP, address: 'fd00::1'}", cloud, finding.Pass},
		"no cloud":                   {"{type: InternalIP, address: 10.0.0.4}", "", finding.Unknown},
		"no address":                 {"", cloud, finding.Unknown},
		"control plane":              {"{type: ExternalIP, address: 203.0.113.7}", ", spec: {providerID: x}, metadata: {name: a, labels: {node-role.kubernetes.io/control-plane: ''}}", finding.NotApplicable},
	} {
		if !strings.Contains(tt.more, "metadata") {
			tt.more += ", metadata: {name: a}"
		}
		inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(
			fmt.Sprintf("{apiVersion: v1, kind: Node, status: {addresses: [%s]}%s}", tt.addresses, tt.more)))
		if err != nil {
			t.Fatal(err)
		}
		if got := machine.Addresses(inv); len(got) != 1 || got[0].Status != tt.want {
			t.Errorf("%s: %+v, want %s", name, got, tt.want)
		}
	}
}
