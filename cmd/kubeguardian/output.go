package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/term"
)

// terminal returns the columns of w and whether it shows colours; 0 and false
// when it is no terminal.
func terminal(w io.Writer) (columns int, color bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	return max(60, columns), color
}

// writeFile makes the file appear, or change, only once it is complete. What is
// no regular file, such as /dev/null or a pipe, is written to directly.
func writeFile(name string, write func(io.Writer) error) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s: is a folder", name)
	case err == nil && !info.Mode().IsRegular():
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	draft := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text())
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return named(err, draft, name)
	}
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return errors.Join(named(err, draft, name), os.Remove(draft))
	}
	if err := os.Rename(draft, name); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return nil
}

// named lets an error about a draft speak of the file that the user knows.
func named(err error, draft, name string) error {
	if about := (*fs.PathError)(nil); errors.As(err, &about) && about.Path == draft {
		about.Path = name
	}
	return err
}
