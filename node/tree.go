package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Bounds of what is read.
const (
	maxFile    = 4 << 20 // bytes of a configuration file
	maxEntries = 1000    // of a folder
	maxLinks   = 40
)

// A tree is a file system below a folder: links in it lead to places in it, as
// for who lives there.
type tree struct{ root string }

// resolve follows the links of name, an absolute path in the tree, and returns
// where it is in the file system of this process.
func (t tree) resolve(name string) (string, error) {
	todo, done, links := strings.Split(path.Clean("/"+name), "/"), "/", 0
	for len(todo) > 0 {
		next := todo[0]
		todo = todo[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		place := path.Join(done, next)
		target, err := os.Readlink(filepath.Join(t.root, place))
		if err != nil { // no link, or nothing: who opens it will see
			done = place
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return filepath.Join(t.root, done), nil
}

func (t tree) stat(name string) (fs.FileInfo, error) {
	place, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	return os.Lstat(place)
}

// read returns a file of at most maxFile bytes.
func (t tree) read(name string) ([]byte, error) {
	f, err := t.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("over %d MiB", maxFile>>20)
	}
	return data, err
}

// open opens what is a regular file; anything else could block or have effects.
func (t tree) open(name string) (*os.File, error) {
	place, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(place, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errors.New("not a regular file"), f.Close())
	}
	return f, nil
}

// list returns the paths in a folder, in order. A folder that does not exist is
// empty.
func (t tree) list(folder string) ([]string, error) {
	place, err := t.resolve(folder)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if _, err := f.Readdirnames(1); len(names) == maxEntries && err == nil {
		return nil, fmt.Errorf("over %d files", maxEntries)
	}
	for i, name := range names {
		names[i] = path.Join(folder, name)
	}
	slices.Sort(names)
	return names, nil
}

// glob returns the paths in a folder whose last part matches one of the
// patterns.
func (t tree) glob(folder string, patterns ...string) ([]string, error) {
	names, err := t.list(folder)
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool {
			ok, err := path.Match(p, path.Base(name))
			return ok && err == nil
		})
	}), err
}
