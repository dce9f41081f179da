// Command image writes container images of single static programs to a file
// that containerd imports.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image: error:", err)
		os.Exit(1)
	}
}

// run takes the file to write and then NAME=PROGRAM for each image.
func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: image FILE NAME=PROGRAM …")
	}
	images := map[name.Reference]v1.Image{}
	for _, arg := range args[1:] {
		ref, program, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("argument %q: want NAME=PROGRAM", arg)
		}
		tag, err := name.NewTag(ref)
		if err != nil {
			return err
		}
		if images[tag], err = image(program); err != nil {
			return fmt.Errorf("make image %s: %w", ref, err)
		}
	}
	if err := tarball.MultiRefWriteToFile(args[0], images); err != nil {
		return fmt.Errorf("write %s: %w", args[0], err)
	}
	return nil
}

// image returns an image with a program at its root, which it runs.
func image(program string) (v1.Image, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	base := filepath.Base(program)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: base, Mode: 0o755, Size: int64(len(data))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = runtime.GOOS, runtime.GOARCH
	config.Config.Entrypoint = []string{"/" + base}
	return mutate.ConfigFile(img, config)
}
