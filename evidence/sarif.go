package evidence

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"

	"github.com/kubeguardian/kubeguardian/finding"
)

func isSARIF(h head) bool {
	return h.has("version", "runs") && strings.HasPrefix(h.text("version"), "2.1")
}

// readSARIF reads a report in SARIF 2.1. Whether it is valid by the schema is
// not asked: what many tools write is not. Results that are suppressed, that
// passed or that are gone since the baseline are left out.
func readSARIF(d document) (*Set, error) {
	var report sarif.Report
	if err := d.json(&report); err != nil {
		return nil, err
	}
	set := &Set{}
	for _, run := range report.Runs {
		if run == nil {
			continue
		}
		name := driver(run)
		if name == nil || deref(name.Name) == "" {
			set.skip(Origin{Kind: Repo, Source: d.name}, len(run.Results), "a SARIF run that names no tool")
			continue
		}
		origin := Origin{Tool: tool(deref(name.Name), cmp.Or(deref(name.SemanticVersion), deref(name.Version))), Source: d.name}
		if typeOfTool(deref(name.Name)) == "" {
			set.skip(origin, len(run.Results), "the tool is not known, and so is not what it searches for")
			continue
		}
		set.Analyses = append(set.Analyses, analyses(run, origin)...)
	}
	return set, nil
}

func driver(run *sarif.Run) *sarif.ToolComponent {
	if run.Tool == nil {
		return nil
	}
	return run.Tool.Driver
}

// analyses returns the analysis that a run is; a run of a tool that searches
// for several things, as Trivy does, is one of each that it found.
func analyses(run *sarif.Run, origin Origin) []Analysis {
	first := Analysis{Origin: origin}
	for _, in := range run.Invocations {
		if in != nil {
			first.Started = earliest(first.Started, instant(deref(in.StartTimeUtc)))
			if end := instant(deref(in.EndTimeUtc)); end.After(first.Ended) {
				first.Ended = end
			}
		}
	}
	first.SeenAt = first.Ended
	if first.Ended.IsZero() {
		first.SeenAt = first.Started
	}
	for _, v := range run.VersionControlProvenance {
		if v != nil {
			first.Repository, first.Commit = cmp.Or(first.Repository, deref(v.RepositoryURI)), cmp.Or(first.Commit, deref(v.RevisionID))
		}
	}
	rules := rulesOf(run)
	byType := map[AnalysisType]*Analysis{}
	of := func(t AnalysisType) *Analysis {
		if byType[t] == nil {
			a := first
			a.Type, a.Kind = t, t.kind()
			byType[t] = &a
		}
		return byType[t]
	}
	usual := typeOfTool(origin.Tool)
	for _, res := range run.Results {
		if res != nil && open(res) {
			rule := rules[ruleID(res)]
			of(sarifType(usual, origin.Tool, rule)).add(result(res, rule))
		}
	}
	if len(byType) == 0 {
		of(usual)
	}
	var out []Analysis
	for _, t := range analysisTypes {
		if a := byType[t]; a != nil {
			out = append(out, *a)
		}
	}
	return out
}

// sarifType returns what a result of Trivy is about, by the tags of its rule;
// other tools search for one thing.
func sarifType(usual AnalysisType, tool string, rule *sarif.ReportingDescriptor) AnalysisType {
	if !strings.Contains(strings.ToLower(tool), "trivy") {
		return usual
	}
	switch tags := tagsOf(rule); {
	case slices.Contains(tags, "misconfiguration"):
		return IaCScan
	case slices.Contains(tags, "secret"):
		return SecretScan
	}
	return usual
}

// rulesOf returns the rules of a run by id, those of extensions as well.
func rulesOf(run *sarif.Run) map[string]*sarif.ReportingDescriptor {
	rules := map[string]*sarif.ReportingDescriptor{}
	for _, component := range append([]*sarif.ToolComponent{run.Tool.Driver}, run.Tool.Extensions...) {
		if component == nil {
			continue
		}
		for _, rule := range component.Rules {
			if rule != nil && rule.ID != nil {
				rules[*rule.ID] = rule
			}
		}
	}
	return rules
}

func ruleID(res *sarif.Result) string {
	if res.RuleID != nil {
		return *res.RuleID
	}
	if res.Rule != nil {
		return deref(res.Rule.ID)
	}
	return ""
}

// open reports whether a result stands.
func open(res *sarif.Result) bool {
	if res.Kind != "" && res.Kind != "fail" && res.Kind != "review" || deref(res.BaselineState) == "absent" {
		return false
	}
	return !slices.ContainsFunc(res.Suppressions, func(s *sarif.Suppression) bool {
		return s != nil && (deref(s.Status) == "" || deref(s.Status) == "accepted")
	})
}

func result(res *sarif.Result, rule *sarif.ReportingDescriptor) Result {
	r := Result{Rule: ruleID(res)}
	for _, l := range res.Locations {
		if l == nil || l.PhysicalLocation == nil || l.PhysicalLocation.ArtifactLocation == nil {
			continue
		}
		r.File = deref(l.PhysicalLocation.ArtifactLocation.URI)
		if region := l.PhysicalLocation.Region; region != nil && region.StartLine != nil {
			r.Line = *region.StartLine
		}
		break
	}
	if res.Provenance != nil {
		r.Since = instant(deref(res.Provenance.FirstDetectionTimeUtc))
	}
	level := res.Level
	if rule != nil {
		if rule.DefaultConfiguration != nil {
			level = cmp.Or(level, rule.DefaultConfiguration.Level)
		}
		if rule.Properties != nil {
			r.Score = score(rule.Properties.Properties["security-severity"])
		}
	}
	if res.Properties != nil {
		r.Score = cmp.Or(score(res.Properties.Properties["security-severity"]), r.Score)
	}
	r.Severity = cmp.Or(severityOfScore(r.Score), severityOfLevel(level))
	return r
}

func tagsOf(rule *sarif.ReportingDescriptor) []string {
	if rule == nil || rule.Properties == nil {
		return nil
	}
	return rule.Properties.Tags
}

func score(v any) float64 {
	switch v := v.(type) {
	case string:
		f, err := strconv.ParseFloat(v, 64)
		if err == nil && f >= 0 && f <= 10 {
			return f
		}
	case float64:
		if v >= 0 && v <= 10 {
			return v
		}
	}
	return 0
}

// severityOfScore names a score as CVSS does.
func severityOfScore(score float64) finding.Severity {
	switch {
	case score >= 9:
		return finding.Critical
	case score >= 7:
		return finding.High
	case score >= 4:
		return finding.Medium
	case score > 0:
		return finding.Low
	}
	return ""
}

// severityOfLevel reads a level of SARIF, which is "warning" where none is said.
func severityOfLevel(level string) finding.Severity {
	switch level {
	case "error":
		return finding.High
	case "note":
		return finding.Low
	case "none":
		return ""
	}
	return finding.Medium
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
