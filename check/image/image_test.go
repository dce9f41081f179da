package image_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/image"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

var (
	now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	a   = "sha256:" + strings.Repeat("a", 64)
	b   = "sha256:" + strings.Repeat("b", 64)
)

func inventoryOf(t testing.TB, text string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.FromFiles(context.Background(), []string{"-"}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func pod(containers ...string) string {
	var s strings.Builder
	s.WriteString("---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec:\n  containers:\n")
	for i, ref := range containers {
		fmt.Fprintf(&s, "  - {name: c%d, image: %q}\n", i, ref)
	}
	return s.String()
}

func at(e finding.Exposure) func(*inventory.Workload) finding.Exposure {
	return func(*inventory.Workload) finding.Exposure { return e }
}

// vulnerable is a report of a tool that found a weakness with a fix.
func vulnerable(tool string, age time.Duration, digests []string, refs ...string) evidence.ImageReport {
	r := clean(tool, age, digests, refs...)
	r.Vulnerabilities = []evidence.Vulnerability{{ID: "CVE-1", Package: "p", Fixed: "2", Severity: finding.Critical, Known: now.AddDate(0, -3, 0)}}
	return r
}

func clean(tool string, age time.Duration, digests []string, refs ...string) evidence.ImageReport {
	return evidence.ImageReport{
		Origin: evidence.Origin{Kind: evidence.Image, Tool: tool, Source: tool + ".json", SeenAt: now.Add(-age)},
		Refs:   refs, Digests: digests, Scanned: true,
	}
}

func only(t *testing.T, found []finding.Verdict) finding.Verdict {
	t.Helper()
	if len(found) != 1 {
		t.Fatalf("%d findings: %+v", len(found), found)
	}
	return found[0]
}

func TestMatching(t *testing.T) {
	hour := time.Hour
	for _, tt := range []struct {
		name, image string
		reports     []evidence.ImageReport
		want        finding.Status
		says        string
	}{
		{"by digest", "acme/shop@" + a, []evidence.ImageReport{vulnerable("Trivy", hour, []string{a})}, finding.Fail, "CVE-1"},
		{"by digest under another name", "mirror.example.com/shop@" + a, []evidence.ImageReport{vulnerable("Trivy", hour, []string{a}, "acme/shop:1")}, finding.Fail, "CVE-1"},
		{"by tag", "acme/shop:1", []evidence.ImageReport{vulnerable("Trivy", hour, nil, "docker.io/acme/shop:1")}, finding.Fail, "matched by tag only"},
		{"by the digest of the configuration", "acme/shop@" + a, []evidence.ImageReport{{
			Origin: evidence.Origin{Kind: evidence.Image, Tool: "Trivy", SeenAt: now}, ID: a, Scanned: true,
		}}, finding.Pass, ""},
		{"digest before tag", "acme/shop:1@" + a, []evidence.ImageReport{
			clean("Trivy", hour, []string{a}, "acme/shop:1"), vulnerable("Trivy", 0, []string{b}, "acme/shop:1"),
		}, finding.Pass, ""},
		{"another digest", "acme/shop:1@" + a, []evidence.ImageReport{clean("Trivy", hour, []string{b}, "acme/shop:1")}, finding.Unknown, "not the one of Trivy.json"},
		{"another tag", "acme/shop:2", []evidence.ImageReport{clean("Trivy", hour, nil, "acme/shop:1")}, finding.Unknown, "image docker.io/acme/shop:2"},
		{"another registry", "ghcr.io/acme/shop:1", []evidence.ImageReport{clean("Trivy", hour, nil, "acme/shop:1")}, finding.Unknown, "no scan"},
		{"no tag is latest", "nginx", []evidence.ImageReport{clean("Trivy", hour, nil, "docker.io/library/nginx:latest")}, finding.Pass, ""},
		{"the tag has moved", "acme/shop:1", []evidence.ImageReport{
			vulnerable("Trivy", 48*hour, []string{a}, "acme/shop:1"), clean("Grype", hour, []string{b}, "acme/shop:1"),
		}, finding.Pass, "Grype"},
		{"newest of a tool", "acme/shop@" + a, []evidence.ImageReport{
			vulnerable("Trivy 0.68", 48*hour, []string{a}), clean("Trivy 0.69", hour, []string{a}),
		}, finding.Pass, "0.69"},
		{"worst of two tools", "acme/shop@" + a, []evidence.ImageReport{
			vulnerable("Grype", 48*hour, []string{a}), clean("Trivy", hour, []string{a}),
		}, finding.Fail, "Grype"},
		{"nothing named", "", nil, finding.Unknown, "it names no image"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im := image.New(inventoryOf(t, pod(tt.image)), &evidence.Set{Images: tt.reports}, at(finding.Internet), now)
			f := only(t, im.FixablePast())
			if text := f.Message + f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q, want %s with %q", f.Status, text, tt.want, tt.says)
			}
			if f.Subject.Container != "c0" || f.Exposure != finding.Internet {
				t.Errorf("subject %+v, exposure %s", f.Subject, f.Exposure)
			}
		})
	}
}

// Of several containers the worst decides, and is named.
func TestContainersOfAWorkload(t *testing.T) {
	set := &evidence.Set{Images: []evidence.ImageReport{
		clean("Trivy", time.Hour, nil, "clean:1"), clean("Trivy", 20*time.Hour, nil, "older:1"), vulnerable("Trivy", time.Hour, nil, "bad:1"),
	}}
	for _, tt := range []struct {
		images     []string
		want       finding.Status
		containers string
	}{
		{[]string{"clean:1", "older:1"}, finding.Pass, "c0,c1"},
		{[]string{"clean:1", "none:1"}, finding.Unknown, "c1"},
		{[]string{"none:1", "bad:1", "bad:1"}, finding.Fail, "c1,c2"},
	} {
		f := only(t, image.New(inventoryOf(t, pod(tt.images...)), set, at(finding.InCluster), now).FixablePast())
		if f.Status != tt.want || f.Subject.Container != tt.containers {
			t.Errorf("%v: %s of %s", tt.images, f.Status, f.Subject.Container)
		}
		if f.Status == finding.Pass && (f.EvidenceKind != "image" || !f.ObservedAt.Equal(now.Add(-20*time.Hour))) {
			t.Errorf("a pass is as old as its oldest evidence: %s %s", f.EvidenceKind, f.ObservedAt)
		}
	}
}

// What one tool does not say of a weakness another may.
func TestToolsCompleteEachOther(t *testing.T) {
	undated, dated := vulnerable("Trivy", time.Hour, []string{a}), vulnerable("Grype", time.Hour, []string{a})
	undated.Vulnerabilities[0].Known = time.Time{}
	dated.Vulnerabilities[0].Known = now.AddDate(0, 0, -1)
	dated.Vulnerabilities[0].Rated = true
	im := image.New(inventoryOf(t, pod("shop@"+a)), &evidence.Set{Images: []evidence.ImageReport{undated, dated}}, at(finding.Internet), now)
	if f := only(t, im.FixablePast()); f.Status != finding.Pass {
		t.Errorf("fixable: %s %s", f.Status, f.Reason+f.Message)
	}
	if f := only(t, im.Exploited()); f.Status != finding.Pass {
		t.Errorf("exploited: %s %s", f.Status, f.Reason+f.Message)
	}
	dated.Vulnerabilities[0].Exploited = true
	im = image.New(inventoryOf(t, pod("shop@"+a)), &evidence.Set{Images: []evidence.ImageReport{undated, dated}}, at(finding.Internet), now)
	if f := only(t, im.Exploited()); f.Status != finding.Fail {
		t.Errorf("exploited: %s %s", f.Status, f.Reason+f.Message)
	}
}

// Closing an exposure is a fix: what passed must not leave the sum for it.
func TestExposureOfExploited(t *testing.T) {
	r := vulnerable("Grype", time.Hour, []string{a})
	r.Vulnerabilities[0].Rated, r.Vulnerabilities[0].Exploited = true, true
	for exposure, want := range map[finding.Exposure]finding.Status{
		finding.Internet: finding.Fail, finding.ExposureUnknown: finding.Unknown, finding.InCluster: finding.Pass, finding.System: finding.Pass,
	} {
		f := only(t, image.New(inventoryOf(t, pod("shop@"+a)), &evidence.Set{Images: []evidence.ImageReport{r}}, at(exposure), now).Exploited())
		if f.Status != want {
			t.Errorf("%q: %s", exposure, f.Status)
		}
	}
}

func TestCommits(t *testing.T) {
	set := &evidence.Set{Provenances: []evidence.Provenance{{Digests: []string{a}, Repository: "git+https://github.com/acme/shop@refs/heads/main", Commit: "abcdef0"}}}
	labelled := strings.Replace(pod("other:1"), "{name: web, namespace: shop}",
		`{name: two, annotations: {org.opencontainers.image.source: "https://github.com/acme/two", org.opencontainers.image.revision: abcdef1}}`, 1)
	commits := image.New(inventoryOf(t, pod("shop@"+a)+labelled), set, at(finding.InCluster), now).Commits()
	if len(commits) != 2 || commits["github.com/acme/shop"][0] != "abcdef0" || commits["github.com/acme/two"][0] != "abcdef1" {
		t.Errorf("%v", commits)
	}
	if none := image.New(inventoryOf(t, pod("shop:1")), nil, at(finding.InCluster), now).Commits(); len(none) != 0 {
		t.Errorf("%v", none)
	}
}

func TestDemandsOfKyverno(t *testing.T) {
	const rule = `---
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: signed}
spec:
  validationFailureAction: Enforce
  rules:
  - name: r
    match: {any: [{resources: {kinds: [Pod]}}]}
    verifyImages: [{imageReferences: ["ghcr.io/acme/*"], attestors: [{count: 1}]}]
`
	for _, tt := range []struct {
		name, old, new string
		want           finding.Status
		says           string
	}{
		{"plain", "", "", finding.Pass, "demands"},
		{"with a version", "kinds: [Pod]", "kinds: [v1/Pod]", finding.Pass, "demands"},
		{"one namespace", "kinds: [Pod]", "kinds: [Pod], namespaces: [shop]", finding.Pass, "demands"},
		{"old style of match", "{any: [{resources: {kinds: [Pod]}}]}", "{resources: {kinds: [Pod]}}", finding.Pass, "demands"},
		{"audit", "Enforce", "Audit", finding.Unknown, "only audits"},
		{"audit is the default", "  validationFailureAction: Enforce\n", "", finding.Unknown, "only audits"},
		{"not for pods", "kinds: [Pod]", "kinds: [Job]", finding.Unknown, "not for pods"},
		{"not required", "attestors:", "required: false, attestors:", finding.Unknown, "does not require"},
		{"skipped", "attestors:", `skipImageReferences: ["*shop*"], attestors:`, finding.Unknown, "no verified signature"},
		{"exclude", "match:", "exclude: {any: []}\n    match:", finding.Unknown, "leaves some pods out"},
		{"other image", "ghcr.io/acme/*", "ghcr.io/other/*", finding.Unknown, "no verified signature"},
		{"nothing after the name", "ghcr.io/acme/*", "ghcr.io/acme/shop", finding.Pass, "demands"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv := inventoryOf(t, pod("ghcr.io/acme/shop:1")+strings.Replace(rule, tt.old, tt.new, 1))
			f := only(t, image.New(inv, nil, at(finding.InCluster), now).Signed())
			if text := f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q, want %s with %q", f.Status, text, tt.want, tt.says)
			}
			if system := only(t, image.New(inv, nil, at(finding.System), now).Signed()); system.Status != finding.Unknown {
				t.Errorf("in a namespace of Kubernetes: %s", system.Status)
			}
		})
	}
}

// BenchmarkImages judges 2,000 workloads on 200 images with 500 weaknesses each.
func BenchmarkImages(b *testing.B) {
	var text strings.Builder
	set := &evidence.Set{}
	for i := range 200 {
		r := clean("Trivy", time.Hour, nil, fmt.Sprintf("acme/shop:%d", i))
		for n := range 500 {
			r.Vulnerabilities = append(r.Vulnerabilities, evidence.Vulnerability{ID: fmt.Sprintf("CVE-%d", n), Fixed: "1", Severity: finding.High, Known: now})
		}
		set.Images = append(set.Images, r)
	}
	for i := range 2000 {
		text.WriteString(strings.Replace(pod(fmt.Sprintf("acme/shop:%d", i%200)), "name: web", fmt.Sprintf("name: web-%d", i), 1))
	}
	inv := inventoryOf(b, text.String())
	for b.Loop() {
		im := image.New(inv, set, at(finding.Internet), now)
		if len(im.FixablePast())+len(im.Exploited())+len(im.Libraries()) != 6000 {
			b.Fatal("not every workload was judged")
		}
	}
}
