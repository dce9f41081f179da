// Package joiner joins stored alerts into incidents, as they come. What it has done
// is in the store together with up to which alert, so that whenever it ends each
// alert is in one incident, once.
package joiner

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/store"
)

// How often alerts are joined when nobody says that there are new ones, and how
// long to wait after a failure.
const (
	joinEvery = 30 * time.Second
	joinAgain = 5 * time.Second
	joinBatch = 1000 // alerts that are read at once
	joinMost  = 5000 // alerts that are joined at once: in a flood each incident is written once for all of them
)

// A Joiner joins alerts, and is the store of incidents for whoever reads and
// changes them. It is safe for concurrent use.
type Joiner struct {
	*store.Store
	Options
	wake chan struct{}

	mu         sync.Mutex
	correlator *incident.Correlator // nil: to be read from the store
	was        store.Joined         // what its incidents come from

	upTo    atomic.Int64          // up to which alert
	failing atomic.Pointer[error] // the last time; pages ask for it, and must not wait
}

// Options are whom a joiner tells what. All are needed.
type Options struct {
	Log    *slog.Logger
	Joined func(opened, paged int) // after alerts were joined: how many incidents began, and began to page
}

// New returns a joiner of the alerts of a store.
func New(s *store.Store, o Options) *Joiner {
	return &Joiner{Store: s, Options: o, wake: make(chan struct{}, 1)}
}

// Alerted says that the store has new alerts. It never waits.
func (j *Joiner) Alerted() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Behind returns how many alerts wait to be joined; 0 before the first time, as
// in a replica that does not join.
func (j *Joiner) Behind() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	joined := j.upTo.Load()
	last, err := j.LastAlert(ctx)
	if joined == 0 || err != nil {
		return 0
	}
	return max(0, float64(last-joined))
}

// Run joins alerts until the context ends.
func (j *Joiner) Run(ctx context.Context) error {
	for {
		wait := joinEvery
		if err := j.join(ctx); err != nil && ctx.Err() == nil {
			j.Log.Error("alerts are not joined into incidents until that works again", "error", err)
			wait = joinAgain
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-j.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// join joins all alerts that are new. Between two batches people may change
// incidents.
func (j *Joiner) join(ctx context.Context) (err error) {
	for more := true; more && err == nil; {
		if more, err = j.batch(ctx); errors.Is(err, store.ErrChanged) {
			more, err = true, nil // what has changed is read
		}
	}
	j.failing.Store(&err)
	return err
}

// Problem says why alerts are not joined, or nil.
func (j *Joiner) Problem() error {
	if err := j.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// batch joins some alerts, and reports whether there may be more. After an error
// the next one starts from what the store has.
func (j *Joiner) batch(ctx context.Context) (more bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() {
		if err != nil {
			j.correlator = nil
		}
	}()
	if j.correlator == nil {
		known, was, err := j.Correlated(ctx, time.Now().Add(-incident.Window))
		if err != nil {
			return false, err
		}
		j.correlator, j.was = incident.NewCorrelator(known), was
	}
	j.upTo.Store(j.was.Alert)
	alerts, last, err := j.read(ctx, j.was.Alert)
	if err != nil || last == j.was.Alert {
		return false, err
	}
	changed := map[string]*incident.Incident{}
	var merged []store.Merge
	opened, paged := 0, 0
	for _, a := range alerts {
		out := j.correlator.Join(a.Cluster, incident.FromAlert(&a.Alert))
		for _, m := range out.Merged {
			merged = append(merged, store.Merge{Part: m.ID, Whole: out.Incident.ID})
			delete(changed, m.ID)
		}
		if i := out.Incident; i != nil {
			changed[i.ID] = i
		}
		if out.New {
			opened++
		}
		if out.Paged {
			paged++
		}
	}
	list := make([]*incident.Incident, 0, len(changed))
	for _, i := range changed {
		i.Tell()
		list = append(list, i)
	}
	if err := j.SaveIncidents(ctx, list, merged, j.was, last); err != nil {
		return false, err
	}
	j.was.Alert = last
	j.upTo.Store(last)
	j.Joined(opened, paged)
	return true, nil
}

// read returns alerts after a number, and up to which it read.
func (j *Joiner) read(ctx context.Context, after int64) (alerts []alert.Record, last int64, err error) {
	for last = after; len(alerts) < joinMost; {
		more, end, err := j.AlertsAfter(ctx, last, alert.Query{Limit: joinBatch})
		if err != nil {
			return nil, after, err
		}
		alerts, last = append(alerts, more...), end
		if len(more) < joinBatch {
			break
		}
	}
	return alerts, last, nil
}
