package store

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
)

// closedIncidents returns n incidents of one alert each, the first one the newest, of
// which each has its own pod and all have one of seven users.
func closedIncidents(n int) (out []*incident.Incident) {
	for i := range n {
		at := start.Add(time.Duration(n-i) * time.Minute)
		s := incident.Signal{
			Alert: fmt.Sprintf("first-%d", i), Time: at, Rule: "Exec into pod", Output: "somebody ran a command",
			Entities: []alert.Entity{{Kind: alert.User, Name: fmt.Sprintf("dev-%d@example.com", i%7)}, {Kind: alert.Pod, Name: fmt.Sprintf("shop/web-%05d", i)}},
		}
		one := incident.NewCorrelator(nil).Add("central", s).Incident
		one.State = incident.States()[i%4]
		out = append(out, one)
	}
	return out
}

func saveIncidentsOf(t *testing.T, s *Store, list []*incident.Incident) {
	t.Helper()
	_, was, err := s.Correlated(t.Context(), start)
	if err == nil {
		err = s.SaveIncidents(t.Context(), list, nil, was, was.Alert)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readIncidents reads all pages.
func readIncidents(t *testing.T, s *Store, q incident.Query) (ids []string) {
	t.Helper()
	for more := true; more; {
		page, next, err := s.Incidents(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page {
			ids = append(ids, i.ID)
		}
		q.Before, more = next, next != finding.Cursor{}
	}
	return ids
}

// TestIncidentsByWords: what is found of many incidents is the same, and in the same
// order, without an index, with one, and when a part of them is in it.
func TestIncidentsByWords(t *testing.T) {
	s := open(t)
	s.Own = "central"
	n := fewFound + 200
	all := closedIncidents(n)
	half := len(all) / 2
	check := func(known []*incident.Incident) {
		t.Helper()
		for _, q := range []incident.Query{
			{Text: "web-00007"}, {Text: "WEB-00017", State: incident.Acknowledged}, {Text: "eb-00007"}, {Text: "dev-3@example"}, {Text: "nowhere"},
			{Entity: alert.Entity{Kind: alert.Pod, Name: "shop/web-00012"}}, {Entity: alert.Entity{Kind: alert.Node, Name: "shop/web-00012"}},
			{Entity: alert.Entity{Kind: alert.User, Name: "dev-2@example.com"}, State: incident.Open, Limit: 40},
			{Text: "exec", State: incident.Closed, Limit: 300}, {Text: "exec", Cluster: "central", Limit: 1000}, {Text: "exec", Cluster: "eu-1"},
			{Limit: 1000}, {State: incident.Open, Limit: 1000}, {State: incident.New, Cluster: "central", Limit: 100},
		} {
			var want []string
			for _, i := range known {
				text := strings.ToLower(strings.Join(incidentTexts(i), "\n"))
				word := regexp.MustCompile(`(^|[^a-z0-9])` + regexp.QuoteMeta(strings.ToLower(q.Text)))
				if q.Text != "" && !word.MatchString(text) || q.Entity.Name != "" && !slices.Contains(i.Entities, q.Entity) || !slices.Contains(statesOf(q), i.State) ||
					q.Cluster == "eu-1" {
					continue
				}
				want = append(want, i.ID)
			}
			if have := readIncidents(t, s, q); !slices.Equal(have, want) {
				t.Errorf("%+v: %d found, want %d", q, len(have), len(want))
			}
		}
	}
	saveIncidentsOf(t, s, all[half:])
	check(all[half:])
	indexAll(t, s)
	check(all[half:])
	saveIncidentsOf(t, s, all[:half])
	check(all)
	indexAll(t, s)
	check(all)
}

// TestWordsOfChangedIncidents: what comes to an incident is found at once, with the
// index behind and up to date, and the words of one that is gone are too.
func TestWordsOfChangedIncidents(t *testing.T) {
	s := open(t)
	all := closedIncidents(5)
	saveIncidentsOf(t, s, all)
	indexAll(t, s)
	late := alert.Entity{Kind: alert.Node, Name: "shop/web-00001"} // the name of a pod of it
	all[1].Entities = append(all[1].Entities, late)
	saveIncidentsOf(t, s, all)
	for range 2 {
		if have := readIncidents(t, s, incident.Query{Entity: late}); !slices.Equal(have, []string{all[1].ID}) {
			t.Errorf("found %q", have)
		}
		indexAll(t, s)
	}
	changes := func() (last int64) {
		t.Helper()
		if err := s.readers.QueryRow("SELECT max(changed) FROM incidents").Scan(&last); err != nil {
			t.Fatal(err)
		}
		return last
	}
	before := changes()
	all[2].State = incident.Contained
	saveIncidentsOf(t, s, all)
	if after := changes(); after != before {
		t.Errorf("incidents that say the same are indexed again: %d, then %d", before, after)
	}
	_, was, err := s.Correlated(t.Context(), start)
	if err == nil {
		err = s.SaveIncidents(t.Context(), all[:1], []Merge{{all[1].ID, all[0].ID}}, was, was.Alert)
	}
	if err != nil {
		t.Fatal(err)
	}
	indexAll(t, s)
	if n := rowsOf(t, s, "incident_words"); n != 4 {
		t.Errorf("%d incidents have words, want 4", n)
	}
	var parts int
	if err := s.readers.QueryRow("SELECT count(*) FROM incident_signals WHERE incident = ?", all[1].ID).Scan(&parts); err != nil || parts != 0 {
		t.Errorf("%d signals are of an incident that is a part of another one, %v", parts, err)
	}
	l := unlimited
	l.Alerts, l.Records = 0, 0
	told(t, s, 0)
	retain(t, s, l, start.Add(time.Hour))
	if left, n := rowsOf(t, s, "incidents"), rowsOf(t, s, "incident_words"); n != left || left >= 4 {
		t.Errorf("%d incidents are left, and the words of %d", left, n)
	}
}

func rowsOf(t *testing.T, s *Store, table string) (n int) {
	t.Helper()
	if err := s.readers.QueryRow("SELECT count(*) FROM (SELECT " + map[bool]string{true: "rowid", false: "seq"}[strings.HasSuffix(table, "_words")] + " FROM " + table + ") AS numbers").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestBriefIncidents: they have all but their signals.
func TestBriefIncidents(t *testing.T) {
	s := open(t)
	saveIncidentsOf(t, s, closedIncidents(3))
	whole := must2(s.Incidents(t.Context(), incident.Query{}))(t)
	for i, short := range must2(s.Incidents(t.Context(), incident.Query{Brief: true}))(t) {
		if len(whole[i].Signals) != 1 || len(short.Signals) != 0 {
			t.Errorf("%d signals, and %d of the brief one", len(whole[i].Signals), len(short.Signals))
		}
		if whole[i].Signals = nil; !reflect.DeepEqual(short, whole[i]) {
			t.Errorf("have %+v, want %+v", short, whole[i])
		}
	}
}

// TestFindingsByWords: what is found of many findings is the same without an index
// and with one, also after they have changed.
func TestFindingsByWords(t *testing.T) {
	s := open(t)
	all := testFindings(fewFound + 500)
	check := func() {
		t.Helper()
		for _, q := range []finding.Query{
			{Text: "web-17 is"}, {Text: "eb-17"}, {Text: "privileged", Status: finding.Fail, Limit: 1000}, {Text: "is allowed"}, {Text: "team-1/web", Control: "CON-SEC-02"},
			{Subject: "Deployment/team-2/web-017"}, {Subject: "Deployment/team-2/web-01"}, {Text: "container", Subject: "Deployment/team-0/web-003"},
		} {
			want, controls := map[string]bool{}, map[string]int{}
			for _, f := range all {
				text := strings.ToLower(strings.Join(findingTexts(&f), "\n"))
				word := regexp.MustCompile(`(^|[^a-z0-9])` + regexp.QuoteMeta(q.Text))
				if q.Text != "" && !word.MatchString(text) || q.Subject != "" && f.Subject.String() != q.Subject || q.Status != "" && f.Status != q.Status || q.Control != "" && f.Control != q.Control {
					continue
				}
				want[f.Subject.Name] = true
				controls[f.Control]++
			}
			have, q := 0, q
			for more := true; more; more = q.After != "" {
				page, next, err := s.FindingPage(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range page {
					if !want[f.Subject.Name] {
						t.Errorf("%+v: %s was found", q, f.Subject)
					}
				}
				have, q.After = have+len(page), next
			}
			if have != len(want) {
				t.Errorf("%+v: %d found, want %d", q, have, len(want))
			}
			groups := must[[]finding.Group](t)(s.FindingGroups(t.Context(), q))
			for _, g := range groups {
				if n := controls[g.Findings[0].Control]; g.Count > n || g.Count < n && !g.More {
					t.Errorf("%+v: %d of %s, more %v, want %d", q, g.Count, g.Findings[0].Control, g.More, n)
				}
			}
			cut := len(groups) > 0 && len(groups) < len(controls) && groups[0].More // its time was over
			if len(groups) != len(controls) && !cut {
				t.Errorf("%+v: %d groups, want %d", q, len(groups), len(controls))
			}
		}
	}
	replace(t, s, all)
	check()
	indexAll(t, s)
	check()
	for i := range all[:100] {
		all[i].Amend(func(d *finding.Detail) { d.Message = fmt.Sprintf("container web-%d is allowed", i) })
	}
	all = all[:len(all)-50]
	replace(t, s, all)
	check()
	indexAll(t, s)
	check()
	if n := rowsOf(t, s, "finding_words"); n != len(all) {
		t.Errorf("%d findings have words, want %d", n, len(all))
	}
}

// TestEntitiesByWords: entities are found with and without an index, the ones that
// were seen last first, and forgotten with their words.
func TestEntitiesByWords(t *testing.T) {
	s := open(t)
	alerts := testAlerts(0, fewFound+200)
	for i := range alerts {
		alerts[i].Subject = finding.Subject{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("web-%05d", i)}
	}
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), alerts))
	for _, indexed := range []bool{false, true} {
		if indexed {
			indexAll(t, s)
		}
		for text, want := range map[string]string{"web-00017": "shop/web-00017", "eb-00017": "", "shop/web-": fmt.Sprintf("shop/web-%05d", len(alerts)-1), "nowhere": ""} {
			found := must[[]alert.Seen](t)(s.Entities(t.Context(), text, 5))
			if len(found) == 0 && !indexed {
				continue // the search of a slow machine has ended before
			}
			if want == "" && len(found) > 0 || want != "" && (len(found) == 0 || found[0].Name != want) {
				t.Errorf("%q: found %+v, want %q first", text, found, want)
			}
		}
	}
	retain(t, s, unlimited, start)
	removeOld(t, s, start.Add(48*time.Hour))
	if n := rowsOf(t, s, "entity_words"); n != 0 {
		t.Errorf("the words of %d entities are left", n)
	}
}

// TestFewPlans: records that the index of words has are read by their numbers.
func TestFewPlans(t *testing.T) {
	s := open(t)
	saveIncidentsOf(t, s, closedIncidents(300))
	replace(t, s, testFindings(300))
	must[[]alert.Alert](t)(s.AddAlerts(t.Context(), involving(300)))
	indexAll(t, s)
	r := record(t, s)
	readIncidents(t, s, incident.Query{Text: "web-00017", State: incident.Open})
	readIncidents(t, s, incident.Query{Entity: alert.Entity{Kind: alert.Pod, Name: "shop/web-00011"}})
	must2(s.FindingPage(t.Context(), finding.Query{Text: "web-17 ", Status: finding.Unknown}))(t)
	must[[]finding.Group](t)(s.FindingGroups(t.Context(), finding.Query{Subject: "Deployment/team-2/web-017"}))
	must[[]alert.Seen](t)(s.Entities(t.Context(), "user-1", 5))
	want := regexp.MustCompile(`SEARCH \w+ USING INTEGER PRIMARY KEY \(rowid=\?\)`)
	if s.postgres {
		want = regexp.MustCompile(`(incidents|entities|states)_pkey`)
	}
	n := 0
	for _, q := range r.queries {
		if strings.Contains(q.text, "IN (NULL") {
			n++
			if plan := explained(t, s, q); !want.MatchString(plan) {
				t.Errorf("%s\n%s", q.text, plan)
			}
		}
	}
	if n < 7 {
		t.Errorf("%d queries name records by their numbers, want 7", n)
	}
}
