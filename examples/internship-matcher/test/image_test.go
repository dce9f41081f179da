//go:build failover

package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const recipe = "../deploy/postgres"

// An instruction of a Containerfile.
type instruction struct{ verb, rest string }

// instructions reads a Containerfile, as far as ours goes.
func instructions(t *testing.T) (out []instruction) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(recipe, "Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.ReplaceAll(string(data), "\\\n", " ")) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verb != "" && verb != "#" {
			out = append(out, instruction{verb, rest})
		}
	}
	return out
}

// inside runs a program in a root file system, with processes of its own.
func inside(t *testing.T, root string, args ...string) string {
	t.Helper()
	args = append([]string{"--mount", "--pid", "--fork", "--mount-proc=" + filepath.Join(root, "proc"), "chroot"}, args...)
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/tmp", "TMPDIR=/tmp")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out[max(0, len(out)-4000):])
	}
	return string(out)
}

// TestContainerfile follows the recipe of the database's image on a Debian of
// its own, and runs what is in it as the user that it names. It needs root and
// debootstrap.
func TestContainerfile(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	user := ""
	for _, i := range instructions(t) {
		switch i.verb {
		case "FROM":
			_, tag, _ := strings.Cut(i.rest, "debian:")
			suite := strings.TrimSuffix(tag, "-slim")
			if out, err := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase", suite, root, "http://deb.debian.org/debian").CombinedOutput(); err != nil {
				t.Fatalf("debootstrap %s: %v\n%s", suite, err, out)
			}
		case "RUN":
			inside(t, root, root, "sh", "-c", i.rest)
		case "COPY":
			copied(t, root, strings.Fields(i.rest))
		case "USER":
			user = i.rest
		default:
			t.Fatalf("the test does not know %s", i.verb)
		}
	}

	as := func(args ...string) string {
		t.Helper()
		return inside(t, root, append([]string{"--userspec=" + user, root}, args...)...)
	}
	const bin = "/usr/lib/postgresql/15/bin/"
	for _, program := range [][]string{
		{"pgnode", "-help"}, {"pgfront", "-help"}, {"repmgr", "--version"}, {"repmgrd", "--version"}, {"pgpool", "--version"},
		{bin + "pg_basebackup", "--version"}, {bin + "pg_rewind", "--version"}, {bin + "psql", "--version"},
		{bin + "initdb", "-D", "/tmp/data", "-U", "repmgr", "-E", "UTF8", "--no-locale", "--data-checksums"},
	} {
		as(program...)
	}
	out := as("sh", "-c", "echo 'CREATE EXTENSION repmgr' | "+bin+"postgres --single -D /tmp/data -c shared_preload_libraries=repmgr postgres && id --user --name")
	if !strings.HasSuffix(strings.TrimSpace(out), "postgres") || strings.Contains(out, "ERROR") {
		t.Errorf("repmgr's extension: %s", out)
	}
	raises(t, root)
}

// copied builds the programs that the recipe copies.
func copied(t *testing.T, root string, args []string) {
	t.Helper()
	to := filepath.Join(root, args[len(args)-1])
	for _, program := range args[:len(args)-1] {
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", to+"/", "../cmd/"+filepath.Base(program))
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
}

// raises looks for programs that run as somebody else than who starts them.
func raises(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s raises who starts it: %s", strings.TrimPrefix(path, root), info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
