package web

import (
	"bytes"
	"net/http"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// api wraps a handler of the JSON API: its error is JSON.
func (s *Server) api(handle rest.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		known := rest.Told(s.Log, r, err)
		switch known.Code {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "60")
		}
		if err := rest.WriteJSON(w, known.Code, map[string]string{"error": known.Text}); err != nil {
			s.Log.Debug("send error", "error", err)
		}
	})
}

func (s *Server) listAlerts(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.AlertParams...)
	q := query.Alerts(p)
	if p.Err != nil {
		return p.Err
	}
	page, next, err := s.Alerts.Alerts(r.Context(), q)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next.String()))
}

func (s *Server) getAlert(w http.ResponseWriter, r *http.Request) error {
	record, found, err := s.Alerts.Alert(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if !found {
		return rest.ErrNotFound
	}
	return rest.WriteJSON(w, http.StatusOK, record)
}

func (s *Server) listDecisions(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.DecisionParams...)
	q := query.Decisions(p)
	if p.Err != nil {
		return p.Err
	}
	page, next, err := s.Decisions.Decisions(r.Context(), q)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next.String()))
}

func (s *Server) listFindings(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.FindingParams...)
	q := query.Findings(p)
	if p.Err != nil {
		return p.Err
	}
	page, next, err := s.Findings.FindingPage(r.Context(), q)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next))
}

type posture struct {
	Score      control.Score          `json:"score"`
	Fixes      []control.Fix          `json:"fixes"`
	ObservedAt time.Time              `json:"observedAt,omitzero"`
	Findings   map[finding.Status]int `json:"findings"`
}

func (s *Server) getPosture(w http.ResponseWriter, r *http.Request) error {
	p := posture{}
	var err error
	if p.Findings, err = s.Findings.FindingCounts(r.Context()); err != nil {
		return err
	}
	p.Score, p.Fixes, p.ObservedAt = s.Posture()
	return rest.WriteJSON(w, http.StatusOK, p)
}

// listAgents lists the agents of nodes, those first that need somebody.
func (s *Server) listAgents(w http.ResponseWriter, _ *http.Request) error {
	return rest.WriteJSON(w, http.StatusOK, rest.Items(s.Agents(), ""))
}

// listClusters lists the clusters that report here, those first that need somebody.
func (s *Server) listClusters(w http.ResponseWriter, _ *http.Request) error {
	return rest.WriteJSON(w, http.StatusOK, rest.Items(s.Clusters(), ""))
}

func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) error {
	return rest.WriteJSON(w, http.StatusOK, s.Health())
}

func (s *Server) getOpenAPI(w http.ResponseWriter, r *http.Request) error {
	data, err := files.ReadFile("openapi.yaml")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/yaml")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	return nil
}
