package syscall_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Each event type of the source is known, with its parameters.
func TestTypes(t *testing.T) {
	for _, name := range event.Types(event.Syscall) {
		typ := syscall.TypeOf(name)
		if typ == nil {
			t.Errorf("type %s is not known", name)
			continue
		}
		for i, p := range typ.Params {
			if typ.Param(p.Name) != i {
				t.Errorf("parameter %s of %s is at %d, want %d", p.Name, name, typ.Param(p.Name), i)
			}
		}
		if typ.Param("nothing") != -1 {
			t.Errorf("%s has a parameter nothing", name)
		}
	}
	if syscall.TypeOf("nothing") != nil {
		t.Error("there is a type nothing")
	}
}

func TestOpenFlags(t *testing.T) {
	for _, tc := range []struct {
		kernel                uint64
		created, upper, lower bool
		want                  uint64
	}{
		{kernel: 0, want: 1},
		{kernel: 1, want: 2},
		{kernel: 2, want: 3},
		{kernel: 0x80000, lower: true, want: 0x11001},
		{kernel: 0x241, created: true, upper: true, want: 2 | 4 | 0x100 | 0x4000 | 0x8000},
		{kernel: 0x1000, want: 1 | 0x10},
		{kernel: 0x101000, want: 1 | 0x80},
		{kernel: 0x410002, want: 3 | 0x2000},
		{kernel: 0x10000, want: 1 | 0x400},
	} {
		if got := syscall.OpenFlags(tc.kernel, tc.created, tc.upper, tc.lower); got != tc.want {
			t.Errorf("flags %#x are %#x, want %#x", tc.kernel, got, tc.want)
		}
	}
}

func TestNamesOfConnections(t *testing.T) {
	client, server := netip.MustParseAddrPort("10.0.0.7:40112"), netip.MustParseAddrPort("[2001:db8::1]:443")
	mapped := netip.MustParseAddrPort("[::ffff:10.0.0.9]:80")
	for _, tc := range []struct {
		fd   syscall.FD
		want string
	}{
		{syscall.FD{Type: syscall.FDIPv4, Client: client, Server: mapped}, "10.0.0.7:40112->10.0.0.9:80"},
		{syscall.FD{Type: syscall.FDIPv6, Client: client, Server: server}, "10.0.0.7:40112->2001:db8::1:443"},
		{syscall.FD{Type: syscall.FDIPv6, Server: server}, "2001:db8::1:443"},
		{syscall.FD{Type: syscall.FDIPv4}, ""},
		{syscall.FD{Type: syscall.FDFile, Name: "/etc/passwd"}, "/etc/passwd"},
	} {
		if got := tc.fd.Ready().Name; got != tc.want {
			t.Errorf("name is %q, want %q", got, tc.want)
		}
	}
}

func TestTypesOfDescriptors(t *testing.T) {
	for char, want := range map[byte]syscall.FDType{'f': syscall.FDFile, '4': syscall.FDIPv4, 'u': syscall.FDUnix, 'P': syscall.FDPid, '?': syscall.FDUnknown} {
		if got := syscall.FDTypeOf(char); got != want || want != syscall.FDUnknown && got.Char() != string(char) {
			t.Errorf("%c is %s, want %s", char, got, want)
		}
	}
}

func TestAncestors(t *testing.T) {
	shell := syscall.NewHandle((&syscall.Process{Key: syscall.Key{PID: 7, Start: 1}, Name: "bash", Argv: []string{"-bash"}}).Ready())
	p := (&syscall.Process{Key: syscall.Key{PID: 9, Start: 2}, Name: "curl", Argv: []string{"curl", "-s", "x y"}, Parent: shell}).Ready()
	if got := p.CommandLine(); got != "curl -s x y" {
		t.Errorf("command line %q", got)
	}
	if a := p.Ancestor(1); a == nil || a.Name != "bash" || a.CommandLine() != "bash" {
		t.Errorf("parent is %+v", a)
	}
	if p.Ancestor(0) != p || p.Ancestor(2) != nil || p.Ancestor(1000) != nil {
		t.Error("ancestors are not the process, its parent and no others")
	}
	next := *shell.Process()
	next.Name, next.Argv = "python3", strings.Fields("python3 -m http.server")
	shell.Publish(next.Ready())
	if got := p.Ancestor(1).CommandLine(); got != "python3 -m http.server" {
		t.Errorf("parent's command line after its exec is %q", got)
	}
}
