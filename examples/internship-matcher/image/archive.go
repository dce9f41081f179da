package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// WriteArchive writes images as one OCI layout in a tar file, as "ctr images
// import" reads it. The digests of the images stay what they are, so pods that
// pin them find them: each has two names, by its tag and by its digest.
func WriteArchive(file string, images []*Image) (err error) {
	dir, err := os.MkdirTemp("", "layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	for _, i := range images {
		for _, ref := range []name.Reference{i.Tag, i.Tag.Digest(i.Digest.String())} {
			if err := l.AppendImage(i.OCI, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: i.Arch}), layout.WithAnnotations(map[string]string{
				"io.containerd.image.name":          ref.Name(),
				"org.opencontainers.image.ref.name": ref.Identifier(),
			})); err != nil {
				return fmt.Errorf("write %s: %s: %w", file, i.Name, err)
			}
		}
	}
	return pack(file, dir)
}

// pack writes the files of a folder into a tar file, the same for the same
// files.
func pack(file, dir string) error {
	f, err := os.Create(file) // #nosec G304 -- whoever builds the images says where to
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	files := os.DirFS(dir)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return add(w, files, name)
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return f.Close()
}

func add(w *tar.Writer, files fs.FS, name string) error {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
