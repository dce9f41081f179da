package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

// How the server watches over its own admission webhook. After blindAfter probes
// in a row that the API server let through unasked, admission is blind: one may
// be lost while a registration spreads.
const (
	beatInterval = 3 * time.Second
	blindAfter   = 3
)

// The rules of the alerts that the server raises about itself.
const (
	ruleBlind      = "Admission is blind"
	ruleSees       = "Admission is no longer blind"
	ruleBreakGlass = "Admission break-glass used"
	ruleEnforced   = "Admission break-glass ended"
)

// A watchman remembers what the last probes said. It belongs to one goroutine.
type watchman struct {
	last     time.Time // the last probe that came back; zero: none since the start
	misses   int
	blind    time.Time // since when; zero: not blind
	relaxed  admission.Relaxation
	problems [2]error // of break-glass and heartbeat, to log what is news
}

// guard asks the cluster again and again whether the webhook is asked, and
// whether people switched enforcement off.
func (s *Server) guard(ctx context.Context) error {
	if !s.cfg.Admission.Enabled {
		return nil
	}
	var w watchman
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		s.checkBreakGlass(ctx, &w)
		s.beat(ctx, &w)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// beat sends one probe and tells what changed by it.
func (s *Server) beat(ctx context.Context, w *watchman) {
	probe, cancel := context.WithTimeout(ctx, beatInterval)
	defer cancel()
	err := s.heartbeat.Beat(probe)
	now := time.Now()
	switch {
	case ctx.Err() != nil || s.removing.Load():
		return
	case err == nil:
		s.seen(ctx, w, now)
	case errors.Is(err, admission.ErrBlind):
		if w.misses++; w.misses >= blindAfter && w.blind.IsZero() {
			w.blind = now
			s.metrics.blind.Set(1)
			s.log.Error("admission is blind", "since", w.last, "error", err)
			s.raise(ctx, alert.Critical, ruleBlind, now.String(), "Requests are not checked: the API server does not ask the webhook, although it is registered; see what keeps it from reaching the webhook")
		}
	}
	s.news(&w.problems[1], err)
	s.state.update(func(st *state) { st.blind, st.heartbeat = w.blind, err })
}

// seen notes a probe that came back. The first one after a start shows for how
// long nobody looked: without other replicas, nobody judged either.
func (s *Server) seen(ctx context.Context, w *watchman, now time.Time) {
	switch before := s.lastBeat(); {
	case !w.blind.IsZero():
		s.log.Info("admission is no longer blind", "since", w.blind)
		s.raise(ctx, alert.Notice, ruleSees, now.String(), fmt.Sprintf("The API server asks the webhook again; it did not from %s on", w.blind.UTC().Format(time.RFC3339)))
	case w.last.IsZero() && !before.IsZero() && now.Sub(before) > blindAfter*beatInterval && s.cfg.Webhook.AuthoritySecret == "":
		s.raise(ctx, alert.Critical, ruleBlind, before.String(), fmt.Sprintf("Requests were not checked from %s to %s: the server did not run", before.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
	}
	w.last, w.misses, w.blind = now, 0, time.Time{}
	s.metrics.blind.Set(0)
	s.metrics.lastBeat.Set(float64(now.UnixMilli()) / 1000)
	if err := s.keepBeat(now); err != nil {
		s.log.Error("the admission heartbeat is not kept", "error", err)
	}
}

// beatFile is touched by each probe that came back.
func (s *Server) beatFile() string { return filepath.Join(s.cfg.DataDir, "heartbeat") }

func (s *Server) keepBeat(now time.Time) error {
	err := os.Chtimes(s.beatFile(), now, now)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(s.beatFile(), nil, 0o600)
	}
	return err
}

// lastBeat returns when a probe came back last, in this life of the server or
// the one before; zero when it never did.
func (s *Server) lastBeat() time.Time {
	info, err := os.Stat(s.beatFile())
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// checkBreakGlass reads whether enforcement is switched off, and tells when that
// begins and ends.
func (s *Server) checkBreakGlass(ctx context.Context, w *watchman) {
	err := s.breakGlass.Check(ctx)
	if ctx.Err() != nil {
		return
	}
	s.news(&w.problems[0], err)
	relaxation, active := s.breakGlass.Active()
	switch {
	case active && relaxation != w.relaxed:
		s.metrics.relaxed.Set(1)
		s.log.Warn("break-glass: denials only warn", "until", relaxation.Until, "reason", relaxation.Reason)
		s.raise(ctx, alert.Critical, ruleBreakGlass, fmt.Sprint(relaxation), fmt.Sprintf("Denials only warn until %s: %s", relaxation.Until.Format(time.RFC3339), relaxation.Reason))
		w.relaxed = relaxation
	case !active && w.relaxed != (admission.Relaxation{}):
		s.metrics.relaxed.Set(0)
		s.log.Info("break-glass ended: denials are enforced", "reason", w.relaxed.Reason)
		s.raise(ctx, alert.Notice, ruleEnforced, fmt.Sprint(w.relaxed), "Denials are enforced again: "+w.relaxed.Reason)
		w.relaxed = admission.Relaxation{}
	}
	s.state.update(func(st *state) { st.relaxed, st.breakGlass = w.relaxed, err })
}

// news logs an error that differs from the one before.
func (s *Server) news(before *error, err error) {
	if err != nil && (*before == nil || (*before).Error() != err.Error()) {
		s.log.Error("admission is not looked after", "error", err)
	}
	*before = err
}

// raise stores an alert of the server about its webhook, once for each event.
func (s *Server) raise(ctx context.Context, priority alert.Priority, rule, event, output string) {
	subject := finding.Subject{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration", Name: admission.ConfigurationName}
	s.raiseAbout(ctx, subject, priority, rule, event, output)
}

// raiseAbout stores an alert of the server, by one of several replicas.
func (s *Server) raiseAbout(ctx context.Context, subject finding.Subject, priority alert.Priority, rule, event, output string) {
	a := alert.Alert{
		ID: alert.NewID("kubeguardian", event, rule), Time: time.Now().UTC(), Rule: rule, Priority: priority,
		Source: "kubeguardian", Output: output, OutputFields: map[string]any{"cluster": s.cfg.Cluster}, Tags: []string{"kubeguardian"}, Cluster: s.cfg.Cluster,
		Subject: subject,
	}
	if !s.leads() {
		return // who leads sees the same
	}
	added, err := s.store.AddAlerts(ctx, []alert.Alert{a})
	if s.stored(err) != nil {
		s.log.Error("an alert is not stored", "rule", rule, "output", output, "error", err)
		return
	}
	s.metrics.alerted(added)
	s.notifier.Observe(added)
	s.page.Publish(added)
	s.joiner.Alerted()
}

// guarded returns what is wrong with admission, one sentence each.
func (st *state) guarded() []string {
	var out []string
	if !st.blind.IsZero() {
		out = append(out, fmt.Sprintf("Admission is blind since %s: the API server does not ask the webhook.", st.blind.UTC().Format(time.RFC3339)))
	} else if err := st.heartbeat; err != nil && !errors.Is(err, admission.ErrBlind) {
		out = append(out, fmt.Sprintf("It is not known whether the API server asks the admission webhook: %v.", err))
	}
	if st.relaxed != (admission.Relaxation{}) {
		out = append(out, fmt.Sprintf("Denials only warn until %s (break-glass: %s).", st.relaxed.Until.Format(time.RFC3339), st.relaxed.Reason))
	}
	if st.breakGlass != nil {
		out = append(out, fmt.Sprintf("Whether the break-glass is used is not known: %v.", st.breakGlass))
	}
	return out
}
