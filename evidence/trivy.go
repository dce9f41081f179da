package evidence

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// isTrivy recognises the JSON of trivy image, fs and repo.
func isTrivy(h head) bool {
	return h.has("SchemaVersion", "ArtifactName", "ArtifactType")
}

// A trivyReport is the part of a Trivy report that is used. Fields that are not
// named are skipped while decoding: a report of 20 MiB is mostly descriptions.
type trivyReport struct {
	CreatedAt    string
	ArtifactName string
	ArtifactType string
	Trivy        struct{ Version string }
	Metadata     struct {
		OS *struct {
			Family, Name string
			EOSL         bool
		}
		ImageID     string
		RepoTags    []string
		RepoDigests []string
		ImageConfig imageConfig
		RepoURL     string
		Commit      string
	}
	Results []trivyResult
}

type trivyResult struct {
	Target, Class   string
	Packages        []struct{ Name, Version string }
	Vulnerabilities []struct {
		VulnerabilityID, PkgName, FixedVersion, Severity, PublishedDate string
	}
	Misconfigurations []struct{ ID, Severity, Status string }
	Secrets           []struct {
		RuleID, Severity string
		StartLine        int
	}
}

// trivy reads a report of Trivy. One of an image is an [ImageReport], others are the
// analysis of a source tree.
//
// Trivy lists the packages of an image only if it searched them for
// vulnerabilities. It leaves no trace of a search for secrets that found none,
// and such searches are commonly switched off, so that silence proves nothing.
func trivy(d document) (*Set, error) {
	var r trivyReport
	if err := d.json(&r); err != nil {
		return nil, err
	}
	origin := Origin{Kind: Image, Tool: tool("Trivy", r.Trivy.Version), Source: d.name, SeenAt: instant(r.CreatedAt)}
	if r.ArtifactType != "container_image" {
		return r.analyses(origin), nil
	}
	m := r.Metadata
	img := ImageReport{Origin: origin, ID: m.ImageID}
	img.name(append([]string{r.ArtifactName}, append(m.RepoTags, m.RepoDigests...)...)...)
	img.configure(m.ImageConfig)
	for _, res := range r.Results {
		img.result(res)
	}
	if img.Scanned {
		img.Support = NoDistribution
	}
	if os := m.OS; os != nil && os.Family != "" {
		img.OS = strings.TrimSpace(os.Family + " " + os.Name)
		if img.Scanned {
			img.Support = support(os.EOSL)
		}
	}
	return &Set{Images: []ImageReport{img}}, nil
}

func support(ended bool) Support {
	if ended {
		return EndOfLife
	}
	return Supported
}

// tool joins the name and the version of a tool.
func tool(name, version string) string { return strings.TrimSpace(name + " " + version) }

func (i *ImageReport) result(r trivyResult) {
	library := r.Class == "lang-pkgs"
	i.Scanned = i.Scanned || library || r.Class == "os-pkgs"
	for _, p := range r.Packages {
		i.Packages = append(i.Packages, Package{p.Name, p.Version, library})
	}
	for _, v := range r.Vulnerabilities {
		i.Vulnerabilities = append(i.Vulnerabilities, Vulnerability{
			ID: v.VulnerabilityID, Package: v.PkgName, Fixed: v.FixedVersion, Severity: severity(v.Severity),
			Known: instant(v.PublishedDate), Library: library,
		})
	}
	for _, s := range r.Secrets {
		i.addSecret(Secret{s.RuleID, at(r.Target, s.StartLine)})
	}
}

// at returns "file:line"; without a line, the file.
func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// analyses returns what was found in a source tree, one analysis for each kind
// of search that left a trace.
func (r *trivyReport) analyses(origin Origin) *Set {
	byType := map[AnalysisType]*Analysis{}
	of := func(t AnalysisType) *Analysis {
		if byType[t] == nil {
			origin.Kind = t.kind()
			byType[t] = &Analysis{Origin: origin, Type: t, Repository: cmp.Or(r.Metadata.RepoURL, remote(r.ArtifactName)), Commit: r.Metadata.Commit, Ended: origin.SeenAt}
		}
		return byType[t]
	}
	for _, res := range r.Results {
		if res.Class == "os-pkgs" || res.Class == "lang-pkgs" {
			of(SCA)
		}
		for _, v := range res.Vulnerabilities {
			of(SCA).add(Result{Rule: v.VulnerabilityID, File: res.Target, Severity: severity(v.Severity)})
		}
		for _, m := range res.Misconfigurations {
			if m.Status == "FAIL" {
				of(IaCScan).add(Result{Rule: m.ID, File: res.Target, Severity: severity(m.Severity)})
			}
		}
		if res.Class == "config" {
			of(IaCScan)
		}
		for _, s := range res.Secrets {
			of(SecretScan).add(Result{Rule: s.RuleID, File: res.Target, Line: s.StartLine, Severity: severity(s.Severity)})
		}
	}
	set := &Set{}
	for _, t := range analysisTypes {
		if a := byType[t]; a != nil {
			set.Analyses = append(set.Analyses, *a)
		}
	}
	if len(byType) == 0 {
		set.skip(origin, 1, "the report lists nothing, and does not say what was searched for")
	}
	return set
}

// remote returns s if it is the address of a repository.
func remote(s string) string {
	if strings.Contains(s, "://") {
		return s
	}
	return ""
}

// earliest returns the first of times that are given.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
