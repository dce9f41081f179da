package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/lineage"
	"github.com/kubeguardian/kubeguardian/incident/timeline"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
	"github.com/kubeguardian/kubeguardian/web/session"
)

func (s *Server) listIncidents(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.IncidentParams...)
	q := query.Incidents(p)
	if p.Err != nil {
		return p.Err
	}
	page, next, err := s.Incidents.Incidents(r.Context(), q)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next.String()))
}

func (s *Server) getIncident(w http.ResponseWriter, r *http.Request) error {
	i, err := s.incident(r)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, i)
}

func (s *Server) incident(r *http.Request) (incident.Incident, error) {
	i, found, err := s.Incidents.Incident(r.Context(), r.PathValue("id"))
	if err == nil && !found {
		err = errNoIncident
	}
	return i, err
}

var errNoIncident = &rest.Error{Code: http.StatusNotFound, Text: "there is no incident with this id; it may be part of an older one by now, or older than the retention"}

// changeIncident takes a change as JSON.
func (s *Server) changeIncident(w http.ResponseWriter, r *http.Request) error {
	var c incident.Change
	if err := rest.ReadJSON(r, &c); err != nil {
		return err
	}
	i, err := s.change(r, c)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, i)
}

func (s *Server) change(r *http.Request, c incident.Change) (*incident.Incident, error) {
	c.By, c.At = session.Who(r).User, time.Now().UTC()
	i, found, err := s.Incidents.ChangeIncident(r.Context(), r.PathValue("id"), c)
	var wrong *incident.ChangeError
	switch {
	case errors.As(err, &wrong):
		return nil, rest.Bad(err)
	case err != nil:
		return nil, err
	case !found:
		return nil, errNoIncident
	}
	return i, nil
}

// incidentForm takes a change from the page, and shows the page again.
func (s *Server) incidentForm(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return rest.Bad(fmt.Errorf("read the form: %w", err))
	}
	c := incident.Change{State: incident.State(r.PostForm.Get("state")), Reason: strings.TrimSpace(r.PostForm.Get("reason"))}
	c.Split = r.PostForm["split"]
	if id := strings.TrimSpace(r.PostForm.Get("merge")); id != "" {
		c.Merge = []string{id}
	}
	if who, given := r.PostForm["assignee"]; given {
		name := strings.TrimSpace(who[0])
		c.Assignee = &name
	}
	if mute := r.PostForm.Get("mute"); mute != "" {
		mute, c.MuteAll = strings.CutSuffix(mute, " all")
		d, err := time.ParseDuration(mute)
		if err != nil || d < 0 {
			return rest.Bad(fmt.Errorf("mute: want a time such as 4h, have %q", mute))
		}
		till := time.Now().Add(d).UTC().Truncate(time.Second)
		if d == 0 {
			till = time.Time{}
		}
		c.MuteTill = &till
	}
	if _, err := s.change(r, c); err != nil {
		return err
	}
	http.Redirect(w, r, "/incidents/"+url.PathEscape(r.PathValue("id")), http.StatusSeeOther)
	return nil
}

type incidentsData struct {
	Rows                []incident.Incident
	Query               url.Values
	States              []incident.State
	Clusters            []string // to choose from; none if there is but one
	Filtered            bool
	Newest, Older, JSON string
}

func (s *Server) incidentsPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.IncidentParams...)
	q := query.Incidents(p)
	if p.Err != nil {
		return p.Err
	}
	q.Brief = true
	rows, next, err := s.Incidents.Incidents(r.Context(), q)
	if err != nil {
		return err
	}
	data := incidentsData{
		Rows: rows, Query: p.Values, States: incident.States(), Clusters: s.clusterNames(),
		Filtered: rest.With("", p.Values, "before", "", "limit", "") != "",
		JSON:     rest.With("/api/v1/incidents", p.Values),
	}
	if next != (finding.Cursor{}) {
		data.Older = rest.With("/incidents", p.Values, "before", next.String())
	}
	if p.Text("before") != "" {
		data.Newest = rest.With("/incidents", p.Values, "before", "")
	}
	return s.show(w, r, "incidents", "Incidents", data)
}

type incidentData struct {
	incident.Incident
	Silent                 bool             // it is muted
	States                 []incident.State // that it can go to by who looks at it
	Steps                  []timeline.Entry
	Total                  int            // of all pages
	From                   int            // the number of the first of this page
	Open                   []finding.Span // that failed when it began
	Stood                  int            // how many those are
	Begin, More, End, JSON string         // addresses; empty where there is none
	Advice                 []advice
	Trees                  []*lineage.Process
}

// Upto is the number of the last entry of this page.
func (d *incidentData) Upto() int { return d.From + len(d.Steps) - 1 }

// tell fills in a page of the timeline.
func (s *Server) tell(r *http.Request, p *rest.Params, data *incidentData) error {
	after := rest.Value(p, "after", finding.ParseCursor)
	if p.Err != nil {
		return p.Err
	}
	t, err := s.timeline(r, &data.Incident)
	if err != nil {
		return err
	}
	page, next := t.Page(after, storyPage)
	data.Steps, data.Total, data.From = page, len(t.Entries), len(t.Entries)-len(t.After(after))+1
	data.Open, data.Stood = t.Standing[:min(len(t.Standing), storyOpen)], len(t.Standing)
	self := "/incidents/" + url.PathEscape(data.ID)
	link := func(c finding.Cursor) string {
		if c == after {
			return ""
		}
		return rest.With(self, nil, "after", c.String())
	}
	if data.Begin = link(finding.Cursor{}); next != (finding.Cursor{}) {
		data.More, data.End = link(next), link(t.Last(storyPage))
	}
	data.JSON = rest.With("/api/v1"+self+"/timeline", p.Values)
	return nil
}

func (s *Server) incidentPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, "after")
	i, err := s.incident(r)
	if err != nil {
		return err
	}
	data := incidentData{Incident: i, Silent: time.Now().Before(i.MuteTill)}
	if i.State != incident.Closed && s.sessions.May(r)("update incidents") {
		data.States = slices.DeleteFunc(incident.States(), func(to incident.State) bool { return to == i.State })
	}
	if err = s.tell(r, p, &data); err != nil {
		return err
	}
	if data.Advice, err = s.advise(r, &i); err != nil {
		return err
	}
	if data.Trees, err = s.processes(r, &i); err != nil {
		return err
	}
	return s.show(w, r, "incident", "Incident", &data)
}
