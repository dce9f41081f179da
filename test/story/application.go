package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Deploy applies a variant of the reference application, "insecure" or
// "secured", and returns what kubectl printed, warnings included.
func (s *Story) Deploy(ctx context.Context, variant string) (string, error) {
	manifests := filepath.Join(s.Root, "examples/internship-matcher/deploy")
	if variant == "secured" {
		if err := s.installCRDs(ctx, filepath.Join(manifests, "crds")); err != nil {
			return "", err
		}
	}
	said, err := s.apply(ctx, filepath.Join(manifests, variant))
	if err != nil || s.External() {
		return said, err
	}
	// The lab has no node on which new pods could become ready, so that no
	// rollout would ever end: the controllers make all pods anew.
	_, err = s.Kubectl(ctx, "delete", "replicasets,pods", "--all", "--namespace", "internship-matcher")
	return said, err
}

// installCRDs installs the custom resources that hold the sealed secrets,
// unless the cluster has them.
func (s *Story) installCRDs(ctx context.Context, folder string) error {
	for file, name := range map[string]string{
		"sealedsecrets.yaml":   "sealedsecrets.bitnami.com",
		"externalsecrets.yaml": "externalsecrets.external-secrets.io",
	} {
		if err := s.installCRD(ctx, filepath.Join(folder, file), name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Story) installCRD(ctx context.Context, file, name string) error {
	found, err := s.Kubectl(ctx, "get", "customresourcedefinition", name, "--ignore-not-found", "--output", "name")
	if err != nil || found != "" {
		return err
	}
	if _, err := s.apply(ctx, file); err != nil {
		return err
	}
	_, err = s.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "customresourcedefinition/"+name)
	return err
}

// apply applies manifests and remembers to remove them.
func (s *Story) apply(ctx context.Context, path string) (string, error) {
	kubectl, err := s.kubectl(ctx)
	if err != nil {
		return "", err
	}
	s.applied = append(s.applied, path)
	cmd := exec.CommandContext(ctx, kubectl, "--kubeconfig", s.Kubeconfig, "apply", "--recursive", "-f", path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("apply %s: %w\n%s", path, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// remove deletes from the cluster what the story applied, newest first.
func (s *Story) remove(ctx context.Context) error {
	var errs []error
	for i := len(s.applied) - 1; i >= 0; i-- {
		_, err := s.Kubectl(ctx, "delete", "--recursive", "--ignore-not-found", "--wait=false", "-f", s.applied[i])
		errs = append(errs, err)
	}
	s.applied = nil
	return errors.Join(errs...)
}

// Scan scans the cluster and returns the report in a format.
func (s *Story) Scan(ctx context.Context, format string) (string, error) {
	out, err := s.Kubeguardian(ctx, "scan", "--cluster", "--kubeconfig", s.access, "--format", format)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // findings
		return out, nil
	}
	return out, err
}

// Undo removes what attacks left in the cluster, or may have left.
func (s *Story) Undo(ctx context.Context) error {
	var errs []error
	for _, object := range s.touched {
		args := []string{"delete", strings.ToLower(object.Kind), object.Name, "--ignore-not-found", "--wait=false"}
		if object.Namespace != "" {
			args = append(args, "--namespace", object.Namespace)
		}
		_, err := s.Kubectl(ctx, args...)
		errs = append(errs, err)
	}
	s.touched = nil
	return errors.Join(errs...)
}
