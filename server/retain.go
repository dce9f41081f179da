package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/store/retention"
	"github.com/kubeguardian/kubeguardian/web/session"
)

// A trouble is an error that stays until something succeeds.
type trouble struct {
	err   error // nil: there is none
	since time.Time
}

// now returns what is left of it, or has begun, by how the last attempt ended.
func (t trouble) now(err error) trouble {
	if t.err == nil {
		t.since = time.Now()
	}
	return trouble{err, t.since}
}

func (t trouble) problem() []string {
	return health.If(t.err != nil, "Nothing can be stored since %s, and audit events are refused until it can: %v.", health.Moment(t.since), t.err)
}

// stored notes how the last attempt to store something ended, or that the store
// could not be read, for the health, and returns its error.
func (s *Server) stored(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	began, ended := false, false
	s.state.update(func(st *state) {
		began, ended = st.storing.err == nil && err != nil, st.storing.err != nil && err == nil
		st.storing = st.storing.now(err)
	})
	if err != nil {
		s.metrics.storeFailures.Inc()
	}
	switch {
	case began:
		s.log.Error("nothing can be stored, and audit events are refused until it can", "error", err)
	case ended:
		s.log.Info("records can be stored again")
	}
	return err
}

const (
	// storeAgain is how often a store that failed is tried.
	storeAgain = 2 * time.Second
	// storeTrial is how much is written to try it: a full disk may take less.
	storeTrial = 256 << 10
)

// watchStore tries a store that failed until it works, whether or not there is
// something to store.
func (s *Server) watchStore(ctx context.Context) error {
	tick := time.NewTicker(storeAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.state.mu.RLock()
		failed := s.state.storing.err != nil
		s.state.mu.RUnlock()
		if failed {
			s.tryStore(ctx)
		}
	}
}

func (s *Server) tryStore(ctx context.Context) {
	err := s.store.SaveCheckpoint(ctx, "trial", bytes.Repeat([]byte("."), storeTrial))
	if err == nil {
		err = s.store.SaveCheckpoint(ctx, "trial", nil)
	}
	_ = s.stored(err) // it is said
}

// retained is what retention has done.
type retained struct {
	last    retention.Report
	removed map[string]int // since the start, by limit
	failing trouble
}

// detail says how much is kept.
func (r retained) detail(limits config.Retention) string {
	text := fmt.Sprintf("Alerts are kept for %s, decisions for %s.", health.Span(limits.Alerts), health.Span(limits.Decisions))
	if r.removed == nil { // another replica removes, or nothing was looked at yet
		return text
	}
	text += fmt.Sprintf(" The database takes %s", size(r.last.Bytes))
	if limits.MaxMiB > 0 {
		text += fmt.Sprintf(" of %s that it may", size(int64(limits.MaxMiB)<<20))
	}
	if !r.last.Oldest.IsZero() {
		text += fmt.Sprintf(", and its oldest alert came by %s", health.Moment(r.last.Oldest))
	}
	return text + fmt.Sprintf(". Since the start %d records were removed for their age, %d for their number and %d for their size.",
		r.removed[retention.Age], r.removed[retention.Number], r.removed[retention.Size])
}

func size(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// untold is what alerts wait for, by the reader that has not read them.
var untold = map[string]string{
	"incidents": "they are joined into incidents", "messages": "messages are made of them", "hub": "the hub has them",
}

// problems says what keeps the limits from being kept.
func (r retained) problems(limits config.Retention) []string {
	out := health.If(r.last.Held > 0, "%d alerts are beyond what is to be kept, and stay until %s.", r.last.Held, untold[r.last.For])
	out = append(out, health.If(r.failing.err != nil, "Old records are not removed since %s: %v.", health.Moment(r.failing.since), r.failing.err)...)
	return append(out, health.If(r.last.Over, "The database takes %s, more than the %d MiB of retention.maxMiB, and nothing more of it may go.", size(r.last.Bytes), limits.MaxMiB)...)
}

// retainOnce removes the records that are over the limits.
func (s *Server) retainOnce(ctx context.Context, now time.Time) (retention.Report, error) {
	r := s.cfg.Retention
	limits := retention.Limits{Alerts: r.Alerts, Decisions: r.Decisions, Records: r.Records, Bytes: int64(r.MaxMiB) << 20}
	seq, reports, err := s.clusters.Sent(ctx)
	if err != nil {
		return retention.Report{}, err
	}
	if reports {
		limits.Told = map[string]int64{"hub": seq}
	}
	report, err := s.store.Retain(ctx, limits, now)
	s.removed(report, err == nil)
	_, sessionErr := s.store.Sessions().Prune(ctx, now.Add(-session.MaxAge), now.Add(-session.MaxIdle))
	return report, errors.Join(err, sessionErr, s.store.PruneReadiness(ctx, now.Add(-r.Readiness)))
}

// removed notes what was removed. What else a report has is true of one that is
// complete.
func (s *Server) removed(report retention.Report, complete bool) {
	for cause, n := range report.Removed {
		s.metrics.removed.WithLabelValues(cause.Kind, cause.Limit).Add(float64(n))
	}
	s.state.update(func(st *state) {
		counts := map[string]int{}
		for limit, n := range st.retained.removed {
			counts[limit] = n
		}
		for cause, n := range report.Removed {
			counts[cause.Limit] += n
		}
		st.retained.removed = counts
		if complete {
			st.retained.last = report
		}
	})
	if complete {
		s.metrics.held.Set(float64(report.Held))
		s.metrics.databaseSize.Set(float64(report.Bytes))
	}
}

// How often records are removed: in between there may be more than are to be kept.
const (
	retainEvery = 10 * time.Minute
	// sizeEvery is how often the size is looked at, which is cheap and grows fast.
	sizeEvery = time.Minute
)

// retain removes the records that are not to be kept any longer.
func (s *Server) retain(ctx context.Context) error {
	tick := time.NewTicker(sizeEvery)
	defer tick.Stop()
	defer s.state.update(func(st *state) { st.retained = retained{} }) // another replica does it now
	var last time.Time
	for {
		report, now := retention.Report{}, time.Now()
		due, err := s.overdue(ctx, now.Sub(last))
		if due && err == nil {
			if report, err = s.retainOnce(ctx, now); err == nil {
				last = now
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Error("old records are not removed", "error", err)
		}
		s.state.update(func(st *state) { st.retained.failing = st.retained.failing.now(err) })
		if report.Sum() > 0 {
			s.log.Info("removed old records", "removed", fmt.Sprint(report.Removed), "bytes", report.Bytes)
		}
		if report.Held > 0 {
			s.log.Warn("alerts are beyond what is to be kept, and stay until somebody is told", "alerts", report.Held, "waiting", report.For)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// overdue reports whether records may have to be removed after a time.
func (s *Server) overdue(ctx context.Context, since time.Duration) (bool, error) {
	s.state.mu.RLock()
	held := s.state.retained.last.Held > 0
	s.state.mu.RUnlock()
	if since >= retainEvery || held {
		return true, nil
	}
	if s.cfg.Retention.MaxMiB == 0 {
		return false, nil
	}
	size, err := s.store.Size(ctx)
	s.metrics.databaseSize.Set(float64(size))
	return size > int64(s.cfg.Retention.MaxMiB)<<20, err
}
