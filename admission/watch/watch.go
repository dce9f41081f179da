// Package watch looks after the admission webhook: it tells when the API server does
// not ask it, and when people switched enforcement off.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/alert"
)

// After BlindAfter probes in a row that the API server let through unasked,
// admission is blind: one may be lost while a registration spreads.
const (
	Interval   = 3 * time.Second
	BlindAfter = 3
)

// The rules of the alerts that are raised.
const (
	RuleBlind      = "Admission is blind"
	RuleSees       = "Admission is no longer blind"
	RuleBreakGlass = "Admission break-glass used"
	RuleEnforced   = "Admission break-glass ended"
)

// Options are what a watch looks at. All are needed.
type Options struct {
	Heartbeat  *admission.Heartbeat
	BreakGlass *admission.BreakGlass
	// File is touched by each probe that came back. Alone says that no other
	// server judges while this one is away: what the file tells of the time before
	// a start is then an alert.
	File  string
	Alone bool
	// Removing reports whether the webhook is being removed.
	Removing func() bool
	// Raise stores an alert, once for each event.
	Raise func(ctx context.Context, p alert.Priority, rule, event, output string)
	Log   *slog.Logger
}

// A Watch knows what the last probes said.
type Watch struct {
	o        Options
	last     time.Time // the last probe that came back; zero: none since the start
	misses   int
	problems [2]error // of break-glass and heartbeat, to log what is news

	blindGauge, lastGauge, relaxedGauge prometheus.Gauge

	mu sync.Mutex // of what others ask for
	is state
}

type state struct {
	heartbeat  error                // why the last probe did not come back
	blind      time.Time            // since when the API server does not ask; zero: it does
	relaxed    admission.Relaxation // what the break-glass says now
	breakGlass error                // why that is not known
}

// New returns a watch that has seen nothing.
func New(o Options) *Watch {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeguardian", Name: name, Help: help})
	}
	return &Watch{
		o: o, blindGauge: gauge("admission_blind", "1 when the API server does not ask the webhook."),
		lastGauge:    gauge("admission_heartbeat_timestamp_seconds", "When an admission probe came back last."),
		relaxedGauge: gauge("admission_break_glass", "1 while denials only warn."),
	}
}

// Collectors are the metrics of the watch.
func (w *Watch) Collectors() []prometheus.Collector {
	return []prometheus.Collector{w.blindGauge, w.lastGauge, w.relaxedGauge}
}

// Run asks the cluster again and again until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		w.checkBreakGlass(ctx)
		w.beat(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *Watch) update(change func(*state)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.is)
}

// now is the state, which only the goroutine of Run changes.
func (w *Watch) now() state {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.is
}

// beat sends one probe and tells what changed by it.
func (w *Watch) beat(ctx context.Context) {
	probe, cancel := context.WithTimeout(ctx, Interval)
	defer cancel()
	err := w.o.Heartbeat.Beat(probe)
	now, blind := time.Now(), w.now().blind
	switch {
	case ctx.Err() != nil || w.o.Removing():
		return
	case err == nil:
		w.seen(ctx, now, blind)
		blind = time.Time{}
	case errors.Is(err, admission.ErrBlind):
		if w.misses++; w.misses >= BlindAfter && blind.IsZero() {
			blind = now
			w.blindGauge.Set(1)
			w.o.Log.Error("admission is blind", "since", w.last, "error", err)
			w.o.Raise(ctx, alert.Critical, RuleBlind, now.String(), "Requests are not checked: the API server does not ask the webhook, although it is registered; see what keeps it from reaching the webhook")
		}
	}
	if errors.Is(err, admission.ErrBlind) {
		w.problems[1] = nil // one miss is nothing yet, and many are told of as blindness
	} else {
		w.news(&w.problems[1], err)
	}
	w.update(func(s *state) { s.blind, s.heartbeat = blind, err })
}

// seen notes a probe that came back. The first one after a start shows for how
// long nobody looked: without other replicas, nobody judged either.
func (w *Watch) seen(ctx context.Context, now, blind time.Time) {
	switch before := w.lastBeat(); {
	case !blind.IsZero():
		w.o.Log.Info("admission is no longer blind", "since", blind)
		w.o.Raise(ctx, alert.Notice, RuleSees, now.String(), fmt.Sprintf("The API server asks the webhook again; it did not from %s on", blind.UTC().Format(time.RFC3339)))
	case w.last.IsZero() && !before.IsZero() && now.Sub(before) > BlindAfter*Interval && w.o.Alone:
		w.o.Raise(ctx, alert.Critical, RuleBlind, before.String(), fmt.Sprintf("Requests were not checked from %s to %s: the server did not run", before.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
	}
	w.last, w.misses = now, 0
	w.blindGauge.Set(0)
	w.lastGauge.Set(float64(now.UnixMilli()) / 1000)
	if err := w.keepBeat(now); err != nil {
		w.o.Log.Error("the admission heartbeat is not kept", "error", err)
	}
}

func (w *Watch) keepBeat(now time.Time) error {
	err := os.Chtimes(w.o.File, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(w.o.File, nil, 0o600)
	}
	return err
}

// lastBeat returns when a probe came back last, in this life of the server or
// the one before; zero when it never did.
func (w *Watch) lastBeat() time.Time {
	info, err := os.Stat(w.o.File)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// checkBreakGlass reads whether enforcement is switched off, and tells when that
// begins and ends.
func (w *Watch) checkBreakGlass(ctx context.Context) {
	err := w.o.BreakGlass.Check(ctx)
	if ctx.Err() != nil {
		return
	}
	w.news(&w.problems[0], err)
	relaxed := w.now().relaxed
	relaxation, active := w.o.BreakGlass.Active()
	switch {
	case active && relaxation != relaxed:
		w.relaxedGauge.Set(1)
		w.o.Log.Warn("break-glass: denials only warn", "until", relaxation.Until, "reason", relaxation.Reason)
		w.o.Raise(ctx, alert.Critical, RuleBreakGlass, fmt.Sprint(relaxation), fmt.Sprintf("Denials only warn until %s: %s", relaxation.Until.Format(time.RFC3339), relaxation.Reason))
		relaxed = relaxation
	case !active && relaxed != (admission.Relaxation{}):
		w.relaxedGauge.Set(0)
		w.o.Log.Info("break-glass ended: denials are enforced", "reason", relaxed.Reason)
		w.o.Raise(ctx, alert.Notice, RuleEnforced, fmt.Sprint(relaxed), "Denials are enforced again: "+relaxed.Reason)
		relaxed = admission.Relaxation{}
	}
	w.update(func(s *state) { s.relaxed, s.breakGlass = relaxed, err })
}

// news logs an error that differs from the one before.
func (w *Watch) news(before *error, err error) {
	if err != nil && (*before == nil || (*before).Error() != err.Error()) {
		w.o.Log.Error("admission is not looked after", "error", err)
	}
	*before = err
}

// Blind reports whether the API server does not ask the webhook.
func (w *Watch) Blind() bool { return !w.now().blind.IsZero() }

// Problems returns what is wrong with admission, one sentence each.
func (w *Watch) Problems() []string {
	var out []string
	s := w.now()
	if !s.blind.IsZero() {
		out = append(out, fmt.Sprintf("Admission is blind since %s: the API server does not ask the webhook.", s.blind.UTC().Format(time.RFC3339)))
	} else if err := s.heartbeat; err != nil && !errors.Is(err, admission.ErrBlind) {
		out = append(out, fmt.Sprintf("It is not known whether the API server asks the admission webhook: %v.", err))
	}
	if s.relaxed != (admission.Relaxation{}) {
		out = append(out, fmt.Sprintf("Denials only warn until %s (break-glass: %s).", s.relaxed.Until.Format(time.RFC3339), s.relaxed.Reason))
	}
	if s.breakGlass != nil {
		out = append(out, fmt.Sprintf("Whether the break-glass is used is not known: %v.", s.breakGlass))
	}
	return out
}
