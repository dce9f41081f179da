package inventory

//lint:file-ignore SA1019 kustomizations still use the old fields, and the library still reads them

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigsyaml "sigs.k8s.io/yaml"

	"helm.sh/helm/v4/pkg/chart/v2/loader"

	"github.com/kubeguardian/kubeguardian/helm"
)

// kustomizeFiles are the files on disk as kustomize sees them: bounded, read
// only, with kustomizations and rendered charts in place of what is there.
type kustomizeFiles struct {
	filesys.FileSystem
	virtual map[string][]byte
	read    map[string]bool // resolved names of files that were used
}

func newKustomizeFiles() *kustomizeFiles {
	return &kustomizeFiles{FileSystem: filesys.MakeFsOnDisk(), virtual: map[string][]byte{}, read: map[string]bool{}}
}

// ReadFile reads a file that no library can choke on.
func (f *kustomizeFiles) ReadFile(name string) ([]byte, error) {
	if data, ok := f.virtual[name]; ok {
		return data, nil
	}
	f.read[name] = true
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	if ext := strings.ToLower(filepath.Ext(name)); ext == ".yaml" || ext == ".yml" || ext == ".json" {
		err = harmless(name, data)
	}
	return data, err
}

// CleanedAbs knows the folders of files that are not on disk.
func (f *kustomizeFiles) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	if _, ok := f.virtual[name]; ok {
		return filesys.ConfirmedDir(filepath.Dir(name)), filepath.Base(name), nil
	}
	return f.FileSystem.CleanedAbs(name)
}

// WriteFile refuses: a scan changes nothing.
func (f *kustomizeFiles) WriteFile(name string, _ []byte) error {
	return fmt.Errorf("write %s: %w", name, errors.ErrUnsupported)
}

// RemoveAll refuses, likewise.
func (f *kustomizeFiles) RemoveAll(name string) error {
	return fmt.Errorf("remove %s: %w", name, errors.ErrUnsupported)
}

// replace puts a kustomization in place of its file.
func (f *kustomizeFiles) replace(file string, k *types.Kustomization) error {
	k.HelmCharts, k.HelmGlobals, k.HelmChartInflationGenerator = nil, nil, nil
	data, err := sigsyaml.Marshal(k)
	f.virtual[file] = data
	return err
}

// references returns all that a kustomization may load by name.
func references(k *types.Kustomization) []string {
	refs := slices.Concat(k.Resources, k.Components, k.Bases, k.Crds, k.Configurations, k.Generators, k.Transformers, k.Validators)
	refs = append(refs, k.OpenAPI["path"])
	for _, p := range slices.Concat(k.Patches, k.PatchesJson6902) {
		refs = append(refs, p.Path)
	}
	for _, p := range k.PatchesStrategicMerge {
		refs = append(refs, string(p))
	}
	for _, p := range k.Replacements {
		refs = append(refs, p.Path)
	}
	sources := func(s types.KvPairSources) {
		refs = append(refs, s.EnvSource)
		for _, file := range slices.Concat(s.FileSources, s.EnvSources) {
			_, name, keyed := strings.Cut(file, "=")
			if !keyed {
				name = file
			}
			refs = append(refs, name, file)
		}
	}
	for _, g := range k.ConfigMapGenerator {
		sources(g.KvPairSources)
	}
	for _, g := range k.SecretGenerator {
		sources(g.KvPairSources)
	}
	for _, c := range k.HelmCharts {
		refs = append(append(refs, c.ValuesFile), c.AdditionalValuesFiles...)
	}
	return refs
}

// isRemote reports whether kustomize would fetch what is called so: all that it
// takes for the address of a file or a repository, and more.
func isRemote(ref string) bool {
	ref = strings.ToLower(strings.TrimSpace(ref))
	if strings.Contains(ref, "\n") {
		return false // a document, not a name
	}
	for _, prefix := range []string{"http:", "https:", "git::", "github.com/", "github.com:"} {
		if strings.HasPrefix(ref, prefix) {
			return true
		}
	}
	user, _, found := strings.Cut(ref, "@")
	return strings.Contains(ref, "://") || found && user != "" && !strings.ContainsAny(user, "/. ")
}

// remoteIn returns the first address in the configuration of a plugin.
func remoteIn(data []byte) string {
	for root := range documents(data) {
		nodes := []*yaml.Node{root}
		for len(nodes) > 0 {
			n := nodes[len(nodes)-1]
			nodes = append(nodes[:len(nodes)-1], n.Content...)
			_, name, keyed := strings.Cut(n.Value, "=")
			if n.Kind == yaml.ScalarNode && (isRemote(n.Value) || keyed && isRemote(name)) {
				return n.Value
			}
		}
	}
	return ""
}

// inflate renders one chart of a kustomization and returns the name of the
// file, in the same folder, that holds the result.
func (b *builder) inflate(dir string, k *types.Kustomization, i int, namespace string) (string, error) {
	c := k.HelmCharts[i]
	home := types.HelmDefaultHome
	if k.HelmGlobals != nil && k.HelmGlobals.ChartHome != "" {
		home = k.HelmGlobals.ChartHome
	}
	if !filepath.IsAbs(home) {
		home = filepath.Join(dir, home)
	}
	at, err := b.findChart(dir, home, c)
	if err != nil {
		return "", err
	}
	files, err := helm.Read(at)
	if err != nil {
		return "", err
	}
	values, err := b.chartValues(dir, at, c)
	if err != nil {
		return "", err
	}
	rel := newRelease(values)
	rel.Name, rel.Namespace, rel.APIVersions = c.ReleaseName, cmp.Or(c.Namespace, namespace), c.ApiVersions
	rel.KubeVersion = cmp.Or(c.KubeVersion, rel.KubeVersion)
	texts, err := helm.Render(b.ctx, b.shown(at), files, rel)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("kubeguardian-chart-%d.yaml", i)
	return name, b.add(filepath.Join(dir, name), texts, c)
}

// findChart finds a chart where kustomize would: in the folder of charts, or in
// that of its version.
func (b *builder) findChart(dir, home string, c types.HelmChart) (string, error) {
	if c.Name == "" || !filepath.IsLocal(c.Name) {
		return "", b.errorf(dir, "helmCharts: %q is not the name of a chart", c.Name)
	}
	versioned := c.Name + "-" + c.Version
	for _, at := range []string{
		filepath.Join(home, versioned, c.Name), filepath.Join(home, c.Name),
		filepath.Join(home, versioned+".tgz"), filepath.Join(home, c.Name, versioned+".tgz"),
	} {
		real, err := filepath.EvalSymlinks(at)
		if err != nil {
			continue
		}
		if info, err := os.Stat(real); err == nil && (helm.IsArchive(real) || info.IsDir()) {
			b.used[real] = true
			return real, nil
		}
	}
	err := b.errorf(dir, "helmCharts: chart %s is not in %s, and nothing is fetched for a scan", c.Name, b.shown(home))
	if c.Repo == "" {
		return "", err
	}
	return "", hint(err, fmt.Sprintf("fetch it first: helm pull %s --repo %s --version %q --untar --untardir %s", c.Name, c.Repo, c.Version, b.shown(home)))
}

// chartValues merges the values that a kustomization gives to a chart.
func (b *builder) chartValues(dir, chart string, c types.HelmChart) (map[string]any, error) {
	values := map[string]any{}
	file := func(name string) error {
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			return pathError(b.shown(name), err)
		}
		b.fs.read[real] = true
		more, err := valuesFile(real)
		values = loader.MergeMaps(values, more)
		return err
	}
	switch {
	case c.ValuesMerge == "replace":
	case c.ValuesFile != "":
		if err := file(filepath.Join(dir, c.ValuesFile)); err != nil {
			return nil, err
		}
	case c.ValuesMerge == "merge" && !helm.IsArchive(chart):
		if err := file(filepath.Join(chart, "values.yaml")); err != nil {
			return nil, err
		}
	}
	if c.ValuesMerge == "merge" {
		values = loader.MergeMaps(c.ValuesInline, values)
	} else {
		values = loader.MergeMaps(values, c.ValuesInline)
	}
	for _, name := range c.AdditionalValuesFiles {
		if err := file(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// add joins what a chart rendered to into one file, without what the
// kustomization leaves out.
func (b *builder) add(file string, texts []helm.Rendered, c types.HelmChart) error {
	var out strings.Builder
	for _, t := range texts {
		if err := harmless(t.File, []byte(t.Text)); err != nil {
			return err
		}
		if t.CRD && !c.IncludeCRDs {
			continue
		}
		for node := range documents([]byte(t.Text)) {
			var o struct {
				Kind     string
				Metadata struct {
					Name        string
					Annotations map[string]string
				}
			}
			if err := node.Decode(&o); err != nil {
				return fmt.Errorf("%s: %s", t.File, firstLine(err))
			}
			hook := o.Metadata.Annotations[helm.HookAnnotation]
			if hook != "" && c.SkipHooks || helm.IsTest(hook) && c.SkipTests {
				continue
			}
			text, err := yaml.Marshal(node)
			if err != nil {
				return fmt.Errorf("%s: %w", t.File, err)
			}
			out.WriteString("---\n" + string(text))
			b.charts[file] = append(b.charts[file], head{o.Kind, o.Metadata.Name, t.File, t.Line(node.Line)})
		}
	}
	b.fs.virtual[file] = []byte(out.String())
	return nil
}
