package web

import (
	"cmp"
	"net/http"
	"strconv"
	"time"

	"github.com/kubeguardian/kubeguardian/audit"
)

// The sizes of a page of violations, those of the other lists.
const (
	auditPageSize    = 50
	maxAuditPageSize = 1000
)

var auditParams = []string{"policy", "enforcement", "namespace", "after", "limit"}

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

// getAudit answers with a page. The cursor is a place in the list of one audit.
func (s *Server) getAudit(w http.ResponseWriter, r *http.Request) error {
	p := parseParams(r.URL, auditParams...)
	after := int(parsed(p, "after", parseNatural))
	limit := min(cmp.Or(int(parsed(p, "limit", parseNatural)), auditPageSize), maxAuditPageSize)
	if p.err != nil {
		return p.err
	}
	result, at := s.Audit()
	page := auditPage{
		Objects: result.Objects, ObservedAt: at, Summaries: result.Summaries, Items: []audit.Violation{},
		Failed: len(result.Failures), Failures: result.Failures[:min(limit, len(result.Failures))],
	}
	if page.Summaries == nil {
		page.Summaries = []audit.Summary{}
	}
	if page.Failures == nil {
		page.Failures = []audit.Failure{}
	}
	for i, v := range result.Violations() {
		if i < after || !selected(p, &v) {
			continue
		}
		if len(page.Items) == limit {
			page.Next = strconv.Itoa(i)
			break
		}
		page.Items = append(page.Items, v)
	}
	return writeJSON(w, http.StatusOK, page)
}

// selected reports whether a violation has what the parameters name.
func selected(p *params, v *audit.Violation) bool {
	is := func(name, value string) bool { return p.text(name) == "" || p.text(name) == value }
	return is("policy", v.Policy) && is("enforcement", v.Enforcement) && is("namespace", v.Subject.Namespace)
}
