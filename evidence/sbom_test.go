package evidence

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

func TestSPDX2(t *testing.T) {
	const document = `{
  "spdxVersion": "SPDX-2.3",
  "creationInfo": {"created": "2026-11-26T12:00:00Z", "creators": ["Organization: Acme", "Tool: syft-1.30.0"]},
  "packages": [
    {"SPDXID": "SPDXRef-image", "name": "ghcr.io/acme/shop", "versionInfo": "1.4", "primaryPackagePurpose": "CONTAINER",
     "checksums": [{"algorithm": "SHA1", "checksumValue": "00"}, {"algorithm": "SHA256", "checksumValue": "%s"}]},
    {"SPDXID": "SPDXRef-os", "name": "debian", "versionInfo": "12", "primaryPackagePurpose": "OPERATING-SYSTEM"},
    {"SPDXID": "SPDXRef-bash", "name": "bash", "versionInfo": "5.2", "externalRefs": [
      {"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:gnu:bash"},
      {"referenceType": "purl", "referenceLocator": "pkg:deb/debian/bash@5.2"}]},
    {"SPDXID": "SPDXRef-net", "name": "x/net", "versionInfo": "0.40"}
  ],
  "relationships": [
    {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"},
    {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-bash"}
  ]
}`
	img := read(t, fmt.Sprintf(document, digest[7:])).Images[0]
	if img.Tool != "syft-1.30.0" || !img.SeenAt.Equal(noon) || img.OS != "debian 12" || !img.SBOM || img.Scanned {
		t.Errorf("%+v", img)
	}
	if !slices.Contains(img.Refs, "ghcr.io/acme/shop:1.4") || !slices.Equal(img.Digests, []string{digest}) {
		t.Errorf("names %v, digests %v", img.Refs, img.Digests)
	}
	if want := []Package{{"bash", "5.2", false}, {"x/net", "0.40", true}}; !reflect.DeepEqual(img.Packages, want) {
		t.Errorf("packages %+v", img.Packages)
	}
}

func TestSPDX3(t *testing.T) {
	const document = `{
  "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
  "@graph": [
    {"type": "CreationInfo", "@id": "_:c", "created": "2026-11-26T12:00:00Z"},
    {"type": "Tool", "spdxId": "urn:tool", "name": "trivy-0.69.1"},
    {"type": "SpdxDocument", "spdxId": "urn:doc", "rootElement": ["urn:sbom"]},
    {"type": "software_Sbom", "spdxId": "urn:sbom", "rootElement": ["urn:image"]},
    {"type": "software_Package", "spdxId": "urn:image", "name": "ghcr.io/acme/shop:1.4", "software_primaryPurpose": "container",
     "verifiedUsing": [{"type": "Hash", "algorithm": "sha256", "hashValue": "%s"}]},
    {"type": "software_Package", "spdxId": "urn:os", "name": "alpine", "software_packageVersion": "3.22", "software_primaryPurpose": "operatingSystem"},
    {"type": "software_Package", "spdxId": "urn:apk", "name": "apk-tools", "software_packageUrl": "pkg:apk/alpine/apk-tools@2.14"},
    {"type": "Relationship", "spdxId": "urn:r", "relationshipType": "contains"}
  ]
}`
	img := read(t, fmt.Sprintf(document, digest[7:])).Images[0]
	if img.Tool != "trivy-0.69.1" || !img.SeenAt.Equal(noon) || img.OS != "alpine 3.22" || !slices.Contains(img.Digests, digest) {
		t.Errorf("%+v", img)
	}
	if want := []Package{{"apk-tools", "", false}}; !reflect.DeepEqual(img.Packages, want) {
		t.Errorf("packages %+v", img.Packages)
	}
}

// An SBOM of something else than an image says nothing of what runs.
func TestSBOMOfSomethingElse(t *testing.T) {
	for name, text := range map[string]string{
		"CycloneDX of an application": `{"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": {"type": "application", "name": "shop"}}}`,
		"CycloneDX of nothing":        `{"bomFormat": "CycloneDX", "specVersion": "1.6"}`,
		"SPDX of a folder":            `{"spdxVersion": "SPDX-2.3", "documentDescribes": ["a"], "packages": [{"SPDXID": "a", "name": "shop", "primaryPackagePurpose": "SOURCE"}]}`,
		"SPDX of nothing":             `{"spdxVersion": "SPDX-2.3", "packages": [{"SPDXID": "a", "name": "shop", "primaryPackagePurpose": "CONTAINER"}]}`,
		"SPDX 3 of nothing":           `{"@context": "https://spdx.org/rdf/3.0.1/x", "@graph": []}`,
	} {
		set := read(t, text)
		if !set.Empty() || len(set.Skipped) != 1 || set.Skipped[0].Count != 1 {
			t.Errorf("%s: %+v", name, set)
		}
	}
}

const operatorHead = `"updateTimestamp": "2026-11-26T12:00:00Z", "scanner": {"name": "Trivy", "vendor": "Aqua Security", "version": "0.69.1"},
  "registry": {"server": "ghcr.io"}, "artifact": {"repository": "acme/shop", "tag": "1.4", "digest": "%s"}`

func operator(kind, body string) string {
	return fmt.Sprintf(`{"apiVersion": "aquasecurity.github.io/v1alpha1", "kind": %q, "metadata": {"name": "shop", "namespace": "shop"}, "report": {%s, %s}}`,
		kind, fmt.Sprintf(operatorHead, digest), body)
}

func TestVulnerabilityReport(t *testing.T) {
	img := read(t, operator("VulnerabilityReport", `"os": {"family": "debian", "name": "12"}, "vulnerabilities": [
		{"vulnerabilityID": "CVE-1", "resource": "libssl3", "fixedVersion": "2", "severity": "CRITICAL", "class": "os-pkgs"},
		{"vulnerabilityID": "CVE-2", "resource": "x/net", "severity": "LOW", "class": "lang-pkgs", "publishedDate": "2026-11-26T12:00:00Z"}]`)).Images[0]
	want := []Vulnerability{
		{ID: "CVE-1", Package: "libssl3", Fixed: "2", Severity: finding.Critical},
		{ID: "CVE-2", Package: "x/net", Severity: finding.Low, Library: true, Known: noon},
	}
	if !reflect.DeepEqual(img.Vulnerabilities, want) || !img.Scanned || img.SecretsSearched || img.Support != Supported || img.Tool != "Trivy 0.69.1" {
		t.Errorf("%+v", img)
	}
	if !slices.Equal(img.Refs, []string{"ghcr.io/acme/shop:1.4@" + digest}) || !slices.Equal(img.Digests, []string{digest}) {
		t.Errorf("names %v, digests %v", img.Refs, img.Digests)
	}
}

func TestExposedSecretReport(t *testing.T) {
	set := read(t, operator("ExposedSecretReport", `"secrets": [{"target": "/app/.env", "ruleID": "aws", "match": "AKIAIOSFODNN7EXAMPLE"}, {"target": "/app/.env", "ruleID": "aws"}]`))
	img := set.Images[0]
	if want := []Secret{{"aws", "/app/.env"}}; !reflect.DeepEqual(img.Secrets, want) || !img.SecretsSearched || img.Scanned {
		t.Errorf("%+v", img)
	}
	if strings.Contains(fmt.Sprintf("%+v", set), "AKIA") {
		t.Error("the secret was kept")
	}
}

func TestSbomReport(t *testing.T) {
	img := read(t, operator("SbomReport", `"components": {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": {"type": "container", "name": "acme/shop"}},
		"components": [{"type": "library", "name": "bash", "purl": "pkg:deb/debian/bash@5"}]}`)).Images[0]
	if !img.SBOM || len(img.Packages) != 1 || img.Tool != "Trivy 0.69.1" || !img.SeenAt.Equal(noon) || !slices.Contains(img.Digests, digest) {
		t.Errorf("%+v", img)
	}
	if _, err := Read("f", []byte(operator("SbomReport", `"components": 1`))); err == nil {
		t.Error("a number is no SBOM")
	}
}

// Errors in an item of a list name it.
func TestErrorsOfObjects(t *testing.T) {
	list := fmt.Sprintf(`{"apiVersion": "v1", "kind": "List", "items": [%s]}`, operator("VulnerabilityReport", `"vulnerabilities": {}`))
	if _, err := Read("f", []byte(list)); err == nil || !strings.Contains(err.Error(), "f: VulnerabilityReport/shop/shop") {
		t.Errorf("%v", err)
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2026-11-26T12:00:00Z":           noon,
		"2026-11-26T13:00:00+01:00":      noon,
		"2026-11-26T12:00:00.000000000Z": noon,
		"2026-11-26T12:00:00":            noon,
		"2026-11-26":                     noon.Truncate(24 * time.Hour),
		"1970-01-01T00:00:00Z":           {},
		"0001-01-01T00:00:00Z":           {},
		"yesterday":                      {},
		"":                               {},
	} {
		if have := instant(text); !have.Equal(want) {
			t.Errorf("%q: %s", text, have)
		}
	}
}

func TestSeverities(t *testing.T) {
	for text, want := range map[string]finding.Severity{
		"CRITICAL": finding.Critical, "High": finding.High, "important": finding.High, "moderate": finding.Medium, "medium": finding.Medium,
		"Low": finding.Low, "Negligible": finding.Low, "UNKNOWN": "", "": "",
	} {
		if have := severity(text); have != want {
			t.Errorf("%q: %q", text, have)
		}
	}
	for score, want := range map[float64]finding.Severity{0: "", 0.1: finding.Low, 3.9: finding.Low, 4: finding.Medium, 7: finding.High, 8.9: finding.High, 9: finding.Critical, 10: finding.Critical} {
		if have := severityOfScore(score); have != want {
			t.Errorf("%v: %q", score, have)
		}
	}
	for _, v := range []any{"11", "-1", "x", nil, 10.5, true} {
		if have := score(v); have != 0 {
			t.Errorf("score %v: %v", v, have)
		}
	}
}

func TestToolTypes(t *testing.T) {
	for name, want := range map[string]AnalysisType{
		"CodeQL": SAST, "Semgrep OSS": SAST, "gosec": SAST, "SonarQube": SAST, "Bandit": SAST,
		"Trivy": SCA, "OSV-Scanner": SCA, "Snyk Open Source": SCA, "Dependabot": SCA,
		"SnykCode": SAST, "Snyk IaC": IaCScan, "gitleaks": SecretScan, "TruffleHog": SecretScan,
		"checkov": IaCScan, "tfsec": IaCScan, "KICS": IaCScan, "ZAP": DASTScan, "nuclei": DASTScan, "homemade": "",
	} {
		if have := typeOfTool(name); have != want {
			t.Errorf("%s: %q, want %q", name, have, want)
		}
	}
}

func TestAnalysesOf(t *testing.T) {
	at := func(source string, kind AnalysisType, hour int) Analysis {
		return Analysis{Origin: Origin{Source: source, SeenAt: noon.Add(time.Duration(hour) * time.Hour)}, Type: kind}
	}
	set := &Set{Analyses: []Analysis{at("old", SAST, 1), at("b", SAST, 2), at("a", SAST, 2), at("other", SCA, 3)}}
	var have []string
	for _, a := range set.AnalysesOf(SAST) {
		have = append(have, a.Source)
	}
	if want := []string{"a", "b", "old"}; !slices.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
}

// FuzzParseReference expects a name written in full to mean itself.
func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{"nginx", "localhost:5000/a/b:1@" + digest, "docker-pullable://x@" + digest, ":", "@", "/", "a//b:c@d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := ParseReference(text)
		if strings.Contains(r.Name, "://") || strings.ContainsAny(r.Name, "@") {
			return // no registry accepts it
		}
		if again := ParseReference(r.String()); r.Name != "" && again != r {
			t.Errorf("%q: %+v, then %+v", text, r, again)
		}
	})
}

// FuzzRepositoryName expects the name of a repository to mean itself.
func FuzzRepositoryName(f *testing.F) {
	for _, seed := range []string{"git@github.com:acme/shop.git", "https://u:p@h/x.git#a", "a:b:c", "@", ".git", "git+git+x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name := RepositoryName(text)
		if name != strings.ToLower(name) || strings.Contains(name, "#") || strings.HasSuffix(name, "/.git") {
			t.Errorf("%q: %q", text, name)
		}
	})
}
