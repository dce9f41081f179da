package server

import (
	"context"
	"fmt"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/rule"
)

// loadContent compiles the policies, rules and controls, built in or the
// user's.
func (s *Server) loadContent(context.Context) (err error) {
	if s.policies, err = loadPolicies(s.cfg.Admission.Policies); err != nil {
		return err
	}
	// The score is always that of the built-in policies: they define controls.
	s.defining = s.policies
	if len(s.cfg.Admission.Policies) > 0 {
		if s.defining, err = loadPolicies(nil); err != nil {
			return err
		}
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

func loadPolicies(paths []string) (*policy.Set, error) {
	files, err := content.Read[policy.File](content.Policies(), paths...)
	if err != nil {
		return nil, fmt.Errorf("load policies: %w", err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		return nil, fmt.Errorf("load policies: %w", err)
	}
	return set, nil
}
