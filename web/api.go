package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
)

// api wraps a handler of the JSON API: its error is JSON.
func (s *Server) api(handle handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		known := s.status(r, err)
		switch known.code {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "60")
		}
		if err := writeJSON(w, known.code, map[string]string{"error": known.text}); err != nil {
			s.Log.Debug("send error", "error", err)
		}
	})
}

// writeJSON sends v. A client that has gone meanwhile is no error of ours.
func writeJSON(w http.ResponseWriter, code int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(data, '\n'))
	return nil
}

// A list is one page. Next is the value of the parameter that leads to the next
// one; "" when there is none.
type list struct {
	Items any    `json:"items"`
	Next  string `json:"next,omitempty"`
}

func items[T any](page []T, next string) list {
	if page == nil {
		page = []T{}
	}
	return list{page, next}
}

func (s *Server) listAlerts(w http.ResponseWriter, r *http.Request) error {
	p := parseParams(r.URL, alertParams...)
	q := alertQuery(p)
	if p.err != nil {
		return p.err
	}
	page, next, err := s.Alerts.Alerts(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, items(page, next.String()))
}

func (s *Server) getAlert(w http.ResponseWriter, r *http.Request) error {
	record, found, err := s.Alerts.Alert(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if !found {
		return errNotFound
	}
	return writeJSON(w, http.StatusOK, record)
}

func (s *Server) listDecisions(w http.ResponseWriter, r *http.Request) error {
	p := parseParams(r.URL, decisionParams...)
	q := decisionQuery(p)
	if p.err != nil {
		return p.err
	}
	page, next, err := s.Decisions.Decisions(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, items(page, next.String()))
}

func (s *Server) listFindings(w http.ResponseWriter, r *http.Request) error {
	p := parseParams(r.URL, findingParams...)
	q := findingQuery(p)
	if p.err != nil {
		return p.err
	}
	page, next, err := s.Findings.FindingPage(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, items(page, next))
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
	return writeJSON(w, http.StatusOK, p)
}

// listAgents lists the agents of nodes, those first that need somebody.
func (s *Server) listAgents(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, items(s.Agents(), ""))
}

func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, s.Health())
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
