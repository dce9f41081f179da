package server

import (
	"context"
	"fmt"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/policy"
)

// loadContent compiles the policies, rules and controls, built in or the
// user's.
func (s *Server) loadContent(ctx context.Context) (err error) {
	if err := s.openRegistries(); err != nil {
		return err
	}
	// The score is always that of the built-in policies: they define controls.
	if s.defining, err = loadPolicies(); err != nil {
		return err
	}
	if s.policies, err = s.enforcing(ctx); err != nil {
		return fmt.Errorf("load policies: %w", err)
	}
	s.named = namedIn(s.files)
	for _, err := range s.policies.Conflicts() {
		s.log.Warn("a mutator is not in force", "error", err)
	}
	s.enrich = enrichment.New()
	if err := s.loadRules(); err != nil {
		return err
	}
	if s.catalogue, err = control.LoadCatalogue(content.Controls()); err != nil {
		return fmt.Errorf("load controls: %w", err)
	}
	return nil
}

// enforcing returns the policies that admission enforces.
func (s *Server) enforcing(ctx context.Context) (*engine.Set, error) {
	cfg := s.cfg.Admission
	if len(cfg.Policies) == 0 && cfg.BuiltIn && !cfg.Defaults && !cfg.FromCluster && cfg.Settings == "" {
		var err error
		s.files, err = content.Read[policy.File](content.Policies())
		return engine.New(s.defining), err
	}
	s.loader.Images, s.beside.Images = s.images, s.images
	found, err := s.policySources(ctx)
	s.reloads.policies.seen = found.fingerprint(err)
	if err != nil {
		return nil, err
	}
	set, settings, err := s.compilePolicies(found)
	if err != nil {
		return nil, err
	}
	s.files, s.settings = found.files, settings
	return set.Served(), nil
}

// loadPolicies loads the built-in policies.
func loadPolicies() (*policy.Set, error) {
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		return nil, fmt.Errorf("load policies: %w", err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		return nil, fmt.Errorf("load policies: %w", err)
	}
	return set, nil
}
