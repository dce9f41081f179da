package server

import (
	"context"
	"errors"
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
	if err := answerable(set); err != nil {
		return nil, fmt.Errorf("load policies: %w", err)
	}
	return set, nil
}

// answerable refuses policies that ask for what the server has no source of:
// they would fail for every request that they match.
func answerable(set *policy.Set) error {
	params, authorizer := set.Asks()
	if len(params) > 0 {
		return fmt.Errorf("parameters (paramKind %s) are not supported by serve yet", params[0].Kind)
	}
	if authorizer {
		return errors.New("the authorizer is not supported by serve yet")
	}
	if names := set.Mutating(); len(names) > 0 {
		return fmt.Errorf("mutating policies (%s) are not supported by serve yet", names[0])
	}
	return nil
}
