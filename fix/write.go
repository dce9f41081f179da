package fix

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// Diff returns all changes as one unified diff, as patch and git apply read it.
// It is its own inverse: with -R they take it back.
func (p *Plan) Diff() string {
	var b strings.Builder
	for _, f := range p.Files {
		name := strings.TrimPrefix(filepath.ToSlash(f.Name), "/")
		from := "a/" + name
		if f.New {
			from = "/dev/null"
		}
		b.Write(diff.Diff(from, f.Before, "b/"+name, f.After))
	}
	return b.String()
}

// Write makes the changes on disk and returns the names of the files that have
// changed. Each file changes at once or not at all, and keeps its mode; a link
// stays, and what it leads to changes. A file that is not in the given paths,
// or that has changed since it was read, is left alone and is an error.
func (p *Plan) Write() (written []string, err error) {
	var errs []error
	for _, f := range p.Files {
		if err := p.write(f); err != nil {
			errs = append(errs, fmt.Errorf("write %s: %w", f.Name, err))
			continue
		}
		written = append(written, f.Name)
	}
	return written, errors.Join(errs...)
}

func (p *Plan) write(f File) error {
	var target string
	mode := fs.FileMode(0o644)
	if f.New {
		dir, err := filepath.EvalSymlinks(filepath.Dir(f.Name))
		if err != nil {
			return err
		}
		target = filepath.Join(dir, filepath.Base(f.Name))
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(errors.New("it exists already"), err)
		}
	} else {
		var err error
		if target, err = filepath.EvalSymlinks(f.Name); err != nil {
			return err
		}
		info, err := os.Stat(target)
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
		if now, err := os.ReadFile(target); err != nil || !bytes.Equal(now, f.Before) {
			return errors.Join(errors.New("it has changed since it was read"), err)
		}
	}
	if !p.within(target) {
		return fmt.Errorf("it leads to %s, which is outside of the given paths", target)
	}
	return replace(target, f.After, mode)
}

// within reports whether a real file is one of the given paths, or in one.
func (p *Plan) within(target string) bool {
	target, err := filepath.Abs(target)
	if err != nil {
		return false
	}
	for _, root := range p.paths {
		real, err := filepath.EvalSymlinks(root)
		if err != nil {
			continue
		}
		if real, err = filepath.Abs(real); err != nil {
			continue
		}
		if rel, err := filepath.Rel(real, target); err == nil && (rel == "." || filepath.IsLocal(rel)) {
			return true
		}
	}
	return false
}

// replace makes a file appear, or change, only once it is complete.
func replace(name string, data []byte, mode fs.FileMode) error {
	draft := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text())
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	if err := os.Rename(draft, name); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return nil
}
