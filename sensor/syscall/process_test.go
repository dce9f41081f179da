package syscall

import (
	"testing"
	"unsafe"
)

// TestReadyAgain: a copy that has been changed has the texts of one that is new.
func TestReadyAgain(t *testing.T) {
	values := []Process{
		{}, {Name: "true"}, {Argv: []string{"true"}}, {Name: "true", Argv: []string{"/bin/true"}, Cwd: "/"}, {Name: "true", Argv: []string{"/bin/true", ""}, Cwd: "/srv"},
		{Name: "sh", Argv: []string{"-sh", "-c", "id  -u"}, Cwd: "/srv/"}, {Name: "sh", Argv: []string{"-sh", "-c", "id", "-u"}, Cwd: "/srv"},
		{Name: "", Argv: []string{"a", "b"}, Cwd: "/srv/www"}, {Name: "script", Argv: []string{"/bin/sh", "script", "a b"}}, {Name: "script", Argv: []string{"/bin/sh", "script", "a", "b"}},
		{Name: "script2", Argv: []string{"/bin/sh", "script", "a", "b"}}, {Name: "a", Argv: []string{""}}, {Name: "a", Argv: []string{"", ""}}, {Name: "", Argv: []string{""}, Cwd: "x"},
	}
	for _, before := range values {
		for _, want := range values {
			before, p := *before.Ready(), before
			p.Name, p.Argv, p.Cwd = want.Name, want.Argv, want.Cwd
			p.Ready()
			want.Ready()
			if p.line != want.line || p.CommandLine() != want.commandLine(want.Name) || p.directory() != want.directory() || p.arguments() != want.arguments() {
				t.Errorf("after %+v: line %q, command %q, directory %q; want those of %+v", before, p.line, p.CommandLine(), p.directory(), want)
			}
		}
	}
}

// TestReadySharesTexts: a program with its usual name takes the bytes of its
// arguments once, and a child takes none.
func TestReadySharesTexts(t *testing.T) {
	p := (&Process{Name: "tool", Argv: []string{"/usr/bin/tool", "-v", "some file"}, Cwd: "/srv/www"}).Ready()
	end := func(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) + uintptr(len(s)) }
	if p.cmdline != "tool -v some file" || end(p.cmdline) != end(p.line) {
		t.Errorf("command line %q is no part of %q", p.cmdline, p.line)
	}
	if n := testing.AllocsPerRun(100, func() {
		child := *p
		child.Ready()
	}); n != 0 {
		t.Errorf("%v allocations for the texts of a child", n)
	}
}
