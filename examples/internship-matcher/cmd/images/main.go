// Command images builds the container images of the application.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/image"
)

const usage = `usage: images [flags] [NAME…]

Builds the images of some programs, or of all, and prints their digests. Run it in
the folder of the module.

`

type options struct {
	image.Options
	out  string
	push bool
}

func main() {
	var o options
	flag.StringVar(&o.out, "o", "", "`folder` for images.tar, an OCI layout of all; for nodes: ctr -n k8s.io images import")
	flag.BoolVar(&o.push, "push", false, "push to the registry, with the credentials of docker login")
	flag.StringVar(&o.Repository, "repository", "registry.example.com/internship-matcher", "the `name` before those of the images")
	flag.StringVar(&o.Tag, "tag", "", "of the images; the default is the version of the source")
	flag.StringVar(&o.Arch, "arch", runtime.GOARCH, "for which processors")
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage); flag.PrintDefaults() }
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, programs []string) error {
	images, err := image.Build(ctx, o.Options, programs...)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := write(o.out, images); err != nil {
			return err
		}
	}
	for _, i := range images {
		if o.push {
			if err := i.Push(ctx); err != nil {
				return err
			}
		}
		fmt.Printf("%s@%s\n", i.Tag, i.Digest)
	}
	return nil
}

func write(dir string, images []*image.Image) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return image.WriteArchive(filepath.Join(dir, "images.tar"), images)
}
