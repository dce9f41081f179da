package web

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

var actionParams = []string{"before", "limit"}

// actions returns a page of the log, and the value of before that leads to the
// next one.
func (s *Server) actions(r *http.Request) (page []action.Entry, next string, err error) {
	p := rest.Parse(r.URL, actionParams...)
	before, limit := rest.Value(p, "before", rest.ParseNatural), rest.Value(p, "limit", rest.ParseNatural)
	if p.Err != nil {
		return nil, "", p.Err
	}
	page, cursor, err := s.Actions.Actions(r.Context(), int64(before), int(limit))
	if cursor > 0 {
		next = fmt.Sprint(cursor)
	}
	return page, next, err
}

func (s *Server) listActions(w http.ResponseWriter, r *http.Request) error {
	page, next, err := s.actions(r)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next))
}

// An actionsHead is what a verification of the log of actions says.
type actionsHead struct {
	action.Head
	Broken string `json:"broken,omitempty"` // where it is not what it was; "" if it is whole
}

var headParams = []string{"head"}

func (s *Server) verifiedHead(r *http.Request) (out actionsHead, err error) {
	p := rest.Parse(r.URL, headParams...)
	anchor := rest.Value(p, "head", action.ParseHead)
	if p.Err != nil {
		return out, p.Err
	}
	out.Head, err = s.Actions.VerifyActions(r.Context(), anchor)
	if broken := (*action.BrokenError)(nil); errors.As(err, &broken) {
		out.Broken, err = broken.Error(), nil
	}
	return out, err
}

func (s *Server) getActionsHead(w http.ResponseWriter, r *http.Request) error {
	head, err := s.verifiedHead(r)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, head)
}

type actionsData struct {
	Rows          []action.Entry
	Newest, Older string
}

func (s *Server) actionsPage(w http.ResponseWriter, r *http.Request) error {
	page, next, err := s.actions(r)
	if err != nil {
		return err
	}
	data := actionsData{Rows: page}
	if next != "" {
		data.Older = rest.With("/actions", nil, "before", next)
	}
	if r.URL.Query().Has("before") {
		data.Newest = "/actions"
	}
	return s.show(w, r, "actions", "Actions", data)
}
