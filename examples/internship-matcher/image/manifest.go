package image

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
)

// pinned is an image of the application that a manifest names by its digest.
var pinned = regexp.MustCompile(`\S+/internship-matcher/([a-z]+)(?::[\w.-]+)?@sha256:[0-9a-f]{64}`)

// WriteManifests copies the manifests of one folder into another, with images
// in place of those that have the same name and a digest. An image cannot have
// its own digest in the commit that it is made of: so digests in a repository
// are always of earlier images, or placeholders.
func WriteManifests(to, from string, images []*Image) error {
	digests := map[string]string{}
	for _, i := range images {
		digests[i.Name] = i.Tag.Name() + "@" + i.Digest.String()
	}
	count := 0
	replace := func(text []byte) []byte {
		return pinned.ReplaceAllFunc(text, func(found []byte) []byte {
			digest, ok := digests[string(pinned.FindSubmatch(found)[1])]
			if !ok {
				return found
			}
			count++
			return []byte(digest)
		})
	}
	if err := copyFiles(to, from, replace); err != nil {
		return fmt.Errorf("write manifests: %w", err)
	}
	if count == 0 {
		return fmt.Errorf("write manifests: those in %s name none of the images by digest", from)
	}
	return nil
}

func copyFiles(to, from string, change func([]byte) []byte) error {
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	target, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer target.Close()
	source, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return fs.WalkDir(source.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return target.MkdirAll(name, 0o750)
		}
		text, err := source.ReadFile(name)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		if err := target.WriteFile(name, change(text), 0o600); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
		return nil
	})
}
