package image_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/image"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

func TestSignedByEvidence(t *testing.T) {
	signature := evidence.Signature{Origin: evidence.Origin{Tool: "cosign verify", Source: "s.json"}, Digest: a, Identity: "ada@example.com"}
	byKey := signature
	byKey.Identity = ""
	other := signature
	other.Digest = b
	verified := evidence.Provenance{Origin: evidence.Origin{Tool: "gh", Source: "p.json"}, Digests: []string{a}, Builder: "builder", Verified: true}
	unverified := verified
	unverified.Verified = false
	for _, tt := range []struct {
		name string
		set  evidence.Set
		want finding.Status
		says string
	}{
		{"identity", evidence.Set{Signatures: []evidence.Signature{signature}}, finding.Pass, "made by ada@example.com (cosign verify in s.json)"},
		{"key", evidence.Set{Signatures: []evidence.Signature{byKey}}, finding.Pass, "made by a key"},
		{"of another digest", evidence.Set{Signatures: []evidence.Signature{other}}, finding.Unknown, "no verified signature"},
		{"provenance", evidence.Set{Provenances: []evidence.Provenance{verified}}, finding.Pass, "provenance of builder verified"},
		{"provenance not verified", evidence.Set{Provenances: []evidence.Provenance{unverified}}, finding.Unknown, "nobody has verified its signature"},
		{"nothing", evidence.Set{}, finding.Unknown, "cosign verify --output json IMAGE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := only(t, imagesOf(t, tt.set).Signed())
			if text := f.Message + f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q, want %s with %q", f.Status, text, tt.want, tt.says)
			}
		})
	}
}

// A scan that saw a digest behind the tag leads to its signature, and says how
// weak that is.
func TestSignatureBehindATag(t *testing.T) {
	set := &evidence.Set{
		Images:     []evidence.ImageReport{clean("Trivy", time.Hour, []string{a}, "acme/shop:1")},
		Signatures: []evidence.Signature{{Digest: a, Identity: "ada@example.com"}},
	}
	f := only(t, image.New(inventoryOf(t, pod("acme/shop:1")), set, at(finding.InCluster), now).Signed())
	if f.Status != finding.Pass || !strings.Contains(f.Evidence, "matched by tag only") {
		t.Errorf("%s %q", f.Status, f.Evidence)
	}
}

func TestDemandsOfOthers(t *testing.T) {
	const (
		namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {policy.sigstore.dev/include: \"true\"}}\n"
		policy    = `---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: "ghcr.io/acme/*"}]
  authorities: [{keyless: {url: "https://fulcio.sigstore.dev"}}]
`
		validating = `---
apiVersion: policies.kyverno.io/v1
kind: ImageValidatingPolicy
metadata: {name: signed}
spec:
  validationActions: [Deny]
  matchImageReferences: [{glob: "ghcr.io/acme/*"}]
  attestors: [{name: cosign}]
  validations: [{expression: "true"}]
`
		ratify = `---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: RatifyVerification
metadata: {name: signed}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}
---
apiVersion: config.ratify.deislabs.io/v1beta1
kind: Verifier
metadata: {name: v}
spec: {name: cosign}
`
		own = `---
apiVersion: kubeguardian.dev/v1alpha1
kind: ImagePolicy
metadata: {name: signed}
spec:
  validationActions: [Deny]
  match: {images: ["ghcr.io/acme/*"]}
  attestors: [{name: release, key: {file: release.pub}}]
`
		production = own + namespace
	)
	for _, tt := range []struct {
		name, objects, old, new string
		want                    finding.Status
		says                    string
	}{
		{"policy-controller", policy + namespace, "", "", finding.Pass, "ClusterImagePolicy/signed demands"},
		{"two stars", policy + namespace, "acme/*", "**", finding.Pass, "demands"},
		{"a star stops at a slash", policy + namespace, "ghcr.io/acme/*", "ghcr.io/*", finding.Unknown, "no verified signature"},
		{"namespace not known", policy, "", "", finding.Unknown, "not known"},
		{"namespace left out", policy + namespace, `"true"`, `"false"`, finding.Unknown, "labels of its namespace are not"},
		{"policy-controller warns", policy + namespace, "spec:", "spec:\n  mode: warn", finding.Unknown, "only warns"},
		{"own", own, "", "", finding.Pass, "ImagePolicy/signed demands"},
		{"own, any path", own, "ghcr.io/acme/*", "ghcr.io/**", finding.Pass, "demands"},
		{"own, every image", own, "ghcr.io/acme/*", "**", finding.Pass, "demands"},
		{"own, a star stops at a slash", own, "ghcr.io/acme/*", "ghcr.io/*", finding.Unknown, "no verified signature"},
		{"own, tags are no part of names", own, "ghcr.io/acme/*", "ghcr.io/acme/*1", finding.Unknown, "no verified signature"},
		{"own, image left out", own, `images: [`, `excludeImages: ["ghcr.io/acme/shop"], images: [`, finding.Unknown, "no verified signature"},
		{"own, audits", own, "Deny", "Audit", finding.Unknown, "does not deny"},
		{"own, nobody", own, "[{name: release, key: {file: release.pub}}]", "[]", finding.Unknown, "names nobody"},
		{"own, none required", own, "spec:", "spec:\n  rules: {requiredSignatures: 0}", finding.Unknown, "does not require"},
		{"own, attestations", own, "spec:", "spec:\n  rules: {requiredSignatures: 0}\n  attestations: [{name: scan, predicateType: x}]", finding.Pass, "demands"},
		{"own, registry down", own, "spec:", "spec:\n  failurePolicy: Warn", finding.Unknown, "cannot be verified"},
		{"own, some pods", own, "match: {", "match: {objectSelector: {matchLabels: {a: b}}, ", finding.Unknown, "selects pods by labels"},
		{"own, all pods", own, "match: {", "match: {objectSelector: {}, ", finding.Pass, "demands"},
		{"own, namespace by name", own, "match: {", "match: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, ", finding.Pass, "demands"},
		{"own, another namespace", own, "match: {", "match: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}, ", finding.Unknown, "labels of its namespace are not"},
		{"own, namespace by label", production, "match: {", "match: {namespaceSelector: {matchExpressions: [{key: policy.sigstore.dev/include, operator: Exists}]}, ", finding.Pass, "demands"},
		{"own, namespace not known", own, "match: {", "match: {namespaceSelector: {matchLabels: {stage: production}}, ", finding.Unknown, "not known"},
		{"own, no selector", own, "match: {", "match: {namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}, ", finding.Unknown, "cannot be read"},
		{"own, another form", own, "[Deny]", "Deny", finding.Unknown, "cannot be read"},

		{"lets all pass", policy + namespace, `keyless: {url: "https://fulcio.sigstore.dev"}`, "static: {action: pass}", finding.Unknown, "lets images pass"},
		{"no authority", policy + namespace, `[{keyless: {url: "https://fulcio.sigstore.dev"}}]`, "[]", finding.Unknown, "names nobody"},
		{"some kinds", policy + namespace, "  images:", "  match: [{resource: jobs}]\n  images:", finding.Unknown, "some kinds of object"},

		{"image validating", validating, "", "", finding.Pass, "ImageValidatingPolicy/signed demands"},
		{"image validating audits", validating, "Deny", "Audit", finding.Unknown, "does not deny"},
		{"image validating by expression", validating, `glob: "ghcr.io/acme/*"`, "expression: image.contains('acme')", finding.Unknown, "by an expression"},
		{"image validating some pods", validating, "spec:", "spec:\n  matchConditions: [{name: a, expression: \"true\"}]", finding.Unknown, "leaves some pods out"},
		{"image validating nobody", validating, "[{name: cosign}]", "[]", finding.Unknown, "names nobody"},

		{"ratify", ratify, "", "", finding.Pass, "RatifyVerification/signed demands"},
		{"ratify warns", ratify, "spec: {match", "spec: {enforcementAction: warn, match", finding.Unknown, "does not deny"},
		{"ratify without verifier", ratify, "name: cosign", "name: sbom", finding.Unknown, "no Verifier"},
		{"ratify leaves namespaces out", ratify, "match: {", "match: {excludedNamespaces: [shop], ", finding.Unknown, "selects pods by excludedNamespaces"},
		{"ratify elsewhere", ratify, "match: {", "match: {namespaces: [other], ", finding.Unknown, "no verified signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			objects := strings.Replace(tt.objects, tt.old, tt.new, 1)
			f := only(t, image.New(inventoryOf(t, pod("ghcr.io/acme/shop:1")+objects), nil, at(finding.InCluster), now).Signed())
			if text := f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q, want %s with %q", f.Status, text, tt.want, tt.says)
			}
		})
	}
}

func TestVerdictsOfPolicyEngines(t *testing.T) {
	result := func(engine, result, name string) evidence.PolicyResult {
		return evidence.PolicyResult{
			Engine: engine, Policy: "signed", Rule: "r", Result: result, Message: "not signed",
			Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: name},
		}
	}
	const engine = "KyvernoImageValidatingPolicy"
	for _, tt := range []struct {
		name    string
		results []evidence.PolicyResult
		want    finding.Status
	}{
		{"fail", []evidence.PolicyResult{result(engine, "fail", "web")}, finding.Fail},
		{"pass", []evidence.PolicyResult{result(engine, "pass", "web")}, finding.Pass},
		{"one of two fails", []evidence.PolicyResult{result(engine, "fail", "web"), result(engine, "pass", "web")}, finding.Fail},
		{"skip", []evidence.PolicyResult{result(engine, "skip", "web")}, finding.Unknown},
		{"another pod", []evidence.PolicyResult{result(engine, "fail", "other")}, finding.Unknown},
		{"a policy that does not verify images", []evidence.PolicyResult{result("kyverno", "fail", "web")}, finding.Unknown},
	} {
		if f := only(t, imagesOf(t, evidence.Set{PolicyResults: tt.results}).Signed()); f.Status != tt.want {
			t.Errorf("%s: %s %s", tt.name, f.Status, f.Message+f.Reason)
		}
	}
}

func TestAttestedAndTraceable(t *testing.T) {
	good := evidence.Provenance{
		Origin: evidence.Origin{Source: "p.json"}, Digests: []string{a}, Builder: "builder", Repository: "github.com/acme/shop", Commit: "abcdef0", Enveloped: true, Signatures: 1,
	}
	anonymous, bare, unsigned, rootless := good, good, good, good
	anonymous.Builder = ""
	bare.Enveloped, bare.Signatures = false, 0
	unsigned.Signatures = 0
	rootless.Commit = ""
	for _, tt := range []struct {
		name                string
		found               []evidence.Provenance
		attested, traceable finding.Status
	}{
		{"good", []evidence.Provenance{good}, finding.Pass, finding.Pass},
		{"no builder", []evidence.Provenance{anonymous}, finding.Fail, finding.Pass},
		{"no envelope", []evidence.Provenance{bare}, finding.Unknown, finding.Pass},
		{"no signature", []evidence.Provenance{unsigned}, finding.Fail, finding.Pass},
		{"no commit", []evidence.Provenance{rootless}, finding.Pass, finding.Fail},
		{"the best of several", []evidence.Provenance{anonymous, unsigned, good, bare}, finding.Pass, finding.Pass},
		{"none", nil, finding.Unknown, finding.Unknown},
	} {
		im := imagesOf(t, evidence.Set{Provenances: tt.found})
		if f := only(t, im.Attested()); f.Status != tt.attested {
			t.Errorf("%s: attested %s %s", tt.name, f.Status, f.Message+f.Reason)
		}
		if f := only(t, im.Traceable()); f.Status != tt.traceable {
			t.Errorf("%s: traceable %s %s", tt.name, f.Status, f.Message+f.Reason)
		}
	}
}
