package server

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/policy/image"
	"github.com/kubeguardian/kubeguardian/registry"
)

// openRegistries makes what reads from registries: policies that are artifacts,
// and the images of pods. Nothing is asked yet.
func (s *Server) openRegistries() error {
	access, err := registryAccess(s.cfg.Registries, false)
	if err != nil {
		return fmt.Errorf("open registries: %w", err)
	}
	s.images = image.New(image.Options{Credentials: access, Transport: access, Log: s.log})
	// Where policies come from the configuration says, and not who makes pods.
	if access, err = registryAccess(s.cfg.Registries, true); err != nil {
		return fmt.Errorf("open registries: %w", err)
	}
	s.artifacts = artifact.New(artifact.Options{Registries: access, Cache: filepath.Join(s.cfg.DataDir, "artifacts")})
	return nil
}

// pruneArtifacts removes from the data directory what earlier configurations named.
// What this one names has been read.
func (s *Server) pruneArtifacts(context.Context) error {
	removed, err := s.artifacts.Prune()
	if err != nil { // the disk fills, some day
		s.log.Warn("artifacts that are not used stay on the disk", "error", err)
	}
	if removed > 0 {
		s.log.Info("artifacts that are not used are removed from the disk", "files", removed)
	}
	return nil
}

func registryAccess(cfg config.Registries, loopback bool) (*registry.Access, error) {
	opts := registry.Options{CredentialsFile: cfg.CredentialsFile, AllowLoopback: loopback}
	for _, a := range cfg.Authorities {
		opts.Authorities = append(opts.Authorities, registry.Authority(a))
	}
	return registry.New(opts)
}
