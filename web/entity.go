package web

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/timeline"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// How much is shown of one entity; all of it is in the lists.
const (
	entityAlerts    = 50
	entityRecords   = 10
	entityCompanion = 12
)

// An entity is everything that is known of one, the newest of it.
type entity struct {
	alert.Entity
	Incidents []incident.Incident `json:"incidents"`
	Alerts    []alert.Record      `json:"alerts"`
	Decisions []finding.Decision  `json:"decisions"`
	Findings  []finding.Finding   `json:"findings"` // that fail, of it and of its workloads
	SeenWith  []companion         `json:"seenWith"`
}

// A companion is an entity in the same alerts.
type companion struct {
	alert.Entity
	Alerts int `json:"alerts"`
}

func (s *Server) entity(r *http.Request) (e entity, err error) {
	e = entity{Incidents: []incident.Incident{}, Alerts: []alert.Record{}, Decisions: []finding.Decision{}, Findings: []finding.Finding{}, SeenWith: []companion{}}
	if e.Kind, err = alert.ParseEntityKind(r.PathValue("kind")); err != nil {
		return e, &rest.Error{Code: http.StatusNotFound, Text: err.Error()}
	}
	if e.Name = r.PathValue("name"); e.Name == "" || len(e.Name) > rest.MaxValue {
		return e, rest.ErrNotFound
	}
	group, ctx := errgroup.WithContext(r.Context())
	may := s.sessions.May(r)
	mayDecisions, mayIncidents := may("list decisions"), may("list incidents")
	group.Go(func() error {
		alerts, _, err := s.Alerts.Alerts(ctx, alert.Query{Entity: e.Entity, Limit: entityAlerts})
		e.Alerts = append(e.Alerts, alerts...)
		e.SeenWith = append(e.SeenWith, companions(e.Entity, alerts)...)
		return err
	})
	group.Go(func() error {
		if !mayDecisions {
			return nil
		}
		decisions, err := s.Entities.DecisionsOf(ctx, e.Entity, finding.DecisionQuery{Limit: entityRecords})
		e.Decisions = append(e.Decisions, decisions...)
		return err
	})
	group.Go(func() error {
		if !mayIncidents {
			return nil
		}
		incidents, _, err := s.Incidents.Incidents(ctx, incident.Query{Entity: e.Entity, Limit: entityRecords})
		e.Incidents = append(e.Incidents, incidents...)
		return err
	})
	if err := group.Wait(); err != nil {
		return e, err
	}
	if !may("list findings") {
		return e, nil
	}
	about := []alert.Entity{e.Entity}
	if e.Kind == alert.Pod { // what is wrong with a pod is written in its workload
		for _, c := range e.SeenWith {
			if c.Kind == alert.Workload {
				about = append(about, c.Entity)
			}
		}
	}
	e.Findings, err = s.failing(r, about, entityRecords)
	return e, err
}

// companions counts who is in the same alerts, those first that are most often.
func companions(of alert.Entity, alerts []alert.Record) (out []companion) {
	count := map[alert.Entity]int{}
	for _, a := range alerts {
		for _, e := range a.Involves() {
			if e != of {
				count[e]++
			}
		}
	}
	for e, n := range count {
		out = append(out, companion{e, n})
	}
	slices.SortFunc(out, func(a, b companion) int {
		return cmp.Or(cmp.Compare(b.Alerts, a.Alerts), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), entityCompanion)]
}

// failing returns the findings that fail of some entities, worst first, each
// once, at most n of each.
func (s *Server) failing(r *http.Request, entities []alert.Entity, n int) ([]finding.Finding, error) {
	out := []finding.Finding{}
	for _, e := range entities {
		q := findingsOf(e)
		if q.Subject == "" && q.Text == "" {
			continue
		}
		q.Status, q.Limit = finding.Fail, n
		page, _, err := s.Findings.FindingPage(r.Context(), q)
		if err != nil {
			return out, err
		}
		for _, f := range page {
			known := func(o finding.Finding) bool { return o.Control == f.Control && *o.Subject == *f.Subject }
			other := e.Kind == alert.Object && !strings.HasSuffix(f.Subject.String(), q.Text) // whose name begins so
			if !other && !slices.ContainsFunc(out, known) {
				out = append(out, f)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b finding.Finding) int { return cmp.Compare(b.Severity.Weight(), a.Severity.Weight()) })
	return out, nil
}

// findingsOf returns the query for the findings of an entity; the zero value if there
// are none of its kind.
func findingsOf(e alert.Entity) (q finding.Query) {
	switch e.Kind {
	case alert.Pod:
		q.Subject = "Pod/" + e.Name
	case alert.Node:
		q.Subject = "Node/" + e.Name
	case alert.Workload:
		q.Subject = e.Name
	case alert.Object:
		if _, name, ok := strings.Cut(e.Name, "/"); ok {
			q.Text = "/" + name
		}
	case alert.User:
		q.Text = e.Name
		if account, ok := strings.CutPrefix(e.Name, "system:serviceaccount:"); ok {
			q.Text = "ServiceAccount/" + strings.Replace(account, ":", "/", 1)
		}
	case alert.Image:
		q.Text = e.Name
	}
	return q
}

func (s *Server) getEntity(w http.ResponseWriter, r *http.Request) error {
	e, err := s.entity(r)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, e)
}

type entityData struct {
	entity
	Timeline []timeline.Entry
	JSON     string
}

func (s *Server) entityPage(w http.ResponseWriter, r *http.Request) error {
	e, err := s.entity(r)
	if err != nil {
		return err
	}
	data := entityData{entity: e, JSON: "/api/v1" + entityLink(e.Kind, e.Name)}
	for i := range e.Alerts {
		data.Timeline = append(data.Timeline, timeline.OfAlert(&e.Alerts[i].Alert)...)
	}
	for i := range e.Decisions {
		data.Timeline = append(data.Timeline, timeline.OfDecision(&e.Decisions[i]))
		data.Timeline[len(data.Timeline)-1].Cluster = s.Cluster
	}
	slices.SortStableFunc(data.Timeline, func(a, b timeline.Entry) int { return b.Time.Compare(a.Time) })
	return s.show(w, r, "entity", string(e.Kind)+" "+e.Name, data)
}
