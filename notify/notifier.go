package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// A Source says what happened.
type Source interface {
	// Notified returns up to which alert there are messages, and up to which all
	// are joined into incidents; found is false before the first Enqueue.
	Notified(ctx context.Context) (notified, joined int64, found bool, err error)
	// AlertsAfter returns alerts in the order they were stored in, and up to which
	// it looked.
	AlertsAfter(ctx context.Context, seq int64, q alert.Query) ([]alert.Record, int64, error)
	// Unannounced returns incidents that paged and are no messages yet, in the
	// order they began in, after a place, and the place to go on at.
	Unannounced(ctx context.Context, after int64, n int) ([]*incident.Incident, int64, error)
	// Escalated returns incidents that were told of, the last time before some time,
	// that have come further since and are not closed, after a place, and the place
	// to go on at.
	Escalated(ctx context.Context, before time.Time, after int64, n int) ([]*incident.Incident, int64, error)
	// LastTold returns when one of these incidents was told of the last time, by ids
	// or by the alerts that they began with, and how far the one had come that had
	// come furthest; zero if none was.
	LastTold(ctx context.Context, ids []string) (at time.Time, level int, err error)
	// Changed returns incidents that became messages and are in another state than
	// the one that messages tell of, by the ids that they had then.
	Changed(ctx context.Context, n int) (map[string]*incident.Incident, error)
	// PagedAlerts returns which alerts, of a time or later, are part of an incident
	// that paged.
	PagedAlerts(ctx context.Context, since time.Time) (map[string]bool, error)
}

// A Queue keeps messages safe. All that a method has acknowledged outlives a
// killed process.
type Queue interface {
	// Enqueue takes messages and up to where what happened is in them.
	Enqueue(ctx context.Context, messages []delivery.Message, p delivery.Progress, now time.Time) (added []delivery.Message, counted int, err error)
	// Delivery returns the message to a destination that has a key.
	Delivery(ctx context.Context, destination, key string) (m delivery.Message, found bool, err error)
	// Claim counts an attempt of the next messages, and returns them, or when there
	// may be some.
	Claim(ctx context.Context, destination string, n int, now time.Time) (batch []delivery.Message, next time.Time, err error)
	// Finish keeps what attempts led to.
	Finish(ctx context.Context, results []delivery.Result, now time.Time) error
	// Summarise puts one message in place of those that are due.
	Summarise(ctx context.Context, destination string, now time.Time, of func([]delivery.Message) (delivery.Message, error)) (n int, err error)
	// Overdue moves what is too old, or too much, to the dead letters.
	Overdue(ctx context.Context, destination string, before time.Time, most int, now time.Time) (dead []delivery.Message, err error)
	// Orphans moves what waits for unknown destinations to the dead letters.
	Orphans(ctx context.Context, known []string, now time.Time) (n int, err error)
	// Revive queues dead letters again.
	Revive(ctx context.Context, destination string, seq int64, now time.Time) (n int, err error)
	// Standings returns how destinations are doing.
	Standings(ctx context.Context) (map[string]delivery.Standing, error)
}

// A Store is both: one transaction holds messages and what they were made of.
type Store interface {
	Source
	Queue
}

// A Constructor makes a destination of one type from its section of the
// configuration. Errors have the place in the file.
type Constructor func(config.Section, Options) (Destination, error)

// Construct returns the constructor of a type whose configuration is a C, which
// is read strictly.
func Construct[C any](build func(C, Options) (Destination, error)) Constructor {
	return func(s config.Section, o Options) (Destination, error) {
		var c C
		if err := s.Decode(&c); err != nil {
			return nil, err
		}
		d, err := build(c, o)
		if err != nil {
			return nil, s.Wrap(fmt.Errorf("destination %s: %w", o.Name, err))
		}
		return d, nil
	}
}

// Setup is what a [Notifier] is made with. All but Log is needed.
type Setup struct {
	Config  *config.Notify
	Cluster string
	Version string
	Store   Store
	// Types are the kinds of destinations that there are, by the name that the
	// configuration has for them.
	Types map[string]Constructor
	Log   *slog.Logger
}

// A Notifier makes messages of what happened, and delivers them. Make it with
// [New], have it run once at a time, and close it then. Of several on one store
// one runs.
type Notifier struct {
	Setup
	router  *router
	workers []*worker
	metrics *metrics
	wake    chan struct{}
}

// New makes the destinations. Errors have the place in the configuration.
func New(s Setup) (_ *Notifier, err error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{Setup: s, wake: make(chan struct{}, 1), metrics: newMetrics(s.Store)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.router, err = newRouter(s.Config, s.Cluster); err != nil {
		return nil, err
	}
	for _, c := range s.Config.Destinations {
		build, known := s.Types[c.Type.Text]
		if !known {
			return nil, c.Type.Wrap(fmt.Errorf("unknown value %q: want one of %s", c.Type.Text, strings.Join(typeNames(s.Types), ", ")))
		}
		to, err := build(c.Config, Options{Name: c.Name, Cluster: s.Cluster, Version: s.Version, Log: s.Log.With("destination", c.Name)})
		if err != nil {
			return nil, err
		}
		n.workers = append(n.workers, newWorker(c, to, s.Store, s.Log.With("destination", c.Name), n.metrics))
	}
	return n, nil
}

func typeNames(types map[string]Constructor) (names []string) {
	for name := range types {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close ends what destinations hold.
func (n *Notifier) Close() error {
	var errs []error
	for _, w := range n.workers {
		if err := w.to.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close destination %s: %w", w.Name, err))
		}
	}
	n.workers = nil
	return errors.Join(errs...)
}

// Collector has the metrics.
func (n *Notifier) Collector() prometheus.Collector { return n.metrics }

// Alerted says that something has happened. It never waits.
func (n *Notifier) Alerted() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// How often what happened is looked for when nobody says that something did, and
// how much at once.
const (
	routeEvery = 10 * time.Second
	routeAgain = 5 * time.Second
	routeBatch = 500  // incidents, or alerts that are read at once
	routeMost  = 5000 // alerts: in a flood each group is written once for all of them
)

// Run delivers until ctx ends. Attempts that run then may finish, for some
// seconds.
func (n *Notifier) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return n.route(ctx) })
	for _, w := range n.workers {
		group.Go(func() error { return w.run(ctx) })
	}
	return group.Wait()
}

// route makes messages of what happened until ctx ends.
func (n *Notifier) route(ctx context.Context) error {
	orphaned := false
	for ctx.Err() == nil {
		wait := routeEvery
		err := n.orphans(ctx, &orphaned)
		if err == nil {
			err = n.routeAll(ctx)
		}
		if err == nil {
			err = n.routeEscalations(ctx)
		}
		if err == nil {
			err = n.routeUpdates(ctx)
		}
		if err != nil && ctx.Err() == nil {
			n.Log.Error("no messages are made of what happens until that works again", "error", err)
			wait = routeAgain
		}
		pause(ctx, wait, n.wake)
	}
	return nil
}

// pause waits for a time, for somebody, or for the end.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// orphans does once what is left of destinations that are gone.
func (n *Notifier) orphans(ctx context.Context, done *bool) error {
	if *done {
		return nil
	}
	var names []string
	for _, w := range n.workers {
		names = append(names, w.Name)
	}
	gone, err := n.Store.Orphans(ctx, names, time.Now())
	if err != nil {
		return err
	}
	if gone > 0 {
		n.Log.Warn("messages for destinations that are not configured any more are dead letters", "messages", gone)
	}
	*done = true
	return nil
}

// routeAll makes messages of all that is new: incidents first, since their
// alerts are not told of by themselves.
func (n *Notifier) routeAll(ctx context.Context) error {
	for more := true; more; {
		notified, joined, found, err := n.Store.Notified(ctx)
		if err != nil {
			return err
		}
		if !found { // what was there before is not told of
			notified = joined
		}
		if err := n.routeIncidents(ctx, notified, found); err != nil {
			return err
		}
		if joined <= notified {
			return nil
		}
		if more, err = n.routeAlerts(ctx, notified, joined); err != nil {
			return err
		}
	}
	return nil
}

// routeIncidents makes messages of incidents that page now; those that are muted
// are looked at again.
func (n *Notifier) routeIncidents(ctx context.Context, notified int64, tell bool) error {
	for place := int64(0); ; {
		list, last, err := n.Store.Unannounced(ctx, place, routeBatch)
		if err != nil {
			return err
		}
		now := time.Now()
		var out []delivery.Message
		p := delivery.Progress{Alert: notified}
		for _, i := range list {
			if !tell {
				p.Incidents = append(p.Incidents, telling(i, 0))
				continue
			}
			if !i.Pages(now) {
				continue
			}
			if level, told, err := n.told(ctx, i); err != nil {
				return err
			} else if told { // as far as that part had come
				part := telling(i, 0)
				part.Level = level
				p.Incidents = append(p.Incidents, part)
				continue
			}
			if wait, err := n.flapping(ctx, i, now); err != nil {
				return err
			} else if wait {
				continue
			}
			messages, err := n.router.messages(n.router.ofIncident(i), now)
			if err != nil {
				return err
			}
			out, p.Incidents = append(out, messages...), append(p.Incidents, telling(i, 0))
		}
		if len(p.Incidents) > 0 || !tell && len(list) < routeBatch {
			if err := n.enqueue(ctx, out, p, now); err != nil {
				return err
			}
		}
		if place = last; len(list) < routeBatch {
			return nil
		}
	}
}

// told reports whether an incident that is a part of this one by now was told of,
// and how far that had come: of one attack nobody is told twice.
func (n *Notifier) told(ctx context.Context, i *incident.Incident) (level int, told bool, err error) {
	var ids []string
	for _, s := range i.Signals {
		ids = append(ids, s.Alert)
	}
	at, level, err := n.Store.LastTold(ctx, ids)
	if !at.IsZero() {
		n.metrics.suppressed.WithLabelValues("incident").Inc()
	}
	return level, !at.IsZero(), err
}

// routeAlerts makes messages of some alerts, and reports whether there are more.
func (n *Notifier) routeAlerts(ctx context.Context, notified, joined int64) (more bool, err error) {
	now := time.Now()
	if !n.router.wantsAlerts() {
		return false, n.enqueue(ctx, nil, delivery.Progress{Alert: joined}, now)
	}
	records, last, err := n.read(ctx, notified, joined)
	if err != nil {
		return false, err
	}
	var drafts []draft
	since := now
	for _, r := range records {
		some := n.router.drafts(n.router.ofAlert(r.Alert), now)
		if len(some) == 0 {
			continue
		}
		drafts = append(drafts, some...)
		if r.Time.Before(since) {
			since = r.Time
		}
	}
	if len(drafts) > 0 {
		paged, err := n.Store.PagedAlerts(ctx, since)
		if err != nil {
			return false, err
		}
		before := len(drafts)
		drafts = slices.DeleteFunc(drafts, func(d draft) bool { return paged[d.of.Alert.ID] })
		n.metrics.suppressed.WithLabelValues("incident").Add(float64(before - len(drafts)))
	}
	out, err := write(together(drafts))
	if err != nil {
		return false, err
	}
	return last < joined, n.enqueue(ctx, out, delivery.Progress{Alert: last}, now)
}

// read returns alerts between two numbers, and up to which it read.
func (n *Notifier) read(ctx context.Context, after, until int64) (records []alert.Record, last int64, err error) {
	for last = after; last < until && len(records) < routeMost; {
		more, end, err := n.Store.AlertsAfter(ctx, last, alert.Query{Limit: routeBatch})
		if err != nil {
			return nil, after, err
		}
		for _, r := range more {
			if r.Seq <= until {
				records = append(records, r)
			}
		}
		if end <= last { // the rest was removed meanwhile
			end = until
		}
		last = min(end, until)
	}
	return records, last, nil
}

func (n *Notifier) enqueue(ctx context.Context, messages []delivery.Message, p delivery.Progress, now time.Time) error {
	added, counted, err := n.Store.Enqueue(ctx, messages, p, now)
	if err != nil {
		return err
	}
	n.metrics.suppressed.WithLabelValues("group").Add(float64(counted))
	for _, w := range n.workers {
		if slices.ContainsFunc(added, func(m delivery.Message) bool { return m.Destination == w.Name }) {
			w.look()
		}
	}
	return nil
}

// Destinations returns how each destination is doing, in the order of the
// configuration.
func (n *Notifier) Destinations(ctx context.Context) ([]delivery.Status, error) {
	standings, err := n.Store.Standings(ctx)
	if err != nil {
		return nil, err
	}
	out := []delivery.Status{}
	for _, w := range n.workers {
		out = append(out, delivery.Status{Name: w.Name, Type: w.Type.Text, Standing: standings[w.Name]})
	}
	return out, nil
}

func (n *Notifier) worker(name string) (*worker, error) {
	for _, w := range n.workers {
		if w.Name == name {
			return w, nil
		}
	}
	return nil, delivery.ErrUnknownDestination
}

// Retry queues dead letters of a destination again, one or with seq 0 all, and
// returns how many.
func (n *Notifier) Retry(ctx context.Context, destination string, seq int64) (int, error) {
	w, err := n.worker(destination)
	if err != nil {
		return 0, err
	}
	revived, err := n.Store.Revive(ctx, destination, seq, time.Now())
	w.look()
	return revived, err
}

// Test sends a test message to a destination, past queue, routes and limits, and
// returns what came of it.
func (n *Notifier) Test(ctx context.Context, destination string) error {
	w, err := n.worker(destination)
	if err != nil {
		return err
	}
	now := time.Now()
	a := alert.Alert{
		ID: digest("test", destination, now.String()), Time: now, Rule: "Test rule", Priority: alert.Debug, Source: "internal",
		Output: "This is a test message of KubeGuardian.", OutputFields: map[string]any{"test": "true"}, Tags: []string{"test"},
	}
	message := n.router.ofAlert(a)
	message.Key, message.URL = a.ID, n.router.url
	n.router.enrich(&message)
	return w.send(ctx, []Notification{message})
}

// Observe counts alerts for the metric that Falcosidekick has of them.
func (n *Notifier) Observe(alerts []alert.Alert) { n.metrics.observe(alerts) }
