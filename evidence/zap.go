package evidence

import (
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

func isZAP(h head) bool {
	return h.has("site") && (h.has("@generated") || strings.HasPrefix(h.text("@programName"), "ZAP"))
}

// zap reads the traditional JSON report of ZAP.
func zap(d document) (*Set, error) {
	var r struct {
		Version   string `json:"@version"`
		Generated string `json:"@generated"`
		Created   string `json:"created"`
		Site      []struct {
			Name   string `json:"@name"`
			Alerts []struct {
				Plugin string `json:"pluginid"`
				Risk   string `json:"riskcode"`
			} `json:"alerts"`
		} `json:"site"`
	}
	if err := d.json(&r); err != nil {
		return nil, err
	}
	a := Analysis{Origin: Origin{Kind: DAST, Tool: tool("ZAP", r.Version), Source: d.name, SeenAt: instant(r.Created)}, Type: DASTScan}
	if a.SeenAt.IsZero() { // older versions write only the local time, without its zone
		if t, err := time.Parse("Mon, 2 Jan 2006 15:04:05", r.Generated); err == nil {
			a.SeenAt = t
		}
	}
	a.Ended = a.SeenAt
	for _, site := range r.Site {
		a.Targets = append(a.Targets, site.Name)
		for _, alert := range site.Alerts {
			a.add(Result{Rule: alert.Plugin, File: site.Name, Severity: zapRisk[alert.Risk]})
		}
	}
	return &Set{Analyses: []Analysis{a}}, nil
}

// zapRisk are the severities of ZAP; 0 is informational.
var zapRisk = map[string]finding.Severity{"3": finding.High, "2": finding.Medium, "1": finding.Low}
