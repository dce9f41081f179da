// Package helm renders Helm charts as helm template does, without the program,
// a cluster or the network, and within bounds: a chart is a program of somebody
// else's.
package helm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	helmchart "helm.sh/helm/v4/pkg/chart"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

// A Release is how a chart is rendered.
type Release struct {
	Name, Namespace string // "" for those that helm template takes
	Values          map[string]any
	KubeVersion     string   // such as "v1.37.0"
	APIVersions     []string // besides Kubernetes' own

	// Check refuses YAML that is not to be decoded: a chart's own values are as
	// foreign as its templates.
	Check func(file string, data []byte) error
}

// A Rendered is one rendered file of a chart.
type Rendered struct {
	File string // where the template stands
	Text string
	CRD  bool // a file of custom resource definitions, which is no template
	line func(int) int
}

// Line returns the line of the template that made a line of the text.
func (r Rendered) Line(n int) int {
	if r.line == nil {
		return n
	}
	return r.line(n)
}

// HookAnnotation names the moments at which Helm applies an object.
const HookAnnotation = "helm.sh/hook"

// IsTest reports whether an object with this [HookAnnotation] is only there to
// test a release.
func IsTest(hook string) bool { return strings.HasPrefix(strings.TrimSpace(hook), "test") }

// ErrLibrary says that a chart is there for others to use.
var ErrLibrary = errors.New("a library chart, which makes no objects itself")

// A hinted error also says what the user can do.
type hinted struct {
	error
	hint string
}

func hint(err error, hint string) error { return hinted{err, hint} }
func (h hinted) Hint() string           { return h.hint }
func (h hinted) Unwrap() error          { return h.error }

// Render renders a chart, without a cluster to look things up in. Hooks and custom resource definitions
// are among the result, notes are not. Display is the name of the chart for
// people.
func Render(ctx context.Context, display string, files Files, rel Release) ([]Rendered, error) {
	c, err := load(display, files, rel.Check)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(c.Metadata.Type, "library") {
		return nil, ErrLibrary
	}
	caps, err := rel.capabilities()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", display, err)
	}
	if want, have := c.Metadata.KubeVersion, caps.KubeVersion.String(); want != "" && !chartutil.IsCompatibleRange(want, have) {
		return nil, fmt.Errorf("%s: the chart is for Kubernetes %s, and is rendered for %s", display, want, have)
	}
	if err := chartutil.ProcessDependencies(c, rel.Values); err != nil {
		return nil, fmt.Errorf("%s: %w", display, err)
	}
	if missing := missingCharts(c); len(missing) > 0 {
		return nil, hint(fmt.Errorf("%s: charts that it depends on are not in its folder charts: %s", display, strings.Join(missing, ", ")),
			"fetch them first: helm dependency build "+display)
	}
	options := common.ReleaseOptions{Name: cmp.Or(rel.Name, "release-name"), Namespace: cmp.Or(rel.Namespace, "default"), Revision: 1, IsInstall: true}
	top, err := util.ToRenderValuesWithSchemaValidation(c, rel.Values, options, caps, true) // we do that ourselves: Helm fetches schemas
	if err != nil {
		return nil, fmt.Errorf("%s: %w", display, err)
	}
	if err := checkValues(display, c, mapping(top["Values"])); err != nil {
		return nil, err
	}
	e := newEngine(ctx, display)
	e.add(c, top, top["Values"])
	texts, err := e.render()
	for _, crd := range c.CRDObjects() {
		texts = append(texts, Rendered{File: e.file(crd.Filename), Text: string(crd.File.Data), CRD: true})
	}
	return texts, err
}

func load(display string, files Files, check func(string, []byte) error) (*chart.Chart, error) {
	for _, f := range files {
		switch path.Base(f.Name) {
		case ChartFile, "values.yaml", "requirements.yaml", "Chart.lock", "requirements.lock":
			if err := check(filepath.Join(display, f.Name), f.Data); err != nil {
				return nil, err
			}
		}
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", display, err)
	}
	return c, nil
}

// missingCharts returns the charts that a chart and those in it depend on and
// that are not there.
func missingCharts(c *chart.Chart) (missing []string) {
	for _, d := range c.Metadata.Dependencies {
		if !slices.ContainsFunc(c.Dependencies(), func(sub *chart.Chart) bool { return sub.Name() == d.Name }) {
			missing = append(missing, d.Name)
		}
	}
	for _, sub := range c.Dependencies() {
		missing = append(missing, missingCharts(sub)...)
	}
	return missing
}

// add takes the templates of a chart and of those in it, each with what it
// sees: its own values, and the parts of top that are the same for all.
func (e *engine) add(c *chart.Chart, top map[string]any, values any) map[string]any {
	meta := map[string]any{}
	if a, err := helmchart.NewAccessor(c); err == nil {
		meta = a.MetadataAsMap()
	}
	meta["IsRoot"] = c.IsRoot()
	own := mapping(values)
	files, subcharts := chartFiles{}, map[string]any{}
	for _, f := range c.Files {
		files[f.Name] = f.Data
	}
	scope := map[string]any{
		"Chart": meta, "Files": files, "Values": own, "Subcharts": subcharts,
		"Release": top["Release"], "Capabilities": top["Capabilities"],
	}
	for _, sub := range c.Dependencies() {
		subcharts[sub.Name()] = e.add(sub, top, own[sub.Name()])
	}
	library := strings.EqualFold(c.Metadata.Type, "library")
	for _, t := range c.Templates {
		if partial := strings.HasPrefix(path.Base(t.Name), "_"); partial || !library {
			e.templates[path.Join(c.ChartFullPath(), t.Name)] = chartTemplate{
				text: string(t.Data), scope: scope, base: path.Join(c.ChartFullPath(), "templates"), partial: partial,
			}
		}
	}
	return scope
}

// mapping returns values by their plain type, or nil.
func mapping(values any) map[string]any {
	if v, ok := values.(common.Values); ok {
		return v
	}
	own, _ := values.(map[string]any)
	return own
}

// names returns the templates in the order in which Helm reads them: of two
// that define the same, the one nearer to the root wins.
func (e *engine) names() []string {
	return slices.SortedFunc(maps.Keys(e.templates), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")), strings.Compare(b, a))
	})
}

// capabilities are those of a cluster that a chart is rendered for.
func (rel Release) capabilities() (*common.Capabilities, error) {
	caps := common.DefaultCapabilities.Copy()
	version, err := common.ParseKubeVersion(rel.KubeVersion)
	if err != nil {
		return nil, fmt.Errorf("read Kubernetes version %q: %w", rel.KubeVersion, err)
	}
	caps.KubeVersion = *version
	caps.APIVersions = append(slices.Clone(caps.APIVersions), rel.APIVersions...)
	return caps, nil
}
