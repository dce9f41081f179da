// Command images builds the container images of the application, and those of
// KubeGuardian.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/image"
)

const usage = `usage: images [flags] [NAME…]

Builds the images of some programs, or of all, and prints their digests. Run it in
the folder of Internship Matcher's module.

`

type options struct {
	image.Options
	project string
	out     string
	push    bool
	key     string
	builder string
}

func main() {
	var o options
	flag.StringVar(&o.project, "project", "internship-matcher", "whose images: internship-matcher or `kubeguardian`")
	flag.StringVar(&o.out, "o", "", "`folder` for images.tar (an OCI layout; for nodes: ctr -n k8s.io images import), for evidence, and for the secured manifests of Internship Matcher with these images")
	flag.BoolVar(&o.push, "push", false, "push to the registry, with the credentials of docker login")
	flag.StringVar(&o.key, "key", "", "`file` with a private key to sign images and provenance with, in PEM")
	flag.StringVar(&o.builder, "builder", "", "who vouches for this machine, as a `URI` in the provenance; the default is nobody")
	flag.StringVar(&o.Repository, "repository", "", "the `name` before those of the images; the default is registry.example.com/ and the project")
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
	var known bool
	if o.Project, known = image.Projects()[o.project]; !known {
		return fmt.Errorf("no project %q: want internship-matcher or kubeguardian", o.project)
	}
	o.Dir = o.Project.Dir
	o.Repository = cmp.Or(o.Repository, "registry.example.com/"+o.project)
	var key *image.Key
	var err error
	if o.key != "" {
		if key, err = image.ReadKey(o.key); err != nil {
			return err
		}
	}
	started := time.Now()
	images, err := image.Build(ctx, o.Options, programs...)
	if err != nil {
		return err
	}
	built := image.Run{Builder: cmp.Or(o.builder, o.Project.ByHand()), Started: started, Finished: time.Now()}
	if o.out != "" {
		if err := write(o, images); err != nil {
			return err
		}
	}
	for _, i := range images {
		attachments, err := i.Attachments(built, key)
		if err != nil {
			return err
		}
		if o.out != "" {
			if err := writeEvidence(filepath.Join(o.out, "evidence"), i.Name, attachments); err != nil {
				return err
			}
		}
		if o.push {
			if err := i.Push(ctx, attachments...); err != nil {
				return err
			}
		}
		fmt.Printf("%s@%s\n", i.Tag, i.Digest)
	}
	return nil
}

func write(o options, images []*image.Image) error {
	if o.project == "internship-matcher" {
		if err := image.WriteManifests(filepath.Join(o.out, "deploy"), "deploy/secured", images); err != nil {
			return err
		}
	} else if err := os.MkdirAll(o.out, 0o750); err != nil {
		return err
	}
	return image.WriteArchive(filepath.Join(o.out, "images.tar"), images)
}

// writeEvidence writes what kubeguardian scan reads by --evidence.
func writeEvidence(dir, name string, attachments []image.Attachment) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for _, a := range attachments {
		if a.Name == image.Signature {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name+"-"+a.Name+".json"), a.Data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
