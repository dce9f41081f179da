package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// entrypoint does what the manifests expect of the official image: it makes the
// database that the environment names, and then is the server.
const entrypoint = `#!/bin/sh
set -eu
PATH=%[1]s/bin:/bin
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust \
    --auth-host=scram-sha-256 --locale=C --encoding=UTF8
  echo "hostssl all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -c listen_addresses='*' "$@"
`

// postgres copies this machine's PostgreSQL with all that it links to a folder.
func postgres(ctx context.Context, root string) error {
	homes, err := filepath.Glob("/usr/lib/postgresql/*")
	if err != nil || len(homes) == 0 {
		return errors.New("not in /usr/lib/postgresql: install the package (make postgres)")
	}
	home := homes[len(homes)-1]
	programs := []string{"/bin/sh", "/bin/cat"}
	for _, name := range []string{"initdb", "postgres", "pg_isready"} {
		programs = append(programs, filepath.Join(home, "bin", name))
	}
	for _, p := range programs {
		if err := copyLinked(ctx, root, p); err != nil {
			return err
		}
	}
	for _, name := range []string{"plpgsql.so", "dict_snowball.so", "libpqwalreceiver.so"} {
		if err := copyLinked(ctx, root, filepath.Join(home, "lib", name)); err != nil {
			return err
		}
	}
	for _, dir := range []string{strings.Replace(home, "/lib/", "/share/", 1), "/usr/share/zoneinfo/Etc"} {
		if err := copyTree(root, dir); err != nil {
			return err
		}
	}
	users := "root:x:0:0::/:/bin/sh\n"
	for name, user := range databases() {
		users += fmt.Sprintf("%s:x:%[2]s:%[2]s::/:/bin/sh\n", name, user)
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte(users), 0o644); err != nil {
		return err
	}
	// The probes call pg_isready by its name.
	if err := copyFile(filepath.Join(home, "bin", "pg_isready"), filepath.Join(root, "bin", "pg_isready")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "entrypoint"), fmt.Appendf(nil, entrypoint, home), 0o755)
}

// copyLinked copies a program or a library, and the libraries that it needs.
func copyLinked(ctx context.Context, root, path string) error {
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return fmt.Errorf("find the libraries of %s: %w", path, err)
	}
	paths := []string{path}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			paths = append(paths, word)
		}
	}
	for _, p := range paths {
		if err := copyFile(p, filepath.Join(root, p)); err != nil {
			return err
		}
	}
	return nil
}

func copyTree(root, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return copyFile(path, filepath.Join(root, path))
	})
}

// copyFile copies what a path leads to, with its mode.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}

// writeImage writes a folder as an image of one layer, in the format of docker save.
func writeImage(path, root, name string) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	type object = map[string]any
	config, err := json.Marshal(object{
		"os": "linux", "architecture": runtime.GOARCH,
		"config": object{"Entrypoint": []string{"/entrypoint"}, "Env": []string{"PATH=/bin"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w = tar.NewWriter(f)
	for file, data := range map[string][]byte{"config.json": config, "layer.tar": layer.Bytes(), "manifest.json": manifest} {
		if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), f.Close())
}
