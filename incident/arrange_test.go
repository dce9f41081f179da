package incident_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
)

// one returns an incident of some alerts.
func one(t *testing.T, c *incident.Correlator, signals ...incident.Signal) *incident.Incident {
	t.Helper()
	var out incident.Outcome
	for _, s := range signals {
		out = c.Add("", s)
	}
	if out.Incident == nil || len(out.Incident.Signals) != len(signals) {
		t.Fatalf("not one incident: %+v", out)
	}
	return out.Incident
}

func byName(a, b alert.Entity) int { return strings.Compare(a.Name, b.Name) }

func alerts(i *incident.Incident) (ids []string) {
	for _, s := range i.Signals {
		ids = append(ids, s.Alert)
	}
	return ids
}

func TestSplitStaysApart(t *testing.T) {
	whole := one(t, incident.NewCorrelator(nil), signal("1", 0, user("ada")), signal("2", time.Minute, user("ada"), pod("a/b")), signal("3", 2*time.Minute, pod("a/b")))
	part, err := whole.Split([]string{"2", "3"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %v %s %s %s", alerts(whole), alerts(part), whole.ID, part.ID, part.State); got != "[1] [2 3] 1 2 new" {
		t.Fatal(got)
	}
	c := incident.NewCorrelator([]*incident.Incident{whole, part})
	if out := c.Add("", signal("4", 3*time.Minute, user("ada"), pod("a/b"))); out.Incident != whole || len(out.Merged) > 0 {
		t.Errorf("an alert tied to both: %+v", out)
	}
	if err := whole.Merge(part); err != nil || len(whole.Apart) > 0 {
		t.Fatal(err, whole.Apart)
	}
	if got := fmt.Sprint(alerts(whole)); got != "[1 2 3 4]" {
		t.Error(got)
	}
}

// TestSplitAndMerge expects that whatever is split off and taken in again is as
// if nothing had been done, and that two parts have all of the whole.
func TestSplitAndMerge(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var signals []incident.Signal
		for n := range 2 + r.IntN(8) {
			s := signal(fmt.Sprint(n), time.Duration(n)*time.Minute, user("ada"), pod(fmt.Sprint("a/", r.IntN(3))))
			s.Tactics, s.Pages = []string{[]string{"execution", "discovery", "impact"}[r.IntN(3)]}, r.IntN(4) == 0
			signals = append(signals, s)
		}
		whole := one(t, incident.NewCorrelator(nil), signals...)
		before := *whole
		before.Signals = slices.Clone(whole.Signals)
		var away []string
		for _, s := range signals[1:] {
			if r.IntN(2) == 0 {
				away = append(away, s.Alert)
			}
		}
		part, err := whole.Split(away)
		if len(away) == 0 {
			if err == nil {
				t.Fatal("nothing was split off")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := len(whole.Signals) + len(part.Signals); got != len(signals) || !slices.Equal(alerts(part), away) {
			t.Fatalf("%v and %v of %d", alerts(whole), alerts(part), len(signals))
		}
		if err := whole.Merge(part); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(whole.Entities, byName)
		slices.SortFunc(before.Entities, byName)
		whole.Apart = nil
		if !reflect.DeepEqual(*whole, before) {
			t.Fatalf("seed %d: %+v\nwant %+v", seed, *whole, before)
		}
	}
}

func TestArrangeRefuses(t *testing.T) {
	c := incident.NewCorrelator(nil)
	i, other := one(t, c, signal("1", 0, user("ada")), signal("2", time.Minute, user("ada"))), one(t, c, signal("3", 0, user("bob")))
	closed := one(t, c, signal("4", 0, user("eve")))
	if err := closed.Apply(incident.Change{State: incident.Closed, Reason: "a drill"}); err != nil {
		t.Fatal(err)
	}
	away := c.Add("elsewhere", signal("5", 0, user("joe"))).Incident
	split := func(i *incident.Incident, alerts ...string) error { _, err := i.Split(alerts); return err }
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"itself":          {i.Merge(i), "an incident is not merged with itself"},
		"closed":          {i.Merge(closed), "a closed incident stays as it is"},
		"into closed":     {closed.Merge(i), "a closed incident stays as it is"},
		"another cluster": {other.Merge(away), `incident 5 is of cluster "elsewhere", this one of ""`},
		"all":             {split(i, "1", "2"), "an incident keeps one of its alerts"},
		"foreign":         {split(i, "2", "9"), "alert 9 is not one of the incident's"},
		"its name":        {split(i, "1"), "the incident is named by that alert: split off the others"},
		"nothing":         {split(i), "no alert to split off"},
		"of closed":       {split(closed, "4"), "a closed incident stays as it is"},
	} {
		if fmt.Sprint(test.err) != test.want {
			t.Errorf("%s: %v, want %s", name, test.err, test.want)
		}
	}
	if len(i.Signals) != 2 || len(other.Signals) != 1 {
		t.Error("what was refused was done")
	}
}

// TestUnsaved: of an incident that was saved what has joined since is to be saved,
// also from another one that it took in, and all of one that was split.
func TestUnsaved(t *testing.T) {
	c := incident.NewCorrelator(nil)
	whole := one(t, c, signal("1", 0, user("ada")), signal("2", time.Minute, user("ada")))
	check := func(before int, want ...string) {
		t.Helper()
		signals, have := whole.Unsaved()
		if got := alerts(&incident.Incident{Signals: signals}); have != before || !slices.Equal(got, want) {
			t.Errorf("%v are unsaved after %d, want %v after %d", got, have, want, before)
		}
	}
	check(0, "1", "2")
	whole.Saved()
	check(2)
	c.Add("", signal("4", 3*time.Minute, user("ada")))
	c.Add("", signal("3", 2*time.Minute, user("ada"))) // late
	check(2, "4", "3")
	whole.Saved()
	c.Add("", signal("other", 4*time.Minute, user("ben")))
	c.Add("", signal("tie", 5*time.Minute, user("ada"), user("ben")))
	check(4, "other", "tie")
	whole.Saved()
	if _, err := whole.Split([]string{"other"}); err != nil {
		t.Fatal(err)
	}
	check(0, "1", "2", "3", "4", "tie")
}
