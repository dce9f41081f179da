package evidence

import (
	"encoding/json"
	"strings"
)

// An operatorReport is what the reports of trivy-operator have in common.
type operatorReport struct {
	Updated string `json:"updateTimestamp"`
	Scanner struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"scanner"`
	Registry struct {
		Server string `json:"server"`
	} `json:"registry"`
	Artifact struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		Digest     string `json:"digest"`
	} `json:"artifact"`
}

func (r *operatorReport) image(name string) ImageReport {
	img := ImageReport{Origin: Origin{Kind: Image, Tool: tool(r.Scanner.Name, r.Scanner.Version), Source: name, SeenAt: instant(r.Updated)}}
	a := r.Artifact
	if a.Repository != "" {
		ref := strings.TrimPrefix(r.Registry.Server+"/"+a.Repository, "/")
		if a.Tag != "" {
			ref += ":" + a.Tag
		}
		if a.Digest != "" {
			ref += "@" + a.Digest
		}
		img.name(ref)
	}
	return img
}

// vulnerabilityReport reads a VulnerabilityReport. It does not list packages.
func vulnerabilityReport(o object, name string) (*Set, error) {
	var doc struct {
		Report struct {
			operatorReport
			OS struct {
				Family string `json:"family"`
				Name   string `json:"name"`
				EOSL   bool   `json:"eosl"`
			} `json:"os"`
			Vulnerabilities []struct {
				ID        string `json:"vulnerabilityID"`
				Resource  string `json:"resource"`
				Fixed     string `json:"fixedVersion"`
				Published string `json:"publishedDate"`
				Severity  string `json:"severity"`
				Class     string `json:"class"`
			} `json:"vulnerabilities"`
		} `json:"report"`
	}
	if err := o.decode(name, &doc); err != nil {
		return nil, err
	}
	r := &doc.Report
	img := r.image(name)
	img.Scanned = true
	if r.OS.Family != "" {
		img.OS, img.Support = tool(r.OS.Family, r.OS.Name), support(r.OS.EOSL)
	}
	for _, v := range r.Vulnerabilities {
		img.Vulnerabilities = append(img.Vulnerabilities, Vulnerability{
			ID: v.ID, Package: v.Resource, Fixed: v.Fixed, Severity: severity(v.Severity),
			Known: instant(v.Published), Library: v.Class == "lang-pkgs",
		})
	}
	return &Set{Images: []ImageReport{img}}, nil
}

// exposedSecretReport reads an ExposedSecretReport, which exists for every image
// that was searched, whether or not it holds a secret.
func exposedSecretReport(o object, name string) (*Set, error) {
	var doc struct {
		Report struct {
			operatorReport
			Secrets []struct {
				Target string `json:"target"`
				Rule   string `json:"ruleID"`
			} `json:"secrets"`
		} `json:"report"`
	}
	if err := o.decode(name, &doc); err != nil {
		return nil, err
	}
	img := doc.Report.image(name)
	img.SecretsSearched = true
	for _, s := range doc.Report.Secrets {
		img.addSecret(Secret{s.Rule, s.Target})
	}
	return &Set{Images: []ImageReport{img}}, nil
}

// sbomReport reads an SbomReport, which holds an SBOM in the form of CycloneDX.
func sbomReport(o object, name string) (*Set, error) {
	var doc struct {
		Report struct {
			operatorReport
			Components json.RawMessage `json:"components"`
		} `json:"report"`
	}
	if err := o.decode(name, &doc); err != nil {
		return nil, err
	}
	set, err := cycloneDX(document{name, doc.Report.Components})
	if err != nil || len(set.Images) == 0 {
		return set, err
	}
	outer, img := doc.Report.image(name), &set.Images[0]
	img.Origin = outer.Origin
	img.Refs, img.Digests = append(img.Refs, outer.Refs...), append(img.Digests, outer.Digests...)
	return set, nil
}
