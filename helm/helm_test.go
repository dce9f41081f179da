package helm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	helmengine "helm.sh/helm/v4/pkg/engine"
)

func chartOf(files map[string]string) Files {
	var out Files
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = append(out, &archive.BufferedFile{Name: name, Data: []byte(files[name])})
	}
	return out
}

func unchecked(string, []byte) error { return nil }

// plain is a release without values.
var plain = Release{KubeVersion: "v1.37.0", Check: unchecked}

const metadata = "apiVersion: v2\nname: app\nversion: 1.2.3\nappVersion: '7'\n"

// TestRenderLikeHelm holds our engine to Helm's own: what they print is equal.
func TestRenderLikeHelm(t *testing.T) {
	data, err := os.ReadFile("testdata/templates.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range txtar.Parse(data).Files {
		files[f.Name] = string(f.Data)
	}
	values := map[string]any{"given": "by the user", "sub": map[string]any{"deep": map[string]any{"x": int64(1)}}}
	ours, err := Render(t.Context(), "app", chartOf(files), Release{Name: "r", Namespace: "ns", Values: values, KubeVersion: "v1.37.0", Check: unchecked})
	if err != nil {
		t.Fatal(err)
	}
	want := helmRender(t, chartOf(files), values)
	for _, r := range ours {
		name := strings.Replace(r.File, "app/", "root/", 1)
		if r.Text != want[name] {
			t.Errorf("%s: ours\n%s\nHelm's\n%s", name, r.Text, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		if !strings.HasSuffix(name, "NOTES.txt") {
			t.Errorf("%s is not rendered", name)
		}
	}
}

func helmRender(t *testing.T, files []*archive.BufferedFile, values map[string]any) map[string]string {
	t.Helper()
	c, err := loader.LoadFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		t.Fatal(err)
	}
	caps := common.DefaultCapabilities.Copy()
	version, err := common.ParseKubeVersion("v1.37.0")
	if err != nil {
		t.Fatal(err)
	}
	caps.KubeVersion = *version
	top, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "r", Namespace: "ns", Revision: 1, IsInstall: true}, caps)
	if err != nil {
		t.Fatal(err)
	}
	out, err := helmengine.Render(c, top)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRenderRefuses runs templates that would take a machine down.
func TestRenderRefuses(t *testing.T) {
	tests := []struct{ name, template, values, err string }{
		{"a loop without end", `{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}`, "", "more than 2000000 steps"},
		{"a loop over a number", `{{ range 9999999999 }}{{ end }}`, "", "more than 2000000 steps"},
		{"include of itself", `{{ define "a" }}{{ include "a" . }}{{ end }}{{ include "a" . }}`, "", "more than 500 deep"},
		{"template of itself", `{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}`, "", "more than 500 deep"},
		{"two of each other, branching", `{{ define "a" }}{{ include "b" . }}{{ include "b" . }}{{ end }}{{ define "b" }}{{ include "a" . }}{{ end }}{{ include "a" . }}`, "", "more than 500 deep"},
		{"tpl of itself", `{{ tpl .Values.x . }}`, "x: '{{ tpl .Values.x . }}'", "more than 500 deep"},
		{"branches", `{{ define "a" }}{{ if lt . 60 }}{{ include "a" (add1 .) }}{{ include "a" (add1 .) }}{{ end }}{{ end }}{{ include "a" 0 }}`, "", "more than 2000000 steps"},
		{"text that doubles", `{{ $x := "xx" }}{{ range until 60 }}{{ $x = print $x $x }}{{ end }}`, "", "more than 8 MiB"},
		{"text that doubles by join", `{{ $x := "xx" }}{{ range until 60 }}{{ $x = list $x $x | join "" }}{{ end }}`, "", "more than 8 MiB"},
		{"a list that holds itself twice", `{{ $x := list 1 }}{{ range until 60 }}{{ $x = list $x $x }}{{ end }}{{ $x | toYaml }}`, "", "more than 8 MiB or 256 levels"},
		{"the same printed", `{{ $x := list 1 }}{{ range until 60 }}{{ $x = list $x $x }}{{ end }}{{ $x }}`, "", "more than 8 MiB or 256 levels"},
		{"a mapping in itself", `{{ $x := dict }}{{ $_ := set $x "x" $x }}{{ $x }}`, "", "more than 8 MiB or 256 levels"},
		{"a list that doubles", `{{ $x := list 1 }}{{ range until 60 }}{{ $x = concat $x $x }}{{ end }}`, "", "more than 8 MiB"},
		{"repeat", `{{ repeat 1000000000 "x" }}`, "", "repeat would make a value of more than 8 MiB"},
		{"replace", `{{ $x := repeat 100000 "a" }}{{ replace "a" $x $x }}`, "", "replace would make"},
		{"indent", `{{ indent 1000000000 "x" }}`, "", "indent would make"},
		{"printf", `{{ printf "%1000000000d" 1 }}`, "", "printf would make"},
		{"printf by argument", `{{ printf "%*d" 1000000000 1 }}`, "", "printf would make"},
		{"until", `{{ until 1000000000 }}`, "", "until would make"},
		{"untilStep", `{{ untilStep 0 2000000000 1 }}`, "", "untilStep would make"},
		{"seq", `{{ seq 1 2000000000 }}`, "", "seq would make"},
		{"keys", `{{ range until 100 }}{{ genPrivateKey "ed25519" }}{{ end }}`, "", "more than 2000000 steps"},
		{"output", `{{ $x := repeat 1000000 "x" }}{{ range until 100 }}{{ $x }}{{ end }}`, "", "renders to more than 64 MiB"},
		{"nesting", strings.Repeat(`{{ if true }}`, 300) + strings.Repeat(`{{ end }}`, 300), "", "nested more than 200 deep"},
		{"the environment", `{{ env "HOME" }}`, "", `function "env" not defined`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := chartOf(map[string]string{"Chart.yaml": metadata, "templates/a.yaml": test.template, "values.yaml": test.values})
			_, err := Render(t.Context(), "app", files, plain)
			if err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "app") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %.300v, want %s", err, test.err)
			}
		})
	}
}

// pack makes an archive; a content that begins with "->" is a link.
func pack(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		head := &tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644, Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(files[name], "->"); ok {
			head.Typeflag, head.Linkname, head.Size = tar.TypeSymlink, target, 0
		}
		err := w.WriteHeader(head)
		if err == nil && head.Typeflag == tar.TypeReg {
			_, err = w.Write([]byte(files[name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestChartArchives(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}-{{ .Chart.Name }}\n"
	sub := string(pack(t, map[string]string{"sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n", "sub/templates/pod.yaml": pod}))
	nested := sub
	for range maxChartDepth {
		nested = string(pack(t, map[string]string{"sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n", "sub/charts/sub.tgz": nested}))
	}
	many := map[string]string{"app/Chart.yaml": metadata}
	for i := range maxChartFiles {
		many[fmt.Sprintf("app/files/%d", i)] = ""
	}
	tests := []struct {
		name  string
		files map[string]string
		want  string // objects, or part of the error
	}{
		{"a chart with a packed one", map[string]string{"app/Chart.yaml": metadata, "app/templates/pod.yaml": pod, "app/charts/sub-1.0.0.tgz": sub},
			"app.tgz/charts/sub/templates/pod.yaml release-name-sub\napp.tgz/templates/pod.yaml release-name-app\n"},
		{"names that lead out", map[string]string{"app/Chart.yaml": metadata, "app/../../etc/passwd": "x"}, `entry "app/../../etc/passwd" is not in the folder of the chart`},
		{"absolute names", map[string]string{"app/Chart.yaml": metadata, "/etc/passwd": "x"}, `entry "/etc/passwd" is not in the folder of the chart`},
		{"Windows' names that lead out", map[string]string{"app/Chart.yaml": metadata, `app\..\..\x`: "x"}, "is not in the folder of the chart"},
		{"links", map[string]string{"app/Chart.yaml": metadata, "app/values.yaml": "->/etc/passwd"}, `entry "app/values.yaml" is a link or a device`},
		{"a bomb", map[string]string{"app/Chart.yaml": metadata, "app/big": strings.Repeat("\x00", maxChartSize)}, "a chart of more than 64 MiB, unpacked"},
		{"many files", many, "a chart of more than 10000 files"},
		{"archives in archives", map[string]string{"app/Chart.yaml": metadata, "app/charts/sub.tgz": nested}, "archives nested more than 8 deep"},
		{"no chart", map[string]string{"app/readme": ""}, "app.tgz: not the archive of a Helm chart"},
		{"a chart without a name", map[string]string{"app/Chart.yaml": "apiVersion: v2\nversion: 1.0.0\n"}, "app.tgz: validation: chart.metadata.name is required"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("app.tgz", pack(t, test.files), 0o600); err != nil {
				t.Fatal(err)
			}
			got := ""
			files, err := Read("app.tgz")
			if err == nil {
				var texts []Rendered
				texts, err = Render(t.Context(), "app.tgz", files, plain)
				for _, r := range texts {
					_, name, _ := strings.Cut(strings.TrimSpace(r.Text), "name: ")
					got += r.File + " " + name + "\n"
				}
			}
			if err != nil {
				got = err.Error()
			}
			if err == nil && got != test.want || !strings.Contains(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestBrokenArchives(t *testing.T) {
	t.Chdir(t.TempDir())
	whole := pack(t, map[string]string{"app/Chart.yaml": metadata, "app/templates/a.yaml": strings.Repeat("# x\n", 1000)})
	for name, data := range map[string][]byte{"cut.tgz": whole[:len(whole)/2], "text.tgz": []byte("hello"), "empty.tgz": nil} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(name); err == nil || !strings.HasPrefix(err.Error(), name+": unpack: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzChart(f *testing.F) {
	f.Add("a: 1\n", "{{ .Values.a }}", "{{ define \"x\" }}{{ end }}")
	f.Add("a: {b: [1, 2]}\n", "{{ range .Values.a.b }}{{ include \"x\" . | nindent 2 }}{{ end }}", "{{ define \"x\" }}{{ tpl \"{{ . }}\" . }}{{ end }}")
	f.Fuzz(func(t *testing.T, values, template, helpers string) {
		files := chartOf(map[string]string{"Chart.yaml": metadata, "values.yaml": values, "templates/a.yaml": template, "templates/_h.tpl": helpers})
		texts, err := Render(t.Context(), "app", files, plain)
		for _, r := range texts {
			for n := range strings.Count(r.Text, "\n") + 1 {
				if line := r.Line(n + 1); line < 1 || line > 1+strings.Count(template, "\n") {
					t.Fatalf("line %d of the output is line %d of %q", n+1, line, template)
				}
			}
		}
		if err != nil && path.Dir(err.Error()) == "" {
			t.Fatal(err)
		}
	})
}

func FuzzArchive(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := chartReader{left: 1 << 20}
		if err := c.unpack(bytes.NewReader(data), "", 1); err == nil && c.left < 0 {
			t.Fatal("over the bounds")
		}
	})
}
