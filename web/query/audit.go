package query

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// An Audit selects violations of policies. The cursor is a place in the list of one
// audit.
type Audit struct {
	Policy, enforcement, namespace, text string
	After, Limit                         int
}

// NewAudit reads the parameters of a page or an export.
func NewAudit(p *rest.Params) Audit {
	return Audit{
		p.Text("policy"), p.Text("enforcement"), p.Text("namespace"), strings.ToLower(p.Text("text")),
		int(rest.Value(p, "after", rest.ParseNatural)),
		min(cmp.Or(int(rest.Value(p, "limit", rest.ParseNatural)), rest.PageSize), rest.MaxPageSize),
	}
}

// Selects reports whether a violation has what the query names.
func (q *Audit) Selects(v *audit.Violation) bool {
	is := func(want, value string) bool { return want == "" || want == value }
	has := func(value string) bool { return strings.Contains(strings.ToLower(value), q.text) }
	return is(q.Policy, v.Policy) && is(q.enforcement, v.Enforcement) && is(q.namespace, v.Subject.Namespace) &&
		(q.text == "" || has(v.Subject.String()) || has(v.Policy) || has(v.Binding) || has(v.Message))
}

// Page returns the violations of a page, and where the next one starts.
func (q *Audit) Page(result *audit.Result) (items []audit.Violation, next string) {
	items = []audit.Violation{}
	for i, v := range result.Violations() {
		if i < q.After || !q.Selects(&v) {
			continue
		}
		if len(items) == q.Limit {
			return items, strconv.Itoa(i)
		}
		items = append(items, v)
	}
	return items, ""
}
