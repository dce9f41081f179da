package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// read runs FromFiles in a folder that holds the files of an archive.
func read(t *testing.T, archive string, paths []string, stdin string) (*Inventory, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, f := range txtar.Parse([]byte(archive)).Files {
		if err := os.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return FromFiles(t.Context(), paths, strings.NewReader(stdin))
}

// describeInventory lists objects and skips, one a line.
func describeInventory(inv *Inventory) string {
	var b strings.Builder
	for _, o := range inv.Objects() {
		fmt.Fprint(&b, o.Source, " ", o.Subject())
		if o.RenderedFrom != "" && !strings.HasPrefix(o.Source, o.RenderedFrom) {
			fmt.Fprint(&b, " from ", o.RenderedFrom)
		}
		fmt.Fprintln(&b)
	}
	for _, s := range inv.Skipped {
		fmt.Fprintln(&b, "skip", s.Source+":", s.Reason)
	}
	return b.String()
}

func TestFromFiles(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n"
	tests := []struct {
		name    string
		archive string
		paths   string // default "."
		stdin   string
		want    string // objects and skips
		err     string // all lines of the error
		hint    string
	}{
		{
			name: "documents have their true lines",
			archive: "-- app.yaml --\n# a comment\n\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\n# another\n" +
				"kind: Service\napiVersion: v1\nmetadata: {name: b, namespace: shop}\n",
			want: "app.yaml:3 Pod/a\napp.yaml:9 Service/shop/b\n",
		},
		{
			name: "lists are flattened, at any depth",
			archive: "-- list.yaml --\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n" +
				"- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: Pod\n    metadata: {name: b}\n",
			want: "list.yaml:4 Pod/a\nlist.yaml:10 Pod/b\n",
		},
		{
			name: "a list of one kind, as the API server sends it",
			archive: "-- list.json --\n{\"apiVersion\": \"apps/v1\", \"kind\": \"DeploymentList\", \"metadata\": {\"resourceVersion\": \"1\"},\n" +
				"\"items\": [\n{\"metadata\": {\"name\": \"a\"}},\n{\"metadata\": {\"name\": \"b\"}}]}\n",
			want: "list.json:3 Deployment/a\nlist.json:4 Deployment/b\n",
		},
		{
			name:    "JSON with tabs and escapes in two parts",
			archive: "-- a.json --\n{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"data\": {\"x\": \"\\ud83d\\ude00 \\\\ud83d\"}\n}\n",
			want:    "a.json:1 ConfigMap/a\n",
		},
		{
			name: "a folder: what is no object is named",
			archive: "-- a/pod.yaml --\n" + fmt.Sprintf(pod, "a") + "-- a/b/c/pod.YML --\n" + fmt.Sprintf(pod, "b") +
				"-- a/values.yaml --\n# values\nreplicas: 1\n-- a/list.json --\n[1]\n-- a/text.yaml --\nhello\n-- a/empty.yaml --\n# nothing\n" +
				"-- a/kubeconfig.yaml --\napiVersion: v1\nkind: Config\nusers: []\n-- a/README.md --\n: : :\n-- a/.git/x.yaml --\n: : :\n",
			paths: "a",
			want: "a/pod.yaml:1 Pod/a\na/b/c/pod.YML:1 Pod/b\nskip a/empty.yaml: empty\nskip a/kubeconfig.yaml:1: Config without metadata\n" +
				"skip a/list.json:1: a list, not an object\nskip a/text.yaml:1: plain text, not an object\nskip a/values.yaml:2: no apiVersion and kind\n",
		},
		{
			name:    "a file named twice is read once",
			archive: "-- a/pod.yaml --\n" + fmt.Sprintf(pod, "a"),
			paths:   "a/pod.yaml a ./a/../a",
			want:    "a/pod.yaml:1 Pod/a\n",
		},
		{
			name:  "stdin",
			paths: "-", stdin: "\n" + fmt.Sprintf(pod, "a"),
			want: "stdin:2 Pod/a\n",
		},
		{
			name:    "a custom resource is decoded loosely",
			archive: "-- a.yaml --\napiVersion: example.com/v1\nkind: Gate\nmetadata: {name: a}\nspec: {anything: [1, 2.5, null, yes]}\n",
			want:    "a.yaml:1 Gate/a\n",
		},
		{
			name: "every strict error at its own line",
			archive: "-- a.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    version: 1.5\nspec:\n  contianers: []\n  containers:\n" +
				"  - name: a\n    imagePullPolcy: Always\n    securityContext:\n      privileged: \"true\"\n    ports:\n    - containerPort: 99999999999\n" +
				"    resources:\n      limits: {cpu: lots}\n    env: {A: b}\n    args: run\n  priority: 1.5\n",
			err: `a.yaml:6: metadata.labels.version is a number: want text, so put it in quotes
a.yaml:19: spec.containers[0].args is text: want a list
a.yaml:18: spec.containers[0].env is a mapping: want a list
a.yaml:11: unknown field spec.containers[0].imagePullPolcy: did you mean imagePullPolicy?
a.yaml:15: spec.containers[0].ports[0].containerPort is a number: want a whole number of 32 bits
a.yaml:17: spec.containers[0].resources.limits.cpu is text: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
a.yaml:13: spec.containers[0].securityContext.privileged is text: want true or false
a.yaml:8: unknown field spec.contianers: did you mean containers?
a.yaml:20: spec.priority is a number: want a whole number of 32 bits`,
		},
		{
			name: "a secret's value is not in the error",
			archive: "-- a.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {password: hunter2!}\n---\n" +
				"apiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {pin: 8472}\n",
			err: "a.yaml:4: data.password is not base64\na.yaml:9: stringData.pin is a number: want text, so put it in quotes",
		},
		{
			name:    "duplicate keys",
			archive: "-- a.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  name: b\n",
			err:     "a.yaml:5: duplicate key \"name\": first on line 4",
		},
		{
			name: "kinds that do not exist",
			archive: "-- a.yaml --\napiVersion: apps/v1\nkind: Deploymnt\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Deployment\nmetadata: {name: a}\n---\n" +
				"apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n---\napiVersion: apps/v9\nkind: Deployment\nmetadata: {name: a}\n",
			err: `a.yaml:2: apps/v1 has no kind Deploymnt: did you mean Deployment?
a.yaml:6: v1 has no kind Deployment: it is in apps/v1
a.yaml:9: extensions/v1beta1 Ingress was removed in Kubernetes 1.22: use networking.k8s.io/v1
a.yaml:14: apps/v9 has no kind Deployment: it is in apps/v1`,
		},
		{
			name: "half an object",
			archive: "-- a.yaml --\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: 7\n---\napiVersion: a/b/c\nkind: X\n---\napiVersion: v1\nkind: Pod\nspec: {}\n---\n" +
				"apiVersion: x.io/v1\nkind: Gate\nmetadata: {}\n---\napiVersion: v1\nkind: List\nitems: [text]\n---\napiVersion: x.io/v1\nkind: Gate\nmetadata: {name: [a]}\n",
			err: `a.yaml:1: apiVersion is missing or not text
a.yaml:5: kind is missing or not text
a.yaml:7: unexpected GroupVersion string: a/b/c
a.yaml:10: Pod has no metadata.name
a.yaml:16: Gate has no metadata.name
a.yaml:20: an item of a list must be an object
a.yaml:24: metadata.name is a list: want text, so put it in quotes`,
		},
		{
			name:    "broken YAML",
			archive: "-- a.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n   labels: b\n",
			err:     "a.yaml:5: mapping values are not allowed in this context",
		},
		{
			name:    "broken JSON",
			archive: "-- a.json --\n{\"apiVersion\": \"v1\",\n\"kind\": \"Pod\"\n",
			err:     "a.json:3: did not find expected ',' or '}'",
		},
		{
			name:    "a Helm template",
			archive: "-- a.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}-a\n",
			err:     "a.yaml:4: did not find expected key",
			hint:    "scan the folder of its chart",
		},
		{
			name: "a Helm chart, with the lines of its templates",
			archive: "-- c/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\n-- c/values.yaml --\nextra: true\n-- c/templates/a.yaml --\n{{- /* first */ -}}\n{{ include \"name\" . }}\n---\n" +
				"{{- if .Values.extra }}\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n---\n{{- end }}\n{{- range until 2 }}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s-{{ . }}}\n{{- end }}\n" +
				"-- c/templates/_h.tpl --\n{{ define \"name\" }}\napiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n{{ end }}\n-- c/templates/NOTES.txt --\nhello\n" +
				"-- c/templates/tests/t.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: t\n  annotations: {helm.sh/hook: test-success}\n-- c/templates/hook.yaml --\napiVersion: v1\nkind: Pod\nmetadata:\n  name: h\n" +
				"  annotations: {helm.sh/hook: pre-install}\n-- c/crds/x.yaml --\n\n{apiVersion: x.io/v1, kind: Gate, metadata: {name: g}}\n-- c/.helmignore --\nignored\n-- c/templates/ignored/a.yaml --\n{{ x }}\n",
			want: "c/crds/x.yaml:2 Gate/g\nc/templates/a.yaml:2 Namespace/ns\nc/templates/a.yaml:5 Pod/release-name\nc/templates/a.yaml:13 Service/s-0\n" +
				"c/templates/a.yaml:13 Service/s-1\nc/templates/hook.yaml:1 Pod/h\n",
		},
		{
			name:    "a chart that needs others",
			archive: "-- c/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [{name: redis, version: 1.0.0, repository: https://example.com}]\n",
			paths:   "c/Chart.yaml",
			err:     "c: charts that it depends on are not in its folder charts: redis",
			hint:    "helm dependency build c",
		},
		{
			name: "a chart that fails, at the innermost template",
			archive: "-- c/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\n-- c/templates/a.yaml --\n{{ include \"x\" . }}\n-- c/templates/_h.tpl --\n\n{{ define \"x\" }}\n{{ required \"name: a name is needed\" .Values.name }}\n{{ end }}\n" +
				"-- d/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\n-- d/templates/a.yaml --\n\n{{ fial }}\n-- e/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\nkubeVersion: <1.30\n",
			err:  "c/templates/_h.tpl:3: name: a name is needed\nd/templates/a.yaml:2: function \"fial\" not defined\ne: the chart is for Kubernetes <1.30, and is rendered for v1.37.0",
			hint: "--set KEY=VALUE",
		},
		{
			name: "what a chart renders is decoded strictly",
			archive: "-- c/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\n-- c/templates/a.yaml --\n# {{ .Chart.Name }}\n{{- with 1 }}\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  hostNetwrok: true\n{{- end }}\n" +
				"-- c/templates/b.yaml --\na: [\n",
			err: "c/templates/b.yaml:2: did not find expected node content\nc/templates/a.yaml:7: unknown field spec.hostNetwrok: did you mean hostNetwork?",
		},
		{
			name:    "a chart whose values explode",
			archive: "-- c/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\n-- c/values.yaml --\na: &a [x,x,x,x,x,x,x,x,x]\n" + bomb(),
			err:     "c/values.yaml:1: aliases expand to more than 200000 values",
		},
		{
			name:    "a library chart",
			archive: "-- c/Chart.yaml --\napiVersion: v2\nname: app\nversion: 1.0.0\ntype: library\n-- pod.yaml --\n" + fmt.Sprintf(pod, "a"),
			want:    "pod.yaml:1 Pod/a\nskip c: a library chart, which makes no objects itself\n",
		},
		{
			name:    "a named file must hold objects",
			archive: "-- values.yaml --\na: b\n-- empty.yaml --\n",
			paths:   "values.yaml empty.yaml",
			err:     "values.yaml:1: no Kubernetes objects: no apiVersion and kind\nempty.yaml: no Kubernetes objects: empty",
		},
		{name: "an empty folder", err: "no Kubernetes objects in .", hint: "name files or folders"},
		{name: "empty stdin", paths: "-", err: "stdin: no Kubernetes objects: empty"},
		{name: "no such file", paths: "nowhere.yaml", err: "nowhere.yaml: no such file or directory"},
		{name: "a binary file", archive: "-- a.yaml --\nELF\x00\n", err: "a.yaml: not a text file in UTF-8"},
		{name: "Latin-1", archive: "-- a.yaml --\ncaf\xe9: 1\n", err: "a.yaml: not a text file in UTF-8"},
		{name: "unknown tag", archive: "-- a.yaml --\na: !vault x\n", err: "a.yaml:1: unknown tag !vault"},
		{name: "not a number", archive: "-- a.yaml --\na: .nan\n", err: "a.yaml:1: .nan is not a number that JSON has"},
		{name: "a key that is no text", archive: "-- a.yaml --\n? [a]\n: b\n", err: "a.yaml:1: a key must be text"},
		{name: "merge of a scalar", archive: "-- a.yaml --\n<<: 1\n", err: "a.yaml:1: merge (<<) of a value that is not a mapping"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			paths := strings.Fields(test.paths)
			if len(paths) == 0 {
				paths = []string{"."}
			}
			inv, err := read(t, test.archive, paths, test.stdin)
			if test.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := sorted(describeInventory(inv)); got != sorted(test.want) {
					t.Errorf("got\n%swant\n%s", got, test.want)
				}
				return
			}
			if inv != nil || err == nil || err.Error() != test.err {
				t.Errorf("inventory %v, error\n%v\nwant\n%s", inv, err, test.err)
			}
			if got := hintOf(err); !strings.Contains(got, test.hint) {
				t.Errorf("hint %q, want %q", got, test.hint)
			}
		})
	}
}

func sorted(lines string) string {
	all := strings.SplitAfter(lines, "\n")
	slices.Sort(all)
	return strings.Join(all, "")
}

func hintOf(err error) string {
	if h := (interface{ Hint() string })(nil); errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func TestValues(t *testing.T) {
	inv, err := read(t, `-- a.yaml --
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations: &notes {a: "yes", b: "1"}
  labels: {<<: *notes, b: own}
spec:
  hostNetwork: yes
  hostPID: Off
  terminationGracePeriodSeconds: 0x1E
  activeDeadlineSeconds: 60.0
  volumes: [{name: v, hostPath: {path: 2001-01-01}, configMap: {defaultMode: 0644}}]
`, []string{"."}, "")
	if err != nil {
		t.Fatal(err)
	}
	spec := inv.Objects()[0].Object["spec"].(map[string]any)
	got := fmt.Sprintf("%v %v %v %v %v %v", spec["hostNetwork"], spec["hostPID"],
		spec["terminationGracePeriodSeconds"], spec["activeDeadlineSeconds"], spec["volumes"], inv.Objects()[0].GetLabels())
	want := "true false 30 60 [map[configMap:map[defaultMode:420] hostPath:map[path:2001-01-01] name:v]] map[a:yes b:own]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBounds(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	tests := []struct{ name, input, err string }{
		{"aliases that explode", bomb, "stdin:1: aliases expand to more than 200000 values"},
		{"an anchor that contains itself", "a: &a [*a]\n", "stdin:1: nested more than 256 levels deep"},
		{"deep flow nesting", "a: " + strings.Repeat("[", 300) + strings.Repeat("]", 300), "stdin:1: nested more than 256 levels deep"},
		{"nesting beyond the parser", strings.Repeat("[", 100_000), "stdin:1: exceeded max depth of 10000"},
		{"deep block nesting", strings.Repeat("- ", 300) + "a", "stdin:1: nested more than 256 levels deep"},
		{"size of stdin", strings.Repeat("#", maxFileSize+1), "stdin: the input is over the limit of 32 MiB for one file"},
		{"number of lines", strings.Repeat("a\n", maxValues+1), "stdin: more than 2000000 lines and commas"},
		{"number of documents", strings.Repeat("---\n", maxDocuments+2), fmt.Sprintf("stdin:%d: more than 100000 documents", maxDocuments+1)},
		{"number of list items", "apiVersion: v1\nkind: List\nitems:\n" + strings.Repeat("- {apiVersion: a/v1, kind: A, metadata: {name: a}}\n", maxDocuments),
			fmt.Sprintf("stdin:%d: more than 100000 documents", maxDocuments+3)},
		{"number of errors", strings.Repeat("kind: A\n---\n", maxErrors+5),
			strings.TrimSpace(strings.Repeat("stdin:N: apiVersion is missing or not text\n", maxErrors)) + "\nand 5 more errors"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := FromFiles(t.Context(), []string{"-", "-"}, strings.NewReader(test.input))
			if err == nil {
				t.Fatal("no error")
			}
			got := err.Error()
			if strings.Contains(test.err, ":N:") {
				got = regexp.MustCompile(`:\d+:`).ReplaceAllString(got, ":N:")
			}
			if got != test.err {
				t.Errorf("got  %.200s\nwant %.200s", got, test.err)
			}
		})
	}
}

func TestSizeOfFile(t *testing.T) {
	t.Chdir(t.TempDir())
	f, err := os.Create("big.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(50_000_000), f.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = FromFiles(t.Context(), []string{"."}, nil)
	if want := "big.yaml: 48 MiB is over the limit of 32 MiB for one file"; err == nil || err.Error() != want || hintOf(err) == "" {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestSpecialFiles(t *testing.T) {
	tests := []struct {
		name  string
		setup func() error
		want  string // part of the error, or all objects
	}{
		{"a link that leads nowhere", func() error { return os.Symlink("nowhere", "a.yaml") }, "a.yaml: dangling link to nowhere"},
		{"a link to itself", func() error { return os.Symlink("a.yaml", "a.yaml") }, "a.yaml: too many levels of symbolic links"},
		{"a pipe", func() error { return syscall.Mkfifo("a.yaml", 0o600) }, "a.yaml: not a regular file (a pipe)"},
		{"a link to the folder around it", func() error {
			return errors.Join(os.Symlink(".", "again"), os.WriteFile("pod.yaml", []byte("{apiVersion: v1, kind: Pod, metadata: {name: a}}"), 0o600))
		}, "pod.yaml:1 Pod/a\n"},
		{"a folder reached by a link only", func() error {
			return errors.Join(os.MkdirAll(".hidden", 0o700), os.Symlink(".hidden", "seen"),
				os.WriteFile(".hidden/pod.yaml", []byte("{apiVersion: v1, kind: Pod, metadata: {name: a}}"), 0o600))
		}, "seen/pod.yaml:1 Pod/a\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := test.setup(); err != nil {
				t.Fatal(err)
			}
			inv, err := FromFiles(t.Context(), []string{"."}, nil)
			got := fmt.Sprint(err)
			if err == nil {
				got = describeInventory(inv)
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// TestUnreadable gives up root's power to read everything, for its own thread.
func TestUnreadable(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.Chmod(".", 0o755), os.Mkdir("folder", 0), os.WriteFile("file.yaml", nil, 0)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		runtime.LockOSThread() // never unlocked: the thread ends with the test
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
	}
	_, err := FromFiles(t.Context(), []string{"folder", "file.yaml"}, nil)
	if want := "folder: permission denied\nfile.yaml: permission denied"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if os.Geteuid() == 0 {
		if err := syscall.Setfsuid(0); err != nil {
			t.Error(err)
		}
	}
}

// A failing reader stands for a pipe that breaks.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestTexts reads manifests that were read elsewhere, reviews, and what is wrong
// for its kind.
func TestTexts(t *testing.T) {
	const text = "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\nrequest: {uid: a}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: a}, specs: 1}\n"
	in := FileInput{Texts: []Text{{"a.yaml", []byte(text)}}}
	if _, err := Read(t.Context(), in); err == nil || !strings.Contains(err.Error(), "a.yaml:5: unknown field specs") {
		t.Errorf("strictly: %v", err)
	}
	in.Loose = true
	inv, err := Read(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describeInventory(inv), "a.yaml:5 Secret/a\nskip a.yaml:1: AdmissionReview without metadata\n"; got != want {
		t.Errorf("loosely: %q, want %q", got, want)
	}
	in.Reviews = true
	if inv, err = Read(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if got, want := describeInventory(inv), "a.yaml:1 AdmissionReview\na.yaml:5 Secret/a\n"; got != want {
		t.Errorf("with reviews: %q, want %q", got, want)
	}
}

func TestBrokenStdin(t *testing.T) {
	_, err := FromFiles(t.Context(), []string{"-"}, failing{})
	if !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "stdin: unexpected EOF" {
		t.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FromFiles(ctx, []string{"."}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNoObjectsIsASentinel(t *testing.T) {
	for _, input := range []string{"", "a: b"} {
		if _, err := FromFiles(t.Context(), []string{"-"}, strings.NewReader(input)); !errors.Is(err, ErrNoObjects) {
			t.Errorf("%q: %v", input, err)
		}
	}
}

func BenchmarkFromFiles(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, deployment, i, i, i)
	}
	for b.Loop() {
		inv, err := FromFiles(b.Context(), []string{"-"}, strings.NewReader(text.String()))
		if err != nil || len(inv.Workloads()) != 1000 {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(text.Len()))
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
	b.ReportAllocs()
}

const deployment = `---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-%d
  namespace: shop
  labels: {app: web-%d, team: checkout}
spec:
  replicas: 3
  selector:
    matchLabels: {app: web-%d}
  template:
    metadata:
      labels: {app: web, team: checkout}
    spec:
      serviceAccountName: web
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: web
        image: registry.example.com/shop/web:1.4.2
        imagePullPolicy: IfNotPresent
        ports:
        - {name: http, containerPort: 8080}
        env:
        - name: DATABASE_HOST
          value: database.shop.svc
        resources:
          requests: {cpu: 100m, memory: 128Mi}
          limits: {memory: 128Mi}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        livenessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - {name: tmp, mountPath: /tmp}
      volumes:
      - name: tmp
        emptyDir: {sizeLimit: 16Mi}
`
