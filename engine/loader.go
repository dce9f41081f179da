package engine

import (
	"bytes"
	"errors"
	"slices"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/policy/gatekeeper"
	"github.com/kubeguardian/kubeguardian/policy/image"
)

// Load parses, checks and compiles files of policies. The error joins all that
// is wrong, with file and line; among that is an [*UnknownKindError] for each
// document of another kind.
func Load(files ...policy.File) (*Set, error) { return new(Loader).Load(files...) }

// A Loader loads sets one after the other, as [Load] does. What is as it was in
// the load before is not compiled again, and what image policies have verified
// stays known. The zero value is ready for use, by one goroutine at a time.
type Loader struct {
	// Images looks at images for ImagePolicies. Without it the loader has one of its
	// own, with the usual options.
	Images *image.Verifier

	templates gatekeeper.Loader
	apart     map[string]apart // files, by name
	parts     map[int]part     // what engines have loaded, by their order
}

// An apart file is one that was taken apart.
type apart struct {
	data []byte
	assortment
}

// A part is what an engine has loaded, and from which files.
type part struct {
	files  []policy.File
	loaded evaluator
}

// Load is like the function of the same name.
func (l *Loader) Load(files ...policy.File) (*Set, error) {
	all := l.engines()
	sorted := l.assort(all, files)
	errs := sorted.unknown
	s := &Set{}
	for i, e := range all {
		if len(sorted.byEngine[i]) == 0 {
			continue
		}
		loaded, err := l.load(i, e, sorted.byEngine[i])
		errs = append(errs, err)
		s.evaluators = append(s.evaluators, loaded)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s.WithExternalData(nil), nil
}

// load lets an engine load its files, unless it has them loaded already.
func (l *Loader) load(i int, e engine, files []policy.File) (evaluator, error) {
	if last, ok := l.parts[i]; ok && slices.EqualFunc(last.files, files, equal) {
		return last.loaded, nil
	}
	loaded, err := e.load(files...)
	if err != nil {
		return nil, err
	}
	if l.parts == nil {
		l.parts = map[int]part{}
	}
	l.parts[i] = part{files, loaded}
	return loaded, nil
}

func equal(a, b policy.File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }

// loadImages keeps what was verified from one load to the next.
func (l *Loader) loadImages(files ...policy.File) (*image.Set, error) {
	if l.Images == nil {
		l.Images = image.New(image.Options{})
	}
	return l.Images.Load(files...)
}

// assort takes files apart that are not those of the load before.
func (l *Loader) assort(engines []engine, files []policy.File) assortment {
	out := assortment{byEngine: make([][]policy.File, len(engines))}
	now := make(map[string]apart, len(files))
	for _, f := range files {
		a, ok := l.apart[f.Name]
		if !ok || !bytes.Equal(a.data, f.Data) {
			a = apart{f.Data, assort(engines, []policy.File{f})}
		}
		now[f.Name] = a
		for i := range out.byEngine {
			out.byEngine[i] = append(out.byEngine[i], a.byEngine[i]...)
		}
		out.others, out.unknown = append(out.others, a.others...), append(out.unknown, a.unknown...)
	}
	l.apart = now
	return out
}
