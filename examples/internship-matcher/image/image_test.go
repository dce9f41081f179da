package image_test

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/image"
)

const (
	commitTime = "2026-11-01T12:00:00Z"
	repository = "registry.example.com/internship-matcher"
)

// checkout commits the module in a new repository, and returns its folder. The
// same files give the same commit, so two checkouts are of the same.
func checkout(t *testing.T) (dir, revision string) {
	t.Helper()
	return checkoutOf(t, "..")
}

func checkoutOf(t *testing.T, module string) (dir, revision string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir = t.TempDir()
	if err := os.CopyFS(dir, committable{os.DirFS(module)}); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=test", "-c", "user.email=test@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_AUTHOR_DATE="+commitTime, "GIT_COMMITTER_DATE="+commitTime)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	git("add", "-A")
	git("commit", "-q", "-m", "all of it")
	return dir, git("rev-parse", "HEAD")
}

// A committable file system lacks what is in no commit.
type committable struct{ fs.FS }

// ReadDir is fs.ReadDirFS.
func (c committable) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(c.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == ".git" || name == "." && e.Name() == "bin" }), err
}

func build(t *testing.T, o image.Options, programs ...string) []*image.Image {
	t.Helper()
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Repository == "" {
		o.Repository = repository
	}
	if o.Project.Title == "" {
		o.Project = image.InternshipMatcher()
	}
	images, err := image.Build(t.Context(), o, programs...)
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// TestReproducible builds all images of one commit twice, in different folders,
// and looks into them.
func TestReproducible(t *testing.T) {
	here, revision := checkout(t)
	there, _ := checkout(t)
	first, second := build(t, image.Options{Dir: here}), build(t, image.Options{Dir: there})
	if names := image.InternshipMatcher().Names(); len(first) != len(names) {
		t.Fatalf("%d images, want %d", len(first), len(names))
	}
	for n, i := range first {
		t.Run(i.Name, func(t *testing.T) {
			if i.Digest != second[n].Digest {
				t.Errorf("built twice: %s and %s", i.Digest, second[n].Digest)
			}
			checkConfig(t, i, revision)
			checkFiles(t, i)
		})
	}
}

func checkConfig(t *testing.T, i *image.Image, revision string) {
	t.Helper()
	config, err := i.OCI.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/" + i.Name}) {
		t.Errorf("user %q, entry point %q", config.Config.User, config.Config.Entrypoint)
	}
	if got := config.Created.UTC().Format("2006-01-02T15:04:05Z"); got != commitTime {
		t.Errorf("created %s, want the time of the commit, %s", got, commitTime)
	}
	if got := config.Config.Labels["org.opencontainers.image.revision"]; got != revision {
		t.Errorf("revision %q, want %q", got, revision)
	}
	if version := config.Config.Labels["org.opencontainers.image.version"]; !strings.HasSuffix(version, "-20261101120000-"+revision[:12]) || i.Tag.TagStr() != version {
		t.Errorf("version %q and tag %q, want the pseudo-version of commit %s", version, i.Tag.TagStr(), revision)
	}
}

// checkFiles wants one program, which needs nothing else, and no other.
func checkFiles(t *testing.T, i *image.Image) {
	t.Helper()
	files := mutate.Extract(i.OCI)
	defer files.Close()
	var found []string
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, h.Name)
		if h.Uid != 0 || h.Typeflag == tar.TypeReg && h.Mode&0o222 != 0 {
			t.Errorf("%s belongs to %d with mode %o: whoever runs it could change it", h.Name, h.Uid, h.Mode)
		}
		if h.Name == i.Name {
			checkProgram(t, i.Name, r)
		}
	}
	slices.Sort(found)
	want := []string{"etc", "etc/group", "etc/passwd", "tmp", i.Name}
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("files %q, want %q", found, want)
	}
}

func checkProgram(t *testing.T, program string, r io.Reader) {
	t.Helper()
	file := filepath.Join(t.TempDir(), program)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	binary, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	cmd := exec.Command(file)
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() < 1 {
		t.Errorf("without settings the program ends with %v:\n%s", err, out)
	}
	if said := string(out); !strings.Contains(said, "IDENTITY_DIR is not set") && !strings.Contains(said, "usage: traffic") {
		t.Errorf("without settings the program says:\n%s", said)
	}
}

// TestDirty builds what is not committed: no image may claim to be of a commit
// that it differs from.
func TestDirty(t *testing.T) {
	dir, revision := checkout(t)
	if err := os.WriteFile(filepath.Join(dir, "cmd", "traffic", "more.go"), []byte("package main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := build(t, image.Options{Dir: dir}, "traffic")[0]
	config, err := i.OCI.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := config.Config.Labels["org.opencontainers.image.revision"]; ok {
		t.Errorf("an image of changed files says that it is of commit %s", got)
	}
	if want := revision[:12] + "-dirty"; !strings.HasSuffix(i.Tag.TagStr(), want) {
		t.Errorf("tag %s, want one that ends in %s", i.Tag.TagStr(), want)
	}
}

// TestArchive reads an archive back: each image is there under both of its names,
// unchanged.
func TestArchive(t *testing.T) {
	images := build(t, image.Options{Dir: "..", Tag: "1.0.0"}, "auth", "traffic")
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := image.WriteArchive(file, images); err != nil {
		t.Fatal(err)
	}
	l, err := layout.FromPath(unpack(t, file))
	if err != nil {
		t.Fatal(err)
	}
	index, err := l.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]v1.Hash{}
	for _, d := range manifest.Manifests {
		got[d.Annotations["io.containerd.image.name"]] = d.Digest
	}
	for _, i := range images {
		for _, ref := range []string{repository + "/" + i.Name + ":1.0.0", repository + "/" + i.Name + "@" + i.Digest.String()} {
			if got[ref] != i.Digest {
				t.Errorf("%s is %s, want %s", ref, got[ref], i.Digest)
			}
		}
	}
	if len(got) != 2*len(images) {
		t.Errorf("%d names, want %d", len(got), 2*len(images))
	}
}

func unpack(t *testing.T, file string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, h.Name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, h.Name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestMistakes(t *testing.T) {
	for want, o := range map[string]image.Options{
		"build shell: want auth":      {Dir: ".."},
		"image traffic: ":             {Dir: "..", Repository: "UPPER", Arch: runtime.GOARCH, Tag: "1"},
		"build traffic: chdir ":       {Dir: filepath.Join(t.TempDir(), "missing")},
		"build traffic: exit status ": {Dir: "..", Arch: "z80"},
	} {
		program, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(want, "build "), "image "), ":")
		o.Project = image.InternshipMatcher()
		if _, err := image.Build(t.Context(), o, program); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want one that begins with %q", err, want)
		}
	}
	if err := image.WriteArchive(filepath.Join(t.TempDir(), "no", "images.tar"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v of an archive in no folder", err)
	}
}
