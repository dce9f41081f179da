package inventory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	kresource "sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
)

// The bounds of kustomizations.
const (
	maxKustomizations     = 1000 // that one is made of, counted as often as they are used
	maxKustomizationDepth = 32
	kustomizeTime         = time.Minute
)

var kustomizationNames = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// originAnnotation is where kustomize notes which file an object comes from.
const originAnnotation = "config.kubernetes.io/origin"

// buildKustomizations builds those kustomizations that the user named or that
// no other one found refers to: of a base with two overlays the overlays, each
// of which is a variant of the application with findings of its own. What they
// are made of is not read again.
func (r *reader) buildKustomizations() {
	used := map[string]bool{}
	var roots []*builder
	for _, dir := range r.kustomizations {
		b := newBuilder(r.ctx, dir)
		b.err = b.visit(dir.real, nil, "")
		for real := range b.used {
			used[real] = true
		}
		roots = append(roots, b)
	}
	for _, b := range roots {
		b.consume(r)
		if b.dir.named || !used[b.dir.real] || b.circular {
			r.build(b)
		}
	}
}

// build builds one kustomization and reads the objects.
func (r *reader) build(b *builder) {
	if b.component {
		r.skipped = append(r.skipped, Skip{Source: b.dir.name, Reason: "a component that no kustomization here uses"})
		return
	}
	var objects []*kresource.Resource
	err := b.err
	if err == nil {
		objects, err = b.run()
		b.consume(r)
	}
	if err != nil {
		r.fail(b.dir.name, err)
		return
	}
	for _, o := range objects {
		src, text, err := b.object(o)
		if err != nil {
			r.fail(b.dir.name, fmt.Errorf("%s: %w", b.dir.name, err))
			continue
		}
		r.parse(src, text)
	}
}

// A builder is one kustomization that is looked at, and then built.
type builder struct {
	ctx       context.Context // of the one build
	dir       found
	fs        *kustomizeFiles
	used      map[string]bool // resolved folders of the kustomizations and charts that it is made of
	charts    map[string][]head
	heads     map[string][]head // of files that were searched for objects
	visits    int
	component bool
	circular  bool
	err       error
}

func newBuilder(ctx context.Context, dir found) *builder {
	return &builder{
		ctx: ctx, dir: dir, fs: newKustomizeFiles(), used: map[string]bool{},
		charts: map[string][]head{}, heads: map[string][]head{},
	}
}

// consume notes the files and folders that are not to be read again.
func (b *builder) consume(r *reader) {
	for real := range b.used {
		r.consumed[real] = true
	}
	for real := range b.fs.read {
		r.consumed[real] = true
	}
}

// shown writes a resolved name as the user would.
func (b *builder) shown(real string) string {
	rel, err := filepath.Rel(b.dir.real, real)
	if err != nil {
		return real
	}
	return filepath.Join(b.dir.name, rel)
}

func (b *builder) errorf(dir, format string, args ...any) error {
	return fmt.Errorf("%s: %s", b.shown(dir), fmt.Sprintf(format, args...))
}

// visit looks through a kustomization and those that it refers to, before
// anything is built: kustomize itself would fetch what is remote, and run
// whatever it takes. Around are the kustomizations that it is part of, and
// namespace is what they give to charts.
func (b *builder) visit(dir string, around []string, namespace string) error {
	if i := slices.Index(around, dir); i >= 0 {
		b.circular = true
		var names []string
		for _, d := range append(around[i:], dir) {
			names = append(names, b.shown(d))
		}
		return b.errorf(b.dir.real, "kustomizations refer to each other in a circle: %s", strings.Join(names, " -> "))
	}
	if b.visits++; b.visits > maxKustomizations || len(around) == maxKustomizationDepth {
		return b.errorf(b.dir.real, "more than %d kustomizations in it, or more than %d deep", maxKustomizations, maxKustomizationDepth)
	}
	file, k, err := b.load(dir)
	if err != nil {
		return err
	}
	if len(around) == 0 {
		b.component = k.Kind == types.ComponentKind
		k.BuildMetadata = []string{types.OriginAnnotations}
	} else {
		b.used[dir] = true
	}
	for _, ref := range references(k) {
		if isRemote(ref) {
			return hint(b.errorf(dir, "%q is remote: nothing is fetched for a scan", ref),
				"build it yourself: kubectl kustomize "+b.dir.name+" | kubeguardian scan -")
		}
	}
	if k.Namespace != "" {
		namespace = k.Namespace
	}
	for i := range k.HelmCharts {
		name, err := b.inflate(dir, k, i, namespace)
		if err != nil {
			return err
		}
		k.Resources = append(k.Resources, name)
	}
	if err := b.fs.replace(file, k); err != nil {
		return b.errorf(dir, "%v", err)
	}
	around = append(slices.Clone(around), dir)
	return b.parts(dir, k, around, namespace)
}

// load reads the kustomization of a folder.
func (b *builder) load(dir string) (file string, _ *types.Kustomization, err error) {
	for _, name := range kustomizationNames {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			continue
		}
		if file != "" {
			return "", nil, b.errorf(dir, "it has both %s and %s", filepath.Base(file), name)
		}
		file = filepath.Join(dir, name)
	}
	if file == "" {
		return "", nil, b.errorf(dir, "no kustomization.yaml")
	}
	data, err := readFile(file)
	if err == nil {
		err = harmless(b.shown(file), data)
	}
	if err != nil {
		return "", nil, err
	}
	k := &types.Kustomization{}
	if err := k.Unmarshal(data); err != nil {
		return "", nil, b.errorf(file, "%s", firstLine(err))
	}
	k.FixKustomization()
	return file, k, nil
}

// parts looks at what a kustomization names: other kustomizations, and files.
func (b *builder) parts(dir string, k *types.Kustomization, around []string, namespace string) error {
	for _, ref := range slices.Concat(k.Resources, k.Components, k.Generators, k.Transformers, k.Validators) {
		if strings.Contains(ref, "\n") || b.fs.virtual[filepath.Join(dir, ref)] != nil {
			continue // the configuration of a plugin itself, or a chart of ours
		}
		at := filepath.Join(dir, ref)
		info, err := os.Stat(at)
		if err != nil {
			return pathError(b.shown(at), err)
		}
		real, err := filepath.EvalSymlinks(at)
		if err != nil {
			return pathError(b.shown(at), err)
		}
		if !info.IsDir() {
			b.fs.read[real] = true
			continue
		}
		if err := b.visit(real, around, namespace); err != nil {
			return err
		}
	}
	return b.plugins(dir, k)
}

// plugins refuses remote files in the configuration of generators and
// transformers, which are files themselves or stand in the kustomization.
func (b *builder) plugins(dir string, k *types.Kustomization) error {
	for _, ref := range slices.Concat(k.Generators, k.Transformers, k.Validators) {
		text := []byte(ref)
		if !strings.Contains(ref, "\n") {
			data, err := readFile(filepath.Join(dir, ref))
			if err != nil {
				continue // a folder, which has been visited
			}
			text = data
		}
		if bad := remoteIn(text); bad != "" {
			return hint(b.errorf(dir, "%q is remote: nothing is fetched for a scan", bad), "put the file beside the kustomization")
		}
	}
	return nil
}

// run builds the kustomization. Kustomize cannot be stopped; if it takes too
// long it is left behind.
func (b *builder) run() ([]*kresource.Resource, error) {
	type result struct {
		objects []*kresource.Resource
		err     error
	}
	done := make(chan result, 1)
	go func() {
		var res result
		defer func() {
			if p := recover(); p != nil {
				res.err = fmt.Errorf("kustomize gave up: %v", p)
			}
			done <- res
		}()
		options := krusty.MakeDefaultOptions() // no plugins but the built-in ones, and files of the kustomization only
		built, err := krusty.MakeKustomizer(options).Run(b.fs, b.dir.real)
		if res.err = err; err == nil {
			res.objects = built.Resources()
		}
	}()
	select {
	case res := <-done:
		if res.err != nil {
			return nil, b.explain(res.err)
		}
		return res.objects, nil
	case <-b.ctx.Done():
		return nil, b.ctx.Err()
	case <-time.After(kustomizeTime):
		return nil, b.errorf(b.dir.real, "not built within %s", kustomizeTime)
	}
}

// explain puts what kustomize says into one line, with names as the user has
// them.
func (b *builder) explain(err error) error {
	text := firstLine(err)
	for real := b.dir.real; filepath.Dir(real) != real; real = filepath.Dir(real) {
		shown := strings.TrimPrefix(b.shown(real)+"/", "./")
		text = strings.ReplaceAll(text, real+"/", shown)
	}
	err = b.errorf(b.dir.real, "%s", text)
	if strings.Contains(text, "plugin") {
		return hint(err, "plugins are not run for a scan; build it yourself: kubectl kustomize "+b.dir.name+" | kubeguardian scan -")
	}
	return err
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return line
}

// object returns the text of an object, and where most of it is written.
func (b *builder) object(o *kresource.Resource) (source, []byte, error) {
	src := source{name: b.dir.name, from: b.dir.name, line: func(int) int { return 0 }}
	origin, err := o.GetOrigin()
	if err != nil {
		return src, nil, err
	}
	if origin != nil {
		at := filepath.Join(b.dir.real, origin.Path+origin.ConfiguredIn)
		h := match(b.headsOf(at), o.GetKind(), o.GetName())
		src.name, src.line = b.shown(at), func(int) int { return h.line }
		if h.file != "" {
			src.name = h.file
		}
	}
	annotations := o.GetAnnotations()
	delete(annotations, originAnnotation)
	if err := o.SetAnnotations(annotations); err != nil {
		return src, nil, err
	}
	text, err := o.AsYAML()
	return src, text, err
}

// A head is what finds an object in a file again, after it has been changed.
type head struct {
	kind, name string
	file       string // where the template stands, for what a chart made
	line       int
}

// match returns the object of a kind that has become one of this name: prefixes
// and suffixes may have been added.
func match(heads []head, kind, name string) (best head) {
	for _, h := range heads {
		if h.kind == kind && strings.Contains(name, h.name) && (best.line == 0 || len(h.name) > len(best.name)) {
			best = h
		}
	}
	if best.line == 0 && len(heads) > 0 {
		best.file = heads[0].file
	}
	return best
}

func (b *builder) headsOf(file string) []head {
	if heads, ok := b.charts[file]; ok {
		return heads
	}
	heads, ok := b.heads[file]
	if !ok {
		if data, err := readFile(file); err == nil {
			heads = headsIn(data)
		}
		b.heads[file] = heads
	}
	return heads
}

func headsIn(data []byte) (heads []head) {
	for node := range documents(data) {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if node.Decode(&o) == nil && o.Kind != "" {
			heads = append(heads, head{kind: o.Kind, name: o.Metadata.Name, line: node.Line})
		}
	}
	return heads
}

// documents yields the mappings of a YAML file, up to a syntax error.
func documents(data []byte) func(func(*yaml.Node) bool) {
	return func(yield func(*yaml.Node) bool) {
		for dec := yaml.NewDecoder(strings.NewReader(string(data))); ; {
			var doc yaml.Node
			if dec.Decode(&doc) != nil {
				return
			}
			if root := doc.Content[0]; root.Kind == yaml.MappingNode && !yield(root) {
				return
			}
		}
	}
}
