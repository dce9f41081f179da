package server

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/clusterpolicy"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/setting"
)

// policySources are what the configuration names, as it was read.
type policySources struct {
	files    []policy.File
	settings []byte // nil: none are named
}

// policySources reads what the configuration names. An artifact is read once: its
// digest says what it is.
func (s *Server) policySources(ctx context.Context) (found policySources, err error) {
	cfg := s.cfg.Admission
	if len(cfg.Policies) == 0 && cfg.BuiltIn {
		found.files, err = content.Read[policy.File](content.Policies())
	}
	for _, path := range cfg.Policies {
		files, known := s.pulled[path]
		if !known && err == nil {
			files, err = s.artifacts.Read(ctx, content.Policies(), path)
		}
		if artifact.IsReference(path) && err == nil {
			s.pulled[path] = files
		}
		found.files = append(found.files, files...)
	}
	if err == nil && cfg.Defaults {
		var defaults []policy.File
		defaults, err = content.Read[policy.File](content.Defaults())
		found.files = append(found.files, defaults...)
	}
	if err == nil && cfg.Settings != "" {
		found.settings, err = setting.Read(cfg.Settings)
	}
	return found, err
}

// fingerprint identifies what was read, or why it was not.
func (p policySources) fingerprint(err error) [sha256.Size]byte {
	return fingerprint(append(slices.Clone(p.files), policy.File{Name: "settings", Data: p.settings}), err)
}

// compilePolicies loads policies of files as their settings change them.
func (s *Server) compilePolicies(found policySources) (set *engine.Set, settings *setting.Settings, err error) {
	if found.settings != nil {
		if settings, err = setting.Parse(s.cfg.Admission.Settings, found.settings); err != nil {
			return nil, nil, err
		}
	}
	set, err = loading(&s.loader, settings)(found.files...)
	return set, settings, err
}

// loading returns what loads policies as settings change them, which may be nil.
func loading(loader *engine.Loader, settings *setting.Settings) func(files ...policy.File) (*engine.Set, error) {
	return func(files ...policy.File) (*engine.Set, error) {
		return setting.With(settings, files, func(files []policy.File) (*engine.Set, error) { return loader.Load(files...) })
	}
}

// watchPolicies loads the user's policies and their settings again when their files
// change. A request is judged by the ones before or by the new ones.
func (s *Server) watchPolicies(ctx context.Context) error {
	cfg := s.cfg.Admission
	if cfg.Settings == "" && !slices.ContainsFunc(cfg.Policies, func(path string) bool { return !artifact.IsReference(path) }) {
		return nil
	}
	return s.reloads.policies.follow(ctx, s, func() ([sha256.Size]byte, func(context.Context) error) {
		found, err := s.policySources(ctx)
		return found.fingerprint(err), func(ctx context.Context) error {
			if err != nil {
				return err
			}
			return s.usePolicies(ctx, found)
		}
	})
}

// usePolicies puts policies of files in force, in place of those before, and
// beside those of the cluster.
func (s *Server) usePolicies(ctx context.Context, found policySources) error {
	set, settings, err := s.compilePolicies(found)
	if err != nil {
		return err
	}
	for _, err := range set.Conflicts() {
		s.log.Warn("a mutator is not in force", "error", err)
	}
	if s.cluster != nil {
		return s.cluster.Rebase(ctx, found.files, loading(&s.beside, settings))
	}
	return s.enforce(clusterpolicy.State{Enforced: set, Base: found.files})
}
