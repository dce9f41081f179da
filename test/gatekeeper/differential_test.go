package oracle

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// judge runs the product's side as a process of its own and returns what
// answers its requests.
func judge(t *testing.T, program string, setup Setup) func(request []byte) Answer {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("judge: %v", err)
		}
	})
	send(t, in, setup)
	answers := bufio.NewReader(out)
	return func(request []byte) Answer {
		send(t, in, json.RawMessage(request))
		line, err := answers.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var a Answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		sortViolations(a.Violations)
		return a
	}
}

func send(t *testing.T, to io.Writer, value any) {
	t.Helper()
	if err := json.NewEncoder(to).Encode(value); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, names ...string) string {
	t.Helper()
	var all []string
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return strings.Join(all, "---\n")
}

// cases is how many requests are made for each enforcement point.
const cases = 1000

// A pair is two of Gatekeeper's clients, one for each engine: in one process its
// CEL driver takes the object of a DELETE away from Rego, or not, as it comes.
type pair [2]*Gatekeeper

func newPair(t *testing.T, setup Setup) pair {
	t.Helper()
	var p pair
	for i, policies := range []string{read(t, "rego.yaml", "more.yaml", "constraints.yaml", "expansion.yaml"), read(t, "cel.yaml", "expansion.yaml")} {
		setup.Policies = policies
		var err error
		if p[i], err = New(setup); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p pair) answer(request []byte) Answer {
	all := p[0].Answer(request)
	native := p[1].Answer(request)
	all.Violations = append(all.Violations, native.Violations...)
	sortViolations(all.Violations)
	if native.Error != "" {
		all.Error = native.Error
	}
	return all
}

// TestSameAsGatekeeper sends random requests through Gatekeeper's client and
// through the product: all violations, with message, enforcement and details,
// must be the same.
func TestSameAsGatekeeper(t *testing.T) {
	program := filepath.Join(t.TempDir(), "judge")
	build := exec.Command("go", "build", "-o", program, "./test/judge")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build judge: %v\n%s", err, out)
	}
	for i, point := range []string{"validation.gatekeeper.sh", "audit.gatekeeper.sh", "gator.gatekeeper.sh"} {
		t.Run(point, func(t *testing.T) {
			g := generator{rand.New(rand.NewPCG(uint64(i), 17))}
			setup := Setup{Namespaces: namespaces(), Inventory: g.inventory(), Point: point}
			theirs := newPair(t, setup)
			setup.Policies = read(t, "rego.yaml", "more.yaml", "constraints.yaml", "cel.yaml", "expansion.yaml")
			ours := judge(t, program, setup)
			seen := map[string]int{}
			for range cases {
				request := g.request()
				want, got := theirs.answer(request), ours(request)
				if diff := compare(want, got); diff != "" {
					t.Fatalf("%s\nrequest: %s", diff, request)
				}
				for _, v := range want.Violations {
					seen[v.Policy+"/"+v.Binding+" "+v.Enforcement]++
				}
			}
			for key, n := range seen {
				t.Logf("%5d × %s", n, key)
			}
			if len(seen) < 15 {
				t.Errorf("only %d constraints were ever violated", len(seen))
			}
		})
	}
}

// conflict is an error whose text differs between versions of the library.
var conflict = regexp.MustCompile(`(template:\d+: eval_conflict_error: ).*`)

func compare(want, got Answer) string {
	if want.Error != "" || got.Error != "" {
		if (want.Error != "") == (got.Error != "") {
			return ""
		}
		return fmt.Sprintf("Gatekeeper: error %q\nours: error %q", want.Error, got.Error)
	}
	theirs, ours := texts(want), texts(got)
	if theirs == ours {
		return ""
	}
	return fmt.Sprintf("Gatekeeper:\n%s\nours:\n%s", theirs, ours)
}

func texts(a Answer) string {
	var out []string
	for _, v := range a.Violations {
		delete(v.Details, "cause") // ours alone
		v.Message = conflict.ReplaceAllString(strings.ReplaceAll(v.Message, "\n", " "), "$1…")
		out = append(out, v.String())
	}
	return strings.Join(out, "\n")
}

func namespaces() []json.RawMessage {
	return []json.RawMessage{
		raw(object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "shop", "labels": object{"env": "prod"}}}),
		raw(object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "team-a", "labels": object{"env": "dev"}}}),
		raw(object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "kube-system"}}),
	}
}
