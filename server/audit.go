package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// An audited cluster is what the last complete audit said.
type audited struct {
	result audit.Result
	at     time.Time // zero: no audit is complete yet
}

// standing judges what is in the cluster, as admission would if it were created
// now: by the policies in force, and not in exempt namespaces. Nobody asks for
// it, so that nothing is known of rights.
type standing struct{ s *Server }

// Evaluate implements [audit.Policies]. A policy that cannot judge is an error
// beside the violations of the others.
func (a standing) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	if a.s.exempt(req.Namespace) {
		return nil, nil
	}
	a.s.state.mu.RLock()
	known := a.s.state.informed
	a.s.state.mu.RUnlock()
	if known == nil {
		return nil, errors.New("the cluster has not been read yet")
	}
	set, err := known.At(auditPoint)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var unjudged []error
	req.Params = a.s.sources.watched
	req.Unjudged = func(policy string, err error) {
		mu.Lock()
		defer mu.Unlock()
		unjudged = append(unjudged, fmt.Errorf("policy %q cannot judge: %w", policy, err))
	}
	violations, err := set.Evaluate(ctx, req)
	own, nativeErr := a.s.judgeNative(ctx, req)
	for _, v := range own { // a policy of files may be a native one too
		if !slices.ContainsFunc(violations, func(w finding.Violation) bool { return reflect.DeepEqual(v, w) }) {
			violations = append(violations, v)
		}
	}
	return violations, errors.Join(append(unjudged, err, nativeErr)...)
}

// auditPoint is the enforcement point at which Gatekeeper's constraints judge
// what is in the cluster.
const auditPoint = "audit.gatekeeper.sh"

// exempt reports whether admission is not asked about a namespace.
func (s *Server) exempt(namespace string) bool {
	return namespace != "" && namespace == ownNamespace(s.cfg) ||
		slices.Contains(admission.SystemNamespaces(), namespace) || slices.Contains(s.cfg.Admission.ExemptNamespaces, namespace)
}

// audit judges the cluster by the policies in force, all of it or what has
// changed. It ends after an interval, so that a registry or an API server that
// does not answer holds up no scan; the next one begins where it ended.
func (s *Server) audit(ctx context.Context, inv *inventory.Inventory, full bool) {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, s.cfg.Scan.Interval)
	defer cancel()
	result, err := s.auditor.Pass(limited, inv, full)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("audit of the cluster is not complete", "error", err)
		}
		return
	}
	s.state.update(func(st *state) { st.audited = audited{result, time.Now()} })
	s.metrics.audited(result)
	if s.leads() {
		s.summaries.write(ctx, s.force.Load(), &result)
	}
	s.log.Debug("audited the cluster", "objects", result.Objects, "judged", result.Judged, "violating", len(result.Found),
		"failures", len(result.Failures), "took", time.Since(start))
}

// readiness returns what the policies in force that do not deny would have denied,
// and since when that is counted.
func (s *Server) readiness(ctx context.Context, days int) ([]finding.Readiness, time.Time, error) {
	held, err := s.store.Readiness(ctx, days, time.Now())
	if err != nil {
		return nil, time.Time{}, err
	}
	since, err := s.store.HeldSince(ctx)
	now := s.force.Load()
	if now == nil {
		return nil, since, cmp.Or(err, errPoliciesUnread)
	}
	return finding.InForce(held, now.set.Enforced()), since, err
}

// lastAudit returns what the last audit said, for the page.
func (s *Server) lastAudit() (audit.Result, time.Time) {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	return s.state.audited.result, s.state.audited.at
}
