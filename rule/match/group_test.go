package match

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule/condition"
	"github.com/kubeguardian/kubeguardian/rule/plain"
)

// leaves returns one check of a field for each constant.
func leaves(t *testing.T, field, op string, constants []string) (out []*condition.Leaf, conditions []condition.Expr) {
	t.Helper()
	r := &condition.Resolver{
		Source: event.Syscall,
		Fail:   func(_ condition.Place, message string) { t.Fatal(message) },
		Warn:   func(condition.Place, string, string) {},
	}
	for _, c := range constants {
		value := fmt.Sprintf("%q", c)
		if op == "pmatch" || op == "in" || op == "intersects" {
			value = "(" + value + ")"
		}
		tree, err := condition.Parse(condition.NewText(field+" "+op+" "+value, 0))
		if err != nil {
			t.Fatal(err)
		}
		e := r.Resolve(tree)
		conditions = append(conditions, e)
		out = append(out, e.(*condition.Leaf))
	}
	return out, conditions
}

// record has one field.
type record struct{ value event.Value }

func (r record) Value(event.Ref) event.Value { return r.value }
func (record) Subject() event.Subject        { return event.Subject{} }

// word returns a text of up to n letters of two, or of components of a path.
func word(g *rand.Rand, letters []string, n int) string {
	var b strings.Builder
	for range g.IntN(n + 1) {
		b.WriteString(letters[g.IntN(len(letters))])
	}
	return b.String()
}

// Each structure finds what the check finds by itself.
func TestStructures(t *testing.T) {
	ab, paths := []string{"a", "b", "A"}, []string{"/", "a", "b*", "?", "/a", "/b"}
	text := func(letters []string) func(*rand.Rand) event.Value {
		return func(g *rand.Rand) event.Value { return event.Text(word(g, letters, 9)) }
	}
	words := func(g *rand.Rand) event.Value { return event.List([]string{word(g, ab, 3), word(g, ab, 3)}) }
	address := func(g *rand.Rand) event.Value {
		if g.IntN(2) == 0 {
			return event.Addr(netip.AddrFrom4([4]byte{byte(g.IntN(4)), byte(g.IntN(256)), 0, byte(g.IntN(4))}))
		}
		return event.Addr(netip.AddrFrom16([16]byte{0x20, byte(g.IntN(3)), 15: byte(g.IntN(3))}))
	}
	network := func(g *rand.Rand) string {
		a := address(g).Addr()
		return netip.PrefixFrom(a, g.IntN(a.BitLen()+1)).String()
	}
	constant := func(letters []string, n int) func(*rand.Rand) string {
		return func(g *rand.Rand) string { return word(g, letters, n) }
	}
	for _, tc := range []struct {
		field, op string
		structure structure
		constant  func(*rand.Rand) string
		value     func(*rand.Rand) event.Value
	}{
		{"proc.name", "=", equality, constant(ab, 3), text(ab)},
		{"proc.name", "!=", equality, constant(ab, 3), text(ab)},
		{"proc.name", "in", equality, constant(ab, 3), text(ab)},
		{"proc.name", "contains", substrings, constant(ab, 4), text(ab)},
		{"proc.name", "icontains", substringsFold, constant(ab, 4), text(ab)},
		{"proc.name", "startswith", prefixes, constant(ab, 4), text(ab)},
		{"proc.name", "endswith", suffixes, constant(ab, 4), text(ab)},
		{"proc.name", "pmatch", 0, constant(paths, 5), text(paths)},
		{"fd.types", "intersects", elements, constant(ab, 3), words},
		{"fd.types", "pmatch", 0, constant(ab, 2), words},
		{"fd.snet", "=", networks, network, address},
		{"fd.snet", "!=", networks, network, address},
	} {
		t.Run(tc.field+" "+tc.op, func(t *testing.T) {
			g := rand.New(rand.NewPCG(7, 7))
			trues, all := 0, 0
			for range 150 {
				constants := make([]string, 1+g.IntN(20))
				for i := range constants {
					constants[i] = tc.constant(g)
				}
				checks, conditions := leaves(t, tc.field, tc.op, constants)
				if tc.structure != 0 && structureOf(checks[0]) != tc.structure {
					t.Fatalf("structure %d, want %d", structureOf(checks[0]), tc.structure)
				}
				set := New(conditions)
				for range 20 {
					e := &event.Event{Source: event.Syscall, Record: record{tc.value(g)}}
					var found []int
					run := set.Begin(e)
					for i := run.Next(); i >= 0; i = run.Next() {
						found = append(found, i)
					}
					run.End()
					var want []int
					for i, l := range checks {
						if plain.Check(l, plain.Values{Event: e}) {
							want = append(want, i)
						}
					}
					if fmt.Sprint(found) != fmt.Sprint(want) {
						t.Fatalf("%s %s %q: %v, want %v of %q", tc.field, tc.op, e.Record, found, want, constants)
					}
					trues, all = trues+len(want), all+len(checks)
				}
			}
			if trues == 0 || trues == all {
				t.Errorf("%d of %d checks are true", trues, all)
			}
		})
	}
}

func TestSetRange(t *testing.T) {
	for low := range int32(200) {
		for high := low + 1; high <= 200; high++ {
			b := newBitset(200)
			b.setRange(low, high)
			for i := range int32(200) {
				if b.has(i) != (i >= low && i < high) {
					t.Fatalf("bit %d of the range from %d to %d is %v", i, low, high, b.has(i))
				}
			}
		}
	}
}

// What conditions have in common is one node.
func TestSharing(t *testing.T) {
	resolve := func(text string) condition.Expr {
		tree, err := condition.Parse(condition.NewText(text, 0))
		if err != nil {
			t.Fatal(err)
		}
		r := &condition.Resolver{Source: event.Syscall, Fail: func(_ condition.Place, m string) { t.Fatal(m) }, Warn: func(condition.Place, string, string) {}}
		return r.Resolve(tree)
	}
	set := New([]condition.Expr{
		resolve("evt.type = open and proc.name = a"),
		resolve("proc.name = a and (evt.type == open)"),
		resolve("not not (evt.type = open and (proc.name = a and proc.name = a))"),
		resolve("not (proc.name = a and evt.type = open)"),
	})
	if len(set.nodes) != 4 || set.roots[0] != set.roots[1] || set.roots[1] != set.roots[2] {
		t.Errorf("%d nodes, roots %v; want two checks, one and, one not", len(set.nodes), set.roots)
	}
}

// The index leaves only the conditions that can be true.
func TestIndex(t *testing.T) {
	var conditions []condition.Expr
	for _, name := range []string{"open", "openat", "connect", "execve", "accept"} {
		_, c := leaves(t, "evt.type", "=", []string{name})
		_, d := leaves(t, "proc.name", "=", []string{"x"})
		conditions = append(conditions, &condition.Logical{Kids: []condition.Expr{c[0], d[0]}})
	}
	set := New(conditions)
	run := set.Begin(&event.Event{Source: event.Syscall, Record: record{event.Text("connect")}})
	defer run.End()
	if run.candidates[0] != 1<<2 {
		t.Errorf("candidates %b, want the third", run.candidates[0])
	}
}
