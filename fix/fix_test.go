package fix_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fix"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

var loaded = sync.OnceValues(func() (in fix.Input, err error) {
	if in.Catalogue, err = control.LoadCatalogue(content.Controls()); err != nil {
		return in, err
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		return in, err
	}
	in.Policies, err = policy.Load(files...)
	in.Now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	return in, err
})

// input returns the built-in controls over paths.
func input(t testing.TB, paths ...string) fix.Input {
	t.Helper()
	in, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	in.Paths = paths
	return in
}

func propose(t testing.TB, in fix.Input) *fix.Plan {
	t.Helper()
	p, err := fix.Propose(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fixed returns a manifest after the fix of some controls, all if none is
// named.
func fixed(t testing.TB, manifest string, controls ...string) (string, *fix.Plan) {
	t.Helper()
	in := input(t, "-")
	in.Stdin, in.Controls = strings.NewReader(manifest), controls
	p := propose(t, in)
	if len(p.Files) == 0 {
		return manifest, p
	}
	return string(p.Files[0].After), p
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// unfixable are the examples of automatic controls that no change can mend, and
// what is said of them.
var unfixable = map[string]string{
	"CLU-NET-02/fail-allow-all.yaml":     "more policies would not meet it: NetworkPolicy .* selects every pod and allows all ingress",
	"CON-IMG-02/fail-half-a-digest.yaml": "has a digest that is none",
	"CLU-RBA-19/fail-projected.yaml":     "it would still not be met: mounts an API token",
}

// TestExamples fixes every failing example of every automatic control, and
// holds the result to what is promised: the control passes, comments stay, and a
// second time changes nothing.
func TestExamples(t *testing.T) {
	in := input(t)
	byPolicy := map[string]string{}
	for _, p := range in.Policies.Policies() {
		byPolicy[p.Annotation("kubeguardian.dev/control")] = p.Name()
	}
	for _, ctl := range in.Catalogue.Controls() {
		if ctl.Fix.Class != "auto" {
			continue
		}
		files, _ := filepath.Glob("../content/controls/testdata/" + ctl.ID + "/fail-*.yaml")
		if name := byPolicy[ctl.ID]; name != "" {
			more, _ := filepath.Glob("../content/policies/testdata/" + name + "/fail-*.yaml")
			files = append(files, more...)
		}
		if len(files) == 0 {
			t.Errorf("%s: no failing example", ctl.ID)
		}
		for _, file := range files {
			if strings.HasSuffix(file, ".live.yaml") {
				continue
			}
			t.Run(ctl.ID+"/"+filepath.Base(file), func(t *testing.T) { fixExample(t, file, ctl.ID) })
		}
	}
}

func fixExample(t *testing.T, file, id string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inventory.FromFiles(t.Context(), []string{"-"}, bytes.NewReader(data)); err != nil {
		t.Skipf("not to be read strictly: %v", err)
	}
	in := input(t, "-")
	in.Controls = []string{id}
	in.Evidence = known(t, data, in.Now)
	in.Stdin = bytes.NewReader(data)
	p := propose(t, in)
	if strings.HasPrefix(id, "CLU-NET-") && len(p.Refused) > 0 && regexp.MustCompile(`kind: \w*NetworkPolicy`).Match(data) {
		if len(p.Files) > 0 || !strings.HasPrefix(p.Refused[0].Reason, "more policies would not meet it: ") {
			t.Errorf("changes %v, refused %v", p.Changes, p.Refused)
		}
		return // what somebody has allowed is for a person to take back
	}
	if want, ok := unfixable[id+"/"+filepath.Base(file)]; ok {
		if len(p.Files) > 0 || len(p.Refused) == 0 || !regexp.MustCompile(want).MatchString(p.Refused[0].Reason) {
			t.Errorf("changes %v, refused %v", p.Changes, p.Refused)
		}
		return
	}
	if len(p.Files) != 1 || len(p.Changes) == 0 || len(p.Refused) > 0 {
		t.Fatalf("changes %v, refused %v", p.Changes, p.Refused)
	}
	after := p.Files[0].After
	for _, comment := range regexp.MustCompile(`(?m)#.*$`).FindAllString(string(data), -1) {
		if !bytes.Contains(after, []byte(comment)) {
			t.Errorf("comment %q is lost", comment)
		}
	}
	if *p.After.Total < *p.Before.Total {
		t.Errorf("the score falls from %.2f to %.2f", *p.Before.Total, *p.After.Total)
	}
	in.Stdin = bytes.NewReader(after)
	if again := propose(t, in); len(again.Files) > 0 {
		t.Errorf("a second time changes\n%s", again.Diff())
	}
}

// TestEverything fixes all manifests of the repository for all controls. What
// changes must read the same but for the lines of the changes, and stay so.
func TestEverything(t *testing.T) {
	seen, files := 0, 0
	for _, root := range []string{"../examples", "../content"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(name) != ".yaml" {
				return err
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if files++; testing.Short() && files%20 > 0 {
				return nil
			}
			in := input(t, "-")
			in.Stdin = bytes.NewReader(data)
			p, err := fix.Propose(t.Context(), in)
			if err != nil || len(p.Files) == 0 {
				return nil // no manifest, or nothing to fix
			}
			seen++
			in.Stdin = bytes.NewReader(p.Files[0].After)
			if again := propose(t, in); len(again.Files) > 0 {
				t.Errorf("%s: a second time changes\n%s", name, again.Diff())
			}
			for _, r := range p.Refused {
				if strings.Contains(r.Reason, "would change") || strings.Contains(r.Reason, "without changing more") {
					t.Errorf("%s: %s: %s", name, r.Control, r.Reason)
				}
			}
			if seen%4 > 0 {
				return nil // one of four is enough for what follows
			}
			windows := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
			in.Stdin = bytes.NewReader(windows)
			crlf := propose(t, in)
			if len(crlf.Files) != 1 || bytes.Count(crlf.Files[0].After, []byte("\n")) != bytes.Count(crlf.Files[0].After, []byte("\r\n")) {
				t.Errorf("%s: line endings of Windows are lost", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 100 && !testing.Short() {
		t.Errorf("%d manifests were fixed only", seen)
	}
}

const namespaced = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n"

func TestPods(t *testing.T) {
	tests := []struct {
		name, spec, want string
		controls         []string
	}{
		{
			"escalation waits for privileged", "  containers:\n  - name: a\n    image: b\n    securityContext:\n      privileged: true # for now\n",
			"  containers:\n  - name: a\n    image: b\n    securityContext:\n      privileged: false # for now\n      allowPrivilegeEscalation: false\n",
			[]string{"CON-SEC-01", "CON-SEC-02"},
		},
		{
			"capabilities in two steps", "  containers:\n  - name: a\n    securityContext: {capabilities: {add: [SYS_ADMIN, CHOWN, NET_BIND_SERVICE]}}\n",
			"  containers:\n  - name: a\n    securityContext: {capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}}\n",
			[]string{"CON-SEC-04", "CON-SEC-05"},
		},
		{
			"all containers share a context", "  containers:\n  - name: a\n    securityContext: &sc\n      privileged: true\n  - name: b\n    securityContext: *sc\n",
			"  containers:\n  - name: a\n    securityContext: &sc\n      privileged: false\n  - name: b\n    securityContext: *sc\n",
			[]string{"CON-SEC-01"},
		},
		{
			"a profile for the pod, and where another is wanted", "  containers:\n  - name: a\n    securityContext: {seccompProfile: {type: Unconfined}}\n  - name: b\n",
			"  containers:\n  - name: a\n    securityContext: {seccompProfile: {type: RuntimeDefault}}\n  - name: b\n  securityContext:\n    seccompProfile:\n      type: RuntimeDefault\n",
			[]string{"CON-SEC-08"},
		},
		{
			"labels of SELinux", "  securityContext:\n    seLinuxOptions:\n      user: root\n  containers:\n  - name: a\n",
			"  containers:\n  - name: a\n", []string{"CON-SEC-09"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, p := fixed(t, namespaced+tt.spec, tt.controls...)
			if got != namespaced+tt.want {
				t.Errorf("got\n%s\nwant\n%s\nrefused %v", got, namespaced+tt.want, p.Refused)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct{ name, spec, id, want string }{
		{
			"a context that another container needs as it is",
			"  containers:\n  - name: a\n    securityContext: &sc {privileged: true}\n  - name: b\n    securityContext:\n      <<: *sc\n      allowPrivilegeEscalation: true\n",
			"CON-SEC-02", "fix CON-SEC-01 as well",
		},
		{"a capability that wants escalation", "  containers:\n  - name: a\n    securityContext: {capabilities: {add: [CAP_SYS_ADMIN]}}\n", "CON-SEC-02", "fix CON-SEC-04 as well"},
		{
			"a list that is shared", "  initContainers:\n  - name: i\n    env: [{name: A, value: &v \"true\"}]\n    securityContext: &sc {readOnlyRootFilesystem: true}\n  containers:\n  - name: a\n    securityContext:\n      capabilities: &c {drop: [CHOWN]}\n  - name: b\n    securityContext: {capabilities: *c, procMount: Default}\n",
			"CON-SEC-05", "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, p := fixed(t, namespaced+tt.spec, tt.id)
			switch {
			case tt.want == "" && len(p.Changes) != 1:
				t.Errorf("refused %v", p.Refused)
			case tt.want != "" && (len(p.Files) > 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, tt.want)):
				t.Errorf("changes %v, refused %v, want %q", p.Changes, p.Refused, tt.want)
			}
		})
	}
}

// A value that two objects of a list share can change only if both want it.
func TestSharedBetweenObjects(t *testing.T) {
	list := "apiVersion: v1\nkind: List\nitems:\n" +
		"- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [&c {name: c, image: i, securityContext: {privileged: true}}]}}\n" +
		"- {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [*c]}}\n"
	_, p := fixed(t, list, "CON-SEC-01")
	if len(p.Files) > 0 || len(p.Refused) != 2 || !strings.Contains(p.Refused[0].Reason, "shared through the anchor &c of line 4") {
		t.Errorf("changes %v, refused %v", p.Changes, p.Refused)
	}
}

func TestDigests(t *testing.T) {
	pods := "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: 'r.io/a:1'}]}\n" +
		"---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {containers: [{name: a, image: r.io/a:1@" + digest + "}]}\n" +
		"---\napiVersion: v1\nkind: Pod\nmetadata: {name: c}\nspec: {containers: [{name: a, image: r.io/c:1}]}\n"
	got, p := fixed(t, pods, "CON-IMG-02")
	if !strings.Contains(got, "image: 'r.io/a:1@"+digest+"'") || len(p.Changes) != 1 {
		t.Errorf("changes %v\n%s", p.Changes, got)
	}
	if len(p.Manual) != 1 || !p.Manual[0].Value || p.Manual[0].Subjects[0].Name != "c" {
		t.Errorf("manual %v", p.Manual)
	}
	report := evidence.ImageReport{Origin: evidence.Origin{Kind: evidence.Image, SeenAt: input(t).Now.Add(-time.Hour)}, Refs: []string{"r.io/c:1"}, Digests: []string{digest}}
	for name, tt := range map[string]struct {
		change func(r *evidence.ImageReport)
		want   int
	}{
		"a report of today": {func(*evidence.ImageReport) {}, 2},
		"an old report":     {func(r *evidence.ImageReport) { r.SeenAt = r.SeenAt.Add(-24 * time.Hour) }, 1},
		"without a time":    {func(r *evidence.ImageReport) { r.SeenAt = time.Time{} }, 1},
		"another tag":       {func(r *evidence.ImageReport) { r.Refs = []string{"r.io/c:2"} }, 1},
		"two digests":       {func(r *evidence.ImageReport) { r.Digests = append(r.Digests, digest) }, 1},
		"not a digest":      {func(r *evidence.ImageReport) { r.Digests = []string{"sha256:short"} }, 1},
		"by its full name":  {func(r *evidence.ImageReport) { r.Refs = []string{"https://r.io/c:1"} }, 2},
		"no digest":         {func(r *evidence.ImageReport) { r.Digests = nil }, 1},
	} {
		r := report
		tt.change(&r)
		in := input(t, "-")
		in.Stdin, in.Controls = strings.NewReader(pods), []string{"CON-IMG-02"}
		in.Evidence = &evidence.Set{Images: []evidence.ImageReport{r}}
		if p := propose(t, in); len(p.Changes) != tt.want {
			t.Errorf("%s: changes %v, want %d", name, p.Changes, tt.want)
		}
	}
}

// known is evidence of the digest of every image of a manifest.
func known(t *testing.T, manifest []byte, now time.Time) *evidence.Set {
	t.Helper()
	inv, err := inventory.FromFiles(t.Context(), []string{"-"}, bytes.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	set := &evidence.Set{}
	for _, w := range inv.Workloads() {
		for _, c := range append(w.Template.Spec.InitContainers, w.Template.Spec.Containers...) {
			set.Images = append(set.Images, evidence.ImageReport{
				Origin: evidence.Origin{Kind: evidence.Image, SeenAt: now}, Refs: []string{c.Image}, Digests: []string{digest},
			})
		}
	}
	return set
}

func TestUnknownControl(t *testing.T) {
	in := input(t, "-")
	in.Stdin, in.Controls = strings.NewReader(namespaced+"  containers: [{name: a, image: b}]\n"), []string{"CON-SEC-99"}
	if _, err := fix.Propose(t.Context(), in); err == nil || err.Error() != `unknown control "CON-SEC-99"` {
		t.Errorf("error %v", err)
	}
}

// What the cluster refuses is not offered; the rest is.
func TestDryRun(t *testing.T) {
	in := input(t, "-")
	pods := namespaced + "  hostPID: true\n  containers: [{name: a, image: b}]\n---\n" + strings.ReplaceAll(namespaced, "web", "other") + "  hostPID: true\n  containers: [{name: a, image: b}]\n"
	in.Stdin, in.Controls = strings.NewReader(pods), []string{"CON-SEC-10"}
	in.DryRun = func(_ context.Context, o *unstructured.Unstructured) error {
		if o.GetName() == "other" {
			return errors.New("other is not liked")
		}
		return nil
	}
	p := propose(t, in)
	if len(p.Changes) != 1 || p.Changes[0].Subject.Name != "web" || p.Proven != 1 {
		t.Errorf("changes %v, %d accepted", p.Changes, p.Proven)
	}
	if len(p.Refused) != 1 || p.Refused[0].Reason != "the API server refuses it: other is not liked" {
		t.Errorf("refused %v", p.Refused)
	}
	if len(p.Denied) != 1 || !strings.HasSuffix(p.Denied[0].Error(), ": the API server refuses the changed Pod/other: other is not liked") {
		t.Errorf("denied %v", p.Denied)
	}
}

func TestEgressRange(t *testing.T) {
	manifest := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress:\n  - to:\n    - ipBlock:\n        cidr: 0.0.0.0/0\n"
	in := input(t)
	if !slices.ContainsFunc(in.Catalogue.Controls(), func(c control.Control) bool { return c.ID == "CLU-NET-07" }) {
		t.Fatal("the catalogue has no control of the metadata service")
	}
	got, p := fixed(t, manifest+"---\n"+strings.Replace(namespaced, "name: web", "name: web\n  namespace: shop", 1)+"  containers: [{name: a, image: b}]\n", "CLU-NET-07")
	if !strings.Contains(got, "cidr: 0.0.0.0/0\n        except:\n        - \"169.254.169.254/32\"\n") && !strings.Contains(got, "except: [") {
		t.Errorf("refused %v\n%s", p.Refused, got)
	}
}

// FuzzPropose looks for a document that breaks, or that does not stay fixed.
func FuzzPropose(f *testing.F) {
	for _, pattern := range []string{"../content/policies/testdata/*/fail-*.yaml", "../content/controls/testdata/CLU-NET-0*/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for i, file := range files {
			if testing.Short() && i%8 > 0 {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		in := input(t, "-")
		in.Stdin = bytes.NewReader(data)
		p, err := fix.Propose(t.Context(), in)
		if err != nil || len(p.Files) == 0 {
			return
		}
		before, err := inventory.FromFiles(t.Context(), []string{"-"}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		after, err := inventory.FromFiles(t.Context(), []string{"-"}, bytes.NewReader(p.Files[0].After))
		if err != nil {
			t.Fatalf("no longer reads: %v\n%q\n%q", err, data, p.Files[0].After)
		}
		if len(after.Objects()) < len(before.Objects()) || reflect.DeepEqual(data, p.Files[0].After) {
			t.Fatalf("objects are lost, or nothing changed\n%q\n%q", data, p.Files[0].After)
		}
		in.Stdin = bytes.NewReader(p.Files[0].After)
		if again := propose(t, in); len(again.Files) > 0 {
			t.Fatalf("a second time changes\n%q\n%s", data, again.Diff())
		}
	})
}
