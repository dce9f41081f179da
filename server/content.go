package server

import (
	"context"
	"fmt"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/rule"
)

// loadContent compiles the policies, rules and controls, built in or the
// user's.
func (s *Server) loadContent(context.Context) (err error) {
	// The score is always that of the built-in policies: they define controls.
	if s.defining, err = loadPolicies(policy.Load); err != nil {
		return err
	}
	s.policies = engine.New(s.defining)
	if len(s.cfg.Admission.Policies) > 0 {
		if s.policies, err = loadPolicies(engine.Load, s.cfg.Admission.Policies...); err != nil {
			return err
		}
		s.policies = s.policies.Served()
	}
	files, err := content.Read[rule.File](content.Rules(), s.cfg.Detection.Rules...)
	if err == nil {
		s.rules, err = rule.Load(files...)
	}
	if err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	if s.catalogue, err = control.LoadCatalogue(content.Controls()); err != nil {
		return fmt.Errorf("load controls: %w", err)
	}
	return nil
}

// loadPolicies loads the policies that paths name, or the built-in ones.
func loadPolicies[S any](load func(...policy.File) (S, error), paths ...string) (set S, err error) {
	files, err := content.Read[policy.File](content.Policies(), paths...)
	if err == nil {
		set, err = load(files...)
	}
	if err != nil {
		return set, fmt.Errorf("load policies: %w", err)
	}
	return set, nil
}
