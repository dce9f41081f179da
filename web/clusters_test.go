package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

// A hub shows of which cluster each alert and incident is, lets people choose one,
// and lists how the clusters are.
func TestClusters(t *testing.T) {
	total := 71.5
	s := newSite(t, func(s *site) {
		s.store.Own = s.Cluster
		s.clusters = []roster.Cluster{
			{Name: "us-1", Status: roster.Silent, LastSeen: time.Now().Add(-time.Hour), Reasons: []string{"It has said nothing <since> long."}},
			{Name: "eu-1", Status: roster.OK, LastSeen: time.Now(), Reasons: []string{}, State: roster.State{Version: "v7", Interval: time.Second, Score: &roster.Score{Total: &total, Levels: []roster.Level{}, At: time.Now()}}},
		}
	})
	mine := alert.Alert{ID: "mine", Time: time.Now(), Rule: "Shell of mine", Source: "syscall", Cluster: s.Cluster, Output: "mine"}
	theirs := alert.Alert{ID: "theirs", Time: time.Now(), Rule: "Shell of theirs", Source: "syscall", Cluster: "eu-1", Output: "theirs"}
	s.add(t, mine)
	if _, err := s.store.AddReported(t.Context(), "eu-1", []alert.Alert{theirs}); err != nil {
		t.Fatal(err)
	}
	c := incident.NewCorrelator(nil)
	both := []*incident.Incident{c.Add(s.Cluster, incident.FromAlert(&mine)).Incident, c.Add("eu-1", incident.FromAlert(&theirs)).Incident}
	if err := s.store.SaveIncidents(t.Context(), both, nil, store.Joined{}, 2); err != nil {
		t.Fatal(err)
	}
	b := s.member(t)
	has := func(path string, want ...string) string {
		t.Helper()
		status, body := b.get(path)
		if status != http.StatusOK {
			t.Fatalf("%s: %d\n%s", path, status, body)
		}
		for _, text := range want {
			if no, without := strings.CutPrefix(text, "!"); strings.Contains(body, no) == without {
				t.Errorf("%s: %q", path, text)
			}
		}
		return body
	}
	for _, list := range []string{"/alerts", "/incidents", "/api/v1/alerts", "/api/v1/incidents"} {
		has(list, "Shell of mine", "Shell of theirs")
		has(list+"?cluster=eu-1", "!Shell of mine", "Shell of theirs")
		has(list+"?cluster="+s.Cluster, "Shell of mine", "!Shell of theirs")
		has(list+"?cluster=nowhere", "!Shell of mine", "!Shell of theirs")
	}
	has("/alerts", `<option>us-1</option>`, `<option>`+s.Cluster+`</option>`)
	has("/alerts/theirs", "cluster=eu-1")
	has("/incidents/theirs", "cluster=eu-1")
	has("/health", ">eu-1<", ">us-1<", "71.5", "&lt;since&gt; long", "v7")
	var list struct{ Items []roster.Cluster }
	if err := json.Unmarshal([]byte(has("/api/v1/clusters")), &list); err != nil || len(list.Items) != 2 || list.Items[0].Name != "us-1" || *list.Items[1].Score.Total != total {
		t.Errorf("%+v, %v", list, err)
	}
	s.clusters = nil
	has("/alerts", `!name="cluster"`)
	has("/health", "!clusters-heading")
}
