package image_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/check/image"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// imagesOf judges one pod on the image shop, pinned by digest, of which the
// reports speak.
func imagesOf(t *testing.T, set evidence.Set) *image.Images {
	t.Helper()
	return image.New(inventoryOf(t, pod("acme/shop@"+a)), &set, at(finding.InCluster), now)
}

func listing(names ...string) evidence.ImageReport {
	r := clean("Trivy", time.Hour, []string{a})
	for _, name := range names {
		library, isLibrary := strings.CutPrefix(name, "lib:")
		r.Packages = append(r.Packages, evidence.Package{Name: library, Library: isLibrary})
	}
	return r
}

func TestMinimal(t *testing.T) {
	for _, tt := range []struct {
		packages string
		want     finding.Status
		says     string
	}{
		{"base-files tzdata", finding.Pass, "2 packages"},
		{"libc6", finding.Pass, "1 package "},
		{"bash", finding.Fail, "shell bash"},
		{"busybox-binsh", finding.Fail, "shell busybox-binsh"},
		{"mksh", finding.Fail, "shell mksh"},
		{"apt libapt-pkg6.0", finding.Fail, "package manager apt ("},
		{"microdnf", finding.Fail, "package manager microdnf"},
		{"gcc-12-base", finding.Pass, ""},
		{"gcc-12", finding.Fail, "compiler gcc-12"},
		{"g++-12", finding.Fail, "compiler g++-12"},
		{"gcc-c++", finding.Fail, "compiler gcc-c++"},
		{"golang-1.22-go", finding.Fail, "compiler golang-1.22-go"},
		{"openjdk-21-jre-headless", finding.Pass, ""},
		{"openjdk-21-jdk-headless", finding.Fail, "compiler openjdk-21-jdk-headless"},
		{"tzdata lib:bash lib:gcc", finding.Pass, ""},
		{"bash dash apt", finding.Fail, "package manager apt, shell bash, shell dash"},
	} {
		f := only(t, imagesOf(t, evidence.Set{Images: []evidence.ImageReport{listing(strings.Fields(tt.packages)...)}}).Minimal())
		if f.Status != tt.want || !strings.Contains(f.Evidence, tt.says) {
			t.Errorf("%s: %s %q, want %s with %q", tt.packages, f.Status, f.Evidence, tt.want, tt.says)
		}
		if f.EvidenceKind != "" {
			t.Errorf("%s: what a digest holds does not age, and has evidence of kind %q", tt.packages, f.EvidenceKind)
		}
	}
}

func TestCurrent(t *testing.T) {
	year := 365 * 24 * time.Hour
	build := func(support evidence.Support, age time.Duration) evidence.ImageReport {
		r := clean("Trivy", time.Hour, []string{a})
		r.OS, r.Support, r.Config = "debian 12", support, &evidence.Config{Created: now.Add(-age)}
		return r
	}
	hidden := build(evidence.Supported, time.Hour)
	hidden.Config.Created = time.Time{}
	built := evidence.Provenance{Origin: evidence.Origin{Source: "slsa.json"}, Digests: []string{a}, Finished: now.Add(-2 * year)}
	for _, tt := range []struct {
		name string
		set  evidence.Set
		want finding.Status
		says string
	}{
		{"new", evidence.Set{Images: []evidence.ImageReport{build(evidence.Supported, time.Hour)}}, finding.Pass, "debian 12"},
		{"a year to the hour", evidence.Set{Images: []evidence.ImageReport{build(evidence.Supported, year)}}, finding.Pass, ""},
		{"over a year", evidence.Set{Images: []evidence.ImageReport{build(evidence.Supported, year+time.Hour)}}, finding.Fail, "over a year ago"},
		{"end of life", evidence.Set{Images: []evidence.ImageReport{build(evidence.EndOfLife, time.Hour)}}, finding.Fail, "no more security updates"},
		{"no distribution", evidence.Set{Images: []evidence.ImageReport{build(evidence.NoDistribution, time.Hour)}}, finding.Pass, ""},
		{"support not said", evidence.Set{Images: []evidence.ImageReport{build("", time.Hour)}}, finding.Unknown, "no scan that knows its distribution"},
		{"support not said, and old", evidence.Set{Images: []evidence.ImageReport{build("", 2*year)}}, finding.Fail, "over a year ago"},
		{"build time hidden", evidence.Set{Images: []evidence.ImageReport{hidden}}, finding.Unknown, "give its provenance"},
		{"build time by provenance", evidence.Set{Images: []evidence.ImageReport{hidden}, Provenances: []evidence.Provenance{built}}, finding.Fail, "slsa.json"},
		{"nothing", evidence.Set{}, finding.Unknown, "no scan of its image"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := only(t, imagesOf(t, tt.set).Current())
			if text := f.Message + f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q, want %s with %q", f.Status, text, tt.want, tt.says)
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	found := clean("Trivy", time.Hour, []string{a})
	for i := range 7 {
		found.Secrets = append(found.Secrets, evidence.Secret{Rule: "private-key", Place: fmt.Sprintf("/key-%d", i)})
	}
	searched := clean("Trivy", time.Hour, []string{a})
	searched.SecretsSearched = true
	for _, tt := range []struct {
		name    string
		reports []evidence.ImageReport
		want    finding.Status
		says    string
	}{
		{"found", []evidence.ImageReport{found}, finding.Fail, "private-key in /key-4; 2 more, values not shown"},
		{"found by one of two", []evidence.ImageReport{searched, found}, finding.Fail, "7 credentials"},
		{"searched", []evidence.ImageReport{searched}, finding.Pass, "no credential found"},
		{"silent", []evidence.ImageReport{clean("Trivy", 0, []string{a})}, finding.Unknown, "does not say that it searched"},
		{"nothing", nil, finding.Unknown, "ExposedSecretReport"},
	} {
		f := only(t, imagesOf(t, evidence.Set{Images: tt.reports}).Secrets())
		if text := f.Message + f.Reason + f.Evidence; f.Status != tt.want || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %s %q, want %s with %q", tt.name, f.Status, text, tt.want, tt.says)
		}
	}
}

func TestRoot(t *testing.T) {
	report := func(user string) *evidence.Set {
		r := clean("Trivy", time.Hour, []string{a})
		r.Config = &evidence.Config{User: user}
		return &evidence.Set{Images: []evidence.ImageReport{r}}
	}
	for _, tt := range []struct {
		name, pod, container, user string
		want                       finding.Status
	}{
		{"image says nobody", "", "", "nobody", finding.Pass},
		{"image says nothing", "", "", "", finding.Fail},
		{"image says root", "", "", "root", finding.Fail},
		{"image says 0 with a group", "", "", "0:1000", finding.Fail},
		{"root is a prefix only", "", "", "rootless", finding.Pass},
		{"pod names a user", "runAsUser: 1000", "", "root", finding.Pass},
		{"container names a user", "", "runAsUser: 1000", "root", finding.Pass},
		{"container overrules the pod", "runAsUser: 1000", "runAsUser: 0", "nobody", finding.NotApplicable},
		{"pod forbids root", "runAsNonRoot: true", "", "root", finding.Pass},
		{"container forbids root", "", "runAsNonRoot: true", "", finding.Pass},
		{"container allows what the pod forbids", "runAsNonRoot: true", "runAsNonRoot: false", "", finding.Fail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  securityContext: {%s}
  containers:
  - name: web
    image: acme/shop@%s
    securityContext: {%s}
`, tt.pod, a, tt.container)
			f := only(t, image.New(inventoryOf(t, text), report(tt.user), at(finding.InCluster), now).Root())
			if f.Status != tt.want {
				t.Errorf("%s %s, want %s", f.Status, f.Message+f.Reason+f.Evidence, tt.want)
			}
		})
	}
}

func TestListed(t *testing.T) {
	empty, full := listing(), listing("bash")
	empty.SBOM, full.SBOM = true, true
	for name, tt := range map[string]struct {
		reports []evidence.ImageReport
		want    finding.Status
	}{
		"full":               {[]evidence.ImageReport{full}, finding.Pass},
		"empty":              {[]evidence.ImageReport{empty}, finding.Fail},
		"packages of a scan": {[]evidence.ImageReport{listing("bash")}, finding.Unknown},
		"nothing":            {nil, finding.Unknown},
	} {
		if f := only(t, imagesOf(t, evidence.Set{Images: tt.reports}).Listed()); f.Status != tt.want {
			t.Errorf("%s: %s", name, f.Status)
		}
	}
}

func TestLibraries(t *testing.T) {
	with := func(v evidence.Vulnerability, packages ...string) evidence.ImageReport {
		r := listing(packages...)
		r.Vulnerabilities = []evidence.Vulnerability{v}
		return r
	}
	critical := evidence.Vulnerability{ID: "CVE-1", Severity: finding.Critical, Fixed: "2", Library: true}
	high, open, distribution := critical, critical, critical
	high.Severity, open.Fixed, distribution.Library = finding.High, "", false
	for name, tt := range map[string]struct {
		report evidence.ImageReport
		want   finding.Status
	}{
		"critical":            {with(critical, "lib:x/net"), finding.Fail},
		"high":                {with(high, "lib:x/net"), finding.Pass},
		"no fix":              {with(open, "lib:x/net"), finding.Pass},
		"of the distribution": {with(distribution, "lib:x/net"), finding.Pass},
		"no library":          {with(distribution, "bash"), finding.NotApplicable},
		"packages not listed": {with(distribution), finding.Pass},
	} {
		if f := only(t, imagesOf(t, evidence.Set{Images: []evidence.ImageReport{tt.report}}).Libraries()); f.Status != tt.want {
			t.Errorf("%s: %s", name, f.Status)
		}
	}
}

func TestScanned(t *testing.T) {
	day := 24 * time.Hour
	for name, tt := range map[string]struct {
		ages []time.Duration
		want finding.Status
	}{
		"none":         {nil, finding.Unknown},
		"today":        {[]time.Duration{time.Hour}, finding.Pass},
		"a week":       {[]time.Duration{7 * day}, finding.Pass},
		"over a week":  {[]time.Duration{7*day + time.Hour}, finding.Fail},
		"newest":       {[]time.Duration{100 * day, time.Hour}, finding.Pass},
		"clock ahead":  {[]time.Duration{-time.Hour}, finding.Pass},
		"far ahead":    {[]time.Duration{-48 * time.Hour}, finding.Unknown},
		"without time": {[]time.Duration{time.Duration(1<<63 - 1)}, finding.Unknown},
	} {
		var set evidence.Set
		for _, age := range tt.ages {
			r := clean("Trivy", age, []string{a})
			if age > 1000*day {
				r.SeenAt = time.Time{}
			}
			set.Images = append(set.Images, r)
		}
		if f := only(t, imagesOf(t, set).Scanned()); f.Status != tt.want {
			t.Errorf("%s: %s %s", name, f.Status, f.Message+f.Reason)
		}
	}
}

// TestAgreedAges holds the limits to the day.
func TestAgreedAges(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct {
		severity finding.Severity
		known    time.Duration
		want     finding.Status
	}{
		{finding.Critical, 15 * day, finding.Pass}, {finding.Critical, 15*day + time.Hour, finding.Fail},
		{finding.High, 30 * day, finding.Pass}, {finding.High, 30*day + time.Hour, finding.Fail},
		{finding.Medium, 1000 * day, finding.Pass}, {finding.Low, 1000 * day, finding.Pass}, {"", 1000 * day, finding.Pass},
	} {
		r := clean("Trivy", time.Hour, []string{a})
		r.Vulnerabilities = []evidence.Vulnerability{{ID: "CVE-1", Severity: tt.severity, Fixed: "2", Known: now.Add(-tt.known)}}
		if f := only(t, imagesOf(t, evidence.Set{Images: []evidence.ImageReport{r}}).FixablePast()); f.Status != tt.want {
			t.Errorf("%s for %s: %s", tt.severity, tt.known, f.Status)
		}
	}
}

// TestLikelihood holds the chance from which a weakness counts as attacked.
func TestLikelihood(t *testing.T) {
	for chance, want := range map[float64]finding.Status{0.49: finding.Pass, 0.5: finding.Fail, 1: finding.Fail} {
		r := clean("Grype", time.Hour, []string{a})
		r.Vulnerabilities = []evidence.Vulnerability{{ID: "CVE-1", Rated: true, Likelihood: chance}}
		im := image.New(inventoryOf(t, pod("acme/shop@"+a)), &evidence.Set{Images: []evidence.ImageReport{r}}, at(finding.Internet), now)
		if f := only(t, im.Exploited()); f.Status != want {
			t.Errorf("%v: %s", chance, f.Status)
		}
	}
	two := &evidence.Set{Exploited: []evidence.Exploited{{IDs: map[string]bool{"CVE-1": true}}, {IDs: map[string]bool{"CVE-2": true}}}}
	r := clean("Trivy", time.Hour, []string{a})
	r.Vulnerabilities = []evidence.Vulnerability{{ID: "CVE-2"}}
	two.Images = []evidence.ImageReport{r}
	if f := only(t, image.New(inventoryOf(t, pod("acme/shop@"+a)), two, at(finding.Internet), now).Exploited()); f.Status != finding.Fail {
		t.Errorf("of two catalogues: %s", f.Status)
	}
}
