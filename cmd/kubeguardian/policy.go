package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/setting"
	"github.com/kubeguardian/kubeguardian/vap"
)

const policyUsage = `Usage: kubeguardian policy export --to vap|map [FLAGS] [PATH…]

Writes policies as native ones with their bindings, by which an API server judges
and changes objects without this program. PATH is a file, a folder or an OCI
artifact of policies, oci://HOST/REPOSITORY@sha256:DIGEST; without one the
built-in policies are written. Policies are ordered by name, each followed by its
bindings. A constraint whose template is in CEL becomes a policy of its own, with
its parameters. 'kubeguardian policy push --help' says how to make an artifact.

  --to vap|map         the kind of policies to write: ValidatingAdmissionPolicy or
                       MutatingAdmissionPolicy
  --manifests DIR      write static manifests, one file for each policy, for the
                       API server's own disk (Kubernetes 1.36 and later): nobody
                       can remove them through its API. Names get the ending
                       .static.k8s.io. DIR may hold nothing else that the API
                       server would read, and policies of one kind
  --skip-unsupported   name what cannot be exported on standard error, and leave
                       it out; without it nothing is written then
  --settings FILE      how far policies are enforced, whom they spare and what their
                       parameters are: kind PolicySettings (docs/policies.md)
  --stage STAGE        enforce all policies alike: dryrun records what they find,
                       warn shows it too, deny refuses it
  --output FILE        write to a file, which appears when complete
` + registryUsage + `
Exit codes: 0 written, 2 something cannot be exported.

Example: enforce the built-in policies without a webhook:

  kubeguardian policy export --to vap | kubectl apply -f -
`

// exportOptions are the flags of policy export.
type exportOptions struct {
	paths     []string
	to        string
	manifests string
	skip      bool
	output    string
	settings  string
	stage     string
	registry  registryFlags
}

func exportFlags(args []string, out io.Writer) (*exportOptions, error) {
	o := &exportOptions{}
	flags := newFlags("policy")
	flags.StringVar(&o.to, "to", "", "")
	flags.StringVar(&o.manifests, "manifests", "", "")
	flags.BoolVar(&o.skip, "skip-unsupported", false, "")
	flags.StringVar(&o.output, "output", "", "")
	flags.StringVar(&o.settings, "settings", "", "")
	flags.StringVar(&o.stage, "stage", "", "")
	o.registry.add(flags)
	rest, err := parse(flags, args, policyUsage, out)
	if err != nil {
		return nil, err
	}
	switch {
	case len(rest) == 0 || rest[0] != "export":
		err = fmt.Errorf("policy: want export or push, not %q", strings.Join(rest[:min(1, len(rest))], ""))
	case targets()[o.to] == "":
		err = errors.New("policy export: want --to vap or --to map")
	case slices.Contains(rest, ""):
		err = errors.New("policy export: a path is empty: is a variable not set?")
	case o.stage != "" && !slices.Contains(setting.Stages(), o.stage):
		err = fmt.Errorf("policy export: unknown stage %q: want one of %s", o.stage, strings.Join(setting.Stages(), ", "))
	case o.stage != "" && o.settings != "":
		err = errors.New("policy export: --settings has the stages of policies, --stage one for all: give one of them")
	case o.manifests != "" && o.output != "":
		err = errors.New("policy export: --manifests writes files in a folder, --output one file: give one of them")
	}
	if err != nil {
		return nil, wrongUsage("policy", err)
	}
	o.paths = rest[1:]
	return o, nil
}

// targets are the kinds of policies that are written, by how they are called.
func targets() map[string]vap.Target {
	return map[string]vap.Target{"vap": vap.Validating, "map": vap.Mutating}
}

// policies is the command policy.
func policies(ctx context.Context, args []string, std streams) error {
	if len(args) > 0 && args[0] == "push" {
		return pushPolicies(ctx, args[1:], std)
	}
	opts, err := exportFlags(args, std.out)
	if err != nil {
		return err
	}
	artifacts, err := opts.registry.artifacts()
	if err != nil {
		return err
	}
	builtin := content.Policies()
	if targets()[opts.to] == vap.Mutating {
		builtin = content.Defaults()
	}
	files, err := artifacts.Read(ctx, builtin, opts.paths...)
	if err != nil {
		return fmt.Errorf("read policies: %w", err)
	}
	manifests, unsupported, err := opts.export(files)
	if err != nil {
		return err
	}
	if len(unsupported) > 0 && !opts.skip {
		return hinted{errors.Join(unsupported...), "--skip-unsupported exports the others"}
	}
	for _, u := range unsupported {
		fmt.Fprintf(std.err, "kubeguardian: note: %v\n", u)
	}
	if len(manifests) == 0 {
		return errors.New("no policies to export")
	}
	return opts.write(manifests, std.out)
}

// export returns the policies in files as they are to be enforced, and what cannot
// be exported.
func (o *exportOptions) export(files []policy.File) (manifests []vap.Manifest, unsupported []error, err error) {
	use := func(files []policy.File) ([]vap.Manifest, error) {
		manifests, unsupported, err = vap.Export(files, targets()[o.to], o.manifests != "")
		return manifests, err
	}
	if o.stage == "" {
		manifests, err = withSettings(o.settings, files, use)
		return manifests, unsupported, err
	}
	settings, err := setting.Stage(o.stage)
	if err == nil {
		manifests, err = setting.With(settings, files, use)
	}
	return manifests, unsupported, err
}

func (o *exportOptions) write(manifests []vap.Manifest, stdout io.Writer) error {
	if o.manifests != "" {
		return writeManifests(o.manifests, manifests)
	}
	var texts [][]byte
	for _, m := range manifests {
		texts = append(texts, m.Data)
	}
	all := bytes.Join(texts, []byte("---\n"))
	if o.output != "" {
		return writeFile(o.output, func(w io.Writer) error { _, err := w.Write(all); return err })
	}
	_, err := stdout.Write(all)
	return err
}

// writeManifests writes a file for each policy. The API server reads all of the
// folder and refuses it for one file that is wrong, so that nothing else may be
// there, such as what an earlier export wrote and this one does not have.
func writeManifests(dir string, manifests []vap.Manifest) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		own := slices.ContainsFunc(manifests, func(m vap.Manifest) bool { return m.Name+".yaml" == e.Name() })
		if read := slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(e.Name()))); read && !own {
			return hinted{fmt.Errorf("%s is not part of this export", filepath.Join(dir, e.Name())),
				"the API server would read it too: remove it, or name another folder"}
		}
	}
	for _, m := range manifests {
		err := writeFile(filepath.Join(dir, m.Name+".yaml"), func(w io.Writer) error { _, err := w.Write(m.Data); return err })
		if err != nil {
			return err
		}
	}
	return nil
}
