package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

// join stores an incident of alerts by one user.
func (s *site) join(t *testing.T, id, user string) {
	t.Helper()
	c := incident.NewCorrelator(nil)
	var out incident.Outcome
	for i, rule := range []string{"Secrets listed", "Binding to cluster-admin"} {
		out = c.Add("test-cluster", incident.FromAlert(&alert.Alert{
			ID: id + strings.Repeat("x", i), Time: time.Now().Add(-time.Hour).UTC(), Rule: rule, Priority: alert.Critical,
			Output: "<script>alert(1)</script>", Entities: []alert.Entity{{Kind: alert.User, Name: user}},
		}))
	}
	if err := s.store.SaveIncidents(t.Context(), []*incident.Incident{out.Incident}, nil, store.Joined{}, 0); err != nil {
		t.Fatal(err)
	}
}

// sendChange sends a change to the API, and returns the code and the answer.
func (s *site) sendChange(t *testing.T, id, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("POST", s.url+"/api/v1/incidents/"+id, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	code, answer, _ := s.visitor(t).read(http.DefaultClient.Do(req))
	return code, answer
}

func TestIncidentAPI(t *testing.T) {
	s := newSite(t)
	s.join(t, "one", "ada")
	s.join(t, "two", "ben")
	list := func(query string) (ids []string, next any) {
		code, body := s.bearer(t, "/api/v1/incidents"+query, testToken)
		if code != http.StatusOK {
			t.Fatalf("%s: %d %v", query, code, body)
		}
		for _, item := range body["items"].([]any) {
			ids = append(ids, item.(map[string]any)["id"].(string))
		}
		return ids, body["next"]
	}
	if ids, _ := list("?paged=true&text=ADA"); !slices.Equal(ids, []string{"one"}) {
		t.Errorf("of ada: %v", ids)
	}
	if ids, next := list("?limit=1"); len(ids) != 1 || next == nil {
		t.Errorf("a page of one has %v and next %v", ids, next)
	}
	for name, c := range map[string]struct {
		id, body string
		code     int
		want     string
	}{
		"no reason":      {"one", `{"state":"closed"}`, http.StatusBadRequest, "an incident is closed with a reason"},
		"unknown field":  {"one", `{"status":"closed"}`, http.StatusBadRequest, `unknown field`},
		"two changes":    {"one", `{} {}`, http.StatusBadRequest, "something follows it"},
		"no such one":    {"three", `{}`, http.StatusNotFound, "there is no incident with this id"},
		"by two persons": {"one", `{"state":"acknowledged","assignee":"cara"}`, http.StatusOK, `"assignee":"cara"`},
		"for a while":    {"two", `{"muteTill":"2030-01-01T00:00:00Z"}`, http.StatusOK, `"muteTill":"2030-01-01T00:00:00Z"`},
	} {
		code, body := s.sendChange(t, c.id, c.body)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if code, _ := s.sendChange(t, "two", `{"state":"closed","reason":"a test"}`); code != http.StatusOK {
		t.Errorf("closing: %d", code)
	}
	for query, want := range map[string]int{"": 1, "?state=all": 2, "?state=closed": 1, "?state=contained": 0} {
		if ids, _ := list(query); len(ids) != want {
			t.Errorf("%q: %v, want %d", query, ids, want)
		}
	}
}

// TestIncidentPages walks from the list to an incident and closes it.
func TestIncidentPages(t *testing.T) {
	s := newSite(t)
	v := s.member(t)
	if _, body := v.get("/incidents"); !strings.Contains(body, "No data yet") {
		t.Errorf("without events: %s", body)
	}
	s.join(t, "one", "ada")
	if _, body := v.get("/incidents"); !strings.Contains(body, `href="/incidents/one"`) || !strings.Contains(body, "needs a person since") {
		t.Errorf("list: %s", body)
	}
	if _, body := v.get("/"); !strings.Contains(body, "Needs a person") || !strings.Contains(body, `href="/incidents/one"`) {
		t.Errorf("overview: %s", body)
	}
	if _, body := v.get("/incidents/one"); strings.Contains(body, "<script>alert") || !strings.Contains(body, `user <a href="/entity/user/ada">ada</a>`) {
		t.Errorf("incident: %s", body)
	}
	form := url.Values{"state": {"closed"}, "reason": {"a drill"}, "assignee": {" ada "}, "mute": {"4h"}}
	if code, body, path := v.read(v.PostForm(s.url+"/incidents/one", form)); code != http.StatusOK || path != "/incidents/one" ||
		!strings.Contains(body, "a drill") || !strings.Contains(body, "muted till") || strings.Contains(body, "<button>Save") {
		t.Errorf("closed: %d %s %s", code, path, body)
	}
	if code, body, _ := v.read(v.PostForm(s.url+"/incidents/one", url.Values{"mute": {"soon"}})); code != http.StatusBadRequest || !strings.Contains(body, "want a time such as 4h") {
		t.Errorf("muted: %d %s", code, body)
	}
	if code, _ := v.get("/incidents/two"); code != http.StatusNotFound {
		t.Errorf("one that there is not: %d", code)
	}
}
