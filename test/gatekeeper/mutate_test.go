package oracle

import (
	"bufio"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var seed = flag.Uint64("seed", 1, "`number` that the mutators follow from; 0: of this moment")

// mutations is how many sets of mutators are made, each for four requests.
const mutations = 3000

// TestMutatesAsGatekeeper gives random mutators and objects to Gatekeeper's own
// system and to the product: the same mutators must be refused, as many be in
// conflict, and the same must become of each object, or an error.
func TestMutatesAsGatekeeper(t *testing.T) {
	from := *seed
	if from == 0 {
		from = rand.Uint64()
	}
	t.Logf("seed %d", from)
	ours := product(t)
	g := generator{rand.New(rand.NewPCG(from, 3))}
	seen := map[string]int{}
	outer := providers(t)
	for range mutations {
		m := g.mutation()
		m.Outer = outer
		m.Namespaces = namespaces()
		want, err := Mutate(m)
		if err != nil {
			t.Fatal(err)
		}
		compareMutated(t, m, want, ours(m), seen)
	}
	t.Logf("%v", seen)
	for _, what := range []string{"refused", "accepted", "in conflict", "failed", "changed", "same", "unsettled"} {
		if seen[what] == 0 {
			t.Errorf("no mutator or object was ever %s", what)
		}
	}
}

func compareMutated(t *testing.T, m Mutation, want, got Mutated, seen map[string]int) {
	t.Helper()
	for i, text := range m.Mutators {
		if (want.Refused[i] == "") != (got.Refused[i] == "") {
			t.Fatalf("%s\nGatekeeper: %q\nours: %q", text, want.Refused[i], got.Refused[i])
		}
		if want.Refused[i] == "" {
			seen["accepted"]++
		} else {
			seen["refused"]++
		}
	}
	if want.Conflicts != got.Conflicts {
		t.Fatalf("%d in conflict, want %d of\n%s", got.Conflicts, want.Conflicts, raw(m.Mutators))
	}
	seen["in conflict"] += want.Conflicts
	for i, request := range m.Requests {
		theirs, ours := want.Objects[i], got.Objects[i]
		if (theirs.Error == "") != (ours.Error == "") || !reflect.DeepEqual(theirs.Object, ours.Object) {
			t.Fatalf("mutators: %s\nrequest: %s\nGatekeeper: %s %s\nours: %s %s", m.Mutators, request, raw(theirs.Object), theirs.Error, raw(ours.Object), ours.Error)
		}
		var r struct{ Object any }
		if err := json.Unmarshal(request, &r); err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.Contains(theirs.Error, "not converging"):
			seen["unsettled"]++
		case theirs.Error != "":
			seen["failed"]++
		case reflect.DeepEqual(r.Object, theirs.Object):
			seen["same"]++
		default:
			seen["changed"]++
		}
	}
}

// product runs the product's side as a process of its own.
func product(t *testing.T) func(Mutation) Mutated {
	t.Helper()
	program := filepath.Join(t.TempDir(), "judge")
	build := exec.Command("go", "build", "-o", program, "./test/judge")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build judge: %v\n%s", err, out)
	}
	cmd := exec.Command(program, "-mutate")
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
	answers := bufio.NewReader(out)
	return func(m Mutation) (answer Mutated) {
		send(t, in, m)
		line, err := answers.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
}
