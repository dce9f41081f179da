package image

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Signed says for each workload whether the signatures of its images were
// verified: by a tool whose result is among the evidence, or by an admission
// policy that demands it for the image. KubeGuardian verifies none itself.
func (im *Images) Signed() []finding.Verdict {
	judged := im.verdicts()
	return im.each(func(c *container) state {
		if v, ok := judged[c.workload]; ok && v.Result == "fail" {
			return fail(fmt.Sprintf("policy %s, rule %s (%s)", v.Policy, v.Rule, v.Source), "an image of it has no valid signature: %s", cmp.Or(v.Message, "the policy engine refuses it"))
		}
		if s := im.verified(c); s.status != "" {
			return s
		}
		by, doubt := im.demanded(c)
		if by != "" {
			return pass("%s demands a signature of %s", by, c.image)
		}
		if v, ok := judged[c.workload]; ok && v.Result == "pass" {
			return pass("policy %s found the signature valid (%s)", v.Policy, v.Source)
		}
		if doubt != "" {
			return c.open("%s; or %s", doubt, signatureHint)
		}
		return im.unsigned(c)
	})
}

// verified looks for the result of a verification of a digest that runs.
func (im *Images) verified(c *container) state {
	digests, tagOnly := im.digestsOf(c)
	for _, digest := range digests {
		for _, s := range im.signatures[digest] {
			return pass("%s by %s (%s in %s%s)", "signature verified, made", cmp.Or(s.Identity, "a key"), s.Tool, s.Source, weak(tagOnly))
		}
		for _, p := range im.provenances[digest] {
			if p.Verified {
				return pass("signed provenance of %s verified (%s in %s%s)", p.Builder, p.Tool, p.Source, weak(tagOnly))
			}
		}
	}
	return state{}
}

func weak(tagOnly bool) string {
	if tagOnly {
		return ", matched by tag only, which may have moved since"
	}
	return ""
}

// unsigned says what is missing.
func (im *Images) unsigned(c *container) state {
	digests, _ := im.digestsOf(c)
	for _, digest := range digests {
		if len(im.provenances[digest]) > 0 {
			return c.open("there is provenance of its image, and nobody has verified its signature; %s", signatureHint)
		}
	}
	return c.open("no verified signature of its image was given; %s", signatureHint)
}

// digestsOf returns the digests that a container runs; where they are not known,
// those that a report saw behind the tag.
func (im *Images) digestsOf(c *container) (digests []string, tagOnly bool) {
	if len(c.digests) > 0 {
		return c.digests, false
	}
	for _, r := range c.reports {
		digests = append(digests, r.Digests...)
	}
	return unique(digests), true
}

// verdicts returns what policy engines say of the signatures of workloads; one
// that fails decides.
func (im *Images) verdicts() map[*inventory.Workload]*evidence.PolicyResult {
	rules := im.imageRules()
	out := map[*inventory.Workload]*evidence.PolicyResult{}
	for i := range im.set.PolicyResults {
		r := &im.set.PolicyResults[i]
		if r.Engine != "KyvernoImageValidatingPolicy" && !rules[r.Policy+"/"+r.Rule] {
			continue
		}
		group := groupOf(r.Subject.APIVersion)
		o := im.inv.Get(group, r.Subject.Kind, r.Subject.Namespace, r.Subject.Name)
		if o == nil {
			continue
		}
		w := im.inv.Owner(o)
		if w != nil && (out[w] == nil || r.Result == "fail") && slices.Contains([]string{"pass", "fail"}, r.Result) {
			out[w] = r
		}
	}
	return out
}
