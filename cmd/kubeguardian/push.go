package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kubeguardian/kubeguardian/artifact"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/engine"
	"github.com/kubeguardian/kubeguardian/policy"
)

const pushUsage = `Usage: kubeguardian policy push [FLAGS] [PATH…] oci://HOST/REPOSITORY[:TAG]

Puts policies into a registry, as an OCI artifact with a layer for each file, and
prints the reference by which they are taken: oci://HOST/REPOSITORY@sha256:DIGEST.
The digest follows from the names and the content of the files alone. PATH is a
file or a folder, of which the YAML files are taken; without one the built-in
policies are. Policies that do not load are not pushed; what else stands beside
them, such as their parameters, is.

` + registryUsage + `
Exit codes: 0 pushed, 2 not.

Example: judge by policies that are the same everywhere:

  kubeguardian policy push ./policies oci://registry.example.com/team/policies:1.4
  kubeguardian review --policies oci://registry.example.com/team/policies@sha256:… ./deploy
`

// pushPolicies is the command policy push.
func pushPolicies(ctx context.Context, args []string, std streams) error {
	var registries registryFlags
	flags := newFlags("policy push")
	registries.add(flags)
	rest, err := parse(flags, args, pushUsage, std.out)
	if err != nil {
		return err
	}
	if len(rest) == 0 || !artifact.IsReference(rest[len(rest)-1]) {
		return wrongUsage("policy push", errors.New("policy push: want oci://HOST/REPOSITORY as the last argument"))
	}
	paths, to := rest[:len(rest)-1], rest[len(rest)-1]
	if slices.ContainsFunc(paths, artifact.IsReference) {
		return wrongUsage("policy push", errors.New("policy push: want files or folders, and one reference"))
	}
	files, err := toPush(paths)
	if err != nil {
		return err
	}
	client, err := registries.artifacts()
	if err != nil {
		return err
	}
	pinned, err := client.Push(ctx, to, files)
	if err != nil {
		return err
	}
	_, err = io.WriteString(std.out, pinned+"\n")
	return err
}

// toPush returns the files under paths, with their names in an artifact.
func toPush(paths []string) ([]policy.File, error) {
	if len(paths) == 0 {
		return content.Read[policy.File](content.Policies())
	}
	var all, below []policy.File
	for _, path := range paths {
		files, err := content.Read[policy.File](nil, path)
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		all, below = append(all, files...), append(below, artifact.Below(path, files)...)
	}
	policies, _, err := engine.Split(all...)
	if err != nil {
		return nil, err
	}
	if len(policies) == 0 {
		return nil, errors.New("no policies to push")
	}
	_, err = engine.Load(policies...)
	return below, err
}
