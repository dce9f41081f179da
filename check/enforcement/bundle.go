package enforcement

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Bundle says whether the policies of the inventory are those whose digest a
// pipeline has recorded. Where none is recorded the reason gives the digest of
// these, for the pipeline to record.
func Bundle(inv *inventory.Inventory, seen *evidence.Set) []finding.Verdict {
	have, n := digest(inv)
	f := finding.Verdict{Subject: finding.Subject{Kind: "Pipeline"}}
	if seen == nil || len(seen.Bundles) == 0 {
		if n == 0 {
			return nil
		}
		f.Status = finding.Unknown
		f.Reason = fmt.Sprintf("no digest of a tested bundle; that of these %d policies and bindings is %s", n, have)
		return []finding.Verdict{f}
	}
	want := slices.MaxFunc(seen.Bundles, func(a, b evidence.Bundle) int { return a.SeenAt.Compare(b.SeenAt) })
	f.EvidenceKind, f.ObservedAt = string(want.Kind), want.SeenAt
	f.Evidence = fmt.Sprintf("%d policies and bindings have digest %s; %s", n, have, want.Source)
	switch gap := policyGap(inv); {
	case want.Digest == have:
		f.Status = finding.Pass
	case gap != "":
		f.Status, f.Reason, f.Evidence = finding.Unknown, gap, ""
	default:
		f.Status, f.Message = finding.Fail, "the policies are not those that the pipeline tested: it recorded "+want.Digest
	}
	return []finding.Verdict{f}
}

func policyGap(inv *inventory.Inventory) string {
	for _, gap := range inv.Gaps {
		if bundled[gap.Kind.Group+"/"+gap.Kind.Kind] {
			return gap.Kind.Kind + " objects could not be read: " + gap.Reason
		}
	}
	return ""
}

// bundled are the kinds that make up a bundle. Those of Gatekeeper are left
// out: the kinds of its constraints are known only to a cluster that has them.
var bundled = map[string]bool{
	admissionGroup + "/ValidatingAdmissionPolicy":        true,
	admissionGroup + "/ValidatingAdmissionPolicyBinding": true,
	kyverno + "/ClusterPolicy":                           true,
	kyverno + "/Policy":                                  true,
}

// digest sums up the kind, name and specification of every policy and binding,
// in the order of the inventory. What the API server adds where nothing is
// written is left out, so that files and the cluster they are applied to agree.
func digest(inv *inventory.Inventory) (sum string, n int) {
	hash := sha256.New()
	for _, o := range inv.Objects() {
		gk := o.GroupVersionKind().GroupKind()
		if !bundled[gk.Group+"/"+gk.Kind] {
			continue
		}
		spec, _ := written(o.Object["spec"]).(map[string]any)
		// The error is for values that JSON cannot hold, which come from no reader.
		text, _ := json.Marshal([]any{gk.Kind, o.GetNamespace(), o.GetName(), spec})
		hash.Write(append(text, '\n'))
		n++
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), n
}

// defaults are what the API server fills in.
var defaults = map[string]any{
	"failurePolicy": "Fail", "matchPolicy": "Equivalent", "scope": "*",
	"admission": true, "background": true, "emitWarning": false, "skipBackgroundRequests": true, "allowExistingViolations": true,
}

// written returns a value without empty values and defaults.
func written(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			filled, has := defaults[key]
			if w := written(item); w != nil && !(has && filled == w) {
				out[key] = w
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		var out []any
		for _, item := range v {
			out = append(out, written(item))
		}
		if len(out) == 0 {
			return nil
		}
		return out
	}
	return value
}
