package evidence

import (
	"cmp"
	"regexp"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
)

// A PolicyResult is what a policy engine says of one object in a report of the
// Kubernetes policy working group.
type PolicyResult struct {
	Origin
	Engine  string // the source of the result: "kyverno"
	Policy  string
	Rule    string
	Result  string // pass, fail, warn, error or skip
	Subject finding.Subject
	Message string
}

type reportObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

func (r *reportObject) subject() finding.Subject {
	return finding.Subject{APIVersion: r.APIVersion, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
}

type reportResult struct {
	Source    string `json:"source"`
	Policy    string `json:"policy"`
	Rule      string `json:"rule"`
	Category  string `json:"category"`
	Result    string `json:"result"`
	Timestamp struct {
		Seconds int64 `json:"seconds"`
	} `json:"timestamp"`
	Message     string            `json:"message"`     // of wgpolicyk8s.io
	Description string            `json:"description"` // of openreports.io
	Resources   []reportObject    `json:"resources"`   // of wgpolicyk8s.io
	Subjects    []reportObject    `json:"subjects"`    // of openreports.io
	Properties  map[string]string `json:"properties"`
}

// cisVersion finds the benchmark that a result belongs to: ids mean different
// things in different versions.
var cisVersion = regexp.MustCompile(`(?i)\bcis\b.*?\bv?(1\.(?:10|12))(?:\.\d+)?\b`)

// cisItem is the form of an id of the benchmark.
var cisItem = regexp.MustCompile(`^[1-5](\.[0-9]{1,2}){1,2}$`)

// policyReport reads a PolicyReport or an OpenReports Report. Results of
// kube-bench become verdicts if they name the version of the benchmark; results
// on an object are kept for the checks; the rest is counted. A result that only
// warns is not decided by its tool and is no verdict.
func policyReport(o object, name string) (*Set, error) {
	var doc struct {
		Source  string         `json:"source"`
		Scope   *reportObject  `json:"scope"`
		Results []reportResult `json:"results"`
	}
	if err := o.decode(name, &doc); err != nil {
		return nil, err
	}
	set, unmapped := &Set{}, 0
	for _, r := range doc.Results {
		r.Source = cmp.Or(r.Source, doc.Source)
		subjects := append(r.Resources, r.Subjects...)
		if len(subjects) == 0 && doc.Scope != nil {
			subjects = []reportObject{*doc.Scope}
		}
		origin := Origin{Kind: API, Tool: r.Source, Source: name, SeenAt: r.seen(o.Metadata.Created)}
		switch verdict, ok := r.verdict(origin); {
		case ok:
			for _, s := range subjects {
				verdict.Subject = s.Name
			}
			set.Verdicts = append(set.Verdicts, verdict)
		case len(subjects) == 0 || r.fromBench():
			unmapped++
		default:
			for _, s := range subjects {
				set.PolicyResults = append(set.PolicyResults, PolicyResult{
					Origin: origin, Engine: r.Source, Policy: r.Policy, Rule: r.Rule, Result: r.Result,
					Subject: s.subject(), Message: cmp.Or(r.Message, r.Description),
				})
			}
		}
	}
	set.skip(Origin{Source: name, Tool: doc.Source}, unmapped, "results of a policy report that belong to no control")
	return set, nil
}

// seen returns the time of a result. Some tools write nonsense there; the age of
// the report is then the oldest that the result can be.
func (r *reportResult) seen(created string) time.Time {
	if t := time.Unix(r.Timestamp.Seconds, 0).UTC(); t.Year() >= 2000 && t.Year() < 10000 {
		return t
	}
	return instant(created)
}

func (r *reportResult) fromBench() bool {
	return strings.EqualFold(strings.NewReplacer("-", "", " ", "").Replace(r.Source), "kubebench")
}

func (r *reportResult) verdict(origin Origin) (Verdict, bool) {
	item := cmp.Or(r.Properties["index"], r.Properties["id"], r.Rule)
	version := cisVersion.FindStringSubmatch(r.Category + " " + r.Policy)
	if !r.fromBench() || version == nil || !cisItem.MatchString(item) || r.Result != "pass" && r.Result != "fail" {
		return Verdict{}, false
	}
	origin.Kind = Node
	return Verdict{Origin: origin, Framework: "cis-" + version[1], Item: item, Pass: r.Result == "pass", Message: cmp.Or(r.Description, r.Message)}, true
}
