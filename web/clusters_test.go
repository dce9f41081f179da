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
	total, container := 71.5, 12.5
	s := newSite(t, func(s *site) {
		s.store.Own = s.Cluster
		s.clusters = []roster.Cluster{
			{Name: "us-1", Status: roster.Silent, LastSeen: time.Now().Add(-time.Hour), Reasons: []string{"It has said nothing <since> long."}},
			{Name: "eu-1", Status: roster.OK, LastSeen: time.Now(), Reasons: []string{}, State: roster.State{Version: "v7", Interval: time.Second, Waiting: 1234, Oldest: time.Now().Add(-20*time.Minute - time.Second),
				Agents: map[string]int{"ok": 3, "silent": 2}, Score: &roster.Score{Total: &total, Levels: []roster.Level{{Level: "container", Score: &container}}, At: time.Now()}}},
		}
	})
	pod := []alert.Entity{{Kind: alert.Pod, Name: "shop/web-0"}}
	mine := alert.Alert{ID: "mine", Time: time.Now(), Rule: "Shell of mine", Source: "syscall", Cluster: s.Cluster, Output: "mine", Entities: pod}
	theirs := alert.Alert{ID: "theirs", Time: time.Now(), Rule: "Shell of theirs", Source: "syscall", Cluster: "eu-1", Output: "theirs", Entities: pod}
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
	has("/health", ">eu-1<", ">us-1<", "71.5", "&lt;since&gt; long", "v7", "3 ok", "2 silent", ">1234<", "20 min ago")
	overview := has("/", `<body class="hub">`, "Score of "+s.Cluster, ">71.5<", `data-label="container">12.5<`, `href="/incidents?cluster=us-1"`, ">this one<")
	if strings.Index(overview, `"/incidents?cluster=`+s.Cluster+`"`) > strings.Index(overview, `"/incidents?cluster=us-1"`) {
		t.Error("the hub's own cluster is not the first")
	}
	for _, page := range []string{"/", "/alerts", "/search?q=shell"} {
		has(page, `title="cluster">eu-1<`, `title="cluster">`+s.Cluster+`<`)
	}
	has("/entity/pod/shop/web-0", `<span class="tag of">eu-1</span>`, `<span class="tag of">`+s.Cluster+`</span>`)
	for _, page := range []string{"/findings", "/decisions", "/actions"} {
		has(page, "of cluster "+s.Cluster+" alone")
	}
	var list struct{ Items []roster.Cluster }
	if err := json.Unmarshal([]byte(has("/api/v1/clusters")), &list); err != nil || len(list.Items) != 2 || list.Items[0].Name != "us-1" || *list.Items[1].Score.Total != total {
		t.Errorf("%+v, %v", list, err)
	}
	s.clusters = nil
	has("/alerts", `!name="cluster"`)
	has("/health", "!clusters-heading")
	has("/", "!clusters-heading", `!class="hub"`)
}
