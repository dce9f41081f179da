package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/dynamic"

	"github.com/kubeguardian/kubeguardian/clusterpolicy"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/leader"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/web"
)

// inForce is what admission judges by, of files and of the cluster.
type inForce struct {
	set     *engine.Set
	cluster clusterpolicy.State // empty when policies come from files alone
	listed  web.Policies
}

var errPoliciesUnread = errors.New("read policies: those of the cluster have not been read yet")

// policiesChanged tells the parts of the server that other policies are in force.
type policiesChanged struct {
	mu                  *sync.Mutex   // of what changes what policies see
	audit, registration chan struct{} // hold one signal at most
}

func newPoliciesChanged() policiesChanged {
	return policiesChanged{&sync.Mutex{}, make(chan struct{}, 1), make(chan struct{}, 1)}
}

// followPolicies makes what follows the policies of the cluster.
func (s *Server) followPolicies(context.Context) error {
	if !s.cfg.Admission.FromCluster {
		return nil
	}
	replica, err := leader.Name(filepath.Join(s.cfg.DataDir, "replica"))
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(s.rest)
	if err != nil {
		return fmt.Errorf("connect to cluster: %w", err)
	}
	s.cluster, err = clusterpolicy.New(clusterpolicy.Options{
		Config: s.rest, Base: s.files, Load: loading(&s.beside, s.settings), KeepFile: filepath.Join(s.cfg.DataDir, "policies.json"),
		Replica: replica, Namespace: ownNamespace(s.cfg), Log: s.log,
		Publish: func(now clusterpolicy.State) {
			if err := s.enforce(now); err != nil { // what was in force stays
				s.log.Error("the policies of the cluster do not come into force", "error", err)
			}
		},
	})
	s.summaries = summaries{s.cluster, client, s.log, map[[2]string]string{}}
	return err
}

// enforce makes other policies those in force. A request is judged by the old ones
// or the new ones, never by some of both. The error is of the certificate for
// providers; then nothing has changed.
func (s *Server) enforce(now clusterpolicy.State) error {
	s.changed.mu.Lock()
	defer s.changed.mu.Unlock()
	set, err := s.askingProviders(now.Enforced.Served())
	if err != nil {
		return err
	}
	next := newInForce(set, now, namedIn(now.Base))
	s.inform(next)
	s.force.Store(next)
	s.metrics.policies(next.listed)
	for _, c := range []chan struct{}{s.changed.audit, s.changed.registration} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return nil
}

// inform lets policies see what is in the cluster, once it was read.
func (s *Server) inform(now *inForce) {
	s.state.mu.RLock()
	inv, before := s.state.inventory, s.state.informed
	s.state.mu.RUnlock()
	if inv == nil {
		return
	}
	next := &informed{Set: now.set}
	if before != nil && before.ReadsInventory() {
		next = &informed{Set: now.set.WithInventoryOf(before.Set), objects: before.objects}
	}
	next, err := next.with(inv)
	if err != nil { // policies go on with what was seen before
		s.log.Error("policies do not see what has changed in the cluster", "error", err)
		if before != nil {
			next = &informed{Set: now.set.WithInventoryOf(before.Set), objects: before.objects}
		}
	}
	s.state.update(func(st *state) { st.informed = next })
}

// runaways counts the evaluations in force that did not end in time, and run on.
func (s *Server) runaways() int {
	if now := s.force.Load(); now != nil {
		return now.set.Runaways()
	}
	return 0
}

// rulesOf returns what the policies in force match, none while they are unknown.
func (s *Server) rulesOf(rules func(*engine.Set) []admissionregistrationv1.RuleWithOperations) []admissionregistrationv1.RuleWithOperations {
	if now := s.force.Load(); now != nil {
		return rules(now.set)
	}
	return nil
}

// judgeNative judges what is there by the native policies of the cluster. At the
// door the API server does so itself.
func (s *Server) judgeNative(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	now := s.force.Load()
	if now == nil || now.cluster.Native == nil {
		return nil, nil
	}
	return now.cluster.Native.Evaluate(ctx, req)
}

// problems returns what is wrong with policies, one sentence each.
func (f *inForce) problems() (out []string) {
	if f == nil {
		return []string{"The policies of the cluster have not been read yet: requests are not judged."}
	}
	for _, reason := range f.listed.Unread {
		out = append(out, fmt.Sprintf("Policies of the cluster are not read: %s.", reason))
	}
	broken := 0
	for _, p := range f.listed.Items {
		if len(p.Errors) > 0 {
			broken++
		}
	}
	if broken > 0 {
		out = append(out, fmt.Sprintf("Policies with mistakes: %d; see their status, or /api/v1/policies.", broken))
	}
	return out
}

// newInForce returns policies with the list of them. named are those of files.
func newInForce(set *engine.Set, cluster clusterpolicy.State, named []web.Policy) *inForce {
	listed := web.Policies{Items: slices.Clone(named), Status: cluster.Foreign}
	for _, err := range set.Conflicts() {
		for i, p := range listed.Items {
			if text := err.Error(); strings.HasPrefix(text, p.Source+":") && strings.Contains(text, fmt.Sprintf("%s %q is disabled", p.Kind, p.Name)) {
				listed.Items[i].Enforced, listed.Items[i].Errors = "nobody", []web.PolicyError{{Code: policy.CodeOf(err), Message: text}}
			}
		}
	}
	for _, err := range cluster.Unread {
		listed.Unread = append(listed.Unread, err.Error())
	}
	for _, o := range cluster.Objects {
		listed.Items = append(listed.Items, ofCluster(o))
	}
	return &inForce{set, cluster, listed}
}

// ofCluster returns what is shown of a policy of the cluster.
func ofCluster(o clusterpolicy.Object) web.Policy {
	p := web.Policy{Kind: o.Kind.Kind, Namespace: o.Namespace, Name: o.Name, Source: "cluster", Enforced: "nobody", Stale: o.Stale}
	switch {
	case o.Native && o.InForce:
		p.Enforced = "apiserver"
	case o.InForce:
		p.Enforced = "admission"
	}
	for _, problem := range o.Problems {
		p.Errors = append(p.Errors, web.PolicyError{Code: problem.Code, Message: problem.Message, Location: problem.Location})
	}
	return p
}

// listed returns what admission and the audit judge by.
func (s *Server) listed() web.Policies {
	now := s.force.Load()
	if now == nil {
		return web.Policies{Items: s.named, Unread: []string{errPoliciesUnread.Error()}}
	}
	return now.listed
}

// namedIn returns the policies in files, which have been loaded.
func namedIn(files []policy.File) (out []web.Policy) {
	for _, f := range files {
		docs, err := policy.Documents(f)
		if err != nil {
			continue // a key beside image policies
		}
		for _, d := range docs {
			metadata, _ := d.Object()["metadata"].(map[string]any)
			name, _ := metadata["name"].(string)
			out = append(out, web.Policy{Kind: d.Text("kind"), Name: name, Source: f.Name, Enforced: "admission"})
		}
	}
	return out
}

// policies counts what is in force.
func (m *metrics) policies(listed web.Policies) {
	m.inForce.Reset()
	m.policyErrors.Reset()
	for _, p := range listed.Items {
		source := "files"
		if p.Source == "cluster" {
			source = p.Source
		}
		m.inForce.WithLabelValues(p.Kind, source, strconv.FormatBool(p.Enforced != "nobody")).Inc()
		if len(p.Errors) > 0 {
			m.policyErrors.WithLabelValues(p.Kind, p.Errors[0].Code).Inc()
		}
	}
}
