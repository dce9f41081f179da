package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// A posture is the outcome of the last complete scan.
type posture struct {
	score control.Score
	fixes []control.Fix
	at    time.Time // zero: no scan is complete yet
}

// state is what the parts of a running server tell each other.
type state struct {
	mu         sync.RWMutex
	posture    posture
	inventory  *inventory.Inventory // nil until the watch is synced
	lastEvent  time.Time            // newest audit event received
	registered error                // why the webhook is not registered as it should be; nil when it is
}

func (s *state) update(change func(*state)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// watch follows the cluster and scans it after every change, and at least once
// in an interval, because evidence ages. A scan never runs beside another.
func (s *Server) watch(ctx context.Context) error {
	changes := make(chan *inventory.Inventory, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- inventory.Watch(ctx, s.rest, func(inv *inventory.Inventory) { replace(changes, inv) })
	}()
	tick := time.NewTicker(s.cfg.Scan.Interval)
	defer tick.Stop()
	var inv *inventory.Inventory
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch cluster: %w", err)
		case inv = <-changes:
		case <-tick.C:
		}
		if inv != nil {
			s.scan(ctx, inv)
		}
	}
}

// replace puts inv into a channel of one, in place of an older one.
func replace(changes chan *inventory.Inventory, inv *inventory.Inventory) {
	select {
	case <-changes:
	default:
	}
	changes <- inv
}

// scan evaluates all controls and keeps the result. A scan that fails leaves
// the last complete one in place; its age shows.
func (s *Server) scan(ctx context.Context, inv *inventory.Inventory) {
	s.state.update(func(st *state) { st.inventory = inv })
	at := time.Now()
	findings, err := s.catalogue.Evaluate(ctx, inv, s.defining)
	if err == nil {
		err = s.store.ReplaceFindings(ctx, findings)
	}
	if err != nil {
		if ctx.Err() == nil {
			s.metrics.scans.WithLabelValues("failed").Inc()
			s.log.Error("scan of the cluster is not complete", "error", err)
		}
		return
	}
	p := posture{control.Summarize(s.catalogue, findings), control.Fixes(s.catalogue, findings), at}
	s.state.update(func(st *state) { st.posture = p })
	s.metrics.scanned(p.score, findings, at)
	s.log.Debug("scanned the cluster", "objects", len(inv.Objects()), "findings", len(findings), "took", time.Since(at))
}

// prune removes records that are older than their retention, every hour.
func (s *Server) prune(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		now := time.Now()
		deleted, err := s.store.Prune(ctx, now.Add(-s.cfg.Retention.Alerts), now.Add(-s.cfg.Retention.Decisions))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Error("old records are not removed", "error", err)
		case deleted > 0:
			s.log.Info("removed old records", "count", deleted)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
