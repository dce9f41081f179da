package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/incident"
)

// reported returns alerts as a cluster has reported them.
func reported(cluster string, alerts []alert.Alert) []alert.Alert {
	out := slices.Clone(alerts)
	for i := range out {
		out[i].Cluster, out[i].ID = cluster, cluster+out[i].ID
	}
	return out
}

func TestAlertsOfClusters(t *testing.T) {
	s := open(t)
	s.Own = "central"
	ctx := t.Context()
	own := reported("central", involving(20))
	must[[]alert.Alert](t)(s.AddAlerts(ctx, own))
	for _, name := range []string{"eu-1", "us-1"} {
		added := must[[]alert.Alert](t)(s.AddReported(ctx, name, reported(name, involving(20))))
		again := must[[]alert.Alert](t)(s.AddReported(ctx, name, reported(name, involving(20))))
		if len(added) != 20 || len(again) != 0 {
			t.Errorf("%d added, then %d", len(added), len(again))
		}
	}
	critical := alert.Critical
	for _, q := range []alert.Query{{}, {Rule: own[0].Rule}, {Namespace: own[0].Subject.Namespace}, {Entity: pod("web-0")}, {Priority: &critical}, {Text: "web"}, {Since: own[3].Time}, {Drift: true}, {Drift: true, Text: "web"}, {Drift: true, Priority: &critical}} {
		var all []string
		q.Limit = 1000
		page, _, err := s.Alerts(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			all = append(all, r.ID)
		}
		if n := len(slices.DeleteFunc(slices.Clone(page), func(r alert.Record) bool { return !slices.Contains(r.Tags, alert.DriftTag) })); len(page) == 0 || q.Drift && n != len(page) || q == (alert.Query{Drift: true, Limit: 1000}) && n != 15 {
			t.Errorf("%+v: %d alerts, %d about drift", q, len(page), n)
		}
		var parts []string
		for _, name := range []string{"central", "eu-1", "us-1"} {
			q.Cluster = name
			page, _, err := s.Alerts(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			after, _, err := s.AlertsAfter(ctx, 0, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(after) != len(page) {
				t.Errorf("%+v: %d alerts, %d since the begin", q, len(page), len(after))
			}
			for _, r := range page {
				if parts = append(parts, r.ID); r.Cluster != name {
					t.Errorf("%+v: an alert of %s", q, r.Cluster)
				}
			}
		}
		slices.Sort(all)
		slices.Sort(parts)
		if !slices.Equal(all, parts) {
			t.Errorf("%+v: %d alerts, by cluster %d", q, len(all), len(parts))
		}
	}
}

func TestIncidentsOfClusters(t *testing.T) {
	s := open(t)
	s.Own = "central"
	c := incident.NewCorrelator(nil)
	var all []*incident.Incident
	for i, name := range []string{"central", "eu-1", "us-1", "eu-1"} {
		all = append(all, c.Add(name, incident.Signal{Alert: fmt.Sprint(i), Time: time.Now(), Rule: "r"}).Incident)
	}
	if err := s.SaveIncidents(t.Context(), all, nil, Joined{}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.Exec("UPDATE incident_heads SET cluster = NULL WHERE id = '0'"); err != nil { // as of a version before
		t.Fatal(err)
	}
	for name, want := range map[string]int{"": 4, "central": 1, "eu-1": 2, "us-1": 1, "nowhere": 0} {
		page, _, err := s.Incidents(t.Context(), incident.Query{Cluster: name})
		if err != nil || len(page) != want {
			t.Errorf("%q: %d incidents, want %d, %v", name, len(page), want, err)
		}
	}
}

func TestReports(t *testing.T) {
	s := open(t)
	now := time.Now().UTC()
	total := 71.5
	for i, r := range []roster.Report{
		{Cluster: "us-1", At: now, State: roster.State{Version: "v1"}}, {Cluster: "eu-1", At: now, State: roster.State{Waiting: 3}},
		{Cluster: "us-1", At: now.Add(time.Second), State: roster.State{Version: "v2", Score: &roster.Score{Total: &total, At: now}}},
	} {
		if err := s.SaveReport(t.Context(), r); err != nil {
			t.Fatal(i, err)
		}
	}
	reports := must[[]roster.Report](t)(s.Reports(t.Context()))
	if len(reports) != 2 || reports[0].Cluster != "eu-1" || reports[0].State.Waiting != 3 {
		t.Fatalf("%+v", reports)
	}
	if r := reports[1]; !r.At.Equal(now.Add(time.Second)) || r.State.Version != "v2" || *r.State.Score.Total != total {
		t.Errorf("%+v", r)
	}
}
