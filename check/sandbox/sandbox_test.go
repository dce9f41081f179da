package sandbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/sandbox"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

func TestUntrusted(t *testing.T) {
	class := func(handler string) string {
		return fmt.Sprintf("---\n{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: box}, handler: %q}\n", handler)
	}
	const label = sandbox.Label + ": untrusted"
	tests := []struct {
		name, labels, spec, more string
		want                     finding.Status
		says                     string
	}{
		{"trusted", "", "", "", finding.NotApplicable, "neither"},
		{"another word", sandbox.Label + ": low", "", "", finding.NotApplicable, "neither"},
		{"no class", label, "", "", finding.Fail, "shares the kernel"},
		{"empty class", label, `runtimeClassName: "",`, "", finding.Fail, "shares the kernel"},
		{"gVisor", label, "runtimeClassName: box,", class("runsc"), finding.Pass, "runsc"},
		{"Kata with a suffix", label, "runtimeClassName: box,", class("kata-mshv"), finding.Pass, "kata-mshv"},
		{"Hyper-V", label, "runtimeClassName: box,", class("runhcs-wcow-hypervisor"), finding.Pass, "hypervisor"},
		{"Windows process", label, "runtimeClassName: box,", class("runhcs-wcow-process"), finding.Fail, "no sandbox"},
		{"crun", label, "runtimeClassName: box,", class("crun"), finding.Fail, "no sandbox"},
		{"no handler", label, "runtimeClassName: box,", class(""), finding.Fail, "no sandbox"},
		{"class elsewhere", label, "runtimeClassName: box,", "", finding.Unknown, "not among the files"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {%s}}, spec: {%s containers: [{name: web, image: web}]}}\n%s", tt.labels, tt.spec, tt.more)
			inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			got := sandbox.Untrusted(inv)
			if len(got) != 1 || got[0].Status != tt.want || !strings.Contains(got[0].Message+got[0].Reason+got[0].Evidence, tt.says) {
				t.Errorf("%+v, want %s with %q", got, tt.want, tt.says)
			}
			gaps := []inventory.Gap{{Kind: schema.GroupKind{Group: "node.k8s.io", Kind: "RuntimeClass"}, Reason: "forbidden"}}
			if inv, err = inventory.New(inventory.Cluster, inv.Objects(), gaps); err != nil {
				t.Fatal(err)
			}
			if got := sandbox.Untrusted(inv); tt.want == finding.Unknown && !strings.Contains(got[0].Reason, "forbidden") {
				t.Errorf("reason %q", got[0].Reason)
			}
		})
	}
}
