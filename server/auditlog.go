package server

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/k8saudit/heartbeat"
	"github.com/kubeguardian/kubeguardian/k8saudit/intake"
)

// openAuditLog makes what receives the audit log, and what looks whether it comes.
func (s *Server) openAuditLog() error {
	compat, err := k8saudit.ParseCompat(s.cfg.Detection.Compat)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	s.auditLog.Receiver = k8saudit.NewReceiver(k8saudit.ReceiverOptions{Handle: s.detect, Compat: compat, Batches: auditBatches, Bytes: auditBytes})
	s.auditLog.Unauthorized = new(atomic.Uint64)
	for _, file := range s.cfg.Detection.AuditFiles {
		s.auditLog.Tails = append(s.auditLog.Tails, k8saudit.NewTail(k8saudit.TailOptions{
			Path: file, Handle: s.detect, Compat: compat, Positions: intake.Positions{Checkpoints: s.store, Replica: s.replica}, Log: s.log,
		}))
		s.auditLog.Files = append(s.auditLog.Files, file)
	}
	s.auditWatch = heartbeat.NewWatch(heartbeat.Options{
		Client: s.client, Namespace: ownNamespace(s.cfg), Interval: s.cfg.Detection.Heartbeat, Replica: s.replica, Checkpoints: s.store,
		Raise: s.raiseAudit, Log: s.log,
	})
	return nil
}

// raiseAudit stores an alert about the audit log, once for each event. One that
// cannot be stored is no reason to end: the state says it too.
func (s *Server) raiseAudit(ctx context.Context, priority alert.Priority, rule, event, output string) {
	s.raiseAbout(ctx, finding.Subject{Kind: "AuditLog", Name: s.cfg.Cluster}, priority, rule, event, output)
}

// auditProblems returns what is wrong with the audit log, one sentence each.
func (s *Server) auditProblems() []string {
	return append(s.auditWatch.Problems(), s.auditLog.Problems()...)
}
