package notify_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// worse adds an alert of a tactic to an incident, as what joins alerts does.
func (w *world) worse(id, rule, tactic string, p alert.Priority) {
	w.Helper()
	i, found, err := w.Incident(w.Context(), id)
	if err != nil || !found {
		w.Fatalf("incident %s: %t, %v", id, found, err)
	}
	a := w.some(rule, "web", p)
	if tactic != "" {
		a.Tactics = []string{tactic}
	}
	i.Signals, i.Worst, i.Last = append(i.Signals, incident.FromAlert(&a)), min(i.Worst, p), a.Time
	w.alerts([]alert.Alert{a}, &i)
}

// mute mutes an incident as a person does.
func (w *world) mute(id string, d time.Duration, all bool) {
	w.Helper()
	till := time.Now().Add(d)
	if _, found, err := w.ChangeIncident(w.Context(), id, incident.Change{MuteTill: &till, MuteAll: all, By: "ada", At: time.Now()}); err != nil || !found {
		w.Fatalf("incident %s: %t, %v", id, found, err)
	}
}

// headings returns what a receiver was told, as people read it.
func (w *world) headings(name string) (out []string) {
	w.Helper()
	r := w.receivers[name]
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.took {
		out = append(out, n.Heading())
	}
	return out
}

// count fails unless a receiver was told so many things so far.
func (w *world) count(what, name string, want int) {
	w.Helper()
	synctest.Wait()
	if got := w.headings(name); len(got) != want {
		w.Errorf("%s: %s has %q, want %d", what, name, got, want)
	}
}

const onePager = "\nnotify:\n  destinations:\n  - {name: pager, type: pager}\n"

// TestEscalation: what people were told of is told of again when it gets worse, in
// a message of its own that is closed with it, also if somebody looks at it, but
// not each time.
func TestEscalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"pager": {}}
		w := newWorld(t, testDB(t), receivers, onePager)
		defer w.end()
		id := w.open("A")
		w.becomes(id, incident.Acknowledged)
		w.worse(id, "A", "execution", alert.Notice)
		time.Sleep(11 * time.Minute)
		w.count("what is no worse", "pager", 2)

		w.worse(id, "B", "credential-access", alert.Warning)
		w.worse(id, "C", "impact", alert.Warning)
		w.worse(id, "D", "impact", alert.Emergency)
		time.Sleep(time.Minute)
		w.count("what comes at once after it", "pager", 3)
		w.worse(id, "E", "exfiltration", alert.Error)
		time.Sleep(time.Minute)
		w.count("soon after", "pager", 3)
		time.Sleep(10 * time.Minute)
		w.count("when that time is over", "pager", 4)
		time.Sleep(25 * time.Minute)
		w.count("once for each", "pager", 4)

		w.becomes(id, incident.Closed)
		got := w.headings("pager")
		want := []string{"Incident, Critical", "Incident acknowledged", "Incident escalated, Critical", "Incident escalated, Emergency", "Incident closed", "Incident closed", "Incident closed"}
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("pager has %q", got)
		}
		opened, closed := map[string]bool{}, map[string]bool{}
		names := map[string]bool{}
		for _, n := range receivers["pager"].took {
			if n.Update == nil {
				opened[n.Key] = true
				names[n.Told()] = true
			} else if n.Update.State == incident.Closed {
				closed[n.Thread()] = true
				names[n.Told()] = true
			}
		}
		if len(opened) != 3 || len(closed) != 3 || len(names) != 3 {
			t.Errorf("%d were opened and %d closed, by %d names", len(opened), len(closed), len(names))
		}
		for key := range opened {
			if !closed[key] {
				t.Errorf("%s stays open", key)
			}
		}
		list, _, err := w.Deliveries(t.Context(), delivery.Query{Incident: id})
		if err != nil || len(list) != 7 || list[0].Incident == "" {
			t.Errorf("%d messages are about it: %v", len(list), err)
		}
	})
}

// TestMutedEscalation: who mutes an incident is told when it gets worse, unless
// all of it was muted, and then when that is over.
func TestMutedEscalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"pager": {}}
		w := newWorld(t, testDB(t), receivers, onePager)
		defer w.end()
		some, all := w.open("A"), w.open("B")
		w.mute(some, 40*time.Minute, false)
		w.mute(all, 40*time.Minute, true)
		for _, id := range []string{some, all} {
			w.worse(id, "A", "", alert.Critical)
		}
		time.Sleep(12 * time.Minute)
		w.count("as it was", "pager", 2)
		for _, id := range []string{some, all} {
			w.worse(id, "C", "impact", alert.Emergency)
		}
		time.Sleep(12 * time.Minute)
		w.want("pager", "incident "+some, "incident "+all, "incident "+some)
		time.Sleep(20 * time.Minute)
		w.want("pager", "incident "+some, "incident "+all, "incident "+some, "incident "+all)
	})
}

// TestFlapping: what is closed and comes again all the time is not told of each
// time, unless it comes back worse.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"pager": {}}
		w := newWorld(t, testDB(t), receivers, "\nnotify:\n  destinations:\n  - {name: pager, type: test}\n")
		defer w.end()
		var before []string // as the correlator relates what it would have joined
		again := func(p alert.Priority) string {
			a := w.some("A", "web", p)
			i := w.paged(a)
			i.Related = slices.Clone(before)
			before = append(before, a.ID)
			w.alerts([]alert.Alert{a}, i)
			time.Sleep(30 * time.Second)
			return a.ID
		}
		last := again(alert.Critical)
		for range 20 { // each lasts for a minute and a half: in all for half an hour
			w.becomes(last, incident.Closed)
			last = again(alert.Critical)
		}
		synctest.Wait()
		if n := len(w.headings("pager")); n < 2 || n > 4 {
			t.Errorf("%d messages of what came 21 times within half an hour", n)
		}
		time.Sleep(11 * time.Minute)
		told := len(w.headings("pager"))
		w.want("pager", append(receivers["pager"].rules()[:told-1:told-1], "incident "+last)...) // what stays is told of

		w.becomes(last, incident.Closed)
		worse := again(alert.Emergency)
		w.count("what comes back worse", "pager", told+1)
		w.becomes(worse, incident.Closed)
		time.Sleep(11 * time.Minute)
		w.count("what was closed in time", "pager", told+1)
		again(alert.Critical)
		w.count("what comes again later", "pager", told+2)
	})
}
