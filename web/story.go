package web

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/lineage"
	"github.com/kubeguardian/kubeguardian/incident/timeline"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/web/export"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// Bounds of what the page of an incident asks for beside the incident.
const (
	storyAlerts   = 100 // of the kernel, for the tree of processes
	storyEntities = 12  // whose decisions and findings are looked up
	storyActions  = 4
	storyMessages = 500
	storyPage     = 100 // entries of the timeline
	storyStanding = 100 // findings that stood open
	storyOpen     = 8   // of those on the page
	// storyDenials is for how long after the last alert denials are looked for.
	storyDenials = 24 * time.Hour
)

// storyDecisions is how many decisions of each outcome are shown for each entity.
var storyDecisions = map[finding.Outcome]int{finding.Denied: 50, finding.Warned: 20, finding.Allowed: 10}

// An advice is one thing to do, and what it would have prevented.
type advice struct {
	finding.Finding
	Places int     // that fail the same, among what the incident involves
	Gain   float64 // points of the score, if all places are fixed
}

// timeline merges what is known of an incident and of its time, as far as who asks
// may list it. Decisions and findings of another cluster are known there.
func (s *Server) timeline(r *http.Request, i *incident.Incident) (timeline.Timeline, error) {
	now := time.Now()
	may := s.sessions.May(r)
	var from timeline.Sources
	var err error
	if may("list alerts") && len(timeline.Nodes(i)) > 0 {
		if from.Blind, from.Silent, err = s.blindAround(r, i, now); err != nil {
			return timeline.Timeline{}, err
		}
	}
	if may("list decisions") && !s.elsewhere(i) {
		if from.Decisions, err = s.decisionsAround(r, i, now); err != nil {
			return timeline.Timeline{}, err
		}
	}
	if may("list findings") && !s.elsewhere(i) {
		since, until := timeline.Bounds(i, now)
		from.Spans, err = s.Findings.FindingSpans(r.Context(), finding.SpanQuery{Subjects: timeline.Subjects(i), Since: since, Until: until})
		if err != nil {
			return timeline.Timeline{}, err
		}
	}
	if may("list deliveries") {
		if from.Messages, _, err = s.Deliveries.Deliveries(r.Context(), delivery.Query{Incident: i.ID, Limit: storyMessages}); err != nil {
			return timeline.Timeline{}, err
		}
	}
	return timeline.New(i, from, now), nil
}

// blindAround returns the alerts of the time of an incident which say that something
// on one of its nodes was not seen, and those of before which say that an agent of
// them was silent as it began.
func (s *Server) blindAround(r *http.Request, i *incident.Incident, now time.Time) (blind, silent []alert.Record, err error) {
	since, until := timeline.Bounds(i, now)
	for _, node := range timeline.Nodes(i) {
		about := alert.Query{Cluster: i.Cluster, Entity: alert.Entity{Kind: alert.Node, Name: node}, Since: since, Until: until}
		for _, kind := range fleet.Blinds() {
			for q, more := ofRule(about, kind, rest.MaxPageSize), true; more; more = q.Before != (finding.Cursor{}) {
				var page []alert.Record
				if page, q.Before, err = s.Alerts.Alerts(r.Context(), q); err != nil {
					return nil, nil, err
				}
				blind = append(blind, page...)
			}
		}
		about.Since, about.Until = time.Time{}, since
		last, _, err := s.Alerts.Alerts(r.Context(), ofRule(about, fleet.FellSilent, 1))
		if err != nil {
			return nil, nil, err
		}
		if len(last) == 0 {
			continue
		}
		about.Since = last[0].Time
		again, _, err := s.Alerts.Alerts(r.Context(), ofRule(about, fleet.SpeaksAgain, 1))
		if err != nil {
			return nil, nil, err
		}
		if len(again) == 0 {
			silent = append(silent, last...)
		}
	}
	return blind, silent, nil
}

// ofRule narrows a query to the alerts about a kind of change of agents.
func ofRule(q alert.Query, kind fleet.Kind, limit int) alert.Query {
	q.Rule, q.Limit = kind.Rule(), limit
	return q
}

// decisionsAround returns the decisions of the time of an incident that whom and
// what it involves has to do with; of each outcome the latest.
func (s *Server) decisionsAround(r *http.Request, i *incident.Incident, now time.Time) (out []finding.Decision, err error) {
	since, until := timeline.Bounds(i, now)
	soon, later := i.Last.Add(timeline.Around), i.Last.Add(storyDenials)
	for _, e := range involved(i, alert.User, alert.Pod, alert.Workload) {
		if e.Kind == alert.User && incident.Hub(e.Name) {
			continue // what controllers and nodes ask for is not of the incident alone
		}
		for outcome, most := range storyDecisions {
			end := soon
			if outcome == finding.Denied && until.Before(later) {
				end = until
			} else if outcome == finding.Denied {
				end = later
			}
			decisions, err := s.Entities.DecisionsOf(r.Context(), e, finding.DecisionQuery{Outcome: outcome, Since: since, Until: end, Limit: most})
			if err != nil {
				return nil, err
			}
			out = append(out, decisions...)
		}
	}
	return out, nil
}

// A timelinePage is a part of a timeline.
type timelinePage struct {
	Items    []timeline.Entry `json:"items"`
	Total    int              `json:"total"`          // entries of all pages
	Standing []finding.Span   `json:"standing"`       // findings that failed when the incident began, worst first
	Stood    int              `json:"stood"`          // how many those are in all
	Next     string           `json:"next,omitempty"` // of the next page
}

var timelineParams = []string{"after", "limit"}

func (s *Server) getTimeline(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, timelineParams...)
	after := rest.Value(p, "after", finding.ParseCursor)
	limit := min(cmp.Or(int(rest.Value(p, "limit", rest.ParseNatural)), storyPage), rest.MaxPageSize)
	if p.Err != nil {
		return p.Err
	}
	i, err := s.incident(r)
	if err != nil {
		return err
	}
	t, err := s.timeline(r, &i)
	if err != nil {
		return err
	}
	page, next := t.Page(after, limit)
	return rest.WriteJSON(w, http.StatusOK, timelinePage{
		Items: append([]timeline.Entry{}, page...), Total: len(t.Entries), Next: next.String(),
		Standing: append([]finding.Span{}, t.Standing[:min(len(t.Standing), storyStanding)]...), Stood: len(t.Standing),
	})
}

// exportTimeline writes all that happened around one incident, after what stood
// open when it began.
func (s *Server) exportTimeline(r *http.Request, p *rest.Params, e *export.Writer) error {
	if p.Err == nil && p.Text("incident") == "" {
		p.Fail(errors.New("parameter incident: want the id of one"))
	}
	if p.Err != nil {
		return p.Err
	}
	i, found, err := s.Incidents.Incident(r.Context(), p.Text("incident"))
	if err == nil && !found {
		err = errNoIncident
	}
	if err != nil {
		return err
	}
	t, err := s.timeline(r, &i)
	if err != nil {
		return err
	}
	entries := append(timeline.Before(t.Standing), t.Entries...)
	for n := range entries {
		one := &entries[n]
		if err := e.Add(one, stamp(one.Time), string(one.Kind), one.Source, one.Grade, one.Title, one.Text, one.ID); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere reports whether an incident is of another cluster: what this one knows
// of things with the same names says nothing of it.
func (s *Server) elsewhere(i *incident.Incident) bool {
	return i.Cluster != "" && i.Cluster != s.Cluster
}

// clusterNames returns the clusters to choose from on a hub, its own first; elsewhere
// none.
func (s *Server) clusterNames() (names []string) {
	for _, c := range s.Clusters() {
		names = append(names, c.Name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return append([]string{s.Cluster}, names...)
}

// involved returns the first entities of some kinds.
func involved(i *incident.Incident, kinds ...alert.EntityKind) (out []alert.Entity) {
	for _, e := range i.Entities {
		if slices.Contains(kinds, e.Kind) && len(out) < storyEntities {
			out = append(out, e)
		}
	}
	return out
}

// advise returns what to fix of what made the incident possible: the controls
// that fail for what it involves, the worst first.
func (s *Server) advise(r *http.Request, i *incident.Incident) ([]advice, error) {
	if !s.sessions.May(r)("list findings") || s.elsewhere(i) {
		return nil, nil
	}
	findings, err := s.failing(r, involved(i, alert.Workload, alert.Pod, alert.User, alert.Node), entityRecords)
	if err != nil {
		return nil, err
	}
	_, fixes, _ := s.Posture()
	gains := map[string]float64{}
	for _, f := range fixes {
		gains[f.Control] = f.Gain
	}
	var out []advice
	for _, f := range findings {
		if at := slices.IndexFunc(out, func(a advice) bool { return a.Control == f.Control }); at >= 0 {
			out[at].Places++
			continue
		}
		out = append(out, advice{f, 1, gains[f.Control]})
	}
	slices.SortStableFunc(out, func(a, b advice) int {
		return cmp.Or(cmp.Compare(b.Severity.Weight(), a.Severity.Weight()), cmp.Compare(b.Gain, a.Gain))
	})
	return out[:min(len(out), storyActions)], nil
}

// processes returns the trees of the processes that signals of the kernel tell
// of, one for each container or host.
func (s *Server) processes(r *http.Request, i *incident.Incident) ([]*lineage.Process, error) {
	root := &lineage.Process{}
	for n, asked := 0, 0; n < len(i.Signals) && asked < storyAlerts; n++ {
		if i.Signals[n].Source != "syscall" {
			continue
		}
		asked++
		record, found, err := s.Alerts.Alert(r.Context(), i.Signals[n].Alert)
		if err != nil {
			return nil, err
		}
		if found {
			root.Add(&record.Alert)
		}
	}
	return root.Children, nil
}
