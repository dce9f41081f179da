package event_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
)

func TestSyscallFields(t *testing.T) {
	for _, tc := range []struct {
		name string
		typ  event.Type // None: no such field
	}{
		{"proc.name", event.TypeString},
		{"evt.type", event.TypeString},
		{"evt.num", event.TypeUint},
		{"evt.rawres", event.TypeNumber},
		{"fd.sport", event.TypePort},
		{"fd.cip", event.TypeIP},
		{"fd.snet", event.TypeNet},
		{"fd.types", event.TypeList},
		{"evt.buffer", event.TypeBytes},
		{"proc.is_exe_from_memfd", event.TypeBool},
		{"thread.cpu", event.TypeDouble},
		{"evt.arg.flags", event.TypeString},
		{"evt.rawarg.dev", event.TypeUint},
		{"evt.rawarg.data", event.TypeBytes},
		{"evt.rawarg.res", event.TypeNumber},
		{"evt.type.is.openat", event.TypeUint},
		{"container.label.app", event.TypeString},
		{"evt.arg.nothing", event.None},
		{"evt.type.is.nothing", event.None},
		{"container.label.", event.None},
		{"ka.verb", event.None},
	} {
		f, ok := event.Lookup(event.Syscall, tc.name)
		if ok != (tc.typ != event.None) || f.Type != tc.typ {
			t.Errorf("Lookup(%s) = %v, %v, want a %v", tc.name, f, ok, tc.typ)
		}
	}
	if n := len(event.Fields(event.Syscall)); n < 250 {
		t.Errorf("%d fields of the source syscall", n)
	}
	for _, f := range event.Fields(event.Syscall) {
		if f.Type == event.None || f.Desc == "" {
			t.Errorf("field without type or description: %+v", f)
		}
	}
	for _, name := range []string{"openat2", "execveat", "clone3", "io_uring_setup", "userfaultfd", "procexit"} {
		if !slices.Contains(event.Types(event.Syscall), name) {
			t.Errorf("event type %s is not known", name)
		}
	}
	if event.Types(event.K8sAudit) != nil {
		t.Error("audit events have types")
	}
}

func TestFieldsWithOwnComparison(t *testing.T) {
	ip, _ := event.Lookup(event.Syscall, "fd.ip")
	if client, server, ok := ip.Ends(); !ok || client != "fd.cip" || server != "fd.sip" || !ip.Plain() {
		t.Errorf("ends of fd.ip = %s, %s, %v", client, server, ok)
	}
	aname, _ := event.Lookup(event.Syscall, "proc.aname")
	any, err := event.Resolve(aname, nil)
	if err != nil || !any.Ancestors() {
		t.Errorf("proc.aname is of any ancestor: %v, %v", any.Ancestors(), err)
	}
	one := "2"
	if second, err := event.Resolve(aname, &one); err != nil || second.Ancestors() || second.Index != 2 {
		t.Errorf("proc.aname[2] = %+v, %v", second, err)
	}
	if env, _ := event.Lookup(event.Syscall, "proc.env"); env.Plain() {
		t.Error("proc.env takes no transformer")
	}
	if dir, _ := event.Lookup(event.Syscall, "evt.dir"); !dir.Deprecated() {
		t.Error("evt.dir is not deprecated")
	}
}

func TestTypedValues(t *testing.T) {
	for _, tc := range []struct {
		value event.Value
		text  string
		json  any
	}{
		{event.Bool(true), "true", true},
		{event.Bool(false), "false", false},
		{event.Uint(1<<64 - 1), "18446744073709551615", uint64(1<<64 - 1)},
		{event.Port(443), "443", uint64(443)},
		{event.Double(2.25), "2.2", 2.25},
		{event.Bytes("ab"), "ab", "ab"},
		{event.Addr(netip.MustParseAddr("10.1.2.3")), "10.1.2.3", "10.1.2.3"},
		{event.Addr(netip.MustParseAddr("::ffff:10.1.2.3")), "10.1.2.3", "10.1.2.3"},
		{event.Addr(netip.MustParseAddr("2001:db8::1")), "2001:db8::1", "2001:db8::1"},
		{event.IP("abc"), "<NA>", nil},
		{event.Addr(netip.Addr{}), "<NA>", nil},
	} {
		if tc.value.String() != tc.text || tc.value.JSON() != tc.json {
			t.Errorf("value is %s, %v; want %s, %v", tc.value, tc.value.JSON(), tc.text, tc.json)
		}
	}
}
