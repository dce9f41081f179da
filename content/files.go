package content

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Builtin is the path that stands for the built-in files, so that others can come
// before and after them.
const Builtin = "builtin"

// Read reads the YAML files that paths name, folders included, or those of
// builtin when there are no paths, and where one of them is [Builtin]: in the
// order of the paths, and of the names in a folder. A path that cannot be read or
// has no YAML file is an error. Folders whose name begins with ".." are left out:
// a mounted ConfigMap has each file a second time there. F is policy.File or
// rule.File.
func Read[F ~struct {
	Name string
	Data []byte
}](builtin fs.FS, paths ...string) ([]F, error) {
	if len(paths) == 0 {
		return readFolder[F](builtin, "")
	}
	var files []F
	for _, path := range paths {
		read := readPath[F]
		if path == Builtin && builtin != nil {
			read = func(string) ([]F, error) { return readFolder[F](builtin, "") }
		}
		found, err := read(path)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

func readPath[F ~struct {
	Name string
	Data []byte
}](path string) ([]F, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return readFolder[F](os.DirFS(path), path)
	}
	data, err := os.ReadFile(path)
	return []F{{Name: path, Data: data}}, err
}

// readFolder puts prefix before the names in a folder.
func readFolder[F ~struct {
	Name string
	Data []byte
}](folder fs.FS, prefix string) ([]F, error) {
	var files []F
	err := fs.WalkDir(folder, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "..") {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) {
			return err
		}
		data, err := fs.ReadFile(folder, path)
		files = append(files, F{Name: filepath.Join(prefix, path), Data: data})
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no YAML files in %s", prefix)
	}
	return files, err
}
