package server

import (
	"context"
	"path/filepath"
	"time"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/admission/watch"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
)

// openWatchman makes what looks after the webhook, and tells of it in alerts.
func (s *Server) openWatchman() error {
	heartbeat, err := admission.NewHeartbeat(s.rest, ownNamespace(s.cfg))
	if err != nil {
		return err
	}
	s.watchman = watch.New(watch.Options{
		Heartbeat: heartbeat, BreakGlass: s.breakGlass,
		File: filepath.Join(s.cfg.DataDir, "heartbeat"), Alone: s.cfg.Webhook.AuthoritySecret == "",
		Removing: s.removing.Load, Raise: s.raise, Log: s.log,
	})
	return nil
}

// guard looks after admission, where it is enabled, until ctx ends.
func (s *Server) guard(ctx context.Context) {
	if s.cfg.Admission.Enabled {
		s.watchman.Run(ctx)
	}
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
	s.raiseAll(ctx, []alert.Alert{{ID: event, Rule: rule, Priority: priority, Output: output, Subject: subject}})
}

// raiseAll stores alerts of the server, by one of several replicas, whose ids are so
// far those of what happened. It returns those that were not raised before.
func (s *Server) raiseAll(ctx context.Context, list []alert.Alert) (added []alert.Alert) {
	if !s.leads() || len(list) == 0 {
		return nil // who leads sees the same
	}
	for i := range list {
		a := &list[i]
		a.ID, a.Time = alert.NewID("kubeguardian", a.ID, a.Rule), time.Now().UTC()
		a.Source, a.Tags, a.Cluster = "kubeguardian", []string{"kubeguardian"}, s.cfg.Cluster
		a.OutputFields = map[string]any{"cluster": s.cfg.Cluster}
	}
	added, err := s.store.AddAlerts(ctx, list)
	if s.stored(err) != nil {
		s.log.Error("alerts are not stored", "alerts", len(list), "rule", list[0].Rule, "output", list[0].Output, "error", err)
		return nil
	}
	s.announce(added)
	return added
}
