package evidence

import (
	"slices"
	"strings"
)

func isSPDX(h head) bool {
	return strings.HasPrefix(h.text("spdxVersion"), "SPDX-2") ||
		strings.HasPrefix(h.text("@context"), "https://spdx.org/rdf/3.") && h.has("@graph")
}

// spdx reads an SBOM in the JSON forms of SPDX 2.2, 2.3 and 3. Only one of a
// container image is used.
func spdx(d document) (*Set, error) {
	var doc struct {
		SPDXVersion  string `json:"spdxVersion"`
		CreationInfo struct {
			Created  string   `json:"created"`
			Creators []string `json:"creators"`
		} `json:"creationInfo"`
		Packages          []spdxPackage `json:"packages"`
		DocumentDescribes []string      `json:"documentDescribes"`
		Relationships     []struct {
			From string `json:"spdxElementId"`
			Type string `json:"relationshipType"`
			To   string `json:"relatedSpdxElement"`
		} `json:"relationships"`
		Graph []spdxElement `json:"@graph"`
	}
	if err := d.json(&doc); err != nil {
		return nil, err
	}
	img := ImageReport{Origin: Origin{Kind: Image, Tool: "SPDX", Source: d.name, SeenAt: instant(doc.CreationInfo.Created)}, SBOM: true}
	packages, roots := doc.Packages, doc.DocumentDescribes
	for _, creator := range doc.CreationInfo.Creators {
		if name, ok := strings.CutPrefix(creator, "Tool: "); ok {
			img.Tool = name
			break
		}
	}
	for _, r := range doc.Relationships {
		if r.Type == "DESCRIBES" {
			roots = append(roots, r.To)
		}
	}
	if len(doc.Graph) > 0 {
		packages, roots = img.spdxGraph(doc.Graph)
	}
	return spdxImage(img, packages, roots), nil
}

// spdxImage makes the record of an image out of its packages; roots are the ids
// of what the document describes.
func spdxImage(img ImageReport, packages []spdxPackage, roots []string) *Set {
	set, isImage := &Set{}, false
	for _, p := range packages {
		if !slices.Contains(roots, p.ID) {
			if !strings.EqualFold(p.Purpose, "OPERATING-SYSTEM") && !strings.EqualFold(p.Purpose, "operatingSystem") {
				img.Packages = append(img.Packages, packageOf(p.Name, p.Version, p.purl()))
			} else {
				img.OS = tool(p.Name, p.Version)
			}
			continue
		}
		if !strings.EqualFold(p.Purpose, "CONTAINER") && purlType(p.purl()) != "oci" {
			continue
		}
		isImage = true
		img.purl(p.purl())
		img.name(p.Name, p.Version)
		if p.Version != "" && !strings.Contains(p.Version, ":") && !strings.ContainsAny(p.Name, ":@") {
			img.name(p.Name + ":" + p.Version)
		}
		for _, c := range p.Checksums {
			img.name(hash(c.Algorithm, c.Value))
		}
	}
	if !isImage {
		set.skip(img.Origin, 1, "the SBOM is not of a container image")
		return set
	}
	set.Images = []ImageReport{img}
	return set
}

// A spdxPackage is a package of SPDX 2.
type spdxPackage struct {
	ID        string `json:"SPDXID"`
	Name      string `json:"name"`
	Version   string `json:"versionInfo"`
	Purpose   string `json:"primaryPackagePurpose"`
	Checksums []struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	} `json:"checksums"`
	References []struct {
		Type    string `json:"referenceType"`
		Locator string `json:"referenceLocator"`
	} `json:"externalRefs"`
}

func (p *spdxPackage) purl() string {
	for _, r := range p.References {
		if r.Type == "purl" {
			return r.Locator
		}
	}
	return ""
}

// A spdxElement is what stands in the graph of SPDX 3.
type spdxElement struct {
	Type        string   `json:"type"`
	ID          string   `json:"spdxId"`
	Name        string   `json:"name"`
	Created     string   `json:"created"`
	RootElement []string `json:"rootElement"`
	Version     string   `json:"software_packageVersion"`
	PURL        string   `json:"software_packageUrl"`
	Purpose     string   `json:"software_primaryPurpose"`
	Verified    []struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"hashValue"`
	} `json:"verifiedUsing"`
}

// spdxGraph brings the packages of SPDX 3 into the form of SPDX 2. The root of
// a document may be an SBOM, whose root then counts.
func (i *ImageReport) spdxGraph(graph []spdxElement) (packages []spdxPackage, roots []string) {
	for _, e := range graph {
		switch e.Type {
		case "CreationInfo":
			i.SeenAt = earliest(i.SeenAt, instant(e.Created))
		case "Tool":
			i.Tool = e.Name
		case "SpdxDocument", "software_Sbom":
			roots = append(roots, e.RootElement...)
		case "software_Package":
			p := spdxPackage{ID: e.ID, Name: e.Name, Version: e.Version, Purpose: e.Purpose}
			p.References = append(p.References, struct {
				Type    string `json:"referenceType"`
				Locator string `json:"referenceLocator"`
			}{"purl", e.PURL})
			for _, h := range e.Verified {
				p.Checksums = append(p.Checksums, struct {
					Algorithm string `json:"algorithm"`
					Value     string `json:"checksumValue"`
				}{h.Algorithm, h.Value})
			}
			packages = append(packages, p)
		}
	}
	return packages, roots
}
