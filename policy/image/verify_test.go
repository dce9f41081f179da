package image

import (
	"crypto/elliptic"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
)

const slsa = "https://slsa.dev/provenance/v1"

func TestSignedByKey(t *testing.T) {
	release, other := newKey(t), newKey(t)
	for _, referrers := range []bool{true, false} {
		h := newHub(t, referrers)
		set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)))

		t.Run(fmt.Sprintf("referrers API %v", referrers), func(t *testing.T) {
			plain := h.push("shop/plain:1")
			wantOne(t, evaluate(t, set, podOf(plain.String())), "deny: image "+plain.String()+" (spec.containers[0].image): it is not signed by release", "it has no signature")

			legacy := h.push("shop/legacy:1")
			h.cosign(legacy, ".sig", other.simple(claim(legacy.DigestStr())), release.simple(claim(legacy.DigestStr())))
			wantNone(t, evaluate(t, set, podOf(legacy.String())))

			wrong := h.push("shop/wrong:1")
			h.cosign(wrong, ".sig", other.simple(claim(wrong.DigestStr())))
			wantOne(t, evaluate(t, set, podOf(wrong.String())), "it is not signed by release (1 signatures found: ")

			moved := h.push("shop/moved:1")
			h.cosign(moved, ".sig", release.simple(claim(legacy.DigestStr())))
			wantOne(t, evaluate(t, set, podOf(moved.String())), "the signature is of another image, "+legacy.DigestStr())

			tampered := h.push("shop/tampered:1")
			add := release.simple(claim(legacy.DigestStr()))
			h.cosign(tampered, ".sig", mutate.Addendum{Layer: static.NewLayer(claim(tampered.DigestStr()), simpleSigningType), Annotations: add.Annotations})
			wantOne(t, evaluate(t, set, podOf(tampered.String())), "it is not signed by release (1 signatures found: ")

			odd := h.push("shop/odd:1")
			h.cosign(odd, ".sig", release.simple([]byte(strings.Replace(string(claim(odd.DigestStr())), "cosign container image signature", "something else", 1))))
			wantOne(t, evaluate(t, set, podOf(odd.String())), `of type "something else"`)

			bundled := h.push("shop/bundled:1")
			h.refer(bundled, other.bundle(inToto(t, bundled.DigestStr(), cosignSign, map[string]any{})))
			h.refer(bundled, release.bundle(inToto(t, bundled.DigestStr(), cosignSign, map[string]any{})))
			wantNone(t, evaluate(t, set, podOf(bundled.String())))

			elsewhere := h.push("shop/elsewhere:1")
			h.refer(elsewhere, release.bundle(inToto(t, bundled.DigestStr(), cosignSign, map[string]any{})))
			wantOne(t, evaluate(t, set, podOf(elsewhere.String())), "not match any digest in statement")

			attested := h.push("shop/attested:1") // says how it was made, not that it may run
			h.refer(attested, release.bundle(inToto(t, attested.DigestStr(), slsa, map[string]any{})))
			wantOne(t, evaluate(t, set, podOf(attested.String())), "it is not signed by release (it has no signature)")

			broken := h.push("shop/broken:1")
			h.refer(broken, []byte(`{"mediaType":"x"}`))
			h.cosign(broken, ".sig", mutate.Addendum{Layer: static.NewLayer([]byte("{"), simpleSigningType), Annotations: map[string]string{certificateKey: "no PEM"}},
				release.simple(claim(broken.DigestStr())))
			wantNone(t, evaluate(t, set, podOf(broken.String()))) // one good signature is enough

			absent := broken.Context().Digest("sha256:" + strings.Repeat("0", 64))
			wantOne(t, evaluate(t, set, podOf(absent.String())), "it is not signed by release")
		})
	}
}

// TestLoggedKey verifies what cosign writes by default: signed by a key, and in a
// log nevertheless.
func TestLoggedKey(t *testing.T) {
	h, release, a := newHub(t, true), newKey(t), newAuthority(t)
	set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", release)))
	image := h.push("shop/web:1")
	add := release.simple(claim(image.DigestStr()))
	add.Annotations[logEntryKey] = a.simple(subject, issuer, claim(image.DigestStr()), time.Now()).Annotations[logEntryKey]
	h.cosign(image, ".sig", add)
	wantNone(t, evaluate(t, set, podOf(image.String())))
}

// TestLongKey signs with a longer key, as cosign did at first (SHA-256) and does
// today (the hash that fits the key).
func TestLongKey(t *testing.T) {
	h, k := newHub(t, true), newKeyOn(t, elliptic.P384())
	set := load(t, Options{}, doc("signed", "attestors:\n"+keyAttestor("release", k)))
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", k.simple(claim(image.DigestStr())))
	wantNone(t, evaluate(t, set, podOf(image.String())))
}

func TestSeveralMustSign(t *testing.T) {
	h, a, b, c := newHub(t, true), newKey(t), newKey(t), newKey(t)
	attestors := "attestors:\n" + keyAttestor("dev", a) + keyAttestor("qa", b) + keyAttestor("ops", c)
	set := load(t, Options{}, doc("two", "rules: {requiredSignatures: 2}\n"+attestors))

	image := h.push("shop/web:1")
	h.cosign(image, ".sig", a.simple(claim(image.DigestStr())), a.simple(claim(image.DigestStr())))
	wantOne(t, evaluate(t, set, podOf(image.String())), "it is signed by 1 of dev, qa, ops, and 2 must sign")

	image = h.push("shop/web:2")
	h.cosign(image, ".sig", c.simple(claim(image.DigestStr())))
	h.refer(image, a.bundle(inToto(t, image.DigestStr(), cosignSign, map[string]any{})))
	wantNone(t, evaluate(t, set, podOf(image.String())))
}

func TestAttestations(t *testing.T) {
	h, ci, other := newHub(t, true), newKey(t), newKey(t)
	set := load(t, Options{}, doc("built", "rules: {requiredSignatures: 0}\nattestors:\n"+keyAttestor("ci", ci)+keyAttestor("other", other)+`
attestations:
- name: provenance
  predicateType: `+slsa+`
  attestors: [ci]
  provenance: {builders: [https://ci.example.com/builder], sourceRegExps: ['https://git\.example\.com/shop/[a-z]+']}
`))
	provenance := func(builder, source string) map[string]any {
		return map[string]any{
			"buildDefinition": map[string]any{"resolvedDependencies": []any{map[string]any{"uri": source}, map[string]any{"uri": "git+https://git.example.com/shop/lib"}}},
			"runDetails":      map[string]any{"builder": map[string]any{"id": builder}},
		}
	}
	const good, source = "https://ci.example.com/builder", "git+https://git.example.com/shop/web@refs/heads/main"
	for name, test := range map[string]struct {
		by        key
		predicate map[string]any
		want      string
	}{
		"right":                {ci, provenance(good, source), ""},
		"signed by another":    {other, provenance(good, source), "none of type " + slsa + " is signed by ci (1 attestations found: "},
		"another builder":      {ci, provenance("https://evil.example.com", source), `builder "https://evil.example.com" is not an allowed one`},
		"builder that extends": {ci, provenance(good+"/2", source), "is not an allowed one"},
		"another source":       {ci, provenance(good, "git+https://git.example.com/evil/web"), `source "git+https://git.example.com/evil/web" is not an allowed one`},
		"source that extends":  {ci, provenance(good, "git+https://git.example.com/shop/web/evil@main"), "is not an allowed one"},
		"says nothing":         {ci, map[string]any{}, `builder "" is not an allowed one`},
	} {
		for _, form := range []string{"bundle", "cosign"} {
			t.Run(name+" "+form, func(t *testing.T) {
				image := h.push("shop/" + strings.ReplaceAll(name, " ", "-") + ":" + form)
				text := inToto(t, image.DigestStr(), slsa, test.predicate)
				if form == "bundle" {
					h.refer(image, test.by.bundle(text))
				} else {
					h.cosign(image, ".att", test.by.attestation(text))
				}
				found := evaluate(t, set, podOf(image.String()))
				if test.want == "" {
					wantNone(t, found)
					return
				}
				wantOne(t, found, "attestation provenance: ", test.want)
			})
		}
	}
	t.Run("none", func(t *testing.T) {
		wantOne(t, evaluate(t, set, podOf(h.push("shop/none:1").String())), "it has no attestation")
	})
	t.Run("of another image", func(t *testing.T) {
		from, to := h.push("shop/from:1"), h.push("shop/to:1")
		h.refer(to, ci.bundle(inToto(t, from.DigestStr(), slsa, provenance(good, source))))
		wantOne(t, evaluate(t, set, podOf(to.String())), "not match any digest in statement")
	})
	t.Run("one of several is enough", func(t *testing.T) {
		image := h.push("shop/several:1")
		h.refer(image, ci.bundle(inToto(t, image.DigestStr(), slsa, provenance("x", source))))
		h.refer(image, ci.bundle(inToto(t, image.DigestStr(), slsa, provenance(good, source))))
		wantNone(t, evaluate(t, set, podOf(image.String())))
	})
}
