package web

import (
	"net/http"

	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// checks returns what the server watches about itself, problems first.
func (s *Server) checks() []health.Check {
	out := s.Checks()
	health.Sort(out)
	return out
}

func (s *Server) getChecks(w http.ResponseWriter, _ *http.Request) error {
	return rest.WriteJSON(w, http.StatusOK, rest.Items(s.checks(), ""))
}

type healthData struct {
	Checks   []health.Check
	Wrong    int // checks that are not in order
	Agents   []fleet.Agent
	Clusters []roster.Cluster
}

func (s *Server) healthPage(w http.ResponseWriter, r *http.Request) error {
	data := healthData{Checks: s.checks(), Agents: s.Agents(), Clusters: s.Clusters()}
	for _, c := range data.Checks {
		if c.State == health.Bad || c.State == health.Warn {
			data.Wrong++
		}
	}
	return s.show(w, r, "health", "Health", data)
}
