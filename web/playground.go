package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/web/rest"
	"github.com/kubeguardian/kubeguardian/web/session"
)

// maxTrial bounds the body of a request to try something: two texts, which forms
// write three times as long.
const maxTrial = 6*playground.MaxText + 4096

// maxBody bounds the body of a request: most are a few words.
func maxBody(r *http.Request) int64 {
	if r.URL.Path == "/playground" || strings.HasPrefix(r.URL.Path, "/api/v1/evaluations/") {
		return maxTrial
	}
	return 64 << 10
}

var playgroundParams = []string{"rule", "alert", "tab"}

type playgroundData struct {
	Policies                   bool // the tab
	Rule, Event, Alert, Source string
	Policy, Object             string
	RuleResult                 *playground.RuleResult
	PolicyResult               *playground.PolicyResult
	Error                      string
	May                        bool
}

// playgroundPage shows the form, filled with a rule or with the event of an alert.
func (s *Server) playgroundPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, playgroundParams...)
	if p.Err != nil {
		return p.Err
	}
	data := playgroundData{Alert: p.Text("alert"), Policies: p.Text("tab") == "policy"}
	if name := p.Text("rule"); name != "" {
		for _, one := range s.Rules() {
			if one.Name != name {
				continue
			}
			var err error
			if data.Rule, err = playground.Text(one.Name, one.Desc, one.Source, one.Priority, one.Condition, one.Output); err != nil {
				return err
			}
			data.Source = one.Source
		}
	}
	return s.showPlayground(w, r, data)
}

func (s *Server) showPlayground(w http.ResponseWriter, r *http.Request, data playgroundData) error {
	data.May = s.sessions.May(r)("create evaluations")
	return s.show(w, r, "playground", "Playground", data)
}

// playgroundForm tries what the form has, and shows it with the result.
func (s *Server) playgroundForm(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return rest.Bad(fmt.Errorf("read the form: %w", err))
	}
	form := r.PostForm
	data := playgroundData{
		Policies: form.Get("tab") == "policy", Rule: form.Get("rule"), Event: form.Get("event"), Alert: strings.TrimSpace(form.Get("alert")),
		Source: form.Get("source"), Policy: form.Get("policy"), Object: form.Get("object"),
	}
	var err error
	if data.Policies {
		var result playground.PolicyResult
		if result, err = s.Playground.Policy(r.Context(), session.Key(r), playground.PolicyTrial{Policy: data.Policy, Object: data.Object}); err == nil {
			data.PolicyResult = &result
		}
	} else {
		var result playground.RuleResult
		if result, err = s.tryRule(r, ruleTrial{data.Rule, data.Source, data.Alert, data.Event}); err == nil {
			data.RuleResult = &result
		}
	}
	if err != nil {
		known := rest.Told(s.Log, r, tried(err))
		if known.Code == http.StatusInternalServerError {
			return known
		}
		data.Error = known.Text
	}
	return s.showPlayground(w, r, data)
}

// A ruleTrial is a rule and what to try it on, as the API takes it.
type ruleTrial struct {
	Rule   string `json:"rule"`
	Source string `json:"source,omitempty"`
	Alert  string `json:"alert,omitempty"` // id of a stored one
	Event  string `json:"event,omitempty"`
}

func (s *Server) tryRule(r *http.Request, t ruleTrial) (out playground.RuleResult, err error) {
	var a *alert.Alert
	if t.Alert != "" {
		record, found, err := s.Alerts.Alert(r.Context(), t.Alert)
		if err != nil {
			return out, err
		}
		if !found {
			return out, &rest.Error{Code: http.StatusNotFound, Text: "there is no alert with this id; it may be older than the retention"}
		}
		a = &record.Alert
	}
	return s.Playground.Rule(r.Context(), session.Key(r), playground.RuleTrial{Rule: t.Rule, Source: t.Source, Alert: a, Event: t.Event})
}

// tried returns the error of a trial as the client is told it.
func tried(err error) error {
	var wrong *playground.InputError
	switch {
	case errors.As(err, &wrong):
		return &rest.Error{Code: http.StatusUnprocessableEntity, Text: err.Error()}
	case errors.Is(err, playground.ErrBusy):
		return &rest.Error{Code: http.StatusTooManyRequests, Text: err.Error()}
	case errors.Is(err, playground.ErrTooLong), errors.Is(err, playground.ErrMemory):
		return &rest.Error{Code: http.StatusUnprocessableEntity, Text: err.Error()}
	}
	return err
}

func (s *Server) evaluateRule(w http.ResponseWriter, r *http.Request) error {
	var t ruleTrial
	if err := rest.ReadJSON(r, &t); err != nil {
		return err
	}
	result, err := s.tryRule(r, t)
	if err != nil {
		return tried(err)
	}
	return rest.WriteJSON(w, http.StatusOK, result)
}

// A policyTrial is policies and an object, as the API takes them.
type policyTrial struct {
	Policy string `json:"policy"`
	Object string `json:"object"`
}

func (s *Server) evaluatePolicy(w http.ResponseWriter, r *http.Request) error {
	var t policyTrial
	if err := rest.ReadJSON(r, &t); err != nil {
		return err
	}
	result, err := s.Playground.Policy(r.Context(), session.Key(r), playground.PolicyTrial(t))
	if err != nil {
		return tried(err)
	}
	return rest.WriteJSON(w, http.StatusOK, result)
}
