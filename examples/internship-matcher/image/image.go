// Package image makes container images of Go programs from their source, without
// Docker: a static binary, and nothing else that could be run. The same commit
// gives the same digests, on whatever machine.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Options say what to build.
type Options struct {
	Project    Project
	Dir        string // of the module; "" for the working directory
	Repository string // what the names of the images begin with: registry.example.com/internship-matcher
	Tag        string // of all images; "" for the version
	Arch       string // GOARCH: amd64, arm64 …
}

// An Image is one of a program.
type Image struct {
	Program
	Title  string   // of the project
	Manual string   // of the project
	Tag    name.Tag // with registry and name
	Digest v1.Hash
	Arch   string
	OCI    v1.Image

	// Binary is what the binary knows of its own making: modules with their
	// versions, the compiler and its flags, the commit.
	Binary *debug.BuildInfo
}

// Commit is the state of the source that an image was made of: a commit of git
// and its time. Both are empty where the binary knows of none: outside of a
// repository, and where files differ from the commit.
func (i *Image) Commit() (revision string, at time.Time) {
	if i.setting("vcs.modified") == "true" {
		return "", time.Time{}
	}
	at, _ = time.Parse(time.RFC3339, i.setting("vcs.time"))
	return i.setting("vcs.revision"), at
}

// Version is that of the source: a tag, or a pseudo-version of Go's modules,
// with "+dirty" where files differ from the commit.
func (i *Image) Version() string { return version(i.Binary) }

func version(b *debug.BuildInfo) string { return strings.Trim(b.Main.Version, "()") } // "(devel)" outside of a repository

func (i *Image) setting(key string) string {
	for _, s := range i.Binary.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// Build builds some images, or all of them.
func Build(ctx context.Context, o Options, programs ...string) ([]*Image, error) {
	if len(programs) == 0 {
		programs = o.Project.Names()
	}
	for _, program := range programs {
		if _, ok := o.Project.program(program); !ok {
			return nil, fmt.Errorf("build %s: want %s", program, strings.Join(o.Project.Names(), ", "))
		}
	}
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := compile(ctx, o, dir, programs); err != nil {
		return nil, err
	}
	var images []*Image
	for _, program := range programs {
		i, err := assemble(o, program, os.DirFS(dir))
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", program, err)
		}
		images = append(images, i)
	}
	return images, nil
}

// compile builds static binaries that do not know where they were built, but of
// what commit.
func compile(ctx context.Context, o Options, dir string, programs []string) error {
	args := []string{"build", "-trimpath", "-buildvcs=auto", "-ldflags=-s -w -X main.version=" + described(ctx, o.Dir), "-o", dir + string(filepath.Separator)}
	for _, program := range programs {
		args = append(args, "./cmd/"+program)
	}
	cmd := exec.CommandContext(ctx, "go", args...) // #nosec G204 -- of the arguments only names vary, and all of them are ours
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.Arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(programs, ", "), err, out)
	}
	return nil
}

// described is the version that programs print: the commit by the tags of git
// before it, or unknown outside of a repository.
func described(ctx context.Context, dir string) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// assemble makes an image of one of some binaries.
func assemble(o Options, program string, binaries fs.FS) (*Image, error) {
	binary, err := fs.ReadFile(binaries, program)
	if err != nil {
		return nil, err
	}
	i := &Image{Title: o.Project.Title, Manual: o.Project.Manual, Arch: o.Arch}
	i.Program, _ = o.Project.program(program)
	if i.Binary, err = buildinfo.Read(bytes.NewReader(binary)); err != nil {
		return nil, err
	}
	tag := strings.ReplaceAll(cmp.Or(o.Tag, i.Version()), "+", "-") // no tag has a plus
	if i.Tag, err = name.NewTag(o.Repository + "/" + program + ":" + tag); err != nil {
		return nil, err
	}
	base, err := i.base()
	if err != nil {
		return nil, err
	}
	top, err := layer(entry{name: program, mode: 0o555, data: binary})
	if err != nil {
		return nil, err
	}
	if i.OCI, err = i.join(base, top); err != nil {
		return nil, err
	}
	i.Digest, err = i.OCI.Digest()
	return i, err
}

// join puts layers together, in the form of OCI.
func (i *Image) join(layers ...v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	revision, created := i.Commit()
	config := &v1.ConfigFile{
		Architecture: i.Arch, OS: "linux", RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User:       i.User + ":" + i.User,
			Entrypoint: []string{"/" + i.Name},
			WorkingDir: "/",
			Labels:     i.labels(revision, created),
		},
	}
	for _, port := range i.Ports {
		if config.Config.ExposedPorts == nil {
			config.Config.ExposedPorts = map[string]struct{}{}
		}
		config.Config.ExposedPorts[port] = struct{}{}
	}
	img, err := mutate.ConfigFile(img, config)
	if err != nil {
		return nil, err
	}
	history := v1.History{CreatedBy: "cmd/images", Created: v1.Time{Time: created}}
	for _, l := range layers {
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: history}); err != nil {
			return nil, err
		}
	}
	return mutate.CreatedAt(img, v1.Time{Time: created})
}

func (i *Image) labels(revision string, created time.Time) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":   i.Title + ": " + i.Name,
		"org.opencontainers.image.source":  Source,
		"org.opencontainers.image.version": i.Version(),
	}
	if revision != "" {
		labels["org.opencontainers.image.revision"] = revision
		labels["org.opencontainers.image.created"] = created.Format(time.RFC3339)
	}
	return labels
}

// An entry is a file of a layer, or a folder if its name ends in a slash.
type entry struct {
	name string
	mode int64
	data []byte
}

// base is what programs expect of a system: users, room for what is temporary,
// and, where they call public addresses, whom to trust there.
func (i *Image) base() (v1.Layer, error) {
	entries := []entry{
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o444, data: []byte("root:x:0:\nnonroot:x:" + nobody + ":\n")},
		{name: "etc/passwd", mode: 0o444, data: []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:" + nobody + ":" + nobody + ":nonroot:/:/sbin/nologin\n")},
	}
	if i.Public {
		entries = append(entries,
			entry{name: "etc/ssl/", mode: 0o755}, entry{name: "etc/ssl/certs/", mode: 0o755},
			entry{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o444, data: authorities()})
	}
	return layer(append(entries, entry{name: "tmp/", mode: 0o1777})...)
}

// authorities are the certificates of Mozilla's list, in PEM, as the module that
// go.mod names has them. Those that are trusted for some names only are left
// out: a file cannot say so.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // to memory
		}
	}
	return out.Bytes()
}

// layer makes a layer of files that belong to root and have no time.
func layer(entries ...entry) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
