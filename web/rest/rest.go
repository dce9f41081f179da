// Package rest has what the pages and the JSON API do alike: how they read the
// parameters of a URL and JSON bodies, and how they answer with lists and errors.
package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/kubeguardian/kubeguardian/access"
)

// A Handler answers a request. Its error is told to the client, as a page or as
// JSON, as [Told] says.
type Handler func(http.ResponseWriter, *http.Request) error

// An Error is an error that the client is told.
type Error struct {
	Code int // the HTTP status
	Text string
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// ErrNotFound says that a path leads to nothing.
var ErrNotFound = &Error{http.StatusNotFound, "there is nothing here"}

// Bad returns an error of the client's request.
func Bad(err error) error { return &Error{http.StatusBadRequest, err.Error()} }

// Told returns what to tell the client about err. Errors of ours go to the log,
// and the client learns only that there was one.
func Told(log *slog.Logger, r *http.Request, err error) *Error {
	var known *Error
	var denied *access.Denied
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &denied):
		return &Error{http.StatusForbidden, denied.Error()}
	}
	if r.Context().Err() == nil {
		log.Error("serve request", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	return &Error{http.StatusInternalServerError, "the server could not answer; its log says why"}
}

// WriteJSON sends v. A client that has gone meanwhile is no error of ours.
func WriteJSON(w http.ResponseWriter, code int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(data, '\n'))
	return nil
}

// ReadJSON reads the body of a request into v: one document, without unknown
// fields.
func ReadJSON(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Bad(fmt.Errorf("read the request: %w", err))
	}
	if _, err := d.Token(); err != io.EOF {
		return Bad(errors.New("read the request: something follows it"))
	}
	return nil
}

// A List is one page. Next is the value of the parameter that leads to the next
// one; "" when there is none.
type List struct {
	Items any    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Items returns a page as a list, which is never null.
func Items[T any](page []T, next string) List {
	if page == nil {
		page = []T{}
	}
	return List{page, next}
}
