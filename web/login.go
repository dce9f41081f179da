package web

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/kubeguardian/kubeguardian/web/rest"
	"github.com/kubeguardian/kubeguardian/web/session"
)

// guard serves a route to those who may do what it needs. Who opens a page without
// a login logs in first.
func (s *Server) guard(rt route) http.Handler {
	wrap := s.page
	if rt.api() {
		wrap = s.api
	}
	if rt.needs == "" {
		return wrap(rt.handle)
	}
	handle := s.sessions.Require(rt.needs, rt.handle)
	return wrap(func(w http.ResponseWriter, r *http.Request) error {
		err := handle(w, r)
		if !rt.api() && errors.Is(err, session.ErrLoggedOut) {
			http.Redirect(w, r, rest.With("/login", nil, "next", r.URL.RequestURI()), http.StatusSeeOther)
			return nil
		}
		return err
	})
}

type loginData struct {
	Login
	Next, Error string
}

func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) error {
	next := session.LocalPath(r.URL.Query().Get("next"))
	if s.sessions.LoggedIn(r) {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	return s.render(w, http.StatusOK, "login", layout{Title: "Log in", Page: loginData{Login: s.Login, Next: next}})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return rest.Bad(fmt.Errorf("read login form: %w", err))
	}
	next := session.LocalPath(r.PostForm.Get("next"))
	if err := s.sessions.LogIn(w, r, r.PostForm.Get("token")); err != nil {
		return s.loginRefused(w, r, next, err)
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// loginRefused shows the login page again, with the reason.
func (s *Server) loginRefused(w http.ResponseWriter, r *http.Request, next string, err error) error {
	known := rest.Told(s.Log, r, err)
	if known.Code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "60")
	}
	return s.render(w, known.Code, "login", layout{Title: "Log in", Page: loginData{s.Login, next, known.Text}})
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	if err := s.sessions.LogOut(w, r); err != nil {
		return err
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// oidcLogin sends the browser to the issuer.
func (s *Server) oidcLogin(w http.ResponseWriter, r *http.Request) error {
	address, err := s.sessions.SignOn(w, r, r.URL.Query().Get("next"))
	if err != nil {
		return err
	}
	http.Redirect(w, r, address, http.StatusSeeOther)
	return nil
}

// oidcCallback answers who comes back from the issuer with a page that goes on by
// itself.
func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) error {
	next, err := s.sessions.SignedOn(w, r)
	if errors.Is(err, session.ErrSignOn) {
		return s.loginRefused(w, r, next, err)
	}
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, "welcome", layout{Title: "Logged in", Refresh: next, Page: next})
}
