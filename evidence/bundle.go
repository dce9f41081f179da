package evidence

import (
	"time"
)

// BundleVersion is the apiVersion of a file that names a policy bundle.
const BundleVersion = "kubeguardian.dev/bundle/v1"

// A Bundle is the set of admission policies that a pipeline has tested, by its
// digest.
type Bundle struct {
	Origin
	Digest string // "sha256:" and 64 hexadecimal digits
}

func bundles(d document) (*Set, error) {
	var file struct {
		APIVersion string    `yaml:"apiVersion"`
		At         time.Time `yaml:"at"`
		Tool       string    `yaml:"tool"`
		Digest     string    `yaml:"digest"`
	}
	if err := d.strict(&file); err != nil {
		return nil, err
	}
	if file.At.IsZero() || !digestForm.MatchString(file.Digest) {
		return nil, d.errorf(0, "want at, the time of the build, and digest as sha256: and 64 hexadecimal digits")
	}
	return &Set{Bundles: []Bundle{{Origin{Kind: Repo, Tool: file.Tool, Source: d.name, SeenAt: file.At}, file.Digest}}}, nil
}
