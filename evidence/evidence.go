// Package evidence holds what was seen of a system outside the Kubernetes API:
// on nodes, in clouds, images, repositories and pipelines, by other tools, and
// what people vouch for.
//
// Each format of a foreign tool has a reader of its own, which turns a document
// into records. A record says what was seen, never whether that is good: that
// is the business of the checks.
package evidence

import (
	"cmp"
	"slices"
	"time"
)

// A Kind says where evidence comes from, and so for how long it is good.
type Kind string

// The kinds of evidence. Attest is what a pipeline states of its own run;
// Attestation is what a person vouches for.
const (
	API         Kind = "api"
	Node        Kind = "node"
	Cloud       Kind = "cloud"
	IaC         Kind = "iac"
	Image       Kind = "image"
	Registry    Kind = "registry"
	Repo        Kind = "repo"
	Attest      Kind = "attest"
	DAST        Kind = "dast"
	Probe       Kind = "probe"
	Runtime     Kind = "runtime"
	Audit       Kind = "audit"
	Attestation Kind = "attestation"
)

// lifetimes are how long evidence of each kind is good for.
var lifetimes = map[Kind]time.Duration{
	API:         15 * time.Minute,
	Runtime:     15 * time.Minute,
	Audit:       15 * time.Minute,
	Node:        24 * time.Hour,
	Cloud:       24 * time.Hour,
	Image:       24 * time.Hour,
	Registry:    24 * time.Hour,
	Probe:       24 * time.Hour,
	IaC:         7 * 24 * time.Hour,
	Repo:        7 * 24 * time.Hour,
	Attest:      7 * 24 * time.Hour,
	DAST:        7 * 24 * time.Hour,
	Attestation: 90 * 24 * time.Hour,
}

// Lifetime returns how long evidence of this kind is good for; 0 for an unknown
// kind.
func (k Kind) Lifetime() time.Duration { return lifetimes[k] }

// An Origin says who saw something, and when. Every record has one.
type Origin struct {
	Kind   Kind      `json:"kind"`
	Tool   string    `json:"tool,omitempty"` // "Trivy 0.69", "kubeguardian"
	Source string    `json:"source"`         // "file" or "file:line"
	SeenAt time.Time `json:"seenAt"`         // zero where the document does not say
}

// A Set is all the evidence that one evaluation is given. It is read-only once
// loaded, and then safe for concurrent use. A nil Set holds nothing.
type Set struct {
	Alerts        []Alert
	Analyses      []Analysis
	Bundles       []Bundle
	Exploited     []Exploited
	Heartbeats    []Heartbeat
	Images        []ImageReport
	Nodes         []NodeRecord
	Plans         []Plan
	PolicyResults []PolicyResult
	Protections   []Protection
	Provenances   []Provenance
	Repositories  []Repository
	Registries    []Registries // no evidence, but a rule that comes with it
	Signatures    []Signature
	Statements    []Statement
	Uses          []Use
	Verdicts      []Verdict

	Skipped []Skip // what was read and is of no use
	Unread  Unread // of alerts
}

// A Skip is a part of a document that no control can use. It is kept so that
// nothing is left out without being named.
type Skip struct {
	Origin
	Count  int
	Reason string
}

// skip notes parts that are left out, if there are any.
func (s *Set) skip(from Origin, count int, reason string) {
	if count > 0 {
		s.Skipped = append(s.Skipped, Skip{from, count, reason})
	}
}

// add appends the records of another set.
func (s *Set) add(other *Set) {
	s.Analyses = append(s.Analyses, other.Analyses...)
	s.Exploited = append(s.Exploited, other.Exploited...)
	s.Images = append(s.Images, other.Images...)
	s.Nodes = append(s.Nodes, other.Nodes...)
	s.PolicyResults = append(s.PolicyResults, other.PolicyResults...)
	s.Provenances = append(s.Provenances, other.Provenances...)
	s.Registries = append(s.Registries, other.Registries...)
	s.Signatures = append(s.Signatures, other.Signatures...)
	s.Skipped = append(s.Skipped, other.Skipped...)
	s.Alerts = append(s.Alerts, other.Alerts...)
	s.Bundles = append(s.Bundles, other.Bundles...)
	s.Heartbeats = append(s.Heartbeats, other.Heartbeats...)
	s.Plans = append(s.Plans, other.Plans...)
	s.Protections = append(s.Protections, other.Protections...)
	s.Repositories = append(s.Repositories, other.Repositories...)
	s.Statements = append(s.Statements, other.Statements...)
	s.Uses = append(s.Uses, other.Uses...)
	s.Verdicts = append(s.Verdicts, other.Verdicts...)
}

// Empty reports whether the set holds no record.
func (s *Set) Empty() bool {
	return s == nil || len(s.Alerts)+len(s.Analyses)+len(s.Bundles)+len(s.Exploited)+len(s.Heartbeats)+
		len(s.Images)+len(s.Nodes)+len(s.Plans)+len(s.PolicyResults)+len(s.Protections)+len(s.Provenances)+
		len(s.Repositories)+len(s.Signatures)+
		len(s.Statements)+len(s.Uses)+len(s.Verdicts) == 0
}

// A Verdict is what another tool says of an item of a framework, such as 1.2.1
// of the CIS benchmark. A control that is mapped to the item takes it for
// evidence where it has none of its own.
type Verdict struct {
	Origin
	Framework string // as in the catalogue: "cis-1.12"
	Item      string
	Subject   string // the node or object it speaks of; "" for all
	Pass      bool
	Message   string
}

// VerdictsFor returns the verdicts on an item of a framework, newest first.
func (s *Set) VerdictsFor(framework, item string) []Verdict {
	if s == nil {
		return nil
	}
	var out []Verdict
	for _, v := range s.Verdicts {
		if v.Framework == framework && v.Item == item {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b Verdict) int { return cmp.Or(b.SeenAt.Compare(a.SeenAt), cmp.Compare(a.Subject, b.Subject)) })
	return out
}
