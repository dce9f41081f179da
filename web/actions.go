package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
)

// refusalsKept is how many refused requests and logins the log of actions keeps
// each minute: anybody can cause them, and they must not fill the disk. Those that
// are not kept are counted in the next one that is.
const refusalsKept = 20

// noteWithin bounds how long it takes to note an action, also of a client that has
// gone.
const noteWithin = 10 * time.Second

var errNotLogged = &statusError{http.StatusServiceUnavailable, "this cannot be noted in the log of actions, and is not done; the server's log says why"}

// note adds what somebody does to the log of actions.
func (s *Server) note(r *http.Request, e action.Entry) error {
	e.Time, e.Source = time.Now(), r.RemoteAddr
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteWithin)
	defer cancel()
	if _, err := s.Actions.AppendAction(ctx, e); err != nil {
		s.Log.Error("note an action", "user", e.User, "action", e.Action, "object", e.Object, "result", e.Result, "error", err)
		return errNotLogged
	}
	return nil
}

// refused notes what somebody was not allowed to do. That it cannot be noted does
// not allow it.
func (s *Server) refused(r *http.Request, e action.Entry) {
	if !s.refusals.Allow() {
		s.unkept.Add(1)
		return
	}
	if n := s.unkept.Swap(0); n > 0 {
		e.Result += fmt.Sprintf(" (and %d refusals before it that are not kept)", n)
	}
	s.note(r, e) //nolint:errcheck // it is in the server's log
}

// logged runs the handler of a route that changes something, after it was noted
// who does it, and notes when it failed.
func (s *Server) logged(handle handler, w http.ResponseWriter, r *http.Request, id access.Identity, p access.Permission) error {
	body, err := io.ReadAll(r.Body) // its length is bounded
	if err != nil {
		return badRequest(fmt.Errorf("read the request: %w", err))
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	e := action.Entry{User: id.User, Action: string(p), Object: r.URL.Path, Change: changeText(r, body), Result: action.Allowed}
	if err := s.note(r, e); err != nil {
		return err
	}
	if err = handle(w, r); err != nil {
		e.Result = action.Failed + ": " + s.status(r, err).text
		s.note(r, e) //nolint:errcheck // it is in the server's log; nothing was done that is not noted
	}
	return err
}

// secretKey is how fields are named whose values nobody may read later.
var secretKey = regexp.MustCompile(`(?i)token|passw|secret|credential|authorization|cookie`)

// changeText returns what a request sends, as JSON, without the values of secrets.
// Of what is neither a form nor an object it returns the size alone.
func changeText(r *http.Request, body []byte) string {
	if len(body) == 0 {
		return ""
	}
	fields := map[string]any{}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return fmt.Sprintf("%d bytes", len(body))
		}
		for key, values := range form {
			if fields[key] = any(values); len(values) == 1 {
				fields[key] = values[0]
			}
		}
	} else if json.Unmarshal(body, &fields) != nil {
		return fmt.Sprintf("%d bytes", len(body))
	}
	hideSecrets(fields)
	text, err := json.Marshal(fields)
	if err != nil {
		return fmt.Sprintf("%d bytes", len(body))
	}
	return string(text)
}

func hideSecrets(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if secretKey.MatchString(key) {
				v[key] = "(secret)"
			} else {
				hideSecrets(value)
			}
		}
	case []any:
		for _, item := range v {
			hideSecrets(item)
		}
	}
}

var actionParams = []string{"before", "limit"}

// actions returns a page of the log, and the value of before that leads to the
// next one.
func (s *Server) actions(r *http.Request) (page []action.Entry, next string, err error) {
	p := parseParams(r.URL, actionParams...)
	before, limit := parsed(p, "before", parseNatural), parsed(p, "limit", parseNatural)
	if p.err != nil {
		return nil, "", p.err
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
	return writeJSON(w, http.StatusOK, items(page, next))
}

// An actionsHead is what a verification of the log of actions says.
type actionsHead struct {
	action.Head
	Broken string `json:"broken,omitempty"` // where it is not what it was; "" if it is whole
}

var headParams = []string{"head"}

func (s *Server) verifiedHead(r *http.Request) (out actionsHead, err error) {
	p := parseParams(r.URL, headParams...)
	anchor := parsed(p, "head", action.ParseHead)
	if p.err != nil {
		return out, p.err
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
	return writeJSON(w, http.StatusOK, head)
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
		data.Older = with("/actions", nil, "before", next)
	}
	if r.URL.Query().Has("before") {
		data.Newest = "/actions"
	}
	return s.show(w, r, "actions", "Actions", data)
}
