// Package version judges versions: of nodes, of their container runtimes, of
// add-ons and of the API that objects use. What is known of versions is a table
// with the source of each entry; what Kubernetes says of its own API comes with
// its Go types.
package version

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/version"
)

//go:embed tables.yaml
var embedded []byte

// A table is what is known of versions on a day.
type table struct {
	AsOf       time.Time `yaml:"asOf"`
	Kubernetes []release `yaml:"kubernetes"`
	Runtimes   []flaw    `yaml:"runtimes"`
	Removed    []removal `yaml:"removed"`
	Addons     []addon   `yaml:"addons"`
}

type release struct {
	Minor string    `yaml:"minor"`
	End   time.Time `yaml:"end"`
}

type flaw struct {
	Name   string   `yaml:"name"`
	CVE    string   `yaml:"cve"`
	From   string   `yaml:"from"`  // the first minor that has it; "" for all
	Fixed  []string `yaml:"fixed"` // the first good release of each minor, in order
	Source string   `yaml:"source"`
}

type removal struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	In         string `yaml:"in"`
}

type addon struct {
	Name   string    `yaml:"name"`
	Images []string  `yaml:"images"`
	Ended  time.Time `yaml:"ended"`
	Source string    `yaml:"source"`
	CVEs   []flaw    `yaml:"cves"`
}

// tables reads the embedded table once. A test reads it too, so that what is
// built in is never broken.
var tables = sync.OnceValue(func() *table {
	t, err := parse(embedded)
	if err != nil {
		panic("version table: " + err.Error())
	}
	return t
})

func parse(data []byte) (*table, error) {
	var t table
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	if err := dec.Decode(&t); err != nil {
		return nil, err
	}
	var errs []error
	check := func(what string, versions ...string) {
		for _, v := range versions {
			if _, err := version.ParseGeneric(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
			}
		}
	}
	for _, r := range t.Kubernetes {
		check(r.Minor, r.Minor)
	}
	for _, a := range t.Addons {
		if a.Name == "" || len(a.Images) == 0 || (a.Ended.IsZero() || a.Source == "") && len(a.CVEs) == 0 {
			errs = append(errs, fmt.Errorf("add-on %q: want images, and ended with source or cves", a.Name))
		}
		for _, f := range a.CVEs {
			errs = append(errs, f.check())
			check(f.CVE, f.Fixed...)
		}
	}
	for _, f := range t.Runtimes {
		errs = append(errs, f.check())
		check(f.CVE, f.Fixed...)
	}
	for _, r := range t.Removed {
		check(r.APIVersion, r.In)
	}
	return &t, errors.Join(errs...)
}

func (f flaw) check() error {
	if !strings.HasPrefix(f.CVE, "CVE-") || !strings.HasPrefix(f.Source, "https://") || len(f.Fixed) == 0 {
		return fmt.Errorf("flaw %q: want cve, fixed and source", f.CVE)
	}
	return nil
}

// in reports whether a version has the flaw: it is older than the good release
// of its minor, or its minor is older than the first that got one.
func (f flaw) in(v *version.Version) bool {
	if f.From != "" && v.LessThan(version.MustParseGeneric(f.From)) {
		return false
	}
	for _, text := range f.Fixed {
		good := version.MustParseGeneric(text)
		if v.Major() < good.Major() || v.Major() == good.Major() && v.Minor() <= good.Minor() {
			return v.LessThan(good)
		}
	}
	return false
}
