package syscall

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
)

// Flags and enumerations have names, and each table of names is of parameters
// that there are.
func TestEachFlagHasNames(t *testing.T) {
	used := map[string]bool{"mode": true, "signal": true, "errno": true, "capability": true}
	for _, name := range event.Types(event.Syscall) {
		typ := TypeOf(name)
		for i, p := range typ.params {
			key := name + "." + typ.Params[i].Name
			if p.names != nil {
				used[key] = true
			}
			if (p.names != nil) != (p.kind == kindFlags || p.kind == kindEnum || p.kind == kindMode) {
				t.Errorf("parameter %s of kind %s has names: %v", key, typ.Params[i].Kind, p.names != nil)
			}
			if _, ok := kinds[typ.Params[i].Kind]; !ok {
				t.Errorf("parameter %s is of the unknown kind %s", key, typ.Params[i].Kind)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(newNameTables())) {
		if !used[key] {
			t.Errorf("there are names of %s, which is no flag", key)
		}
	}
}

// Each type with a category is one, and each has but one.
func TestCategories(t *testing.T) {
	seen := map[string]bool{}
	for line := range strings.Lines(categoryTable) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, name := range strings.Fields(line)[1:] {
			if seen[name] || TypeOf(name) == nil {
				t.Errorf("category of %s, which has one: %v, or is no type: %v", name, seen[name], TypeOf(name) == nil)
			}
			seen[name] = true
		}
	}
}

func TestNames(t *testing.T) {
	tables := newNameTables()
	for _, tc := range []struct {
		table string
		value uint64
		want  string
	}{
		{"open.flags", 0, "O_NONE"},
		{"open.flags", 3, "O_RDWR"},
		{"open.flags", 2 | 4 | 0x100, "O_WRONLY|O_CREAT|O_TRUNC"},
		{"open.flags", 1 | 1<<40, "O_RDONLY"},
		{"open.flags", 1 << 40, ""},
		{"mode", 0o4100, "S_ISUID|S_IXUSR"},
		{"mode", 0o140600, "S_IFSOCK|S_IRUSR|S_IWUSR"},
		{"mode", 0, ""},
		{"futex.op", 0x85, "FUTEX_WAKE_OP|FUTEX_PRIVATE_FLAG"},
		{"socket.domain", 1, "AF_LOCAL|AF_UNIX"},
		{"unshare.flags", 0x10020000, "CLONE_NEWNS|CLONE_NEWUSER"},
	} {
		if got := tables[tc.table].flags(tc.value); got != tc.want {
			t.Errorf("%s of %#x are %q, want %q", tc.table, tc.value, got, tc.want)
		}
		if n, ok := tables[tc.table].parse(tc.want); tc.want != "" && (!ok || n != tc.value&^(1<<40)) {
			t.Errorf("%s are %#x, want %#x", tc.want, n, tc.value)
		}
	}
	if got := errnoName(-2); got != "ENOENT" {
		t.Errorf("-2 is %s", got)
	}
	if got := errnoName(-4000); got != "4000" {
		t.Errorf("-4000 is %s", got)
	}
	if got := len(strings.Fields(CapabilitySet(1<<64 - 1).names())); got != 41 {
		t.Errorf("%d capabilities", got)
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"/proc*", "/proc", true}, {"/proc*", "/proc/1/x", true}, {"/proc", "/proc/1", false}, {"*", "", true}, {"/a/?", "/a/b", true},
		{"/a/?", "/a/", false}, {"*sock", "/run/x.sock", true}, {"*a*b", "xaxxb", true}, {"*a*b", "xaxx", false}, {"", "", true}, {"", "x", false},
	} {
		if got := glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("%q fits %q: %v", tc.s, tc.pattern, got)
		}
	}
}
