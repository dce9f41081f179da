package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// Entities reads what is known by what it involves.
type Entities interface {
	// Entities returns up to n entities whose names hold a text, those first that
	// something has involved last.
	Entities(ctx context.Context, text string, n int) ([]alert.Seen, error)
	// DecisionsOf returns the newest decisions that involve an entity, of a time and
	// an outcome.
	DecisionsOf(ctx context.Context, e alert.Entity, q finding.DecisionQuery) ([]finding.Decision, error)
	// RuleCounts returns the stored alerts of each rule that has some.
	RuleCounts(context.Context) (map[string]alert.Matches, error)
}

var searchParams = []string{"q"}

// How much of each kind a search returns.
const (
	foundEntities = 20
	foundRecords  = 5
)

// A search is what was found by one text, a few of each kind.
type search struct {
	Query     string              `json:"query"`
	Entities  []alert.Seen        `json:"entities"`
	Incidents []incident.Incident `json:"incidents"`
	Alerts    []alert.Record      `json:"alerts"`
	Findings  []finding.Finding   `json:"findings"`
	Decisions []finding.Decision  `json:"decisions"`
	Rules     []Rule              `json:"rules"`
	Policies  []Policy            `json:"policies"`
}

// find asks for each kind at the same time.
func (s *Server) find(r *http.Request, p *rest.Params) (found search, err error) {
	if p.Err != nil {
		return found, p.Err
	}
	found = search{
		Query: strings.TrimSpace(p.Text("q")), Entities: []alert.Seen{}, Incidents: []incident.Incident{}, Alerts: []alert.Record{},
		Findings: []finding.Finding{}, Decisions: []finding.Decision{}, Rules: []Rule{}, Policies: []Policy{},
	}
	q := found.Query
	if q == "" {
		return found, nil
	}
	group, ctx := errgroup.WithContext(r.Context())
	may := s.sessions.May(r)
	ask := func(needs access.Permission, f func() error) {
		if may(needs) {
			group.Go(f)
		}
	}
	ask("list alerts", func() error {
		entities, err := s.Entities.Entities(ctx, q, foundEntities)
		found.Entities = append(found.Entities, entities...)
		return err
	})
	ask("list incidents", func() error {
		incidents, _, err := s.Incidents.Incidents(ctx, incident.Query{Text: q, Limit: foundRecords})
		found.Incidents = append(found.Incidents, incidents...)
		return err
	})
	ask("list alerts", func() error {
		alerts, _, err := s.Alerts.Alerts(ctx, alert.Query{Text: q, Limit: foundRecords})
		found.Alerts = append(found.Alerts, alerts...)
		return err
	})
	ask("list findings", func() error {
		findings, _, err := s.Findings.FindingPage(ctx, finding.Query{Text: q, Status: finding.Fail, Limit: foundRecords})
		found.Findings = append(found.Findings, findings...)
		return err
	})
	ask("list decisions", func() error {
		decisions, _, err := s.Decisions.Decisions(ctx, finding.DecisionQuery{Text: q, Limit: foundRecords})
		found.Decisions = append(found.Decisions, decisions...)
		return err
	})
	if !may("list policies") {
		return found, group.Wait()
	}
	found.Rules = append(found.Rules, few(s.Rules(), func(r *Rule) bool { return contains(q, r.Name, r.Desc) })...)
	found.Policies = append(found.Policies, few(s.Policies().Items, func(p *Policy) bool { return contains(q, p.Name, p.Kind) })...)
	return found, group.Wait()
}

// few returns the first items that are wanted.
func few[T any](all []T, wanted func(*T) bool) (out []T) {
	for i := range all {
		if len(out) < foundRecords && wanted(&all[i]) {
			out = append(out, all[i])
		}
	}
	return out
}

// contains reports whether one of some words holds a text, whatever the case.
func contains(text string, words ...string) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if strings.Contains(strings.ToLower(w), text) {
			return true
		}
	}
	return false
}

func (s *Server) getSearch(w http.ResponseWriter, r *http.Request) error {
	found, err := s.find(r, rest.Parse(r.URL, searchParams...))
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, found)
}

type searchData struct {
	search
	Nothing bool
	JSON    string
}

func (s *Server) searchPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, searchParams...)
	found, err := s.find(r, p)
	if err != nil {
		return err
	}
	data := searchData{search: found, JSON: rest.With("/api/v1/search", p.Values)}
	data.Nothing = len(found.Entities)+len(found.Incidents)+len(found.Alerts)+len(found.Findings)+len(found.Decisions)+len(found.Rules)+len(found.Policies) == 0
	return s.show(w, r, "search", "Search", data)
}

// entityLink is the path of the page of an entity. A name that would not come
// back from a path as it is is one segment of it.
func entityLink(kind alert.EntityKind, name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return "/entity/" + url.PathEscape(string(kind)) + "/" + url.PathEscape(name)
		}
		parts[i] = url.PathEscape(part)
	}
	return "/entity/" + url.PathEscape(string(kind)) + "/" + strings.Join(parts, "/")
}
