package evidence

import (
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// An ImageReport is what a tool says of a container image: a scanner's report, or a
// list of what is in it. Each document speaks of some things and is silent on
// others; silence is never taken for good news, so it is told apart.
type ImageReport struct {
	Origin
	Refs    []string // the names that the tool knows it by, as written there
	Digests []string // by which registries know it, "sha256:…"
	ID      string   // the digest of its configuration, by which nodes know it

	OS      string  // the distribution, "debian 12.5"
	Support Support // of the distribution
	Config  *Config // nil where the document does not hold it

	Scanned         bool // searched for vulnerabilities
	Vulnerabilities []Vulnerability
	SecretsSearched bool // that nothing was found is said, not only not denied
	Secrets         []Secret
	Packages        []Package
	SBOM            bool // a list of what is in the image, made to be handed on
}

// Support says whether a distribution still gets security updates.
type Support string

// The states of support. The zero value means that the document does not say.
const (
	Supported      Support = "supported"
	EndOfLife      Support = "end of life"
	NoDistribution Support = "none" // the image holds no distribution
)

// A Vulnerability is one known weakness of one package in an image.
type Vulnerability struct {
	ID       string
	Package  string
	Fixed    string           // the version that has the fix, "" while there is none
	Severity finding.Severity // "" where nobody has rated it
	Known    time.Time        // when the fix, else the weakness, became public; zero where not said
	Library  bool             // in a package of a language, not of the distribution
	// Exploited and Likelihood are what catalogues of attacks say: seen in real
	// attacks (KEV), and the chance of an attack in the next 30 days (EPSS). They
	// mean something only if Rated.
	Rated      bool
	Exploited  bool
	Likelihood float64
}

// A Secret is a credential that was found; its value is never kept.
type Secret struct{ Rule, Place string }

// A Package is a piece of software in an image.
type Package struct {
	Name, Version string
	Library       bool // of a language, not of the distribution
}

// A Config is what an image sets for its containers.
type Config struct {
	User    string
	Created time.Time // zero where the build hides it, as reproducible builds do
	Source  string    // label org.opencontainers.image.source
	Commit  string    // label org.opencontainers.image.revision
}

// osPackages are the types of package URLs that distributions use.
var osPackages = []string{"alpm", "apk", "deb", "rpm"}

// purlType returns the type of a package URL: "deb" of "pkg:deb/debian/bash@5".
func purlType(purl string) string {
	rest, ok := strings.CutPrefix(purl, "pkg:")
	if !ok {
		return ""
	}
	kind, _, _ := strings.Cut(rest, "/")
	return strings.ToLower(kind)
}

// packageOf makes a package of a component of an SBOM; without a package URL it
// counts as one of a language.
func packageOf(name, version, purl string) Package {
	return Package{name, version, !slices.Contains(osPackages, purlType(purl))}
}

// severity reads a rating as scanners write it, in whatever case.
func severity(s string) finding.Severity {
	switch s = strings.ToLower(s); s {
	case "critical", "high", "medium", "low":
		return finding.Severity(s)
	case "moderate":
		return finding.Medium
	case "important":
		return finding.High
	case "negligible", "info", "informational":
		return finding.Low
	}
	return ""
}

// instant reads a time as documents write it. What is none, and what lies
// before there were such documents, is zero: builds and tools write dates like
// 1970-01-01 for "not said".
func instant(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 2000 {
			return t.UTC()
		}
	}
	return time.Time{}
}
