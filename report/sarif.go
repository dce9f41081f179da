package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/finding"
)

// SARIF is the format of code hosts, version 2.1.0. Its fields are written here
// rather than by a library: the one there is writes empty lists for everything
// that is absent, many times the size of the report.
type SARIF struct {
	Version string // of the program
}

const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool       sarifTool      `json:"tool"`
	Results    []sarifResult  `json:"results"`
	Properties map[string]any `json:"properties"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string         `json:"id"`
	ShortDescription sarifText      `json:"shortDescription"`
	Help             *sarifText     `json:"help,omitempty"`
	Properties       map[string]any `json:"properties"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID        string             `json:"ruleId"`
	RuleIndex     int                `json:"ruleIndex"`
	Kind          string             `json:"kind"`
	Level         string             `json:"level"`
	Message       sarifText          `json:"message"`
	Locations     []sarifLocation    `json:"locations"`
	Fingerprints  map[string]string  `json:"partialFingerprints"`
	BaselineState string             `json:"baselineState,omitempty"`
	Suppressions  []sarifSuppression `json:"suppressions,omitempty"`
}

type sarifLocation struct {
	Physical *sarifPhysical `json:"physicalLocation,omitempty"`
	Logical  []sarifLogical `json:"logicalLocations"`
}

type sarifPhysical struct {
	Artifact struct {
		URI string `json:"uri"`
	} `json:"artifactLocation"`
	Region *sarifRegion `json:"region,omitempty"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

type sarifLogical struct {
	Name string `json:"fullyQualifiedName"`
	Kind string `json:"kind"`
}

type sarifSuppression struct {
	Kind          string `json:"kind"`
	Justification string `json:"justification"`
}

// sarifLevels are the levels of SARIF, and the score by which code hosts sort.
var sarifLevels = map[finding.Severity]struct{ level, score string }{
	finding.Critical: {"error", "9.5"},
	finding.High:     {"error", "8.0"},
	finding.Medium:   {"warning", "5.5"},
	finding.Low:      {"note", "2.0"},
}

// Write writes what failed, what is accepted (suppressed) and what is unknown
// (open); other states are not results.
func (s SARIF) Write(w io.Writer, r *Report) error {
	run := sarifRun{
		Tool:       sarifTool{sarifDriver{Name: "kubeguardian", Version: s.Version, Rules: []sarifRule{}}},
		Results:    []sarifResult{},
		Properties: map[string]any{"catalogue": r.Catalogue, "score": r.Score.Total},
	}
	rules, seen := map[string]int{}, map[string]int{}
	for _, f := range r.Findings {
		if f.Status == finding.Pass || f.Status == finding.NotApplicable {
			continue
		}
		at, known := rules[f.Control]
		if !known {
			at = len(rules)
			rules[f.Control] = at
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRuleOf(f))
		}
		result := r.sarifResult(f, at)
		key := Key(f)
		result.Fingerprints = map[string]string{"kubeguardian/v1": fingerprint(key, seen[key])}
		seen[key]++
		run.Results = append(run.Results, result)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	if err := enc.Encode(sarifLog{sarifSchema, "2.1.0", []sarifRun{run}}); err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return nil
}

func sarifRuleOf(f finding.Finding) sarifRule {
	rule := sarifRule{
		ID: f.Control, ShortDescription: sarifText{Plain(f.Title)},
		Properties: map[string]any{"security-severity": sarifLevels[f.Severity].score, "tags": []string{"security", string(f.Level)}},
	}
	if f.Fix != "" {
		rule.Help = &sarifText{Plain(f.Fix)}
	}
	return rule
}

func (r *Report) sarifResult(f finding.Finding, rule int) sarifResult {
	out := sarifResult{
		RuleID: f.Control, RuleIndex: rule, Kind: "fail", Level: sarifLevels[f.Severity].level,
		Message:   sarifText{Plain(place(*f.Subject) + ": " + cmp.Or(f.Message, f.Title))},
		Locations: []sarifLocation{sarifPlace(*f.Subject)},
	}
	switch f.Status {
	case finding.Unknown:
		out.Kind, out.Level = "open", "none"
		out.Message.Text = Plain(place(*f.Subject) + ": not verified: " + f.Reason)
	case finding.Excepted:
		out.Suppressions = []sarifSuppression{{"external", Plain(f.Reason)}}
	}
	if r.known != nil {
		out.BaselineState = "unchanged"
		if r.IsNew(f) {
			out.BaselineState = "new"
		}
	}
	return out
}

// fingerprint is the same for the same failure in two reports. Of several with
// one key, as of an object that stands twice in a file, each has its own.
func fingerprint(key string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%d", key, n))
	return hex.EncodeToString(sum[:16])
}

func sarifPlace(s finding.Subject) sarifLocation {
	at := sarifLocation{Logical: []sarifLogical{{Plain(place(s)), "resource"}}}
	if s.Source == "" {
		return at
	}
	file, line := s.Source, 0
	if i := strings.LastIndexByte(s.Source, ':'); i > 0 {
		if n, err := strconv.Atoi(s.Source[i+1:]); err == nil {
			file, line = s.Source[:i], n
		}
	}
	at.Physical = &sarifPhysical{}
	at.Physical.Artifact.URI = (&url.URL{Path: filepath.ToSlash(file)}).EscapedPath()
	if line > 0 {
		at.Physical.Region = &sarifRegion{line}
	}
	return at
}
