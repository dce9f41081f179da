package server

import (
	"context"
	"fmt"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/setting"
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
	var err error
	if len(cfg.Policies) > 0 || cfg.BuiltIn {
		s.files, err = s.artifacts.Read(ctx, content.Policies(), cfg.Policies...)
	}
	if err == nil && cfg.Defaults {
		var defaults []policy.File
		defaults, err = content.Read[policy.File](content.Defaults())
		s.files = append(s.files, defaults...)
	}
	if err != nil {
		return nil, err
	}
	if len(cfg.Policies) == 0 && cfg.BuiltIn && !cfg.Defaults && !cfg.FromCluster && cfg.Settings == "" {
		return engine.New(s.defining), nil
	}
	if cfg.Settings != "" {
		if s.settings, err = setting.Load(cfg.Settings); err != nil {
			return nil, err
		}
	}
	s.loader.Images = s.images
	set, err := s.load(s.files...)
	if err != nil {
		return nil, err
	}
	return set.Served(), nil
}

// load loads policies of files, and of the cluster beside them, as the settings
// change them.
func (s *Server) load(files ...policy.File) (*engine.Set, error) {
	return setting.With(s.settings, files, func(files []policy.File) (*engine.Set, error) { return s.loader.Load(files...) })
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
