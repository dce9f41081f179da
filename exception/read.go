package exception

import (
	"errors"
	"fmt"

	"github.com/kubeguardian/kubeguardian/yamldoc"
)

const (
	maxFile       = 4 << 20
	maxExceptions = 10_000
)

// An object is an exception as it is written.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name        string            `yaml:"name"`
		Namespace   string            `yaml:"namespace"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	} `yaml:"metadata"`
	Spec Spec `yaml:"spec"`
}

// Read reads the exceptions of a YAML file, strictly: unknown keys are errors.
// All errors are returned together, with file and line. An exception that is
// complete in form may still not be valid, see [Exception.Check].
func Read(name string, data []byte) ([]Exception, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: over the limit of %d MiB", name, maxFile>>20)
	}
	items, err := yamldoc.All[object](name, data, maxExceptions)
	errs := []error{err}
	var out []Exception
	for _, item := range items {
		o, place := item.Value, fmt.Sprintf("%s:%d", name, item.Line)
		if err := o.check(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
		}
		out = append(out, Exception{Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, Spec: o.Spec, Source: place})
	}
	if len(out) == 0 && err == nil {
		errs = append(errs, fmt.Errorf("%s: no exceptions", name))
	}
	return out, errors.Join(errs...)
}

func (o *object) check() error {
	switch {
	case o.APIVersion != APIVersion || o.Kind != Kind:
		return fmt.Errorf("want apiVersion %s and kind %s", APIVersion, Kind)
	case o.Metadata.Name == "":
		return errors.New("metadata.name is missing")
	case len(o.Spec.Controls) == 0:
		return errors.New("spec.controls names no control")
	case o.Metadata.Namespace != "" && o.Spec.Scope.Namespace != "":
		return errors.New("spec.scope.namespace: an exception in a namespace speaks for that namespace")
	}
	return o.Spec.Scope.patterns()
}
