package web

import (
	"cmp"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

var auditParams = append([]string{"format"}, query.AuditParams...)

// An auditPage is what the last audit said of the cluster, with one page of the
// violations. The failures are those on a page of their own size.
type auditPage struct {
	Objects    int               `json:"objects"`
	ObservedAt time.Time         `json:"observedAt,omitzero"`
	Summaries  []audit.Summary   `json:"summaries"`
	Items      []audit.Violation `json:"items"`
	Next       string            `json:"next,omitempty"`
	Failed     int               `json:"failed"`
	Failures   []audit.Failure   `json:"failures"`
}

func (s *Server) getAudit(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, auditParams...)
	q := query.NewAudit(p)
	if f := p.Text("format"); f != "" && f != "json" && f != "openreports" {
		p.Fail(errFormat)
	}
	if p.Err != nil {
		return p.Err
	}
	result, at := s.Audit()
	if p.Text("format") == "openreports" {
		return writeOpenReports(w, &result, at, q)
	}
	page := auditPage{
		Objects: result.Objects, ObservedAt: at, Summaries: result.Summaries,
		Failed: len(result.Failures), Failures: result.Failures[:min(q.Limit, len(result.Failures))],
	}
	if page.Summaries == nil {
		page.Summaries = []audit.Summary{}
	}
	if page.Failures == nil {
		page.Failures = []audit.Failure{}
	}
	page.Items, page.Next = q.Page(&result)
	return rest.WriteJSON(w, http.StatusOK, page)
}

// writeOpenReports answers with all that the query selects, as objects; without
// an audit there is nothing to say, which is not the same as no violation.
func writeOpenReports(w http.ResponseWriter, result *audit.Result, at time.Time, q query.Audit) error {
	if at.IsZero() {
		return &rest.Error{Code: http.StatusServiceUnavailable, Text: "no audit has ended yet"}
	}
	var violations iter.Seq2[finding.Subject, finding.Violation] = func(yield func(finding.Subject, finding.Violation) bool) {
		for _, v := range result.Violations() {
			if q.Selects(&v) && !yield(v.Subject, v.Violation) {
				return
			}
		}
		for _, f := range result.Failures {
			v := audit.Violation{Subject: f.Subject, Violation: finding.Violation{Enforcement: report.Unjudged, Message: f.Reason}}
			if q.Selects(&v) && !yield(v.Subject, v.Violation) {
				return
			}
		}
	}
	w.Header().Set("Content-Type", "application/yaml")
	return report.OpenReports{}.WriteViolations(w, at, violations)
}

// An auditGroup is what violates one policy: a few, or a page.
type auditGroup struct {
	Policy     string
	Counts     []enforced // objects, strongest first
	Violations []audit.Violation
	Total      int // violations that the query selects
}

type enforced struct {
	Enforcement string
	Objects     int
}

type auditData struct {
	Groups            []auditGroup
	Flat              bool // one policy: all of it, in pages
	Objects           int
	ObservedAt        time.Time
	Failed            int
	Failures          []audit.Failure
	Query             url.Values
	Filtered          bool
	First, More       string
	JSON, OpenReports string
}

// auditFew is how many violations of a policy are shown beside other policies.
const auditFew = 5

// auditPage shows violations by policy, a few of each, and the pages of one
// policy.
func (s *Server) auditPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.AuditParams...)
	q := query.NewAudit(p)
	if p.Err != nil {
		return p.Err
	}
	result, at := s.Audit()
	data := auditData{
		Flat: q.Policy != "", Objects: result.Objects, ObservedAt: at, Query: p.Values,
		Failed: len(result.Failures), Failures: result.Failures[:min(auditFew, len(result.Failures))],
		Filtered: rest.With("", p.Values, "after", "", "limit", "") != "", JSON: rest.With("/api/v1/audit", p.Values),
		OpenReports: rest.With("/api/v1/audit", p.Values, "format", "openreports", "after", "", "limit", ""),
	}
	data.Groups = groups(&q, &result)
	if data.Flat && len(data.Groups) > 0 {
		var next string
		if data.Groups[0].Violations, next = q.Page(&result); next != "" {
			data.More = rest.With("/audit", p.Values, "after", next)
		}
		if q.After > 0 {
			data.First = rest.With("/audit", p.Values, "after", "")
		}
	}
	return s.show(w, r, "audit", "Audit", data)
}

// groups returns what the query selects by policy: what denies first, then what
// most objects violate.
func groups(q *query.Audit, result *audit.Result) []auditGroup {
	byPolicy := map[string]*auditGroup{}
	last := map[enforcedPolicy]finding.Subject{}
	for _, v := range result.Violations() {
		if !q.Selects(&v) {
			continue
		}
		g := byPolicy[v.Policy]
		if g == nil {
			g = &auditGroup{Policy: v.Policy}
			byPolicy[v.Policy] = g
		}
		if g.Total++; len(g.Violations) < auditFew {
			g.Violations = append(g.Violations, v)
		}
		if key := (enforcedPolicy{v.Policy, v.Enforcement}); last[key] != v.Subject { // an object counts once
			last[key] = v.Subject
			g.count(v.Enforcement)
		}
	}
	var out []auditGroup
	for _, g := range byPolicy {
		slices.SortFunc(g.Counts, func(a, b enforced) int {
			return cmp.Or(cmp.Compare(finding.Strength(b.Enforcement), finding.Strength(a.Enforcement)), cmp.Compare(a.Enforcement, b.Enforcement))
		})
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b auditGroup) int {
		return cmp.Or(cmp.Compare(finding.Strength(b.Counts[0].Enforcement), finding.Strength(a.Counts[0].Enforcement)),
			cmp.Compare(b.Counts[0].Objects, a.Counts[0].Objects), cmp.Compare(a.Policy, b.Policy))
	})
	return out
}

type enforcedPolicy struct{ policy, enforcement string }

func (g *auditGroup) count(enforcement string) {
	for i := range g.Counts {
		if g.Counts[i].Enforcement == enforcement {
			g.Counts[i].Objects++
			return
		}
	}
	g.Counts = append(g.Counts, enforced{enforcement, 1})
}
