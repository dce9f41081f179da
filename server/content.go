package server

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/rule"
)

// loadContent compiles the policies, rules and controls, built in or the
// user's.
func (s *Server) loadContent(context.Context) error {
	files, err := contentFiles(s.cfg.Admission.Policies, content.Policies())
	if err != nil {
		return fmt.Errorf("load policies: %w", err)
	}
	if s.policies, err = policy.Load(as(files, func(f file) policy.File { return policy.File(f) })...); err != nil {
		return fmt.Errorf("load policies: %w", err)
	}
	if files, err = contentFiles(s.cfg.Detection.Rules, content.Rules()); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	if s.rules, err = rule.Load(as(files, func(f file) rule.File { return rule.File(f) })...); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	if s.catalogue, err = control.LoadCatalogue(content.Controls()); err != nil {
		return fmt.Errorf("load controls: %w", err)
	}
	// The score is always that of the built-in policies: they define controls.
	s.defining = s.policies
	if len(s.cfg.Admission.Policies) == 0 {
		return nil
	}
	if files, err = contentFiles(nil, content.Policies()); err != nil {
		return fmt.Errorf("load built-in policies: %w", err)
	}
	s.defining, err = policy.Load(as(files, func(f file) policy.File { return policy.File(f) })...)
	return err
}

// A file is a policy or rule file.
type file struct {
	Name string
	Data []byte
}

func as[T any](files []file, convert func(file) T) []T {
	out := make([]T, len(files))
	for i, f := range files {
		out[i] = convert(f)
	}
	return out
}

// contentFiles reads the YAML files that paths name, folders included, or the
// built-in ones when there are no paths. A path without a YAML file is an
// error.
func contentFiles(paths []string, builtin fs.FS) ([]file, error) {
	if len(paths) == 0 {
		return readFolder(builtin, "")
	}
	var files []file
	for _, path := range paths {
		found, err := readPath(path)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

func readPath(path string) ([]file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return readFolder(os.DirFS(path), path)
	}
	data, err := os.ReadFile(path)
	return []file{{path, data}}, err
}

// readFolder reads the YAML files of a folder in the order of their names;
// prefix makes their names in errors.
func readFolder(folder fs.FS, prefix string) ([]file, error) {
	var files []file
	err := fs.WalkDir(folder, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) {
			return err
		}
		data, err := fs.ReadFile(folder, path)
		files = append(files, file{filepath.Join(prefix, path), data})
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no YAML files in %s", prefix)
	}
	return files, err
}
