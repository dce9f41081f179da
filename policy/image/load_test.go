package image

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
)

// TestMistakes gives the loader one mistake at a time; each is named with its
// line.
func TestMistakes(t *testing.T) {
	k := newKey(t)
	inline := strings.ReplaceAll(strings.TrimSpace(k.public()), "\n", `\n`)
	const head = "apiVersion: kubeguardian.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: p}\n"
	attestor := "  attestors:\n  - {name: a, key: {data: \"" + inline + "\"}}\n"
	spec := func(lines string) string {
		return head + "spec:\n  validationActions: [Deny]\n  match: {images: ['**']}\n" + lines
	}
	attest := func(fields string) string {
		return spec(attestor + "  attestations:\n  - {name: b, " + fields + "}\n")
	}
	for name, test := range map[string]struct{ text, want string }{
		"not YAML":                  {"{", "p.yaml:1: "},
		"another kind":              {strings.Replace(spec(""), "ImagePolicy", "Pod", 1), `p.yaml:2: kind: "Pod" is not supported: want one of ImagePolicy`},
		"another version":           {strings.Replace(spec(""), "v1alpha1", "v2", 1), `p.yaml:1: apiVersion: "kubeguardian.dev/v2" is not supported`},
		"no name":                   {strings.Replace(spec(""), "{name: p}", "{}", 1), "p.yaml:3: metadata.name: "},
		"unknown field":             {spec("  subjectRegexp: x\n"), "p.yaml:7: unknown key subjectRegexp"},
		"unknown field below":       {spec("  attestors:\n  - name: a\n    keyless: {identities: [{subjectRegexp: x}]}\n"), "p.yaml:9: unknown key subjectRegexp"},
		"field given twice":         {spec("  failurePolicy: Fail\n  failurePolicy: Ignore\n"), "p.yaml:8: mapping key \"failurePolicy\" already defined"},
		"wrong type":                {spec("  mutateDigest: [1]\n"), "p.yaml:7: cannot unmarshal"},
		"failure policy":            {spec("  failurePolicy: Pass\n"), `p.yaml:7: spec.failurePolicy: "Pass" is not supported: want one of Fail, Warn, Ignore`},
		"no actions":                {head + "spec:\n  match: {images: ['**']}\n", "p.yaml:4: spec.validationActions: at least one of Deny, Warn, Audit is required"},
		"unknown action":            {head + "spec:\n  validationActions: [Dney]\n  match: {images: ['**']}\n", `p.yaml:5: spec.validationActions[0]: "Dney" is not supported`},
		"action twice":              {head + "spec:\n  validationActions: [Deny, Deny]\n  match: {images: ['**']}\n", "p.yaml:5: spec.validationActions[1]: Deny is given twice"},
		"deny and warn":             {head + "spec:\n  validationActions: [Deny, Warn]\n  match: {images: ['**']}\n", "Deny and Warn exclude each other"},
		"no images":                 {head + "spec:\n  validationActions: [Deny]\n", "p.yaml:4: spec.match.images: at least one pattern is required"},
		"image without registry":    {strings.Replace(spec(""), "'**'", "'nginx'", 1), `p.yaml:6: spec.match.images[0]: "nginx" names no repository`},
		"image without host":        {strings.Replace(spec(""), "'**'", "'shop/web'", 1), `"shop/web" names no registry: write docker.io/… for images of Docker Hub`},
		"image with tag":            {strings.Replace(spec(""), "'**'", "'r.example.com/web:1'", 1), `has a tag`},
		"image with digest":         {strings.Replace(spec(""), "'**'", "'r.example.com/web@sha256:x'", 1), `is not a pattern of image names`},
		"image with half a **":      {strings.Replace(spec(""), "'**'", "'r.example.com**/web'", 1), `** stands for whole components`},
		"selector":                  {strings.Replace(spec(""), "['**']", "['**'], objectSelector: {matchExpressions: [{key: a, operator: Is}]}", 1), "p.yaml:6: spec.match.objectSelector: "},
		"demands nothing":           {spec("  mutateDigest: false\n"), "p.yaml:4: spec.rules: the policy demands nothing"},
		"mutates what may stay":     {spec("  rules: {requireDigest: false}\n"), "p.yaml:7: spec.rules.requireDigest: "},
		"more signatures than any":  {spec("  rules: {requiredSignatures: 2}\n" + attestor), "p.yaml:7: spec.rules.requiredSignatures: 2 is not possible: there are 1 attestors"},
		"signatures below zero":     {spec("  rules: {requiredSignatures: -1}\n" + attestor), "-1 is not possible"},
		"nothing to sign":           {spec("  rules: {requiredSignatures: 0}\n" + attestor), "nothing has to be signed by the attestors"},
		"attestor without name":     {spec("  attestors:\n  - {key: {data: \"" + inline + "\"}}\n"), "p.yaml:8: spec.attestors[0].name: "},
		"attestor twice":            {spec(attestor + "  - {name: a, key: {data: \"" + inline + "\"}}\n"), `p.yaml:9: spec.attestors[1].name: "a" is given twice`},
		"attestor that is nobody":   {spec("  attestors:\n  - {name: a}\n"), "p.yaml:8: spec.attestors[0]: one of key and keyless is required"},
		"key that is none":          {spec("  attestors:\n  - {name: a, key: {data: x}}\n"), "spec.attestors[0].key: want one PEM block of type PUBLIC KEY"},
		"key that is private":       {spec("  attestors:\n  - {name: a, key: {data: \"-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----\"}}\n"), "want one PEM block of type PUBLIC KEY"},
		"key that is broken":        {spec("  attestors:\n  - {name: a, key: {data: \"-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----\"}}\n"), "parse public key: "},
		"two keys":                  {spec("  attestors:\n  - {name: a, key: {data: \"" + inline + `\n` + inline + "\"}}\n"), "want one PEM block"},
		"key that is too short":     {spec("  attestors:\n  - {name: a, key: {data: \"" + strings.ReplaceAll(shortRSA(t), "\n", `\n`) + "\"}}\n"), "an RSA key of 1024 bits is too short"},
		"key without source":        {spec("  attestors:\n  - {name: a, key: {}}\n"), "spec.attestors[0].key: one of data and file is required"},
		"key in a missing file":     {spec("  attestors:\n  - {name: a, key: {file: a.pub}}\n"), `p.yaml:8: spec.attestors[0].key.file: file "a.pub" is not among those given`},
		"no identities":             {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: '{}'}}}\n"), "at least one identity is required: anybody can get a certificate"},
		"identity without issuer":   {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: '{}'}, identities: [{subject: x}]}}\n"), "spec.attestors[0].keyless.identities[0]: one of issuer and issuerRegExp is required"},
		"identity without subject":  {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: '{}'}, identities: [{issuer: x}]}}\n"), "one of subject and subjectRegExp is required"},
		"identity given two ways":   {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: '{}'}, identities: [{issuer: x, subject: y, subjectRegExp: y}]}}\n"), "one of subject and subjectRegExp is required"},
		"identity no expression":    {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: '{}'}, identities: [{issuer: x, subjectRegExp: 'a)|(b'}]}}\n"), `"a)|(b" is not a regular expression`},
		"root that is none":         {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: 'x'}, identities: [{issuer: x, subject: y}]}}\n"), "parse trusted root: "},
		"root that has nothing":     {spec("  attestors:\n  - {name: a, keyless: {trustedRoot: {data: '{\"mediaType\":\"application/vnd.dev.sigstore.trustedroot+json;version=0.1\"}'}, identities: [{issuer: x, subject: y}]}}\n"), "it has no certificate authority"},
		"attestation by nobody":     {spec("  attestations:\n  - {name: b, predicateType: x}\n"), "spec.attestors is empty, and somebody must have signed"},
		"attestation by a stranger": {attest("predicateType: x, attestors: [c]"), `p.yaml:10: spec.attestations[0].attestors[0]: "c" is not one of spec.attestors`},
		"attestation of no type":    {attest("maxAge: 1h"), "spec.attestations[0].predicateType: a value is required"},
		"age that is none":          {attest("predicateType: x, maxAge: 7d"), `p.yaml:10: spec.attestations[0].maxAge: "7d" is not a duration`},
		"provenance of a scan":      {attest("predicateType: x, provenance: {builders: [y]}"), `predicateType is "x": want https://slsa.dev/provenance/v1`},
		"provenance of nothing":     {attest("predicateType: https://slsa.dev/provenance/v1, provenance: {}"), "builders or sources are required"},
		"provenance no expression":  {attest("predicateType: https://slsa.dev/provenance/v1, provenance: {builderRegExps: ['(']}"), `builderRegExps[0]: "(" is not a regular expression`},
		"provenance of no builder":  {attest("predicateType: https://slsa.dev/provenance/v1, provenance: {builders: ['']}"), "builders[0]: a value is required"},
		"scan that is provenance":   {attest("predicateType: https://slsa.dev/provenance/v1, vulnerabilities: {maxSeverity: low}"), "want https://cosign.sigstore.dev/attestation/vuln/v1"},
		"scan of nothing":           {attest("predicateType: https://cosign.sigstore.dev/attestation/vuln/v1, vulnerabilities: {}"), "maxSeverity or maxDatabaseAge is required"},
		"scan of unknown severity":  {attest("predicateType: https://cosign.sigstore.dev/attestation/vuln/v1, vulnerabilities: {maxSeverity: bad}"), `maxSeverity: "bad" is not supported: want one of none, low, medium, high, critical`},
		"the same name again":       {spec("") + "---\n" + spec(""), `p.yaml:10: metadata.name: policy "p" is already defined at p.yaml:3`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(policy.File{Name: "p.yaml", Data: []byte(test.text)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v\nwant %s", err, test.want)
			}
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "p.yaml:") {
					t.Errorf("%q does not begin with file and line", line)
				}
			}
		})
	}
}

// shortRSA returns an RSA key that nobody should use any more.
func shortRSA(t *testing.T) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestLoadTogether(t *testing.T) {
	k := newKey(t)
	withFile := doc("b", "attestors:\n- {name: release, key: {file: release.pub}}")
	set, err := Load(
		policy.File{Name: "policies/b.yaml", Data: []byte(withFile + "status: {ready: true}\n")},
		policy.File{Name: "policies/keys/release.pub", Data: []byte(k.public())},
		policy.File{Name: "policies/a.yaml", Data: []byte("# nothing\n---\n" + doc("a", ""))},
	)
	if err != nil {
		t.Fatal(err)
	}
	if set.Len() != 2 || set.Policies()[0].Name() != "a" || set.Policies()[1].Name() != "b" {
		t.Errorf("%d policies", set.Len())
	}
	_, err = Load(
		policy.File{Name: "b.yaml", Data: []byte(withFile)},
		policy.File{Name: "x/release.pub", Data: []byte(k.public())}, policy.File{Name: "y/release.pub", Data: []byte(newKey(t).public())},
	)
	if err == nil || err.Error() != "y/release.pub: another file is called release.pub, and policies could mean either" {
		t.Error(err)
	}
	_, err = Load(policy.File{Name: "big.yaml", Data: make([]byte, maxFileBytes+1)})
	if err == nil || !strings.HasPrefix(err.Error(), "big.yaml: file has ") {
		t.Error(err)
	}
	_, err = Load(policy.File{Name: "many.yaml", Data: []byte(strings.Repeat("---\n"+doc("same", ""), 300))})
	if err == nil || !strings.HasSuffix(err.Error(), "and 199 more errors") {
		t.Error(err)
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
		"metadata: {x: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d], y: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d], z: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]}\n"
	if _, err = Load(policy.File{Name: "bomb.yaml", Data: []byte(bomb)}); err == nil {
		t.Error("a bomb is loaded")
	}
}

func TestHandled(t *testing.T) {
	for text, want := range map[string]bool{
		newKey(t).public():       true,
		`{"mediaType": "x"}`:     true,
		doc("p", ""):             false,
		"-----BEGIN":             false,
		`{"kind": "ImagePolicy"`: false,
		"":                       false,
	} {
		if have := IsMaterial(policy.File{Name: "f", Data: []byte(text)}); have != want {
			t.Errorf("%q: %v, want %v", text, have, want)
		}
	}
	for text, want := range map[string]bool{
		"kubeguardian.dev/v1alpha1 ImagePolicy":          true,
		"kubeguardian.dev/v9 ImagePolicy":                true,
		"kubeguardian.dev/v1alpha1 SecurityException":    false,
		"policy.sigstore.dev/v1beta1 ClusterImagePolicy": false,
		"example.com/v1 ImagePolicy":                     false,
		"v1 ImagePolicy":                                 false,
	} {
		version, kind, _ := strings.Cut(text, " ")
		if have := Handles(schema.FromAPIVersionAndKind(version, kind)); have != want {
			t.Errorf("%s: %v, want %v", text, have, want)
		}
	}
}

func TestReferences(t *testing.T) {
	const digest = "@sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for text, want := range map[string]string{
		"nginx":                              "docker.io/library/nginx latest",
		"nginx:1":                            "docker.io/library/nginx 1",
		"shop/web":                           "docker.io/shop/web latest",
		"docker.io/nginx":                    "docker.io/library/nginx latest",
		"index.docker.io/library/nginx":      "docker.io/library/nginx latest",
		"registry-1.docker.io/library/nginx": "docker.io/library/nginx latest",
		"r.example.com/web:1" + digest:       "r.example.com/web " + digest[1:],
		"R.Example.COM/web" + digest:         "r.example.com/web " + digest[1:],
		"r.example.com:443/web:1":            "r.example.com/web 1",
		"r.example.com:5000/web:1":           "r.example.com:5000/web 1",
		"registry:443/web:1":                 "registry:443/web 1",
		"localhost/web":                      "localhost/web latest",
	} {
		r, err := parseReference(text)
		if have := strings.TrimSpace(r.name + " " + r.tag + r.digest); err != nil || have != want {
			t.Errorf("%s is %q, %v; want %q", text, have, err, want)
		}
	}
	for _, text := range []string{
		"r.example.com//web", "r.example.com/web/", "r..example.com/web", "-r.example.com/web", "r.example.com:/web", "r.example.com/-web", "r.example.com/we..b",
		"", " nginx", "nginx ", "Nginx", "r.example.com./web", "r.example.com/web@md5:0", "r.example.com/web@sha256:0", "r.example.com/web:a b",
		"r.example.com/web@sha512:" + strings.Repeat("0", 128), "https://r.example.com/web", "web" + digest + digest, "r.example.com/" + strings.Repeat("a", maxReference),
	} {
		if r, err := parseReference(text); err == nil {
			t.Errorf("%q is %+v", text, r)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern, image string
		want           bool
	}{
		{"**", "nginx", true},
		{"r.example.com/shop/*", "r.example.com/shop/web:1", true},
		{"r.example.com/shop/*", "r.example.com/shop/web/ui", false},
		{"r.example.com/shop/*", "r.example.com/shop", false},
		{"r.example.com/shop/**", "r.example.com/shop/web/ui", true},
		{"r.example.com/**", "r.example.com.evil.com/shop/web", false},
		{"r.example.com/**", "evil.com/r.example.com/shop/web", false},
		{"r.example.com/**", "rxexample.com/shop/web", false},
		{"R.Example.com:443/**", "r.example.com/shop/web", true},
		{"r.example.com/**", "R.EXAMPLE.com:443/shop/web", true},
		{"*.example.com/**", "r.example.com/web", true},
		{"*.example.com/**", "evil.com/x.example.com/web", false},
		{"r.example.com/*-base", "r.example.com/go-base", true},
		{"**/web", "r.example.com/shop/web", true},
		{"docker.io/*", "nginx", true},
		{"docker.io/*", "shop/web", false},
		{"docker.io/nginx", "index.docker.io/library/nginx", true},
		{"docker.io/**", "shop/web", true},
		{"localhost:5000/*", "localhost:5000/web", true},
	} {
		p, err := parsePattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
			continue
		}
		r, err := parseReference(test.image)
		if err != nil {
			t.Errorf("%s: %v", test.image, err)
		}
		if have := (patterns{p}).match(r.name); have != test.want {
			t.Errorf("%s matches %s: %v, want %v", test.pattern, test.image, have, test.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(doc("p", "attestors:\n- {name: a, keyless: {trustedRoot: {data: '{}'}, identities: [{issuer: x, subjectRegExp: y.*}]}}")))
	f.Add([]byte(doc("p", "mutateDigest: false\nrules: {allowedImages: ['r.example.com/**'], requireDigest: true}")))
	f.Add([]byte(doc("p", "attestors: [{name: a, key: {file: a}}]\nattestations: [{name: b, predicateType: c, maxAge: 1h, vulnerabilities: {maxSeverity: low}}]")))
	f.Add([]byte("{\"mediaType\": \"x\"}"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := Load(policy.File{Name: "f", Data: data})
		if err == nil && set == nil || err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("%v, %v", set, err)
		}
	})
}

func FuzzReference(f *testing.F) {
	for _, seed := range []string{"nginx", "r.example.com:443/shop/web:1", "R.example.com/web@sha256:" + strings.Repeat("0", 64), "[::1]:5000/x", "docker.io/nginx", "0:443/00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseReference(text)
		if err != nil {
			return
		}
		whole := r.name + ":" + r.tag
		if r.digest != "" {
			whole = r.name + "@" + r.digest
		}
		if again, err := parseReference(whole); err != nil || again.name != r.name || again.tag != r.tag || again.digest != r.digest {
			t.Errorf("%q is %+v, and that is %+v, %v", text, r, again, err)
		}
	})
}

// FuzzAttached reads what a registry may hold in any form.
func FuzzAttached(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`), "", "", "")
	f.Add([]byte(`{"payload":"e30=","payloadType":"x","signatures":[]}`), "AA==", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", `{"SignedEntryTimestamp":"AA==","Payload":{"body":"e30=","logID":"00"}}`)
	f.Add(fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"payload":%q,"payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`,
		base64.StdEncoding.EncodeToString([]byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x","predicate":{"scanner":{"result":{"matches":[]},"db":{"lastUpdate":"2026-01-01T00:00:00Z"}}}}`))), "", "", "")
	set, err := Load(policy.File{Name: "p.yaml", Data: []byte(doc("p", "attestors:\n"+keyAttestor("a", newKey(f))))})
	if err != nil {
		f.Fatal(err)
	}
	stranger, digest := set.policies[0].attestors[0], "sha256:"+strings.Repeat("0", 64)
	f.Fuzz(func(t *testing.T, content []byte, signature, certificate, entry string) {
		var a attached
		hash, _, err := v1.SHA256(bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		layer := v1.Descriptor{Digest: hash, Annotations: map[string]string{signatureKey: signature, certificateKey: certificate, logEntryKey: entry}}
		for _, err := range []error{a.addBundle(content), a.addSimple(layer, content), a.addEnvelope(layer, content)} {
			if a.fault(err) != nil {
				t.Errorf("%v is taken for an error of the registry", err)
			}
		}
		for _, s := range a.signatures {
			if stranger.signs(t.Context(), s, digest) == nil {
				t.Error("a signature of nobody is verified")
			}
		}
		for _, s := range a.statements {
			if _, err := stranger.verify(t.Context(), s.signed, digest); err == nil {
				t.Error("a statement of nobody is verified")
			}
			readPredicate(s.predicate)
		}
	})
}

// readPredicate reads what a statement says by every rule there is.
func readPredicate(predicate []byte) {
	now := time.Now()
	(&attestation{maxAge: time.Hour}).judge([]statement{{predicate: predicate}}, now)
	(&provenance{sources: texts{exact: []string{"x"}}}).judge(predicate)
	(&vulnerabilities{word: "low", maxDatabaseAge: time.Hour}).judge(predicate, now)
}
