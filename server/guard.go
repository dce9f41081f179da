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
	s.announce(added)
}
