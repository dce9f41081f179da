package incident_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
)

var start = time.Date(2026, time.March, 2, 3, 0, 0, 0, time.UTC)

func signal(id string, after time.Duration, entities ...alert.Entity) incident.Signal {
	return incident.Signal{Alert: id, Time: start.Add(after), Rule: "Rule " + id, Priority: alert.Notice, Entities: entities}
}

func user(name string) alert.Entity    { return alert.Entity{Kind: alert.User, Name: name} }
func pod(name string) alert.Entity     { return alert.Entity{Kind: alert.Pod, Name: name} }
func address(name string) alert.Entity { return alert.Entity{Kind: alert.Address, Name: name} }
func node(name string) alert.Entity    { return alert.Entity{Kind: alert.Node, Name: name} }

func TestTies(t *testing.T) {
	for name, c := range map[string]struct {
		signals []incident.Signal
		want    int // incidents
	}{
		"one user":             {[]incident.Signal{signal("1", 0, user("ada")), signal("2", time.Hour, user("ada"))}, 1},
		"after a long time":    {[]incident.Signal{signal("1", 0, user("ada")), signal("2", 3*time.Hour, user("ada"))}, 2},
		"of another kind":      {[]incident.Signal{signal("1", 0, user("ada")), signal("2", 0, pod("ada"))}, 2},
		"one address":          {[]incident.Signal{signal("1", 0, address("192.0.2.1")), signal("2", 0, address("192.0.2.1"))}, 2},
		"an address on a node": {[]incident.Signal{signal("1", 0, address("192.0.2.1"), node("n")), signal("2", 0, address("192.0.2.1"), node("n"))}, 1},
		"the control plane":    {[]incident.Signal{signal("1", 0, user("system:apiserver"), pod("a/b")), signal("2", 0, user("system:apiserver"), pod("c/d"))}, 2},
		"a bridge":             {[]incident.Signal{signal("1", 0, user("ada")), signal("2", time.Minute, pod("a/b")), signal("3", 2*time.Minute, user("ada"), pod("a/b"))}, 1},
		"late":                 {[]incident.Signal{signal("1", time.Hour, user("ada")), signal("2", 0, user("ada"))}, 1},
		"twice":                {[]incident.Signal{signal("1", 0, user("ada")), signal("1", 0, user("ada"))}, 1},
		"nothing":              {[]incident.Signal{signal("1", 0), signal("2", 0)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := correlate(c.signals); len(got) != c.want {
				t.Errorf("%d incidents, want %d: %v", len(got), c.want, got)
			}
		})
	}
}

// correlate returns the alerts of each incident.
func correlate(signals []incident.Signal) map[string][]string {
	c := incident.NewCorrelator(nil)
	out := map[string][]string{}
	for _, s := range signals {
		o := c.Add("", s)
		for _, m := range o.Merged {
			delete(out, m.ID)
		}
		if o.Incident == nil {
			continue
		}
		out[o.Incident.ID] = nil
		for _, s := range o.Incident.Signals {
			out[o.Incident.ID] = append(out[o.Incident.ID], s.Alert)
		}
	}
	return out
}

// TestHub expects that what is seen with everything joins nothing by itself: a
// controller acts on a hundred pods, and they are not one attack.
func TestHub(t *testing.T) {
	c := incident.NewCorrelator(nil)
	last := incident.Outcome{}
	for i := range 100 {
		last = c.Add("", signal(fmt.Sprint(i), time.Duration(i)*time.Second, user("system:serviceaccount:argocd:controller"), pod(fmt.Sprint("a/", i))))
	}
	if !last.New {
		t.Errorf("the hundredth pod joins the %d before", len(last.Incident.Signals)-1)
	}
	if again := c.Add("", signal("again", 101*time.Second, user("system:serviceaccount:argocd:controller"), pod("a/99"))); again.Incident != last.Incident {
		t.Error("the same pod again is another incident")
	}
}

// TestNoSignalIsLost expects, whatever comes in which order, that each signal is
// in one incident and that what one entity ties within its time is one.
func TestNoSignalIsLost(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var signals []incident.Signal
		for i := range r.IntN(30) {
			var e []alert.Entity
			for range r.IntN(4) {
				e = append(e, []alert.Entity{user(fmt.Sprint("u", r.IntN(8))), pod(fmt.Sprint("p/", r.IntN(8))), address(fmt.Sprint("192.0.2.", r.IntN(3)))}[r.IntN(3)])
			}
			signals = append(signals, signal(fmt.Sprint(i), time.Duration(r.IntN(7200))*time.Second, e...))
		}
		in := map[string]string{}
		for id, alerts := range correlate(signals) {
			for _, a := range alerts {
				if in[a] != "" {
					t.Fatalf("signal %s is in %s and %s", a, in[a], id)
				}
				in[a] = id
			}
		}
		for i, a := range signals {
			if in[a.Alert] == "" {
				t.Fatalf("signal %s is in no incident", a.Alert)
			}
			for _, b := range signals[:i] {
				if sharesStrong(a, b) && in[a.Alert] != in[b.Alert] {
					t.Fatalf("%v and %v are in two incidents", a, b)
				}
			}
		}
	}
}

func sharesStrong(a, b incident.Signal) bool {
	return a.Time.Sub(b.Time).Abs() <= 2*time.Hour && slices.ContainsFunc(a.Entities, func(e alert.Entity) bool {
		return e.Kind != alert.Address && slices.Contains(b.Entities, e)
	})
}

// TestRestart expects a correlator that goes on with the incidents of another one
// to do as that one would.
func TestRestart(t *testing.T) {
	c := incident.NewCorrelator(nil)
	first := c.Add("", signal("1", 0, user("ada"))).Incident
	if got := incident.NewCorrelator([]*incident.Incident{first}).Add("", signal("2", time.Minute, user("ada"))); got.New || got.Incident.ID != "1" {
		t.Errorf("joined %v", got)
	}
}

// TestClosed expects nothing to join what people have closed.
func TestClosed(t *testing.T) {
	c := incident.NewCorrelator(nil)
	first := c.Add("", signal("1", 0, user("ada"))).Incident
	if err := first.Apply(incident.Change{State: incident.Closed, Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	got := c.Add("", signal("2", time.Minute, user("ada")))
	if !got.New || !slices.Equal(got.Incident.Related, []string{"1"}) {
		t.Errorf("got %+v", got.Incident)
	}
}

func TestApply(t *testing.T) {
	nobody, long := "", string(make([]byte, 201))
	for name, c := range map[string]struct {
		change incident.Change
		want   string
	}{
		"unknown state":         {incident.Change{State: "solved"}, `state "solved" is not known: want one of ["new" "acknowledged" "contained" "closed"]`},
		"closed for no reason":  {incident.Change{State: incident.Closed, Reason: " "}, "an incident is closed with a reason"},
		"reason for nothing":    {incident.Change{Reason: "x"}, "a reason is for closing"},
		"assigned to a novel":   {incident.Change{Assignee: &long}, "the assignee has 201 bytes, more than 200"},
		"assigned to nobody":    {incident.Change{Assignee: &nobody}, "<nil>"},
		"acknowledged":          {incident.Change{State: incident.Acknowledged}, "<nil>"},
		"closed with a reason":  {incident.Change{State: incident.Closed, Reason: "a test"}, "<nil>"},
		"nothing that is there": {incident.Change{}, "<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			i := incident.NewCorrelator(nil).Add("", signal("1", 0)).Incident
			if err := i.Apply(c.change); fmt.Sprint(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestBounds expects a flood to be counted, and not kept.
func TestBounds(t *testing.T) {
	c := incident.NewCorrelator(nil)
	var last *incident.Incident
	for i := range incident.MaxSignals + 100 {
		last = c.Add("", signal(fmt.Sprint(i), time.Duration(i)*time.Millisecond, user("ada"))).Incident
	}
	if len(last.Signals) != incident.MaxSignals || last.Dropped != 100 {
		t.Errorf("%d signals and %d dropped", len(last.Signals), last.Dropped)
	}
}

// TestFloodIsForgotten expects nothing to stay of an incident that is let go, kept
// signals or not.
func TestFloodIsForgotten(t *testing.T) {
	c := incident.NewCorrelator(nil)
	for i := range 3 * incident.MaxSignals {
		c.Add("", signal(fmt.Sprint(i), 0, user("ada"), pod("a/b"), address(fmt.Sprint("address ", i))))
	}
	c.Add("", signal("later", 2*incident.Window, user("ben")))
	if n := c.Remembered(); n != 1 {
		t.Errorf("%d entities are remembered, want that of the last signal", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	c := incident.NewCorrelator(nil)
	for i := 0; b.Loop(); i++ {
		c.Add("", signal(fmt.Sprint(i), time.Duration(i)*10*time.Millisecond, user(fmt.Sprint("u", i%5000)), pod(fmt.Sprint("p/", i%20000)), address("192.0.2.1")))
	}
}

// What has the same name in two clusters is two things: neither joins, nor is one
// common for what the other does.
func TestClusters(t *testing.T) {
	c := incident.NewCorrelator(nil)
	first := c.Add("eu-1", signal("1", 0, user("ada"), pod("shop/web-0"), address("192.0.2.1")))
	other := c.Add("us-1", signal("2", time.Minute, user("ada"), pod("shop/web-0"), address("192.0.2.1")))
	if !first.New || !other.New || first.Incident.Cluster != "eu-1" || other.Incident.Cluster != "us-1" {
		t.Fatalf("%+v, %+v", first, other)
	}
	for i := range 100 { // in us-1 ada is seen with many others
		c.Add("us-1", signal(fmt.Sprint("u", i), 2*time.Minute, user("ada"), pod(fmt.Sprint("shop/p", i))))
	}
	if o := c.Add("eu-1", signal("3", 3*time.Minute, user("ada"))); o.New || o.Incident != first.Incident || len(o.Incident.Signals) != 2 {
		t.Errorf("%+v", o)
	}
	if o := c.Add("us-1", signal("4", 3*time.Minute, user("ada"))); !o.New {
		t.Errorf("somebody who is seen with everybody ties: %+v", o)
	}
}
