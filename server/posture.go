package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"go.opentelemetry.io/otel/attribute"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/tracing"
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
	audited    audited
	inventory  *inventory.Inventory // nil until the watch is synced
	informed   *informed            // the policies in force, which see it; nil until then
	began      time.Time            // since when audit events are waited for
	lastEvent  time.Time            // newest audit event received
	contact    time.Time            // when the API server answered last
	storing    trouble              // why nothing can be stored
	retained   retained             // what was removed
	started    bool                 // scanned and registered, once
	registered error                // why the webhook is not registered as it should be; nil when it is
	draining   bool                 // the server ends
}

func (s *state) update(change func(*state)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	s.started = s.started || s.registered == nil && !s.posture.at.IsZero()
}

// scanShare bounds the share of the time that scans take: after a scan of one
// second the next one is at least nine seconds away, however busy the cluster.
const scanShare = 0.1

// contactLimit is how old the last answer of the API server may be for the
// watched inventory to count as what the cluster is now.
const contactLimit = time.Minute

// watch follows the cluster and scans it after every change, and at least once
// in an interval, because evidence ages. A scan never runs beside another.
func (s *Server) watch(ctx context.Context) error {
	changes := make(chan *inventory.Inventory, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- s.followCluster(ctx, func(inv *inventory.Inventory) {
			s.read(inv)
			replace(changes, inv)
		})
	}()
	tick := time.NewTicker(s.interval())
	defer tick.Stop()
	var inv *inventory.Inventory
	full := true // judge all, whether or not it has changed
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
		case <-s.changed.audit:
			full = true
		case <-tick.C:
			full = true
		}
		start := time.Now()
		if inv != nil {
			s.scan(ctx, inv)
			if s.force.Load() != nil {
				s.audit(ctx, inv, full)
				full = false
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(float64(time.Since(start)) * (1/scanShare - 1))):
		}
	}
}

// followAgain is how long to leave a cluster alone that gave no answer.
const followAgain = 5 * time.Second

// followCluster says what the cluster holds whenever that changes. A cluster that
// does not answer now is asked again: meanwhile alerts are taken and delivered.
func (s *Server) followCluster(ctx context.Context, onChange func(*inventory.Inventory)) error {
	for {
		err := inventory.Watch(ctx, s.rest, onChange)
		if !inventory.Passing(err) {
			return err
		}
		s.log.Error("the cluster is not read until it answers", "error", err, "again", followAgain)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followAgain):
		}
	}
}

// interval is the time after which all is judged anew. What was judged by the
// answers of providers must not count much longer than these are kept.
func (s *Server) interval() time.Duration {
	if now := s.force.Load(); now == nil || !now.set.AsksProviders() {
		return s.cfg.Scan.Interval
	}
	return min(s.cfg.Scan.Interval, max(s.cfg.Admission.ExternalData.CacheTTL, time.Minute))
}

// read makes an inventory what the cluster is now. It is called once at a time.
func (s *Server) read(inv *inventory.Inventory) {
	s.changed.mu.Lock()
	defer s.changed.mu.Unlock()
	s.state.update(func(st *state) { st.inventory, st.contact = inv, time.Now() })
	if now := s.force.Load(); now != nil {
		s.inform(now)
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
// the last complete one in place; its age shows. While the API server does not
// answer, what was seen before is not seen anew: it ages instead.
func (s *Server) scan(ctx context.Context, inv *inventory.Inventory) {
	start := time.Now()
	ctx, span := s.tracer.Start(ctx, "scan")
	findings, at, err := s.findings(ctx, inv, start)
	if err == nil && s.leads() {
		began := time.Now()
		err = s.tracer.Step(ctx, "store findings", func(ctx context.Context) error { return s.stored(s.store.ReplaceFindings(ctx, findings)) })
		s.metrics.wrote("findings", began)
	}
	span.SetAttributes(attribute.Int("kubeguardian.findings", len(findings)))
	tracing.End(span, err)
	s.metrics.scanDuration.Observe(time.Since(start).Seconds())
	if err != nil {
		if ctx.Err() == nil {
			s.metrics.scans.WithLabelValues("failed").Inc()
			s.log.Error("scan of the cluster is not complete", "error", err)
		}
		return
	}
	score, fixes := control.Assess(s.catalogue, findings)
	p := posture{score, fixes, at}
	s.state.update(func(st *state) { st.posture = p })
	s.metrics.scanned(p.score, findings, at)
	s.log.Debug("scanned the cluster", "objects", len(inv.Objects()), "findings", len(findings), "took", time.Since(start))
}

// findings returns the states as of now, and when the cluster was last seen.
func (s *Server) findings(ctx context.Context, inv *inventory.Inventory, now time.Time) ([]finding.Finding, time.Time, error) {
	s.state.mu.RLock()
	contact := s.state.contact
	s.state.mu.RUnlock()
	last, err := s.store.Findings(ctx)
	if err != nil {
		return nil, now, s.stored(err)
	}
	last = s.catalogue.Aged(last, now)
	if now.Sub(contact) >= contactLimit {
		return last, contact, nil
	}
	seen, err := s.evidence(ctx, inv, now)
	if err != nil {
		return nil, now, s.stored(err)
	}
	var findings []finding.Finding
	err = s.tracer.Step(ctx, "evaluate controls", func(ctx context.Context) (err error) {
		findings, err = s.catalogue.Evaluate(ctx, control.Input{
			Inventory: inv, Policies: s.defining, Evidence: seen, Exceptions: s.exceptions(inv), Now: now.UTC(),
		})
		return err
	})
	return append(findings, carried(last, inv)...), now, err
}

// exceptions returns the accepted risks that are objects of the cluster. One that
// cannot be read accepts nothing; the log says why.
func (s *Server) exceptions(inv *inventory.Inventory) []exception.Exception {
	var out []exception.Exception
	for _, o := range inv.Kind("kubeguardian.dev", exception.Kind) {
		x, err := exception.FromObject(o.Unstructured)
		if err != nil {
			s.log.Warn("an exception accepts nothing", "error", err)
			continue
		}
		out = append(out, x)
	}
	return out
}

// carried returns the earlier states of objects whose kind may no longer be
// read: without them, losing a permission would look like a fix.
func carried(last []finding.Finding, inv *inventory.Inventory) []finding.Finding {
	return slices.DeleteFunc(last, func(f finding.Finding) bool {
		gv, err := schema.ParseGroupVersion(f.Subject.APIVersion)
		return err != nil || f.Subject.Name == "" || inv.Gap(gv.Group, f.Subject.Kind) == ""
	})
}
