package review

import (
	"context"
	"errors"
	"fmt"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kubeguardian/kubeguardian/audit"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// Cluster judges what is in a cluster, as an audit does: as if each object were
// created now, as it is, so that nothing is mutated. What policies ask for is
// looked up among the known objects, which are those of the cluster and more. Who
// asks is known only if user has a name: without one a policy that asks the
// authorizer cannot judge. The violations are in the order of the objects. The
// error joins what could not be judged, and each kind that could not be read, but
// for Secrets, which never are.
func Cluster(ctx context.Context, policies *engine.Set, cluster, known *inventory.Inventory, user authenticationv1.UserInfo) ([]Violation, error) {
	r, err := New(policies, known)
	if err != nil {
		return nil, err
	}
	r.User = user
	result, err := audit.New(standing{r}).Pass(ctx, cluster, true)
	if err != nil {
		return nil, err
	}
	var out []Violation
	for _, v := range result.Violations() {
		out = append(out, newViolation(v.Subject, v.Violation))
	}
	var unjudged []error
	for _, f := range result.Failures {
		unjudged = append(unjudged, fmt.Errorf("judge %s: %s", f.Subject, f.Reason))
	}
	for _, gap := range cluster.Gaps {
		if gap.Kind.Group != "" || gap.Kind.Kind != "Secret" {
			unjudged = append(unjudged, fmt.Errorf("judge objects of kind %s: %s", gap.Kind, gap.Reason))
		}
	}
	return out, errors.Join(unjudged...)
}

// standing lets an audit ask for what a reviewer knows.
type standing struct{ *Reviewer }

// Evaluate implements [audit.Policies].
func (s standing) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	namespaces := req.Namespaces // of the cluster, read once
	req = s.with(req)
	if req.Namespaces = namespaces; s.User.Username == "" {
		req.Authorizer = nil
	}
	req.User = s.User
	var mu sync.Mutex
	var unjudged []error
	req.Unjudged = func(policy string, err error) {
		mu.Lock()
		defer mu.Unlock()
		unjudged = append(unjudged, fmt.Errorf("policy %q cannot judge: %w", policy, err))
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	violations, err := s.policies.Evaluate(ctx, req)
	return violations, errors.Join(append(unjudged, err)...)
}
