package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy/image"
	"github.com/kubeguardian/kubeguardian/registry"
)

// registryUsage describes registryFlags.
const registryUsage = `  --registry-config FILE
                       a configuration file of Docker with names and passwords of
                       registries; no helper program that it names is run
  --registry-ca HOST=FILE
                       who vouches for a registry, as PEM; may be given several
                       times
`

// registryFlags are the flags of commands that ask registries.
type registryFlags struct{ options registry.Options }

func (r *registryFlags) add(flags *flag.FlagSet) {
	flags.StringVar(&r.options.CredentialsFile, "registry-config", "", "")
	flags.Func("registry-ca", "", func(s string) error {
		host, file, ok := strings.Cut(s, "=")
		if !ok || host == "" || file == "" {
			return errors.New("want HOST=FILE")
		}
		r.options.Authorities = append(r.options.Authorities, registry.Authority{Host: host, CAFile: file})
		return nil
	})
}

// artifacts returns what reads policies from registries, which the user names.
func (r *registryFlags) artifacts() (*artifact.Client, error) {
	options := r.options
	options.AllowLoopback = true
	access, err := registry.New(options)
	if err != nil {
		return nil, fmt.Errorf("open registries: %w", err)
	}
	return artifact.New(artifact.Options{Registries: access}), nil
}

// loader returns what loads policies, which may ask registries about images.
func (r *registryFlags) loader() (engine.Loader, error) {
	access, err := registry.New(r.options)
	if err != nil {
		return engine.Loader{}, fmt.Errorf("open registries: %w", err)
	}
	return engine.Loader{Images: image.New(image.Options{Credentials: access, Transport: access})}, nil
}
