package oracle

import (
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAsksAsGatekeeper lets both sides ask the same providers, by templates and
// by mutators of what others make: what templates see of the request, of the
// objects that are expanded and of the answers must be the same.
func TestAsksAsGatekeeper(t *testing.T) {
	program := filepath.Join(t.TempDir(), "judge")
	build := exec.Command("go", "build", "-o", program, "./test/judge")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build judge: %v\n%s", err, out)
	}
	outer := providers(t)
	g := generator{rand.New(rand.NewPCG(*seed, 5))}
	seen := map[string]int{}
	for range 25 {
		setup := Setup{
			Policies: read(t, "external.yaml", "expansion.yaml"), Namespaces: namespaces(), Point: "validation.gatekeeper.sh",
			Mutators: g.accepted(), Outer: outer,
		}
		theirs, err := New(setup)
		if err != nil {
			t.Fatal(err)
		}
		ours := judge(t, program, setup)
		for range 20 {
			request := g.sent()
			want, got := theirs.Answer(request), ours(request)
			if diff := compare(want, got); diff != "" {
				t.Fatalf("%s\nmutators: %s\nrequest: %s", diff, setup.Mutators, request)
			}
			if want.Error != "" {
				seen["refused"]++
			}
			for _, v := range want.Violations {
				seen[v.Binding]++
				if strings.Contains(v.Message, "[Implied by") {
					seen["implied"]++
				}
			}
		}
	}
	t.Logf("%v", seen)
	for _, what := range []string{"all", "good", "plain", "failing", "down", "broken", "lost", "implied", "refused"} {
		if seen[what] == 0 {
			t.Errorf("%s was never seen", what)
		}
	}
}

// accepted makes mutators that Gatekeeper takes, as YAML documents.
func (g generator) accepted() string {
	var out []string
	names := map[string]bool{}
	for range 3 {
		for _, text := range g.mutation().Mutators {
			m, err := newMutator([]byte(text))
			if err != nil || names[m.ID().Name] || strings.Contains(text, `"location":"kind"`) || strings.Contains(text, `"location":"apiVersion"`) {
				continue
			}
			names[m.ID().Name] = true
			out = append(out, text)
		}
	}
	return strings.Join(out, "\n---\n")
}

// sent makes a request with all that an API server sends.
func (g generator) sent() []byte {
	var r object
	if err := json.Unmarshal(g.request(), &r); err != nil {
		panic(err) // our own
	}
	r["uid"] = pick(g, "705ab4f5-6393-11e8-b7cc-42010a800002", "u-1")
	if g.half() {
		r["requestKind"], r["requestResource"] = gvk("extensions", "v1beta1", "Old"), gvr("extensions", "v1beta1", "olds")
	}
	if sub, _ := r["subResource"].(string); sub != "" {
		r["requestSubResource"] = sub
	}
	if g.half() {
		delete(r, "options")
	}
	return raw(r)
}
