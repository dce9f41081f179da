package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// readExceptions returns the exceptions that count: those of the files that the
// user names, those that are objects of a scanned cluster, and what objects ask
// for in annotations if that is allowed. Objects in scanned files do not count:
// whoever writes a workload could accept its risks in the next file.
func (o *scanOptions) readExceptions(inv *inventory.Inventory, stderr io.Writer) ([]exception.Exception, error) {
	var out []exception.Exception
	var errs []error
	for _, path := range o.exceptions {
		found, err := exceptionFiles(path)
		out, errs = append(out, found...), append(errs, err)
	}
	objects := inv.Kind("kubeguardian.dev", exception.Kind)
	if len(objects) > 0 && inv.Origin == inventory.Files {
		fmt.Fprintf(stderr, "kubeguardian: note: %d %s among the scanned files do not count: give them by --exceptions\n", len(objects), exception.Kind)
		objects = nil
	}
	for _, object := range objects {
		x, err := exception.FromObject(object.Unstructured)
		out, errs = append(out, x), append(errs, err)
	}
	asked := 0
	for _, object := range inv.Objects() {
		found, err := exception.Requests(cmp.Or(object.Source, object.Subject().String()), object.Unstructured)
		if asked += len(found); o.annotations {
			out, errs = append(out, found...), append(errs, err)
		}
	}
	if asked > 0 && !o.annotations {
		fmt.Fprintf(stderr, "kubeguardian: note: %d exceptions that objects ask for in annotations do not count: --allow-annotations grants them\n", asked)
	}
	return out, errors.Join(errs...)
}

// exceptionFiles reads a file, or every YAML file of a folder.
func exceptionFiles(root string) ([]exception.Exception, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, errors.Unwrap(err))
	}
	files := []string{root}
	if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(root, "*.y*ml")); err != nil || len(files) == 0 {
			return nil, fmt.Errorf("%s: no YAML files", root)
		}
	}
	var out []exception.Exception
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, errors.Unwrap(err)))
			continue
		}
		found, err := exception.Read(file, data)
		out, errs = append(out, found...), append(errs, err)
	}
	return out, errors.Join(errs...)
}
