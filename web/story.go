package web

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/incident/lineage"
)

// Bounds of what the page of an incident asks for beside the incident.
const (
	storyAlerts   = 100              // of the kernel, for the tree of processes
	storyEntities = 12               // whose decisions and findings are looked up
	storyAround   = 30 * time.Minute // before and after, for decisions
	storyActions  = 4
)

// A step of the timeline of an incident. Alert is set where it can be split off.
type storyStep struct {
	moment
	Alert string
}

// An advice is one thing to do, and what it would have prevented.
type advice struct {
	finding.Finding
	Places int     // that fail the same, among what the incident involves
	Gain   float64 // points of the score, if all places are fixed
}

// story adds to the signals of an incident what else is known of its time.
func (s *Server) story(r *http.Request, i *incident.Incident) (steps []storyStep, err error) {
	for n := range i.Signals {
		signal := &i.Signals[n]
		steps = append(steps, storyStep{moment{
			Time: signal.Time, Source: sourceName(signal.Source), Class: "prio-" + strings.ToLower(signal.Priority.String()), Label: signal.Priority.String(),
			URL: "/alerts/" + signal.Alert, Title: signal.Rule, Text: signal.Output, Links: signal.Links,
		}, signal.Alert})
	}
	if !s.sessions.May(r)("list decisions") || s.elsewhere(i) {
		return steps, nil
	}
	seen := map[string]bool{}
	for _, e := range involved(i, alert.User, alert.Pod, alert.Workload) {
		decisions, err := s.Entities.DecisionsOf(r.Context(), e, entityRecords)
		if err != nil {
			return nil, err
		}
		for _, d := range decisions {
			if !seen[d.ID] && d.Time.After(i.First.Add(-storyAround)) && d.Time.Before(i.Last.Add(storyAround)) {
				seen[d.ID] = true
				steps = append(steps, storyStep{ofDecision(&d), ""})
			}
		}
	}
	slices.SortStableFunc(steps, func(a, b storyStep) int { return a.Time.Compare(b.Time) })
	return steps, nil
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
