// Command evidence writes the evidence of the secured variant: what the tools
// around a well-run Internship Matcher would have left behind today. The
// documents are samples in the formats of those tools; only their times, and
// the digests of the images, are filled in.
//
//	go run ./evidence DIR [LEVEL…]
//
// LEVEL is a folder beside this file: image, infrastructure or code; the default
// is all of them.
package main

import (
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"text/template"
	"time"
)

//go:embed image infrastructure all:code
var templates embed.FS

// An image is one that the secured manifests run.
type image struct{ Name, Tag, Digest string }

// pinned is how the manifests name an image.
var pinned = regexp.MustCompile(`image: (registry\.example\.com/internship-matcher/([a-z]+)):([0-9.]+)@(sha256:[0-9a-f]{64})`)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./evidence DIR [LEVEL…]")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "evidence:", err)
		os.Exit(1)
	}
}

// write fills in every template of some folders, those of images once for each.
func write(dir string, levels []string) error {
	images, err := readImages("deploy/secured")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil { // #nosec G703 -- whoever runs this says where to
		return err
	}
	out, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer out.Close()
	if len(levels) == 0 {
		levels = []string{"image", "infrastructure", "code"}
	}
	for _, level := range levels {
		err := fs.WalkDir(templates, level, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil || d.IsDir():
				return err
			case level != "image":
				return fill(out, name, name, image{})
			}
			for _, img := range images {
				if err := fill(out, path.Join(level, img.Name+"-"+path.Base(name)), name, img); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("write %s: %w", level, err)
		}
	}
	return nil
}

// readImages returns the images of manifests, each once.
func readImages(dir string) ([]image, error) {
	seen := map[image]bool{}
	var images []image
	manifests := os.DirFS(dir)
	err := fs.WalkDir(manifests, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(manifests, name)
		for _, m := range pinned.FindAllStringSubmatch(string(text), -1) {
			if img := (image{m[2], m[3], m[4]}); !seen[img] {
				seen[img] = true
				images = append(images, img)
			}
		}
		return err
	})
	if err == nil && len(images) == 0 {
		err = errors.New("no images: run this in the root of the repository")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return images, nil
}

// fill writes one document into a file of a folder.
func fill(dir *os.Root, file, name string, img image) error {
	now := time.Now().UTC()
	t := template.New(path.Base(name)).Delims("[[", "]]").Funcs(template.FuncMap{
		// ago writes the time some hours before now in one of Go's layouts.
		"ago": func(hours int, layout string) string {
			return now.Add(-time.Duration(hours) * time.Hour).Format(layout)
		},
		"rfc": func(hours int) string { return now.Add(-time.Duration(hours) * time.Hour).Format(time.RFC3339) },
	})
	// statement is the template of that name in the same document, in base64.
	t.Funcs(template.FuncMap{"statement": func(img image) (string, error) {
		var b strings.Builder
		err := t.ExecuteTemplate(&b, "statement", img)
		return base64.StdEncoding.EncodeToString([]byte(b.String())), err
	}})
	if _, err := t.ParseFS(templates, name); err != nil {
		return err
	}
	var b strings.Builder
	if err := t.Execute(&b, img); err != nil {
		return err
	}
	if err := dir.MkdirAll(path.Dir(file), 0o750); err != nil {
		return err
	}
	return dir.WriteFile(file, []byte(b.String()), 0o600)
}
