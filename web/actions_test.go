package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/action"
)

// actionLog returns the log of actions, oldest first, after it was verified.
func (s *site) actionLog(t *testing.T) (out []action.Entry) {
	t.Helper()
	if _, err := s.store.VerifyActions(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, _, err := s.store.Actions(t.Context(), 0, 200)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page {
		out = append([]action.Entry{e}, out...)
	}
	return out
}

func said(entries []action.Entry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s: %s %s %s: %s\n", e.User, e.Action, e.Object, e.Change, e.Result)
	}
	return b.String()
}

// TestActionsAreLogged: logins, changes, what fails and what is refused.
func TestActionsAreLogged(t *testing.T) {
	s := newSite(t)
	s.join(t, "one", "ada")
	v := s.visitor(t)
	v.login("wrong", "/")
	v.login("responder", "/")
	v.read(v.PostForm(s.url+"/incidents/one", url.Values{"state": {"acknowledged"}, "password": {"hunter2"}}))
	v.read(v.PostForm(s.url+"/incidents/none", url.Values{"state": {"acknowledged"}}))
	v.get("/actions")
	v.read(v.PostForm(s.url+"/logout", nil))
	s.sendChange(t, "one", `{"assignee":"cara"}`)
	s.sendChange(t, "one", `not JSON`)
	entries := s.actionLog(t)
	want := `: log in  : failed: this token is not valid
responder: log in  : done
responder: update incidents /incidents/one {"password":"(secret)","state":"acknowledged"}: allowed
responder: update incidents /incidents/none {"state":"acknowledged"}: allowed
responder: update incidents /incidents/none {"state":"acknowledged"}: failed: there is no incident with this id; it may be part of an older one by now, or older than the retention
responder: list actions /actions : denied
responder: log out  : done
administrator: update incidents /api/v1/incidents/one {"assignee":"cara"}: allowed
administrator: update incidents /api/v1/incidents/one 8 bytes: allowed
administrator: update incidents /api/v1/incidents/one 8 bytes: failed: read the request: `
	if have := said(entries); !strings.HasPrefix(have, want) {
		t.Errorf("the log is\n%s\nwant\n%s", have, want)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Source, "127.0.0.1:") || e.Time.IsZero() {
			t.Errorf("entry %d has no source or time: %+v", e.Seq, e)
		}
	}
}

// TestEveryChangeIsLogged walks all routes that change something.
func TestEveryChangeIsLogged(t *testing.T) {
	s := newSite(t, full(t))
	s.join(t, "one", "ada")
	for _, r := range s.routes() {
		if !r.needs.Changes() || r.needs == "" {
			continue
		}
		before := len(s.actionLog(t))
		s.ask(t, r, "Authorization", "Bearer "+testToken)
		log := s.actionLog(t)
		if len(log) == before || log[before].User != "administrator" || log[before].Action != string(r.needs) || log[before].Result != action.Allowed {
			t.Errorf("%s %s: %s", r.method, r.path, said(log[before:]))
		}
	}
}

// TestNothingIsDoneUnlogged: without a place to note it, nobody logs in and
// nothing is changed.
func TestNothingIsDoneUnlogged(t *testing.T) {
	s := newSite(t)
	s.join(t, "one", "ada")
	member := s.member(t)
	broken := newSite(t)
	if err := broken.store.Close(); err != nil {
		t.Fatal(err)
	}
	s.sessions.Actions = broken.store
	if code, body := s.sendChange(t, "one", `{"assignee":"cara"}`); code != http.StatusServiceUnavailable || !strings.Contains(body, "is not done") || strings.Contains(body, "database") {
		t.Errorf("a change: %d %s", code, body)
	}
	if i, _, err := s.store.Incident(t.Context(), "one"); err != nil || i.Assignee != "" {
		t.Errorf("the incident is of %q, %v", i.Assignee, err)
	}
	if code, _, _ := s.visitor(t).login(testToken, "/"); code != http.StatusServiceUnavailable {
		t.Errorf("a login: %d", code)
	}
	if _, _, path := member.read(member.PostForm(s.url+"/logout", nil)); path != "/login" {
		t.Errorf("a logout leads to %s", path)
	}
	if _, _, path := member.read(member.Get(s.url + "/")); path == "/" {
		t.Error("the session goes on")
	}
}

// TestActionsAPI pages through the log, verifies it, and shows it.
func TestActionsAPI(t *testing.T) {
	s := newSite(t)
	s.join(t, "one", "ada")
	for range 5 {
		s.sendChange(t, "one", `{"assignee":"<script>alert(1)</script>"}`)
	}
	var seqs []string
	for path := "/api/v1/actions?limit=2"; path != ""; {
		code, page := s.bearer(t, path, testToken)
		if code != http.StatusOK {
			t.Fatalf("%d %v", code, page)
		}
		for _, item := range page["items"].([]any) {
			seqs = append(seqs, fmt.Sprint(item.(map[string]any)["seq"]))
		}
		path = ""
		if next, ok := page["next"].(string); ok {
			path = "/api/v1/actions?limit=2&before=" + next
		}
	}
	if have := strings.Join(seqs, " "); have != "5 4 3 2 1" {
		t.Errorf("the pages have %s", have)
	}
	log := s.actionLog(t)
	for query, want := range map[string]string{
		"":                       "map[hash:" + log[4].Hash + " seq:5]",
		"?head=3:" + log[2].Hash: "map[hash:" + log[4].Hash + " seq:5]",
		"?head=3:" + log[1].Hash: "map[broken:entry 3: it is another one than was seen before: the log was written anew hash:" + log[2].Hash + " seq:3]",
		"?head=9:" + log[1].Hash: "map[broken:entry 9: it was seen before and is missing: the end of the log was removed hash:" + log[4].Hash + " seq:5]",
	} {
		if code, head := s.bearer(t, "/api/v1/actions/head"+query, testToken); code != http.StatusOK || fmt.Sprint(head) != want {
			t.Errorf("%s: %d %v, want %s", query, code, head, want)
		}
	}
	if code, answer := s.bearer(t, "/api/v1/actions/head?head=x", testToken); code != http.StatusBadRequest {
		t.Errorf("no head: %d %v", code, answer)
	}
	code, body := s.member(t).get("/actions")
	if code != http.StatusOK || strings.Contains(body, "<script>alert") || !strings.Contains(body, "update incidents") || !strings.Contains(body, "administrator") {
		t.Errorf("the page: %d %s", code, body)
	}
}
