package notify_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/store"
)

// A receiver is a destination that does what a test tells it to, and keeps what
// it has taken.
type receiver struct {
	batch int
	mu    sync.Mutex
	fault func(ctx context.Context, batch []notify.Notification) error
	took  []notify.Notification
	when  []time.Time
}

func (r *receiver) Batch() int { return max(r.batch, 1) }

func (r *receiver) Send(ctx context.Context, batch []notify.Notification) error {
	r.mu.Lock()
	fault := r.fault
	r.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, batch); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range batch {
		r.took, r.when = append(r.took, n), append(r.when, time.Now())
	}
	return nil
}

func (r *receiver) Close() error { return nil }

func (r *receiver) say(fault func(context.Context, []notify.Notification) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

// rules returns the rules of what was taken, in order.
func (r *receiver) rules() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.took {
		switch {
		case n.Update != nil:
			out = append(out, string(n.Update.State)+" "+n.Update.Incident)
		case n.Incident != nil:
			out = append(out, "incident "+n.Incident.ID)
		default:
			out = append(out, fmt.Sprintf("%s x%d", n.Alert.Rule, n.Count))
		}
	}
	return out
}

// A world is a store and a notifier on it, in a time of its own.
type world struct {
	*testing.T
	*store.Store
	notifier  *notify.Notifier
	receivers map[string]*receiver
	log       *notifytest.Log
	end       func()
	seq       int
}

// newWorld starts a notifier with receivers, by name, and the rest of the
// configuration in YAML.
func newWorld(t *testing.T, path string, receivers map[string]*receiver, yaml string) *world {
	t.Helper()
	w := &world{T: t, receivers: receivers, log: &notifytest.Log{}}
	var err error
	if w.Store, err = store.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("config.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	w.notifier, err = notify.New(notify.Setup{
		Config: &c.Notify, Cluster: "prod", Version: "test", Store: w.Store, Log: w.log.Logger(),
		Types: map[string]notify.Constructor{
			"test": func(_ config.Section, o notify.Options) (notify.Destination, error) { return receivers[o.Name], nil },
			"pager": func(_ config.Section, o notify.Options) (notify.Destination, error) {
				return pager{receivers[o.Name]}, nil
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.notifier.Run(ctx) }()
	synctest.Wait()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := errors.Join(w.notifier.Close(), w.Store.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func testDB(t *testing.T) string { return filepath.Join(t.TempDir(), "kubeguardian.db") }

// alerts stores alerts, and says that all are joined into these incidents.
func (w *world) alerts(alerts []alert.Alert, incidents ...*incident.Incident) {
	w.Helper()
	if _, err := w.AddAlerts(w.Context(), alerts); err != nil {
		w.Fatal(err)
	}
	last, err := w.LastAlert(w.Context())
	if err == nil {
		var was store.Joined
		if _, was, err = w.Correlated(w.Context(), time.Now()); err == nil {
			err = w.SaveIncidents(w.Context(), incidents, nil, was, last)
		}
	}
	if err != nil {
		w.Fatal(err)
	}
	w.notifier.Alerted()
	synctest.Wait()
}

// some returns an alert of a rule about a pod.
func (w *world) some(rule, pod string, p alert.Priority) alert.Alert {
	w.seq++
	return alert.Alert{
		ID: alert.NewID("test", fmt.Sprint(time.Now().UnixNano(), w.seq), rule), Time: time.Now(), Rule: rule, Priority: p, Source: "k8s_audit", Output: rule + " of " + pod,
		OutputFields: map[string]any{"k8s.ns.name": "shop", "n": w.seq}, Tags: []string{"k8s"},
		Subject:  finding.Subject{Kind: "Pod", Namespace: "shop", Name: pod},
		Entities: []alert.Entity{{Kind: alert.Workload, Name: "Deployment/shop/" + pod}},
	}
}

func (w *world) paged(a alert.Alert) *incident.Incident {
	s := incident.FromAlert(&a)
	return &incident.Incident{
		ID: a.ID, Story: "somebody: " + a.Rule, State: incident.New, First: a.Time, Last: a.Time, Paged: a.Time, Worst: a.Priority,
		Score: 30, Signals: []incident.Signal{s}, Tactics: []string{"execution"}, Entities: a.Entities,
	}
}

func (w *world) want(name string, rules ...string) {
	w.Helper()
	synctest.Wait()
	if got := w.receivers[name].rules(); !slices.Equal(got, rules) {
		w.Errorf("%s has %q, want %q", name, got, rules)
	}
}

func (w *world) letters(name string, state delivery.State) []delivery.Message {
	w.Helper()
	page, _, err := w.Deliveries(w.Context(), delivery.Query{Destination: name, State: state, Limit: 1000})
	if err != nil {
		w.Fatal(err)
	}
	return page
}

const direct = `
  routes:
  - {to: [%s], of: alerts, groupBy: [rule, workload, n], groupWait: 0s, groupWindow: 0s}
`

// TestOutage has one destination down for ten minutes, one that answers nothing,
// and one that always fails: none delays another, what comes later comes in
// order, and what never does is a dead letter with a reason.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("answer 500 Internal Server Error")
		began := time.Now()
		receivers := map[string]*receiver{
			"good": {},
			"down": {batch: 3, fault: func(context.Context, []notify.Notification) error {
				if time.Since(began) < 10*time.Minute {
					return down
				}
				return nil
			}},
			"hangs": {fault: func(ctx context.Context, _ []notify.Notification) error { <-ctx.Done(); return ctx.Err() }},
			"fails": {fault: func(context.Context, []notify.Notification) error { return down }},
		}
		w := newWorld(t, testDB(t), receivers, `
notify:
  destinations:
  - {name: hangs, type: test, maxAge: 1h}
  - {name: down, type: test}
  - {name: fails, type: test, maxAge: 1h}
  - {name: good, type: test}`+fmt.Sprintf(direct, "good, down, hangs, fails"))
		defer w.end()
		var want []string
		for i := range 120 { // one every 5 s, for ten minutes
			w.alerts([]alert.Alert{w.some(fmt.Sprintf("Rule %d", i), "web", alert.Warning)})
			want = append(want, fmt.Sprintf("Rule %d x1", i))
			time.Sleep(10 * time.Millisecond)
			if synctest.Wait(); len(receivers["good"].rules()) != i+1 {
				t.Fatalf("after alert %d the good destination has %d", i, len(receivers["good"].rules()))
			}
			time.Sleep(5*time.Second - 10*time.Millisecond)
		}
		w.want("good", want...)
		w.want("down")
		if standings, err := w.notifier.Destinations(t.Context()); err != nil || standings[1].Waiting != 120 || standings[1].Reason != down.Error() || standings[1].Attempts < 5 {
			t.Errorf("how the one that is down is doing: %+v, %v", standings, err)
		}
		time.Sleep(6 * time.Minute)
		w.want("down", want...)
		w.want("hangs")
		time.Sleep(2 * time.Hour)
		for _, name := range []string{"fails", "hangs"} {
			dead := w.letters(name, delivery.Dead)
			if len(dead) != 120 || len(w.letters(name, delivery.Waiting)) != 0 {
				t.Fatalf("%s has %d dead letters", name, len(dead))
			}
			last := dead[119]
			if wants := map[string]string{"fails": down.Error(), "hangs": "deadline"}[name]; last.Title != "Rule 0" || !strings.Contains(last.Reason, wants) || !strings.Contains(last.Reason, "longer than it may") {
				t.Errorf("%s: %s, because %s", name, last.Title, last.Reason)
			}
		}
		receivers["fails"].say(nil)
		if n, err := w.notifier.Retry(t.Context(), "fails", 0); n != 120 || err != nil {
			t.Errorf("%d queued again, %v", n, err)
		}
		time.Sleep(time.Second)
		w.want("fails", want...)
	})
}

func TestBoundedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"down": {fault: func(context.Context, []notify.Notification) error { return errors.New("is down") }}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  destinations:
  - {name: down, type: test, maxMessages: 10}`+fmt.Sprintf(direct, "down"))
		defer w.end()
		for i := range 25 {
			w.alerts([]alert.Alert{w.some(fmt.Sprint("Rule ", i), "web", alert.Warning)})
		}
		time.Sleep(time.Minute)
		dead := w.letters("down", delivery.Dead)
		if len(dead) != 15 || !strings.Contains(dead[0].Reason, "of 10 that it may") {
			t.Fatalf("%d dead letters: %+v", len(dead), dead)
		}
		receivers["down"].say(nil)
		time.Sleep(10 * time.Minute)
		if got := receivers["down"].rules(); len(got) != 10 || got[0] != "Rule 15 x1" {
			t.Errorf("delivered %q, want the newest", got)
		}
		if !strings.Contains(w.log.String(), "the queue is too long") {
			t.Error("the log does not say so")
		}
	})
}

// TestGroups has one message at once, and one for all that follows in each window.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"chat": {}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  destinations:
  - {name: chat, type: test}
  routes:
  - {to: [chat], of: alerts, groupWait: 5s, groupWindow: 10m}
`)
		defer w.end()
		w.alerts([]alert.Alert{w.some("A", "web", alert.Warning), w.some("A", "web", alert.Warning), w.some("A", "db", alert.Warning), w.some("B", "web", alert.Notice)})
		time.Sleep(4 * time.Second)
		w.alerts([]alert.Alert{w.some("A", "web", alert.Warning)})
		w.want("chat")
		time.Sleep(2 * time.Second)
		w.want("chat", "A x3", "A x1", "B x1")
		first := receivers["chat"].took[0]
		if d := first.Last.Sub(first.First); d != 4*time.Second || first.Alert.OutputFields["n"] == nil || first.Key == "" {
			t.Errorf("the group is of %s: %+v", d, first)
		}
		for range 300 { // 5 minutes of the same
			w.alerts([]alert.Alert{w.some("A", "web", alert.Warning)})
			time.Sleep(time.Second)
		}
		w.want("chat", "A x3", "A x1", "B x1")
		time.Sleep(6 * time.Minute)
		w.want("chat", "A x3", "A x1", "B x1", "A x300")
		time.Sleep(time.Hour)
		w.alerts([]alert.Alert{w.some("A", "web", alert.Warning)})
		time.Sleep(6 * time.Second)
		w.want("chat", "A x3", "A x1", "B x1", "A x300", "A x1")
	})
}

// TestLimit: what is over the limit of a destination is told of by a summary.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"chat": {}, "all": {}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  destinations:
  - {name: chat, type: test, limit: 3, limitPer: 1m}
  - {name: all, type: test}`+fmt.Sprintf(direct, "chat, all"))
		defer w.end()
		for i := range 50 {
			p := alert.Notice
			if i == 40 {
				p = alert.Critical
			}
			w.alerts([]alert.Alert{w.some(fmt.Sprint("Rule ", i%10), "web", p)})
			time.Sleep(100 * time.Millisecond)
		}
		w.want("chat", "Rule 0 x1", "Rule 1 x1", "Rule 2 x1")
		if n := len(receivers["all"].rules()); n != 50 {
			t.Errorf("the other destination has %d", n)
		}
		time.Sleep(time.Minute)
		w.want("chat", "Rule 0 x1", "Rule 1 x1", "Rule 2 x1", "Messages over the limit x47")
		summary := receivers["chat"].took[3]
		if text := summary.Alert.Output; summary.Alert.Priority != alert.Critical || !strings.Contains(text, "47 messages about 47 alerts") || !strings.Contains(text, "5 × Rule 9") {
			t.Errorf("%s: %s", summary.Alert.Priority, text)
		}
		if n := len(w.letters("chat", delivery.Summarised)); n != 47 {
			t.Errorf("%d are in a summary", n)
		}
		w.alerts([]alert.Alert{w.some("Later", "web", alert.Notice)})
		time.Sleep(time.Second)
		if got := receivers["chat"].rules(); got[len(got)-1] != "Later x1" {
			t.Errorf("after the summary: %q", got)
		}
	})
}

// stored has a new database with an alert, in an incident, of which nobody was told
// yet.
func stored(t *testing.T, path string, a alert.Alert) {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.AddAlerts(t.Context(), []alert.Alert{a})
	if err == nil {
		err = s.SaveIncidents(t.Context(), []*incident.Incident{(&world{}).paged(a)}, nil, store.Joined{}, 1)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}

// asBefore makes a database one of a version that did not notify.
func asBefore(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err == nil {
		_, err = db.ExecContext(t.Context(), "DELETE FROM checkpoints WHERE name = 'notify'")
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestBeforeTheFirstLook: who notifies is told of alerts that came, and were
// joined, before it looked for the first time.
func TestBeforeTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testDB(t)
		early := (&world{}).some("Early", "web", alert.Critical)
		stored(t, path, early)
		w := newWorld(t, path, map[string]*receiver{"pager": {}}, `
notify:
  destinations:
  - {name: pager, type: test}
  routes:
  - {to: [pager]}
`)
		defer w.end()
		time.Sleep(time.Minute)
		w.want("pager", "incident "+early.ID)
	})
}

// TestIncidents: what pages is told of once, when nobody has muted it, and its
// alerts are not told of by themselves.
func TestIncidents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testDB(t)
		stored(t, path, (&world{}).some("Old", "web", alert.Critical))
		asBefore(t, path)
		receivers := map[string]*receiver{"pager": {}, "chat": {}}
		w := newWorld(t, path, receivers, `
notify:
  url: https://guardian.example/
  destinations:
  - {name: pager, type: test, priority: error}
  - {name: chat, type: test}
  routes:
  - {to: [chat, pager]}
  - {to: [chat], of: alerts, priority: warning, groupWait: 0s}
`)
		defer w.end()
		a, b, minor, muted := w.some("A", "web", alert.Critical), w.some("B", "web", alert.Warning), w.some("Minor", "x", alert.Warning), w.some("Muted", "y", alert.Critical)
		one, other, third := w.paged(a), w.paged(muted), w.paged(minor)
		one.Signals = append(one.Signals, incident.FromAlert(&b))
		other.MuteTill = time.Now().Add(time.Hour)
		third.Paged = time.Time{}
		w.alerts([]alert.Alert{a, b, minor, muted, w.some("Quiet", "x", alert.Notice)}, one, other, third)
		time.Sleep(time.Minute)
		w.want("chat", "incident "+a.ID, "Minor x1")
		w.want("pager", "incident "+a.ID)
		if got := receivers["pager"].took[0]; got.URL != "https://guardian.example/incidents/"+a.ID || got.Count != 2 || got.Alert.Rule != "A" || got.Alert.OutputFields["k8s.pod.name"] != "web" {
			t.Errorf("the message is %+v", got)
		}
		time.Sleep(2 * time.Hour)
		w.want("chat", "incident "+a.ID, "Minor x1", "incident "+muted.ID)
		later := w.some("C", "web", alert.Critical)
		one.Signals, one.State = append(one.Signals, incident.FromAlert(&later)), incident.Acknowledged
		w.alerts([]alert.Alert{later}, one)
		time.Sleep(time.Hour)
		w.want("pager", "incident "+a.ID, "incident "+muted.ID)
		// An older one, that was not urgent, takes in the first: it is the same attack.
		third.Worst, third.Paged, third.Signals = alert.Critical, time.Now(), append(third.Signals, one.Signals...)
		last := w.some("D", "web", alert.Critical)
		w.alerts([]alert.Alert{last}, third)
		time.Sleep(time.Hour)
		w.want("pager", "incident "+a.ID, "incident "+muted.ID)
	})
}

// TestRestart ends the program with messages in its queue, one of them in the
// middle of an attempt.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testDB(t)
		receivers := map[string]*receiver{"a": {fault: func(ctx context.Context, _ []notify.Notification) error { <-ctx.Done(); return ctx.Err() }}, "gone": {fault: func(context.Context, []notify.Notification) error { return errors.New("no") }}}
		w := newWorld(t, path, receivers, `
notify:
  destinations:
  - {name: a, type: test}
  - {name: gone, type: test}`+fmt.Sprintf(direct, "a, gone"))
		w.alerts([]alert.Alert{w.some("One", "web", alert.Warning), w.some("Two", "web", alert.Warning)})
		time.Sleep(time.Second)
		stopping := time.Now()
		w.end()
		if d := time.Since(stopping); d > 10*time.Second {
			t.Errorf("it took %s to end", d)
		}
		receivers["a"].say(nil)
		w = newWorld(t, path, receivers, `
notify:
  destinations:
  - {name: a, type: test}`+fmt.Sprintf(direct, "a"))
		defer w.end()
		time.Sleep(time.Minute)
		w.want("a", "One x1", "Two x1")
		if dead := w.letters("gone", delivery.Dead); len(dead) != 2 || !strings.Contains(dead[0].Reason, "configured") {
			t.Errorf("of a destination that is gone: %+v", dead)
		}
	})
}

// TestRefused: of a batch only what is refused for good is a dead letter, and a
// defect of a destination is that of no other.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := func(_ context.Context, batch []notify.Notification) error {
			for _, n := range batch {
				switch n.Alert.Rule {
				case "Bad":
					return notify.Permanent(errors.New("answer 400 Bad Request"))
				case "Broken":
					panic("S3cret")
				}
			}
			return nil
		}
		receivers := map[string]*receiver{"bulk": {batch: 10, fault: refuse}, "other": {}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  destinations:
  - {name: bulk, type: test}
  - {name: other, type: test}`+fmt.Sprintf(direct, "bulk, other"))
		defer w.end()
		var alerts []alert.Alert
		for _, rule := range []string{"One", "Bad", "Two", "Broken", "Three"} {
			alerts = append(alerts, w.some(rule, "web", alert.Warning))
		}
		w.alerts(alerts)
		time.Sleep(time.Second)
		w.want("bulk", "One x1", "Two x1", "Three x1")
		w.want("other", "One x1", "Bad x1", "Two x1", "Broken x1", "Three x1")
		dead := w.letters("bulk", delivery.Dead)
		if len(dead) != 2 || dead[1].Reason != "answer 400 Bad Request" || !strings.Contains(dead[0].Reason, "defect") {
			t.Errorf("dead letters: %+v", dead)
		}
		notifytest.Silent(t, w.log.String(), "S3cret")
	})
}

// TestRetryAfter: a receiver that asks to be left alone is, for that long.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Time
		receivers := map[string]*receiver{"a": {fault: func(context.Context, []notify.Notification) error {
			if tries = append(tries, time.Now()); len(tries) < 3 {
				return notify.RetryAfter(errors.New("answer 429"), 7*time.Minute)
			}
			return nil
		}}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  destinations:
  - {name: a, type: test}`+fmt.Sprintf(direct, "a"))
		defer w.end()
		w.alerts([]alert.Alert{w.some("One", "web", alert.Warning)})
		time.Sleep(time.Hour)
		w.want("a", "One x1")
		if d := tries[2].Sub(tries[0]); d < 14*time.Minute || d > 14*time.Minute+5*time.Second {
			t.Errorf("it was tried again within %s", d)
		}
	})
}

func TestTestMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receivers := map[string]*receiver{"a": {}}
		w := newWorld(t, testDB(t), receivers, `
notify:
  fields: {team: payments, where: '{{.Field "cluster"}}/{{.Rule}}'}
  tags: [own]
  destinations:
  - {name: a, type: test, priority: emergency}`)
		defer w.end()
		if err := w.notifier.Test(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		w.want("a", "Test rule x1")
		got := receivers["a"].took[0].Alert
		if got.OutputFields["team"] != "payments" || got.OutputFields["where"] != "prod/Test rule" || !slices.Equal(got.Tags, []string{"own", "test"}) {
			t.Errorf("got %+v", got)
		}
		receivers["a"].say(func(context.Context, []notify.Notification) error { return errors.New("refused") })
		if err := w.notifier.Test(t.Context(), "a"); err == nil || err.Error() != "refused" {
			t.Errorf("got %v", err)
		}
		if err := w.notifier.Test(t.Context(), "b"); !errors.Is(err, delivery.ErrUnknownDestination) {
			t.Errorf("got %v", err)
		}
	})
}
