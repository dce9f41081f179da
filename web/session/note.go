package session

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/kubeguardian/kubeguardian/access"
	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// refusalsKept is how many refused requests and logins the log of actions keeps
// each minute: anybody can cause them, and they must not fill the disk. Those that
// are not kept are counted in the next one that is.
const refusalsKept = 20

// noteWithin bounds how long it takes to note an action, also of a client that has
// gone.
const noteWithin = 10 * time.Second

var errNotLogged = &rest.Error{Code: http.StatusServiceUnavailable, Text: "this cannot be noted in the log of actions, and is not done; the server's log says why"}

// note adds what somebody does to the log of actions.
func (g *Guard) note(r *http.Request, e action.Entry) error {
	e.Time, e.Source = time.Now(), r.RemoteAddr
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteWithin)
	defer cancel()
	if _, err := g.Actions.AppendAction(ctx, e); err != nil {
		g.Log.Error("note an action", "user", e.User, "action", e.Action, "object", e.Object, "result", e.Result, "error", err)
		return errNotLogged
	}
	return nil
}

// refused notes what somebody was not allowed to do. That it cannot be noted does
// not allow it.
func (g *Guard) refused(r *http.Request, e action.Entry) {
	if !g.refusals.Allow() {
		g.unkept.Add(1)
		return
	}
	if n := g.unkept.Swap(0); n > 0 {
		e.Result += fmt.Sprintf(" (and %d refusals before it that are not kept)", n)
	}
	g.note(r, e) //nolint:errcheck // it is in the server's log
}

// logged runs the handler of a route that changes something, after it was noted
// who does it, and notes when it failed.
func (g *Guard) logged(handle rest.Handler, w http.ResponseWriter, r *http.Request, id access.Identity, p access.Permission) error {
	body, err := io.ReadAll(r.Body) // its length is bounded
	if err != nil {
		return rest.Bad(fmt.Errorf("read the request: %w", err))
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	e := action.Entry{User: id.User, Action: string(p), Object: r.URL.Path, Change: changeText(r, body), Result: action.Allowed}
	if err := g.note(r, e); err != nil {
		return err
	}
	if err = handle(w, r); err != nil {
		e.Result = action.Failed + ": " + rest.Told(g.Log, r, err).Text
		g.note(r, e) //nolint:errcheck // it is in the server's log; nothing was done that is not noted
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
