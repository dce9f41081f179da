package evidence

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

func isGrype(h head) bool { return h.has("matches", "source", "descriptor") }

// A grypeReport is the part of a Grype report that is used.
type grypeReport struct {
	Matches []struct {
		Vulnerability grypeVulnerability `json:"vulnerability"`
		Artifact      struct {
			Name string `json:"name"`
			Type string `json:"type"`
		} `json:"artifact"`
	} `json:"matches"`
	Source struct {
		Type   string          `json:"type"`
		Target json.RawMessage `json:"target"` // a text for a folder
	} `json:"source"`
	Distro struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"distro"`
	Descriptor struct {
		Version   string `json:"version"`
		Timestamp string `json:"timestamp"`
	} `json:"descriptor"`
}

type grypeVulnerability struct {
	ID       string `json:"id"`
	Severity string `json:"severity"`
	Fix      struct {
		Versions  []string `json:"versions"`
		Available []struct {
			Date string `json:"date"`
		} `json:"available"`
	} `json:"fix"`
	EPSS []struct {
		EPSS float64 `json:"epss"`
	} `json:"epss"`
	KnownExploited []struct {
		CVE string `json:"cve"`
	} `json:"knownExploited"`
}

type grypeTarget struct {
	UserInput      string   `json:"userInput"`
	ImageID        string   `json:"imageID"`
	ManifestDigest string   `json:"manifestDigest"`
	Tags           []string `json:"tags"`
	RepoDigests    []string `json:"repoDigests"`
	Config         string   `json:"config"` // base64
}

// grypeOS are the types of Grype's artifacts that distributions install.
var grypeOS = []string{"alpm", "apk", "deb", "rpm", "linux-kernel"}

// grype reads a report of Grype. It says when each fix came out, and which
// weaknesses are attacked. It does not list packages without weaknesses.
func grype(d document) (*Set, error) {
	var r grypeReport
	if err := d.json(&r); err != nil {
		return nil, err
	}
	origin := Origin{Kind: Image, Tool: tool("Grype", r.Descriptor.Version), Source: d.name, SeenAt: instant(r.Descriptor.Timestamp)}
	if r.Source.Type != "image" {
		return &Set{Analyses: []Analysis{r.analysis(origin)}}, nil
	}
	var target grypeTarget
	if err := json.Unmarshal(r.Source.Target, &target); err != nil {
		return nil, d.errorf(0, "source.target: %v", err)
	}
	img := ImageReport{Origin: origin, ID: target.ImageID, Scanned: true, OS: tool(r.Distro.Name, r.Distro.Version)}
	img.name(append(append([]string{target.UserInput, target.ManifestDigest}, target.Tags...), target.RepoDigests...)...)
	var config imageConfig
	if data, err := base64.StdEncoding.DecodeString(target.Config); err == nil && json.Unmarshal(data, &config) == nil {
		img.configure(config)
	}
	for _, m := range r.Matches {
		v := m.Vulnerability.weakness()
		v.Package, v.Library = m.Artifact.Name, !slices.Contains(grypeOS, m.Artifact.Type)
		img.Vulnerabilities = append(img.Vulnerabilities, v)
	}
	return &Set{Images: []ImageReport{img}}, nil
}

func (g *grypeVulnerability) weakness() Vulnerability {
	v := Vulnerability{
		ID: g.ID, Fixed: strings.Join(g.Fix.Versions, ", "), Severity: severity(g.Severity),
		Rated: len(g.EPSS)+len(g.KnownExploited) > 0, Exploited: len(g.KnownExploited) > 0,
	}
	for _, fix := range g.Fix.Available {
		v.Known = earliest(v.Known, instant(fix.Date))
	}
	for _, e := range g.EPSS {
		v.Likelihood = max(v.Likelihood, e.EPSS)
	}
	return v
}

// analysis returns what was found in a folder or a file.
func (r *grypeReport) analysis(origin Origin) Analysis {
	origin.Kind = Repo
	a := Analysis{Origin: origin, Type: SCA, Ended: origin.SeenAt}
	for _, m := range r.Matches {
		a.add(Result{Rule: m.Vulnerability.ID, File: m.Artifact.Name, Severity: severity(m.Vulnerability.Severity)})
	}
	return a
}
