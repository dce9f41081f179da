package evidence

import (
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

func isCycloneDX(h head) bool { return h.text("bomFormat") == "CycloneDX" }

// cycloneDX reads an SBOM in the JSON form of CycloneDX. Only one of a container
// image is used; one of a source tree says nothing of what runs.
func cycloneDX(d document) (*Set, error) {
	var bom cyclonedx.BOM
	if err := d.json(&bom); err != nil {
		return nil, err
	}
	img := ImageReport{Origin: Origin{Kind: Image, Tool: "CycloneDX", Source: d.name}, SBOM: true}
	isImage := false
	if m := bom.Metadata; m != nil {
		img.SeenAt = instant(m.Timestamp)
		img.Tool = bomTool(m.Tools)
		if c := m.Component; c != nil {
			isImage = c.Type == cyclonedx.ComponentTypeContainer
			img.purl(c.PackageURL)
			img.name(c.Name, c.Version)
			for _, p := range list(c.Properties) {
				switch p.Name {
				case "aquasecurity:trivy:RepoDigest", "aquasecurity:trivy:RepoTag":
					img.name(p.Value)
				case "aquasecurity:trivy:ImageID":
					img.ID = p.Value
				}
			}
		}
	}
	set := &Set{}
	if !isImage {
		set.skip(img.Origin, 1, "the SBOM is not of a container image")
		return set, nil
	}
	byRef := map[string]Package{}
	for _, c := range list(bom.Components) {
		img.component(c, byRef, 0)
	}
	img.weaknesses(list(bom.Vulnerabilities), byRef)
	set.Images = []ImageReport{img}
	return set, nil
}

// maxNested bounds how deep components are looked for in components.
const maxNested = 10

// component adds a component and those in it. Files are no packages.
func (i *ImageReport) component(c cyclonedx.Component, byRef map[string]Package, depth int) {
	switch c.Type {
	case cyclonedx.ComponentTypeOS:
		i.OS = tool(c.Name, c.Version)
	case cyclonedx.ComponentTypeApplication, cyclonedx.ComponentTypeFramework, cyclonedx.ComponentTypeLibrary:
		p := packageOf(c.Name, c.Version, c.PackageURL)
		byRef[c.BOMRef] = p
		if c.Type != cyclonedx.ComponentTypeApplication || c.PackageURL != "" {
			i.Packages = append(i.Packages, p) // Trivy writes lock files as applications
		}
	}
	for _, inner := range list(c.Components) {
		if depth < maxNested {
			i.component(inner, byRef, depth+1)
		}
	}
}

// weaknesses adds the vulnerabilities of an SBOM that has some; without, it says
// nothing of them.
func (i *ImageReport) weaknesses(found []cyclonedx.Vulnerability, byRef map[string]Package) {
	i.Scanned = len(found) > 0
	for _, v := range found {
		w := Vulnerability{ID: v.ID, Fixed: v.Recommendation, Known: instant(v.Published)}
		for _, r := range list(v.Ratings) {
			if s := severity(string(r.Severity)); s.Weight() > w.Severity.Weight() {
				w.Severity = s
			}
		}
		for _, a := range list(v.Affects) {
			p := byRef[a.Ref]
			w.Package, w.Library = p.Name, p.Library
			i.Vulnerabilities = append(i.Vulnerabilities, w)
		}
	}
}

// bomTool names the first tool that made an SBOM.
func bomTool(tools *cyclonedx.ToolsChoice) string {
	if tools == nil {
		return "CycloneDX"
	}
	for _, c := range list(tools.Components) {
		return tool(c.Name, c.Version)
	}
	for _, t := range list(tools.Tools) {
		return tool(t.Name, t.Version)
	}
	return "CycloneDX"
}

func list[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

// hash returns a SHA-256 as a digest.
func hash(algorithm, value string) string {
	if strings.EqualFold(strings.ReplaceAll(algorithm, "-", ""), "sha256") {
		return "sha256:" + strings.ToLower(value)
	}
	return ""
}
