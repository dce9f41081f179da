package incident_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
)

// TestMute: a mute holds for what its incident was then. What is worse, or a
// warning of another tactic, pages all the same, unless the mute is for all.
func TestMute(t *testing.T) {
	now := time.Now()
	warning := func(id, tactic string, p alert.Priority) incident.Signal {
		s := signal(id, time.Minute, user("ada"))
		s.Tactics, s.Priority = []string{tactic}, p
		return s
	}
	for name, test := range map[string]struct {
		all   bool
		later incident.Signal
		want  bool // pages
	}{
		"the same again":            {false, warning("2", "execution", alert.Error), false},
		"less":                      {false, warning("2", "execution", alert.Notice), false},
		"another tactic, no alarm":  {false, warning("2", "impact", alert.Notice), false},
		"a warning of another one":  {false, warning("2", "impact", alert.Warning), true},
		"more urgent":               {false, warning("2", "execution", alert.Critical), true},
		"more urgent, muted at all": {true, warning("2", "execution", alert.Critical), false},
	} {
		c := incident.NewCorrelator(nil)
		first := warning("1", "execution", alert.Error)
		first.Pages = true
		i := one(t, c, first)
		till := now.Add(time.Hour)
		if err := i.Apply(incident.Change{MuteTill: &till, MuteAll: test.all, At: now}); err != nil {
			t.Fatal(err)
		}
		if i.Pages(now) {
			t.Errorf("%s: what is muted pages", name)
		}
		c.Add("", test.later)
		if i.Pages(now) != test.want {
			t.Errorf("%s: pages is %t at level %d, muted at %d", name, !test.want, i.Level(), i.MuteLevel)
		}
		if !i.Pages(till) {
			t.Errorf("%s: it does not page when the time is over", name)
		}
	}
	old := &incident.Incident{Paged: now, State: incident.New, Worst: alert.Critical, Mute: incident.Mute{MuteTill: now.Add(time.Hour)}}
	if old.Pages(now) {
		t.Error("what a version before has muted pages")
	}
	if err := old.Apply(incident.Change{MuteAll: true}); err == nil || !strings.Contains(err.Error(), "muteAll needs muteTill") {
		t.Error(err)
	}
}

// TestActs: what people did is kept with who and when, also of incidents that are
// one by now, and bounded.
func TestActs(t *testing.T) {
	c := incident.NewCorrelator(nil)
	i, other := one(t, c, signal("1", 0, user("ada"))), one(t, c, signal("2", 0, user("bob")))
	at := time.Now().UTC().Truncate(time.Second)
	till, never, eve, nobody := at.Add(time.Hour), time.Time{}, "eve", ""
	change := func(i *incident.Incident, c incident.Change) {
		t.Helper()
		at = at.Add(time.Second)
		c.By, c.At = "joe", at
		if err := i.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	change(i, incident.Change{State: incident.Acknowledged, Assignee: &eve})
	change(i, incident.Change{State: incident.Acknowledged, Assignee: &eve}) // as it is
	change(other, incident.Change{MuteTill: &till})
	change(i, incident.Change{MuteTill: &till, MuteAll: true})
	change(i, incident.Change{MuteTill: &never, Assignee: &nobody})
	change(i, incident.Change{Merge: []string{"2"}})
	if err := i.Merge(other); err != nil {
		t.Fatal(err)
	}
	change(i, incident.Change{State: incident.Closed, Reason: "a drill"})
	var have []string
	for n, a := range i.Acts {
		have = append(have, a.Did)
		if a.By != "joe" || a.Time.IsZero() || n > 0 && a.Time.Before(i.Acts[n-1].Time) {
			t.Errorf("%+v", a)
		}
	}
	end := till.Format(time.RFC3339)
	want := []string{"acknowledged it", "assigned it to eve", "muted it till " + end + ", unless it escalates", "muted it till " + end + ", whatever comes",
		"assigned it to nobody", "lets it page again", "took in incident 2", "closed it: a drill"}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("have %q\nwant %q", have, want)
	}
	for n := range 300 {
		who := fmt.Sprint("user-", n)
		change(i, incident.Change{Assignee: &who})
	}
	if last := i.Acts[len(i.Acts)-1]; len(i.Acts) != 200 || last.Did != "assigned it to user-299" {
		t.Errorf("%d acts, the last %+v", len(i.Acts), last)
	}
}
