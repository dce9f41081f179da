package evidence

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

var (
	digest = "sha256:" + strings.Repeat("1f", 32)
	noon   = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

const trivyImage = `{
  "SchemaVersion": 2, "Trivy": {"Version": "0.69.1"}, "CreatedAt": "2026-11-26T12:00:00Z",
  "ArtifactName": "nginx:1.27", "ArtifactType": "container_image",
  "Metadata": {
    "OS": {"Family": "debian", "Name": "12.12", "EOSL": true}, "ImageID": "sha256:%[1]s",
    "RepoTags": ["nginx:1.27"], "RepoDigests": ["nginx@sha256:%[1]s"],
    "ImageConfig": {"created": "2026-11-20T08:00:00Z", "config": {"User": "101", "Env": ["PATH=/bin", "API_TOKEN=abcdefgh"]},
      "history": [{"created_by": "RUN |1 NPM_TOKEN=npm_0123 /bin/sh -c npm ci"}, {"created_by": "RUN |1 NPM_TOKEN=npm_0123 /bin/sh -c npm run build"}]}
  },
  "Results": [
    {"Target": "nginx (debian)", "Class": "os-pkgs", "Packages": [{"Name": "bash", "Version": "5.2"}],
     "Vulnerabilities": [{"VulnerabilityID": "CVE-2026-1", "PkgName": "libssl3", "FixedVersion": "3.0.17", "Severity": "CRITICAL", "PublishedDate": "2026-09-01T10:15:00Z"}]},
    {"Target": "app/go.sum", "Class": "lang-pkgs", "Vulnerabilities": [{"VulnerabilityID": "CVE-2026-2", "PkgName": "x/net", "Severity": "UNKNOWN"}]},
    {"Target": "/app/.env", "Class": "secret", "Secrets": [{"RuleID": "aws-access-key-id", "StartLine": 3, "Match": "AKIAIOSFODNN7EXAMPLE"}]}
  ]
}`

func read(t *testing.T, text string) *Set {
	t.Helper()
	set, err := Read("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTrivyImage(t *testing.T) {
	img := read(t, fmt.Sprintf(trivyImage, digest[7:])).Images[0]
	want := ImageReport{
		Origin: Origin{Kind: Image, Tool: "Trivy 0.69.1", Source: "f", SeenAt: noon},
		Refs:   []string{"nginx:1.27", "nginx:1.27", "nginx@" + digest}, Digests: []string{digest}, ID: digest,
		OS: "debian 12.12", Support: EndOfLife, Scanned: true,
		Config: &Config{User: "101", Created: time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)},
		Vulnerabilities: []Vulnerability{
			{ID: "CVE-2026-1", Package: "libssl3", Fixed: "3.0.17", Severity: finding.Critical, Known: time.Date(2026, 9, 1, 10, 15, 0, 0, time.UTC)},
			{ID: "CVE-2026-2", Package: "x/net", Library: true},
		},
		Secrets: []Secret{
			{"value under the name of a secret", "environment variable API_TOKEN"},
			{"value under the name of a secret", "build step that sets NPM_TOKEN"},
			{"aws-access-key-id", "/app/.env:3"},
		},
		Packages: []Package{{"bash", "5.2", false}},
	}
	if !reflect.DeepEqual(img, want) {
		t.Errorf("image\n%+v\nwant\n%+v", img, want)
	}
	if all := fmt.Sprintf("%+v", img); strings.Contains(all, "AKIA") || strings.Contains(all, "abcdefgh") || strings.Contains(all, "npm_0123") {
		t.Errorf("a secret was kept: %s", all)
	}
}

// A scan for secrets alone, which found none, is no scan for vulnerabilities.
func TestTrivyThatDidNotSearch(t *testing.T) {
	img := read(t, `{"SchemaVersion": 2, "ArtifactName": "nginx", "ArtifactType": "container_image", "Metadata": {"OS": {"Family": "debian", "Name": "12"}}}`).Images[0]
	if img.Scanned || img.SecretsSearched || img.Support != "" || img.Config != nil {
		t.Errorf("%+v", img)
	}
}

func TestTrivySourceTree(t *testing.T) {
	set := read(t, `{"SchemaVersion": 2, "CreatedAt": "2026-11-26T12:00:00Z", "ArtifactName": "https://github.com/acme/shop", "ArtifactType": "repository",
		"Metadata": {"Commit": "abcdef0123"}, "Results": [
		{"Target": "go.mod", "Class": "lang-pkgs", "Vulnerabilities": [{"VulnerabilityID": "CVE-2026-2", "Severity": "HIGH"}]},
		{"Target": "Dockerfile", "Class": "config", "Misconfigurations": [{"ID": "DS-0002", "Severity": "HIGH", "Status": "FAIL"}, {"ID": "DS-0001", "Severity": "LOW", "Status": "PASS"}]},
		{"Target": ".env", "Class": "secret", "Secrets": [{"RuleID": "aws", "Severity": "CRITICAL", "StartLine": 1}]}]}`)
	if len(set.Analyses) != 3 {
		t.Fatalf("%+v", set)
	}
	for i, want := range []struct {
		kind AnalysisType
		rule string
	}{{SCA, "CVE-2026-2"}, {SecretScan, "aws"}, {IaCScan, "DS-0002"}} {
		a := set.Analyses[i]
		if a.Type != want.kind || len(a.Results) != 1 || a.Results[0].Rule != want.rule || a.Commit != "abcdef0123" || !SameRepository(a.Repository, "git@github.com:acme/shop.git") {
			t.Errorf("%+v", a)
		}
	}
	empty := read(t, `{"SchemaVersion": 2, "ArtifactName": ".", "ArtifactType": "filesystem"}`)
	if !empty.Empty() || len(empty.Skipped) != 1 {
		t.Errorf("%+v", empty)
	}
}

func TestGrype(t *testing.T) {
	config := base64.StdEncoding.EncodeToString([]byte(`{"config": {"User": "root"}}`))
	set := read(t, fmt.Sprintf(`{"matches": [
		{"vulnerability": {"id": "CVE-2026-1", "severity": "Negligible", "fix": {"versions": ["2", "3"], "available": [{"date": "2026-09-02"}, {"date": "2026-09-01"}]},
		  "epss": [{"epss": 0.2}, {"epss": 0.7}], "knownExploited": [{"cve": "CVE-2026-1"}]}, "artifact": {"name": "x/net", "type": "go-module"}},
		{"vulnerability": {"id": "CVE-2026-2", "severity": "High", "fix": {"versions": []}}, "artifact": {"name": "libssl3", "type": "deb"}}],
		"source": {"type": "image", "target": {"userInput": "acme/shop", "imageID": "%s", "repoDigests": ["acme/shop@%s"], "config": "%s"}},
		"distro": {"name": "debian", "version": "12"}, "descriptor": {"name": "grype", "version": "0.104.0", "timestamp": "2026-11-26T12:00:00Z"}}`, digest, digest, config))
	img := set.Images[0]
	want := []Vulnerability{
		{ID: "CVE-2026-1", Package: "x/net", Fixed: "2, 3", Severity: finding.Low, Known: time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC), Library: true, Rated: true, Exploited: true, Likelihood: 0.7},
		{ID: "CVE-2026-2", Package: "libssl3", Severity: finding.High},
	}
	if !reflect.DeepEqual(img.Vulnerabilities, want) || img.Config.User != "root" || !img.Scanned || !img.SeenAt.Equal(noon) || img.Support != "" {
		t.Errorf("%+v", img)
	}
	folder := read(t, `{"matches": [{"vulnerability": {"id": "CVE-2026-1", "severity": "High"}, "artifact": {"name": "x"}}], "source": {"type": "directory", "target": "."}, "descriptor": {}}`)
	if len(folder.Analyses) != 1 || folder.Analyses[0].Type != SCA || folder.Analyses[0].Results[0].Severity != finding.High {
		t.Errorf("%+v", folder)
	}
}

func TestCycloneDX(t *testing.T) {
	set := read(t, fmt.Sprintf(`{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata": {"timestamp": "2026-11-26T12:00:00Z", "tools": [{"name": "trivy", "version": "0.69.1"}],
		  "component": {"type": "container", "name": "ghcr.io/acme/shop:1.4", "purl": "pkg:oci/shop@sha256%%3A%s?repository_url=ghcr.io%%2Facme%%2Fshop",
		    "properties": [{"name": "aquasecurity:trivy:RepoTag", "value": "ghcr.io/acme/shop:latest"}]}},
		"components": [
		  {"bom-ref": "1", "type": "operating-system", "name": "debian", "version": "12"},
		  {"bom-ref": "2", "type": "library", "name": "bash", "version": "5", "purl": "pkg:deb/debian/bash@5"},
		  {"bom-ref": "3", "type": "application", "name": "go.mod", "components": [{"bom-ref": "4", "type": "library", "name": "x/net", "purl": "pkg:golang/x/net@1"}]},
		  {"bom-ref": "5", "type": "file", "name": "/etc/passwd"}],
		"vulnerabilities": [{"id": "CVE-2026-1", "ratings": [{"severity": "low"}, {"severity": "high"}], "published": "2026-09-01T00:00:00+00:00", "recommendation": "Upgrade x/net to 2", "affects": [{"ref": "4"}]}]}`, digest[7:]))
	img := set.Images[0]
	if !slices.Contains(img.Digests, digest) || !slices.Contains(img.Refs, "ghcr.io/acme/shop:latest") || img.OS != "debian 12" || img.Tool != "trivy 0.69.1" || !img.SBOM {
		t.Errorf("%+v", img)
	}
	if want := []Package{{"bash", "5", false}, {"x/net", "", true}}; !reflect.DeepEqual(img.Packages, want) {
		t.Errorf("packages %+v", img.Packages)
	}
	if v := img.Vulnerabilities; len(v) != 1 || v[0].Severity != finding.High || !v[0].Library || v[0].Package != "x/net" || v[0].Fixed == "" || !img.Scanned {
		t.Errorf("vulnerabilities %+v", v)
	}
}

func TestSARIF(t *testing.T) {
	set := read(t, `{"version": "2.1.0", "runs": [
		{"tool": {"driver": {"name": "CodeQL", "rules": [{"id": "go/sql", "defaultConfiguration": {"level": "error"}, "properties": {"security-severity": "9.1"}}]}},
		 "invocations": [{"startTimeUtc": "2026-11-26T11:00:00Z", "endTimeUtc": "2026-11-26T12:00:00Z"}],
		 "versionControlProvenance": [{"repositoryUri": "https://github.com/acme/shop", "revisionId": "abcdef0"}],
		 "results": [
		  {"ruleId": "go/sql", "message": {}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "db.go"}, "region": {"startLine": 4}}}], "provenance": {"firstDetectionTimeUtc": "2026-09-01T00:00:00Z"}},
		  {"level": "note"}, {"level": "none", "ruleId": "x"}, {"ruleId": "y", "properties": {"security-severity": 5}}, null,
		  {"ruleId": "gone", "baselineState": "absent"}, {"ruleId": "passed", "kind": "pass"},
		  {"ruleId": "off", "suppressions": [{"kind": "external", "status": "accepted"}]}, {"ruleId": "on", "suppressions": [{"kind": "external", "status": "rejected"}]}]},
		{"tool": {"driver": {"name": "Trivy", "rules": [{"id": "DS-0002", "properties": {"tags": ["misconfiguration"]}}]}}, "results": [{"ruleId": "DS-0002", "level": "error"}, {"ruleId": "CVE-1"}]},
		{"tool": {"driver": {"name": "homemade"}}, "results": [{}, {}]},
		{"tool": {"driver": {}}, "results": [{}]}, null]}`)
	a := set.Analyses[0]
	if a.Type != SAST || a.Commit != "abcdef0" || !a.SeenAt.Equal(noon) || a.Started.Hour() != 11 || a.Kind != Repo {
		t.Errorf("analysis %+v", a)
	}
	want := []Result{
		{Rule: "go/sql", File: "db.go", Line: 4, Severity: finding.Critical, Score: 9.1, Since: time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)},
		{Severity: finding.Low}, {Rule: "x"}, {Rule: "y", Severity: finding.Medium, Score: 5}, {Rule: "on", Severity: finding.Medium},
	}
	if !reflect.DeepEqual(a.Results, want) {
		t.Errorf("results\n%+v\nwant\n%+v", a.Results, want)
	}
	if len(set.Analyses) != 3 || set.Analyses[1].Type != SCA || set.Analyses[2].Type != IaCScan || set.Analyses[2].Kind != IaC {
		t.Errorf("analyses of Trivy %+v", set.Analyses[1:])
	}
	if len(set.Skipped) != 2 || set.Skipped[0].Count != 2 || set.Skipped[1].Count != 1 {
		t.Errorf("skipped %+v", set.Skipped)
	}
}

func TestPolicyReport(t *testing.T) {
	set := read(t, `apiVersion: wgpolicyk8s.io/v1alpha2
kind: ClusterPolicyReport
metadata: {name: bench, creationTimestamp: "2026-11-26T12:00:00Z"}
results:
- {source: Kube Bench, policy: CIS Kubernetes Benchmark v1.12, rule: API Server, result: fail, message: no audit log, properties: {index: 1.2.16}, timestamp: {seconds: 31}, resources: [{kind: Node, name: cp-1}]}
- {source: Kube Bench, policy: CIS Kubernetes Benchmark v1.12, rule: API Server, result: warn, properties: {index: 1.2.1}}
- {source: Kube Bench, category: CIS Benchmarks, policy: Master, rule: API Server, result: pass, properties: {index: 1.2.2}}
- {source: kyverno, policy: signed, rule: check, result: fail, message: bad, timestamp: {seconds: 1795600000}, resources: [{apiVersion: apps/v1, kind: Deployment, namespace: shop, name: web}]}
- {source: other, policy: p, result: pass}
`)
	if len(set.Verdicts) != 1 || set.Verdicts[0].Framework != "cis-1.12" || set.Verdicts[0].Item != "1.2.16" || set.Verdicts[0].Pass || set.Verdicts[0].Subject != "cp-1" || !set.Verdicts[0].SeenAt.Equal(noon) {
		t.Errorf("verdicts %+v", set.Verdicts)
	}
	if r := set.PolicyResults; len(r) != 1 || r[0].Engine != "kyverno" || r[0].Subject.String() != "Deployment/shop/web" || r[0].SeenAt.Unix() != 1795600000 {
		t.Errorf("results %+v", r)
	}
	if len(set.Skipped) != 1 || set.Skipped[0].Count != 3 {
		t.Errorf("skipped %+v", set.Skipped)
	}
	list := read(t, `{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod"}, {"apiVersion": "openreports.io/v1alpha1", "kind": "Report", "results": []}]}`)
	if len(list.Skipped) != 1 || list.Skipped[0].Count != 1 {
		t.Errorf("skipped %+v", list.Skipped)
	}
	typed := read(t, `{"apiVersion": "aquasecurity.github.io/v1alpha1", "kind": "ExposedSecretReportList", "items": [{"report": {"artifact": {"repository": "acme/shop", "tag": "1"}}}]}`)
	if len(typed.Images) != 1 || !typed.Images[0].SecretsSearched || typed.Images[0].Refs[0] != "acme/shop:1" {
		t.Errorf("%+v", typed)
	}
}

func statementOf(predicate, body string) string {
	return fmt.Sprintf(`{"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "shop", "digest": {"sha256": "%s"}}], "predicateType": "%s", "predicate": %s}`, digest[7:], predicate, body)
}

func envelopeOf(statement string) string {
	return fmt.Sprintf(`{"payloadType": "application/vnd.in-toto+json", "payload": %q, "signatures": [{"sig": "MEU="}]}`, base64.StdEncoding.EncodeToString([]byte(statement)))
}

func TestProvenance(t *testing.T) {
	slsa1 := statementOf("https://slsa.dev/provenance/v1", `{"buildDefinition": {"resolvedDependencies": [
		{"uri": "pkg:docker/debian@12", "digest": {"sha1": "0000000"}}, {"uri": "git+https://github.com/acme/shop@refs/heads/main", "digest": {"gitCommit": "abcdef0"}}]},
		"runDetails": {"builder": {"id": "builder"}, "metadata": {"finishedOn": "2026-11-26T12:00:00Z"}}}`)
	buildkit := statementOf("https://slsa.dev/provenance/v0.2", `{"builder": {"id": "builder"}, "metadata": {"buildFinishedOn": "2026-11-26T12:00:00Z",
		"https://mobyproject.org/buildkit@v1#metadata": {"vcs": {"source": "https://github.com/acme/shop", "revision": "abcdef0"}}}}`)
	bundle := fmt.Sprintf(`{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": %s}`, envelopeOf(slsa1))
	for name, tt := range map[string]struct {
		text                string
		enveloped, verified bool
	}{
		"bare":     {slsa1, false, false},
		"envelope": {envelopeOf(slsa1), true, false},
		"buildkit": {envelopeOf(buildkit), true, false},
		"bundle":   {bundle, true, false},
		"gh":       {fmt.Sprintf(`[{"attestation": {"bundle": %s}, "verificationResult": {}}]`, bundle), true, true},
	} {
		p := read(t, tt.text).Provenances
		if len(p) != 1 || !slices.Equal(p[0].Digests, []string{digest}) || p[0].Builder != "builder" || !p[0].Finished.Equal(noon) || p[0].Commit != "abcdef0" || !SameRepository(p[0].Repository, "github.com/acme/shop") {
			t.Errorf("%s: %+v", name, p)
			continue
		}
		if p[0].Enveloped != tt.enveloped || p[0].Verified != tt.verified || (p[0].Signatures == 1) != tt.enveloped {
			t.Errorf("%s: enveloped %v, verified %v, %d signatures", name, p[0].Enveloped, p[0].Verified, p[0].Signatures)
		}
	}
	if set := read(t, envelopeOf(statementOf("https://cosign.sigstore.dev/attestation/vuln/v1", "{}"))); len(set.Skipped) != 1 {
		t.Errorf("%+v", set)
	}
	if set := read(t, envelopeOf(statementOf("https://spdx.dev/Document", `{"spdxVersion": "SPDX-2.3", "documentDescribes": ["a"], "packages": [{"SPDXID": "a", "name": "shop", "primaryPackagePurpose": "CONTAINER"}]}`))); len(set.Images) != 1 || set.Images[0].Digests[0] != digest {
		t.Errorf("%+v", set)
	}
}

func TestSequences(t *testing.T) {
	line := strings.ReplaceAll(envelopeOf(statementOf("https://slsa.dev/provenance/v1", "{}")), "\n", "")
	set := read(t, line+"\n"+line+"\n")
	if len(set.Provenances) != 2 || set.Provenances[1].Source != "f:2" {
		t.Errorf("%+v", set.Provenances)
	}
	signature := fmt.Sprintf(`{"critical": {"identity": {"docker-reference": "nginx"}, "image": {"docker-manifest-digest": "%s"}}, "optional": {"Subject": "ada@example.com"}}`, digest)
	signed := read(t, "[\n"+signature+",\n"+strings.Replace(signature, `{"Subject": "ada@example.com"}`, "null", 1)+"]")
	if s := signed.Signatures; len(s) != 2 || s[0].Identity != "ada@example.com" || s[0].Name != "docker.io/library/nginx" || s[1].Identity != "" || s[1].Source != "f:3" {
		t.Errorf("%+v", s)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"second line broken": {line + "\n{\"a\": }\n", "f:2: "},
		"list without end":   {"[" + signature, "f"},
		"unknown item":       {"[{\"a\": 1}]", "f:1: not evidence of a known format"},
		"no digest":          {strings.Replace(signature, digest, "sha256:1", 1), "f: critical.image.docker-manifest-digest"},
		"other payload":      {strings.Replace(line, "vnd.in-toto+json", "json", 1), "f: payloadType"},
		"payload not base64": {strings.Replace(line, `"payload": "`, `"payload": "?`, 1), "f: payload: "},
		"wrong type":         {"{\n\"SchemaVersion\": 2, \"ArtifactName\": \"a\", \"ArtifactType\": \"b\",\n\"Results\": {}}", "f:3: Results is a object"},
		"empty catalogue":    {`{"catalogVersion": "1", "vulnerabilities": []}`, "f: the catalogue lists no vulnerability"},
	} {
		if _, err := Read("f", []byte(tt.text)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestZAP(t *testing.T) {
	a := read(t, `{"@version": "2.16.1", "@generated": "Thu, 26 Nov 2026 12:00:00", "site": [{"@name": "https://shop.example.com", "alerts": [{"pluginid": "40018", "riskcode": "3"}, {"pluginid": "10038", "riskcode": "0"}]}]}`).Analyses[0]
	if a.Type != DASTScan || a.Kind != DAST || !a.SeenAt.Equal(noon) || len(a.Results) != 2 || a.Results[0].Severity != finding.High || a.Results[1].Severity != "" || a.Targets[0] != "https://shop.example.com" {
		t.Errorf("%+v", a)
	}
}

func TestByteOrderMark(t *testing.T) {
	if set := read(t, "\uFEFF"+`{"catalogVersion": "1", "vulnerabilities": [{"cveID": "CVE-2026-1"}]}`); !set.Exploited[0].IDs["CVE-2026-1"] {
		t.Errorf("%+v", set)
	}
}

func TestReferences(t *testing.T) {
	for text, want := range map[string]Reference{
		"nginx":                             {Name: "docker.io/library/nginx", Tag: "latest"},
		"docker.io/library/nginx:1.27":      {Name: "docker.io/library/nginx", Tag: "1.27"},
		"index.docker.io/acme/shop":         {Name: "docker.io/acme/shop", Tag: "latest"},
		"localhost/shop:1":                  {Name: "localhost/shop", Tag: "1"},
		"registry:5000/shop":                {Name: "registry:5000/shop", Tag: "latest"},
		"registry:5000/shop@" + digest:      {Name: "registry:5000/shop", Digest: digest},
		"nginx:1.27@" + digest:              {Name: "docker.io/library/nginx", Tag: "1.27", Digest: digest},
		"docker-pullable://nginx@" + digest: {Name: "docker.io/library/nginx", Digest: digest},
		digest:                              {Digest: digest},
		"":                                  {},
	} {
		if have := ParseReference(text); have != want {
			t.Errorf("%s: %+v, want %+v", text, have, want)
		}
	}
}

func TestRepositoriesAndCommits(t *testing.T) {
	for _, address := range []string{
		"https://github.com/acme/shop", "https://github.com/Acme/shop.git", "git+https://github.com/acme/shop@refs/heads/main", "git@github.com:acme/shop.git",
		"ssh://git@github.com/acme/shop", "https://github.com/acme/shop.git#main", "github.com/acme/shop/",
	} {
		if have := RepositoryName(address); have != "github.com/acme/shop" {
			t.Errorf("%s: %s", address, have)
		}
	}
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"abcdef0", "ABCDEF0123456789", true}, {"abcdef0123", "abcdef0", true}, {"abc", "abcdef0123", false}, {"", "", false}, {"abcdef0", "abcdef1", false}} {
		if have := SameCommit(tt.a, tt.b); have != tt.want {
			t.Errorf("%s and %s: %v", tt.a, tt.b, have)
		}
	}
}

func TestCredentialNames(t *testing.T) {
	for setting, want := range map[string]bool{
		"DB_PASSWORD=hunter22": true, "API_KEY=abcd1234": true, "TOKEN=abcd1234": true, "AWS_SECRET_ACCESS_KEY=abcd1234": true,
		"GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D": false, "DB_PASSWORD=": false, "DB_PASSWORD=$PW": false, "DB_PASSWORD_FILE=/run/x": false,
		"TOKEN=/var/run/token": false, "TOKENIZER=wordpiece": false, "KEY_PATH=abcd1234": false,
	} {
		var c imageConfig
		data, _ := json.Marshal(map[string]any{"config": map[string]any{"Env": []string{setting}}})
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatal(err)
		}
		var img ImageReport
		img.configure(c)
		if have := len(img.Secrets) > 0; have != want {
			t.Errorf("%s: %v", setting, have)
		}
	}
}

// seeds are documents of each format for the fuzz test.
func seeds() []string {
	return []string{
		fmt.Sprintf(trivyImage, digest[7:]),
		`{"matches": [{"vulnerability": {"id": "CVE-1"}}], "source": {"type": "image", "target": {"userInput": "a@b:c"}}, "descriptor": {}}`,
		`{"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": {"type": "container", "purl": "pkg:oci/a@%zz?repository_url=%zz"}}, "components": [{"components": [{}]}]}`,
		`{"spdxVersion": "SPDX-2.3", "packages": [{"SPDXID": "a"}], "relationships": [{"relationshipType": "DESCRIBES", "relatedSpdxElement": "a"}]}`,
		`{"@context": "https://spdx.org/rdf/3.0.1/x", "@graph": [{"type": "SpdxDocument", "rootElement": ["a"]}, {"type": "software_Package", "spdxId": "a", "software_primaryPurpose": "container"}]}`,
		`{"version": "2.1.0", "runs": [null, {"tool": {"driver": {"name": "CodeQL", "rules": [null]}, "extensions": [null]}, "invocations": [null], "results": [null, {"locations": [null], "suppressions": [null]}]}]}`,
		envelopeOf(statementOf("https://slsa.dev/provenance/v1", `{"buildDefinition": {"resolvedDependencies": [{"uri": "git+x", "digest": {"sha1": "a"}}]}}`)),
		`[{"critical": {"image": {"docker-manifest-digest": "x"}}, "optional": {"Subject": 1}}]`,
		`{"site": [{"alerts": [{}]}], "@generated": ""}`,
		`{"catalogVersion": "1", "vulnerabilities": [{"cveID": "CVE-1"}]}`,
		`{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "aquasecurity.github.io/v1alpha1", "kind": "SbomReport", "report": {"components": {"bomFormat": "CycloneDX"}}}]}`,
		"apiVersion: openreports.io/v1alpha1\nkind: Report\nresults:\n- {source: kube-bench, policy: CIS 1.12, rule: 1.2.1, result: pass, timestamp: {seconds: 9e18}}\n",
	}
}

// BenchmarkTrivy reads a report of about 20 MiB, most of it descriptions.
func BenchmarkTrivy(b *testing.B) {
	data := largeReport(20 << 20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		set, err := Read("f", data)
		if err != nil || len(set.Images[0].Vulnerabilities) < 1000 {
			b.Fatal(err)
		}
	}
}

func largeReport(size int) []byte {
	var s strings.Builder
	s.WriteString(`{"SchemaVersion": 2, "ArtifactName": "nginx", "ArtifactType": "container_image", "Results": [{"Class": "os-pkgs", "Vulnerabilities": [`)
	for i := 0; s.Len() < size; i++ {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, `{"VulnerabilityID": "CVE-2026-%d", "PkgName": "p%d", "FixedVersion": "2", "Severity": "HIGH", "PublishedDate": "2026-09-01T00:00:00Z", "Description": %q, "References": ["https://example.com/%d"]}`,
			i, i, strings.Repeat("A flaw was found. ", 80), i)
	}
	s.WriteString(`]}]}`)
	return []byte(s.String())
}
