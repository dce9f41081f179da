package record

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// parameters returns the table of all event types, by name.
func parameters(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("../../event/syscalls.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, params, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" && name != "#" {
			all[name] = params
		}
	}
	return all
}

func TestTypesAreThoseOfEvents(t *testing.T) {
	all := parameters(t)
	for _, typ := range Types() {
		want, ok := all[typ.String()]
		var got []string
		for _, p := range typ.Params() {
			got = append(got, p.Name+":"+p.Type)
		}
		if !ok || strings.Join(got, " ") != want {
			t.Errorf("%s: parameters %v, event/syscalls.txt has %q (%v)", typ, got, want, ok)
		}
		if same, ok := TypeOf(typ.String()); !ok || same != typ {
			t.Errorf("TypeOf(%s) = %d, %v; want %d", typ, same, ok, typ)
		}
		if len(typ.Params()) > maxParams {
			t.Errorf("%s has %d parameters, at most %d", typ, len(typ.Params()), maxParams)
		}
	}
	if typ, ok := TypeOf("read"); ok || typ.Valid() || typ.String() != "unknown" || typ.Params() != nil {
		t.Errorf("TypeOf(read) = %d, %v; want none", typ, ok)
	}
	if _, ok := TypeOf(""); ok {
		t.Error("the empty name is a type")
	}
}

// TestNumbersStay holds the numbers that recorded events rely on.
func TestNumbersStay(t *testing.T) {
	for name, want := range map[string]Type{"open": 1, "execve": 6, "procexit": 12, "connect": 13, "close": 52, "mount": 74, "sethostname": 103} {
		if got, _ := TypeOf(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func typeOf(t testing.TB, name string) Type {
	t.Helper()
	typ, ok := TypeOf(name)
	if !ok {
		t.Fatalf("no type %s", name)
	}
	return typ
}

var inet = Tuple{
	Family: FamilyIPv4, Protocol: 6, Connected: true,
	Local: netip.MustParseAddrPort("10.0.0.1:40000"), Remote: netip.MustParseAddrPort("192.0.2.7:443"),
}

// full returns a record of a type with all its parameters and extras.
func full(t testing.TB, name string) *Record {
	t.Helper()
	r := &Record{Header: Header{
		Type: typeOf(t, name), Buffer: 3, CPU: 1, Sequence: 99, Time: 1e12, HasResult: true, Result: -2,
		Process: Key{100, 5_000_000_001}, TID: 101, Parent: Key{1, 7}, VPID: 2, VTID: 3, PGID: 4, VPGID: 5, SID: 6,
		UID: 7, GID: 8, LoginUID: 1<<32 - 1, TTY: 34816, Mnt: 9, PID: 10, Net: 11, User: 12, Cgroup: 1 << 40,
		Comm: [16]byte{'c', 'u', 'r', 'l'},
	}}
	for i, p := range r.Type.Params() {
		if err := r.SetParam(i, example(p.Kind)); err != nil {
			t.Fatal(err)
		}
	}
	for tag := Path; tag < endOfTags; tag++ {
		if err := r.SetExtra(tag, example(extraKinds[tag-Path])); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func example(k Kind) Value {
	switch k {
	case Text:
		return BytesValue([]byte("/etc/passwd"))
	case Bytes:
		return BytesValue([]byte("a\x00b c\x00")).Cut()
	case Socket:
		return inet.Value()
	case SockAddr:
		return BytesValue([]byte{FamilyIPv4, 0, 1, 187, 192, 0, 2, 7})
	case Descriptor:
		return File{Kind: '4', Socket: inet}.Value()
	}
	return IntValue(-1)
}

func TestRoundTrip(t *testing.T) {
	for _, typ := range Types() {
		want := full(t, typ.String())
		data, err := want.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got Record
		if err := got.Decode(data); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		if !reflect.DeepEqual(&got, want) {
			t.Errorf("%s: decoded %+v, want %+v", typ, got, want)
		}
	}
}

// TestBytes holds the layout that the kernel side writes.
func TestBytes(t *testing.T) {
	r := Record{Header: Header{Type: typeOf(t, "mkdir"), HasResult: true, Process: Key{TGID: 0x0102}, User: 0x0a0b, Comm: [16]byte{'x'}}}
	for i, v := range []Value{IntValue(-13), BytesValue([]byte("/a"))} {
		if err := r.SetParam(i, v); err != nil {
			t.Fatal(err)
		}
	}
	data, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, HeaderSize)
	want[0], want[4], want[6], want[7] = HeaderSize+12+6, byte(r.Type), 1, 1
	want[64], want[65] = 2, 1
	want[124], want[125], want[128] = 0x0b, 0x0a, 'x'
	want = append(want, 0, 0, 8, 0, 0xf3, 255, 255, 255, 255, 255, 255, 255, 1, 0, 2, 0, '/', 'a')
	if !bytes.Equal(data, want) {
		t.Errorf("encoded\n%v, want\n%v", data, want)
	}
	if name := r.Name(); string(name) != "x" {
		t.Errorf("Name = %q, want x", name)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := full(t, "connect").Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(b []byte) []byte) []byte {
		b := edit(bytes.Clone(good))
		if len(b) >= 4 {
			binary.LittleEndian.PutUint32(b, uint32(len(b)))
		}
		return b
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":        {nil, "ends early"},
		"half a header":  {good[:HeaderSize-1], "ends early"},
		"wrong size":     {good[:len(good)-1], "says that it has"},
		"half a value":   {change(func(b []byte) []byte { return b[:len(b)-1] }), "ends early"},
		"half a tag":     {change(func(b []byte) []byte { return b[:HeaderSize+3] }), "ends early"},
		"type":           {change(func(b []byte) []byte { b[5] = 9; return b }), "does not exist"},
		"no type":        {change(func(b []byte) []byte { b[4], b[5] = 0, 0; return b }), "does not exist"},
		"version":        {change(func(b []byte) []byte { b[6] = 2; return b }), "version 2"},
		"parameter":      {change(func(b []byte) []byte { b[HeaderSize] = 4; return b }), "no parameter 4"},
		"extra":          {change(func(b []byte) []byte { b[HeaderSize] = 200; return b }), "does not exist"},
		"twice":          {change(func(b []byte) []byte { return append(b, b[HeaderSize:HeaderSize+12]...) }), "comes twice"},
		"extra twice":    {change(func(b []byte) []byte { return append(b, uint8(Path), 0, 0, 0) }), "comes twice"},
		"short number":   {change(func(b []byte) []byte { return append(b[:HeaderSize], 0, 0, 1, 0, 1) }), "no value of its kind"},
		"short tuple":    {change(func(b []byte) []byte { return append(b[:HeaderSize], 1, 0, 1, 0, 1) }), "no value of its kind"},
		"text with NUL":  {change(func(b []byte) []byte { return append(b[:HeaderSize], uint8(Path), 0, 1, 0, 0) }), "no value of its kind"},
		"short address":  {change(func(b []byte) []byte { return append(b[:HeaderSize], 3, 0, 1, 0, 1) }), "no value of its kind"},
		"much too large": {make([]byte, MaxSize+1), "more than"},
	} {
		var r Record
		if err := r.Decode(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestMissingAndTruncated(t *testing.T) {
	r := Record{Header: Header{Type: typeOf(t, "mkdir")}}
	if err := r.SetParam(1, BytesValue([]byte("")).Cut()); err != nil {
		t.Fatal(err)
	}
	data, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Record
	if err := got.Decode(data); err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Named("res").Int(); ok || !got.Named("res").Missing() {
		t.Error("a parameter that was not set is there")
	}
	if text, ok := got.Named("path").Text(); !ok || len(text) != 0 || !got.Named("path").Truncated() {
		t.Errorf("path = %q, %v; want an empty text that was cut", text, ok)
	}
	if !got.Named("colour").Missing() || !got.Param(maxParams).Missing() || !got.Extra(0).Missing() || !got.Extra(endOfTags).Missing() {
		t.Error("what cannot exist is there")
	}
	if got.HasResult {
		t.Error("the record has a result that nobody gave")
	}
}

func TestSetRefuses(t *testing.T) {
	r := Record{Header: Header{Type: typeOf(t, "mkdir")}}
	for _, err := range []error{
		r.SetParam(3, IntValue(1)), r.SetParam(-1, IntValue(1)), r.SetParam(0, Value{}), r.SetParam(0, BytesValue(nil)),
		r.SetParam(1, BytesValue(make([]byte, 1<<16))), r.SetExtra(1, IntValue(1)), r.SetExtra(Device, BytesValue(nil)),
	} {
		if err == nil {
			t.Error("a value that the type cannot have was taken")
		}
	}
	big := Record{Header: Header{Type: typeOf(t, "execve")}}
	for _, name := range []string{"args", "env"} {
		if err := big.SetParam(big.Type.Index(name), BytesValue(make([]byte, 30<<10))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := big.Append(nil); err == nil {
		t.Error("a record that is too large was encoded")
	}
}

func TestClone(t *testing.T) {
	data, err := full(t, "execve").Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var r Record
	if err := r.Decode(data); err != nil {
		t.Fatal(err)
	}
	c := r.Clone()
	clear(data)
	if want := full(t, "execve"); !reflect.DeepEqual(c, want) {
		t.Errorf("the clone changed with the bytes: %+v, want %+v", c, want)
	}
}

func TestKeyTicks(t *testing.T) {
	if got := (Key{1, 5_019_999_999}).Ticks(); got != 501 {
		t.Errorf("Ticks = %d, want 501", got)
	}
}

func TestTuples(t *testing.T) {
	for name, want := range map[string]Tuple{
		"ipv4":    inet,
		"ipv6":    {Family: FamilyIPv6, Protocol: 17, Local: netip.MustParseAddrPort("[::]:53"), Remote: netip.MustParseAddrPort("[2001:db8::1]:9")},
		"unix":    {Family: FamilyUnix, Protocol: 1, LocalName: []byte("/run/a"), RemoteName: []byte("\x00b")},
		"netlink": {Family: 16, Protocol: 2},
	} {
		got, ok := want.Value().Tuple()
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, ok, want)
		}
	}
	for name, b := range map[string][]byte{
		"short":     {2, 0, 6, 0, 0, 0, 0},
		"half ipv4": append([]byte{2, 0, 6, 0, 0, 0, 0, 0}, make([]byte, 31)...),
		"long unix": {1, 0, 1, 0, 2, 0, 0, 0, 'a'},
		"long":      {16, 0, 1, 0, 0, 0, 0, 0, 'a'},
	} {
		if _, ok := BytesValue(b).Tuple(); ok {
			t.Errorf("%s is a tuple", name)
		}
	}
}

func TestAddresses(t *testing.T) {
	six := append([]byte{10, 0, 0, 53, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8::1").AsSlice()...)
	for name, c := range map[string]struct {
		data []byte
		want Addr
		ok   bool
	}{
		"ipv4":       {[]byte{2, 0, 1, 187, 192, 0, 2, 7, 0, 0}, Addr{Family: 2, AddrPort: netip.MustParseAddrPort("192.0.2.7:443")}, true},
		"ipv6":       {six, Addr{Family: 10, AddrPort: netip.MustParseAddrPort("[2001:db8::1]:53")}, true},
		"unix":       {[]byte("\x01\x00/run/x\x00rest"), Addr{Family: 1, Name: []byte("/run/x")}, true},
		"abstract":   {[]byte("\x01\x00\x00a\x00b"), Addr{Family: 1, Name: []byte("\x00a\x00b")}, true},
		"alg":        {[]byte{38, 0, 'x'}, Addr{Family: 38}, true},
		"half ipv4":  {[]byte{2, 0, 1, 187, 192}, Addr{Family: 2}, false},
		"half ipv6":  {six[:20], Addr{Family: 10}, false},
		"no family":  {[]byte{2}, Addr{}, false},
		"unnamed":    {[]byte{1, 0}, Addr{Family: 1, Name: []byte{}}, true},
		"no address": {nil, Addr{}, false},
	} {
		if got, ok := BytesValue(c.data).Address(); ok != c.ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, c.want, c.ok)
		}
	}
}

func TestFiles(t *testing.T) {
	for name, want := range map[string]File{
		"file":   {Kind: 'f', Layer: Upper, Flags: 0o101, Device: 26, Inode: 7, Name: []byte("/etc/passwd")},
		"pipe":   {Kind: 'p', Inode: 8, Name: []byte{}},
		"socket": {Kind: '4', Inode: 9, Socket: inet},
		"packet": {Kind: 'S', Socket: Tuple{Family: 17, Protocol: 3}},
	} {
		got, ok := want.Value().File()
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, ok, want)
		}
	}
	if _, ok := BytesValue(make([]byte, fileHead-1)).File(); ok {
		t.Error("half a file is one")
	}
	if _, ok := (File{Kind: '4', Socket: Tuple{Family: 16}}).Value().Tuple(); ok {
		t.Error("a file is a tuple")
	}
}

func TestStrings(t *testing.T) {
	for text, want := range map[string][]string{"": nil, "a\x00": {"a"}, "a\x00\x00b": {"a", "", "b"}} {
		var got []string
		for s := range BytesValue([]byte(text)).Strings() {
			got = append(got, string(s))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for range BytesValue([]byte("a\x00b\x00")).Strings() {
		break
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	data, err := full(t, "execve").Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var r Record
	if n := testing.AllocsPerRun(100, func() {
		if err := r.Decode(data); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each record, want none", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"openat", "connect", "execve"} {
		data, err := full(b, name).Append(nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			var r Record
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzDecode holds that what was decoded can be encoded to the same record, and
// that every value of it can be read.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"openat", "execve", "connect", "procexit", "pivot_root"} {
		data, err := full(f, name).Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Record
		if r.Decode(data) != nil {
			return
		}
		for i, p := range r.Type.Params() {
			if !r.Param(i).Missing() && !readable(r.Param(i), p.Kind) {
				t.Errorf("%s.%s cannot be read", r.Type, p.Name)
			}
		}
		for i, k := range extraKinds {
			if v := r.Extra(Path + Tag(i)); !v.Missing() && !readable(v, k) {
				t.Errorf("%s: extra %d cannot be read", r.Type, i)
			}
		}
		again, err := r.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		var same Record
		if err := same.Decode(again); err != nil || !reflect.DeepEqual(r, same) {
			t.Errorf("encoded and decoded: %+v, want %+v (%v)", same, r, err)
		}
	})
}

func readable(v Value, k Kind) bool {
	ok := true
	switch k {
	case Int:
		_, ok = v.Int()
	case Text:
		_, ok = v.Text()
	case Bytes:
		_, ok = v.Bytes()
		for range v.Strings() {
		}
	case Socket:
		_, ok = v.Tuple()
	case SockAddr:
		v.Address()
	case Descriptor:
		_, ok = v.File()
	}
	return ok
}
