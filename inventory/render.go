package inventory

import (
	"bytes"
	"errors"
	"fmt"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"

	"github.com/kubeguardian/kubeguardian/helm"
)

// renderCharts renders the charts that were found, each with the values that
// the user gave.
func (r *reader) renderCharts() {
	values, err := userValues(r.in.Values, r.in.Set)
	if err != nil {
		r.report(err)
	}
	rendered := 0
	for _, f := range r.charts {
		if r.consumed[f.real] || r.ctx.Err() != nil {
			continue
		}
		if err != nil {
			r.fail(f.name, fmt.Errorf("%s: not rendered without the values", f.name))
			continue
		}
		if r.chart(f, newRelease(values)) {
			rendered++
		}
	}
	if rendered == 0 && err == nil && len(r.in.Values)+len(r.in.Set) > 0 {
		r.report(errors.New("values are given, but there is no chart that takes them"))
	}
}

// newRelease is how a chart is rendered that nobody says more about.
func newRelease(values map[string]any) helm.Release {
	return helm.Release{Values: values, KubeVersion: fmt.Sprintf("v1.%d.0", kubernetesMinor), Check: harmless}
}

// userValues merges values as Helm does: later files win over earlier ones, and
// single values over files.
func userValues(files, set []string) (map[string]any, error) {
	values := map[string]any{}
	for _, name := range files {
		more, err := valuesFile(name)
		if err != nil {
			return nil, err
		}
		values = loader.MergeMaps(values, more)
	}
	for _, s := range set {
		if err := strvals.ParseInto(s, values); err != nil {
			return nil, fmt.Errorf("read value %q: %w", s, err)
		}
	}
	return values, nil
}

func valuesFile(name string) (map[string]any, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return readValues(name, data)
}

func readValues(name string, data []byte) (map[string]any, error) {
	if err := harmless(name, data); err != nil {
		return nil, err
	}
	values, err := loader.LoadValues(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return values, nil
}

// chart renders one chart and reads the result. It reports whether f is a
// chart.
func (r *reader) chart(f found, rel helm.Release) bool {
	files, err := helm.Read(f.name)
	if errors.Is(err, helm.ErrNoChart) && !f.named {
		r.skipped = append(r.skipped, Skip{Source: f.name, Reason: helm.ErrNoChart.Error()})
		return false
	}
	var texts []helm.Rendered
	if err == nil {
		texts, err = helm.Render(r.ctx, f.name, files, rel)
	}
	switch {
	case errors.Is(err, helm.ErrLibrary):
		r.skipped = append(r.skipped, Skip{Source: f.name, Reason: helm.ErrLibrary.Error()})
	case err != nil:
		r.fail(f.name, err)
	}
	for _, t := range texts {
		r.parse(source{name: t.File, from: f.name, line: t.Line, chart: true}, []byte(t.Text))
	}
	return true
}
