package notify_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/store"
)

// A pager is a receiver that keeps open what it is told of.
type pager struct{ *receiver }

func (pager) States() []incident.State { return incident.States()[1:] }

// becomes changes the state of an incident as a person does.
func (w *world) becomes(id string, state incident.State) {
	w.Helper()
	c := incident.Change{State: state, By: "ada", At: time.Now()}
	if state == incident.Closed {
		c.Reason = "a drill"
	}
	if _, found, err := w.ChangeIncident(w.Context(), id, c); err != nil || !found {
		w.Fatalf("incident %s: %t, %v", id, found, err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
}

// open stores an alert whose incident pages, and returns its id.
func (w *world) open(rule string) string {
	w.Helper()
	a := w.some(rule, "web", alert.Critical)
	w.alerts([]alert.Alert{a}, w.paged(a))
	time.Sleep(time.Minute)
	return a.ID
}

// TestClosed: who keeps open what it was told of is told what becomes of it, once
// for each state, others if they want to; and what happens after it is told of
// anew.
func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"pager": {}, "mute": {}, "chat": {}, "asks": {}, "other": {}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  url: https://guardian.example
  destinations:
  - {name: pager, type: pager}
  - {name: mute, type: pager, sendResolved: false}
  - {name: chat, type: test}
  - {name: asks, type: test, sendResolved: true}
  - {name: other, type: pager}
  routes:
  - {to: [pager, mute, chat, asks]}
  - {to: [other], match: [rule=Other]}
`)
		defer w.end()
		id := w.open("A")
		w.becomes(id, incident.Acknowledged)
		w.becomes(id, incident.New)
		w.becomes(id, incident.Acknowledged)
		w.becomes(id, incident.Closed)
		w.want("pager", "incident "+id, "acknowledged "+id, "closed "+id)
		w.want("asks", "incident "+id, "closed "+id)
		w.want("chat", "incident "+id)
		w.want("mute", "incident "+id)
		w.want("other")
		told, closed := receivers["pager"].took[0], receivers["pager"].took[2]
		if closed.Key == told.Key || closed.Thread() != told.Key || told.Thread() != told.Key || closed.Alert.ID != told.Alert.ID || closed.URL != "https://guardian.example/incidents/"+id {
			t.Errorf("%+v\nfollows\n%+v", closed, told)
		}
		if u := closed.Update; u.Reason != "a drill" || u.By != "ada" || time.Since(u.Time) > 2*time.Minute || closed.Incident.State != incident.Closed {
			t.Errorf("what became of it is %+v", u)
		}
		if h, text, p := closed.Heading(), closed.Text(100), closed.Payload(); !strings.HasPrefix(h, "Incident closed: somebody: A") || text != "closed by ada: a drill" || p.Output != text || p.Update == nil {
			t.Errorf("it says %q, %q, %+v", h, text, p)
		}
		next := w.open("A") // nothing joins what is closed
		w.want("pager", "incident "+id, "acknowledged "+id, "closed "+id, "incident "+next)
	})
}

// TestClosedWhileDown: what becomes of an incident never overtakes what tells of
// it, is sent once though the program ends meanwhile, and ends with it.
func TestClosedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, down := testDB(t), func(context.Context, []notify.Notification) error { return errors.New("is down") }
		receivers := map[string]*receiver{"pager": {batch: 10, fault: down}, "refuses": {}}
		receivers["refuses"].say(func(_ context.Context, batch []notify.Notification) error {
			if batch[0].Alert.Rule == "Bad" {
				return notify.Permanent(errors.New("answer 400 Bad Request"))
			}
			return nil
		})
		const yaml = `
notify:
  destinations:
  - {name: pager, type: pager}
  - {name: refuses, type: pager}
`
		w := newWorld(t, path, receivers, yaml)
		one, bad := w.open("A"), w.open("Bad")
		w.becomes(one, incident.Acknowledged)
		w.becomes(one, incident.Closed)
		w.becomes(bad, incident.Closed)
		w.want("pager")
		w.want("refuses", "incident "+one, "acknowledged "+one, "closed "+one)
		w.end()
		w = newWorld(t, path, receivers, yaml)
		defer w.end()
		receivers["pager"].say(nil)
		time.Sleep(10 * time.Minute)
		w.want("pager", "incident "+one, "incident "+bad, "acknowledged "+one, "closed "+one, "closed "+bad)

		dead := w.letters("refuses", delivery.Dead)
		if len(dead) != 2 || dead[0].Reason != "the message that it follows is a dead letter" || dead[0].Follows != dead[1].Key {
			t.Fatalf("dead letters are %+v", dead)
		}
		receivers["refuses"].say(nil)
		if n, err := w.notifier.Retry(t.Context(), "refuses", dead[1].Seq); n != 2 || err != nil {
			t.Errorf("%d queued again, %v", n, err)
		}
		time.Sleep(time.Minute)
		w.want("refuses", "incident "+one, "acknowledged "+one, "closed "+one, "incident "+bad, "closed "+bad)
	})
}

// TestClosedTogether: of incidents that are one by now, each that was told of is
// told to be closed when that is, and not before.
func TestClosedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"pager": {}}
		w := newWorld(t, testDB(t), receivers, "\nnotify:\n  destinations:\n  - {name: pager, type: pager}\n")
		defer w.end()
		first, second, third := w.open("A"), w.open("B"), w.open("C")
		whole := w.paged(w.some("Older", "web", alert.Critical))
		whole.Paged = time.Time{}
		w.alerts([]alert.Alert{w.some("Older", "web", alert.Critical)}, whole)
		_, was, err := w.Correlated(t.Context(), time.Now())
		if err == nil { // what joins alerts finds out that they are one
			err = w.SaveIncidents(t.Context(), []*incident.Incident{whole}, []store.Merge{{Part: second, Whole: first}, {Part: first, Whole: whole.ID}}, was, was.Alert)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.ChangeIncident(t.Context(), whole.ID, incident.Change{Merge: []string{third}}); err != nil { // and a person
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		all := []string{"incident " + first, "incident " + second, "incident " + third}
		w.want("pager", all...)
		w.becomes(whole.ID, incident.Closed)
		got := receivers["pager"].rules()
		closed := []string{"closed " + first, "closed " + second, "closed " + third}
		slices.Sort(closed)
		if w.want("pager", append(all, got[min(3, len(got)):]...)...); !slices.Equal(slices.Sorted(slices.Values(got[3:])), closed) {
			t.Errorf("after it is closed: %q", got)
		}
	})
}

// TestClosedOverLimit: that something is closed is in no summary, which would
// leave it open for ever, unless what tells of it is.
func TestClosedOverLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"pager": {}}
		w := newWorld(t, testDB(t), receivers, "\nnotify:\n  destinations:\n  - {name: pager, type: pager, limit: 2, limitPer: 1h}\n")
		defer w.end()
		ids := []string{w.open("A"), w.open("B"), w.open("C"), w.open("D")}
		for _, id := range ids {
			w.becomes(id, incident.Closed)
		}
		w.want("pager", "incident "+ids[0], "incident "+ids[1])
		time.Sleep(3 * time.Hour)
		got := receivers["pager"].rules()
		if len(got) != 5 || !slices.Contains(got, "closed "+ids[0]) || !slices.Contains(got, "closed "+ids[1]) || !slices.Contains(got, "Messages over the limit x2") {
			t.Errorf("delivered %q", got)
		}
		if n := len(w.letters("pager", delivery.Summarised)); n != 4 {
			t.Errorf("%d are in a summary, want two with what follows them", n)
		}
	})
}
