package process

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

func socket(inode uint64, tuple record.Tuple) record.Value {
	kind := map[uint16]byte{record.FamilyIPv4: '4', record.FamilyIPv6: '6', record.FamilyUnix: 'u', 16: 'n'}[tuple.Family]
	return record.File{Kind: kind, Inode: inode, Socket: tuple}.Value()
}

func tuple4(local, remote string, connected bool, protocol uint8) record.Tuple {
	t := record.Tuple{Family: record.FamilyIPv4, Protocol: protocol, Connected: connected, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort("0.0.0.0:0")}
	if remote != "" {
		t.Remote = netip.MustParseAddrPort(remote)
	}
	return t
}

var user = life{key: record.Key{TGID: 10, Start: 10 * second1}, comm: "app"}

func TestOpen(t *testing.T) {
	tests := []struct {
		name   string
		typ    string
		values map[string]any
		extras map[record.Tag]record.Value
		want   syscall.FD
		path   string // of the parameter
		flags  int64
	}{
		{
			"path by the kernel", "openat",
			map[string]any{"fd": 5, "result": 5, "dirfd": -100, "name": "../etc//shadow", "flags": 0, "dev": 9, "ino": 77},
			map[record.Tag]record.Value{
				record.Path: record.BytesValue([]byte("/etc/shadow")), record.Base: record.BytesValue([]byte("/srv")), record.FileState: record.IntValue(record.Lower),
			},
			syscall.FD{Num: 5, Type: syscall.FDFile, Name: "/etc/shadow", Raw: "../etc//shadow", Dev: 9, Ino: 77, Lower: true}, "/etc/shadow", 1 | 1<<16,
		},
		{
			"failed", "openat", map[string]any{"fd": -2, "result": -2, "dirfd": -100, "name": "a/./b", "flags": 0o101},
			map[record.Tag]record.Value{record.Base: record.BytesValue([]byte("/srv"))},
			syscall.FD{Num: -1, Type: syscall.FDFile, Name: "/srv/a/b", Raw: "a/./b"}, "/srv/a/b", 2 | 4,
		},
		{
			"failed, relative to what is not known", "open", map[string]any{"fd": -13, "result": -13, "name": "a", "flags": 2}, nil,
			syscall.FD{Num: -1, Type: syscall.FDFile, Name: "a", Raw: "a"}, "", 3,
		},
		{
			"made in the upper layer", "creat", map[string]any{"fd": 3, "result": 3, "name": "/tmp/x", "ino": 5},
			map[record.Tag]record.Value{record.Path: record.BytesValue([]byte("/tmp/x")), record.FileState: record.IntValue(record.Created | record.Upper)},
			syscall.FD{Num: 3, Type: syscall.FDFile, Name: "/tmp/x", Raw: "/tmp/x", Ino: 5, Upper: true}, "/tmp/x", 0,
		},
		{
			"folder", "open", map[string]any{"fd": 4, "result": 4, "name": "/etc/", "flags": 0o200000},
			map[record.Tag]record.Value{record.Path: record.BytesValue([]byte("/etc"))},
			syscall.FD{Num: 4, Type: syscall.FDDirectory, Name: "/etc", Raw: "/etc/"}, "/etc", 1 | 0x400,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := user.make(t, tt.typ, 11*second1, tt.values)
			for tag, v := range tt.extras {
				extra(t, r, tag, v)
			}
			e := alone(t, Options{}).Reader().Read(r)
			if tt.want.Num < 0 {
				if e.FD != nil {
					t.Errorf("descriptor %+v of a call that failed", e.FD)
				}
			} else if have := *e.FD; have != *tt.want.Ready() {
				t.Errorf("have %+v\nwant %+v", have, tt.want)
			}
			if have := e.Params[e.Type.Param("name")]; have.Path != tt.path || have.Text != tt.want.Raw || !have.Known {
				t.Errorf("parameter %+v, want %q", have, tt.path)
			}
			if i := e.Type.Param("flags"); i >= 0 && e.Params[i].Num != tt.flags {
				t.Errorf("flags %#x, want %#x", e.Params[i].Num, tt.flags)
			}
			if have := e.Params[e.Type.Param("fd")]; tt.want.Num >= 0 && have.FD != e.FD {
				t.Errorf("parameter %+v", have)
			}
		})
	}
}

func TestConnections(t *testing.T) {
	const tcp, udp = 6, 17
	type end struct {
		serving, connected, changed bool
		typ                         syscall.FDType
		name                        string
	}
	steps := []struct {
		name, typ string
		inode     uint64
		socket    record.Tuple
		named     *record.Tuple // by the call
		want      end
	}{
		{"connect", "connect", 1, tuple4("10.0.0.1:40000", "192.0.2.7:443", true, tcp), nil, end{false, true, true, syscall.FDIPv4, "10.0.0.1:40000->192.0.2.7:443"}},
		{"send on it", "sendto", 1, tuple4("10.0.0.1:40000", "192.0.2.7:443", true, tcp), nil, end{false, true, false, syscall.FDIPv4, "10.0.0.1:40000->192.0.2.7:443"}},
		{"listen", "listen", 2, tuple4("0.0.0.0:8080", "", false, tcp), nil, end{true, false, false, syscall.FDIPv4, "0.0.0.0:8080"}},
		{"accept", "accept4", 3, tuple4("10.0.0.1:8080", "192.0.2.9:50000", true, tcp), nil, end{true, true, true, syscall.FDIPv4, "192.0.2.9:50000->10.0.0.1:8080"}},
		{"answer", "sendto", 3, tuple4("10.0.0.1:8080", "192.0.2.9:50000", true, tcp), nil, end{true, true, false, syscall.FDIPv4, "192.0.2.9:50000->10.0.0.1:8080"}},
		{"ask a name server", "sendto", 4, tuple4("0.0.0.0:40001", "", false, udp), new(tuple4("10.0.0.1:40001", "10.0.0.53:53", false, udp)), end{false, false, true, syscall.FDIPv4, "10.0.0.1:40001->10.0.0.53:53"}},
		{"ask it again", "sendto", 4, tuple4("0.0.0.0:40001", "", false, udp), new(tuple4("10.0.0.1:40001", "10.0.0.53:53", false, udp)), end{false, false, false, syscall.FDIPv4, "10.0.0.1:40001->10.0.0.53:53"}},
		{"ask another", "sendto", 4, tuple4("0.0.0.0:40001", "", false, udp), new(tuple4("10.0.0.1:40001", "10.0.0.54:53", false, udp)), end{false, false, true, syscall.FDIPv4, "10.0.0.1:40001->10.0.0.54:53"}},
		{"be asked", "recvfrom", 5, tuple4("0.0.0.0:53", "", false, udp), new(tuple4("10.0.0.1:53", "10.0.0.9:41000", false, udp)), end{true, false, true, syscall.FDIPv4, "10.0.0.9:41000->10.0.0.1:53"}},
		{"connection from before, served", "sendto", 6, tuple4("10.0.0.1:80", "192.0.2.9:50000", true, tcp), nil, end{true, true, true, syscall.FDIPv4, "192.0.2.9:50000->10.0.0.1:80"}},
		{"IPv4 in IPv6", "connect", 7, record.Tuple{
			Family: record.FamilyIPv6, Protocol: tcp, Connected: true,
			Local: netip.MustParseAddrPort("[::ffff:10.0.0.1]:40000"), Remote: netip.MustParseAddrPort("[::ffff:192.0.2.7]:443"),
		}, nil, end{false, true, true, syscall.FDIPv4, "10.0.0.1:40000->192.0.2.7:443"}},
		{"IPv6", "connect", 8, record.Tuple{
			Family: record.FamilyIPv6, Protocol: tcp, Connected: true,
			Local: netip.MustParseAddrPort("[2001:db8::1]:40000"), Remote: netip.MustParseAddrPort("[2001:db8::2]:443"),
		}, nil, end{false, true, true, syscall.FDIPv6, "2001:db8::1:40000->2001:db8::2:443"}},
		{"Unix", "connect", 9, record.Tuple{Family: record.FamilyUnix, Protocol: 1, Connected: true, RemoteName: []byte("/run/containerd/containerd.sock")}, nil, end{false, true, false, syscall.FDUnix, "/run/containerd/containerd.sock"}},
		{"Unix, abstract", "bind", 10, record.Tuple{Family: record.FamilyUnix, Protocol: 1, LocalName: []byte("\x00hidden")}, nil, end{false, false, false, syscall.FDUnix, "@hidden"}},
		{"netlink", "bind", 11, record.Tuple{Family: 16}, nil, end{false, false, false, syscall.FDNetlink, ""}},
	}
	reader := alone(t, Options{}).Reader()
	for _, s := range steps {
		values := map[string]any{"fd": 5}
		if s.named != nil {
			values["tuple"] = s.named.Value()
		}
		e := reader.Read(extra(t, user.make(t, s.typ, 11*second1, values), record.FD, socket(s.inode, s.socket)))
		have := end{e.FD.Serving, e.FD.Connected, e.FD.Changed, e.FD.Type, e.FD.Name}
		if have != s.want || e.FD.Num != 5 || e.FD.Ino != s.inode {
			t.Errorf("%s: have %+v of %+v\nwant %+v", s.name, have, e.FD, s.want)
		}
		if s.named != nil {
			if ends := e.Params[e.Type.Param("tuple")].FD; ends == nil || ends.Name != s.want.name {
				t.Errorf("%s: parameter %+v", s.name, ends)
			}
		}
	}
}

func TestAddressThatACallerNames(t *testing.T) {
	r := user.make(t, "connect", 11*second1, map[string]any{"addr": record.BytesValue([]byte{2, 0, 1, 187, 192, 0, 2, 7})})
	e := alone(t, Options{}).Reader().Read(r)
	if fd := e.Params[e.Type.Param("addr")].FD; fd == nil || fd.Name != "192.0.2.7:443" {
		t.Errorf("have %+v", fd)
	}
	if e.FD != nil {
		t.Errorf("descriptor %+v of a call on none", e.FD)
	}
}

func TestTwoPaths(t *testing.T) {
	r := user.make(t, "renameat", 11*second1, map[string]any{"olddirfd": 3, "oldpath": "a", "newdirfd": 4, "newpath": "b", "res": 0})
	extra(t, r, record.Base, record.BytesValue([]byte("/one")))
	extra(t, r, record.SecondBase, record.BytesValue([]byte("/two")))
	e := alone(t, Options{}).Reader().Read(r)
	if from, to := e.Params[e.Type.Param("oldpath")].Path, e.Params[e.Type.Param("newpath")].Path; from != "/one/a" || to != "/two/b" {
		t.Errorf("from %q to %q", from, to)
	}
}

func TestManySockets(t *testing.T) {
	table := alone(t, Options{})
	reader := table.Reader()
	for i := range maxRoles + 100 {
		reader.Read(extra(t, user.make(t, "connect", 11*second1, nil), record.FD, socket(uint64(i+1), tuple4("10.0.0.1:40000", "192.0.2.7:443", true, 6))))
	}
	if n := len(table.roles); n > maxRoles || n < maxRoles/2 {
		t.Errorf("%d sockets are known", n)
	}
}

func TestKindsOfDescriptors(t *testing.T) {
	for kind, want := range map[byte]syscall.FDType{
		'f': syscall.FDFile, 'd': syscall.FDDirectory, 'p': syscall.FDPipe, 'e': syscall.FDEvent, 'm': syscall.FDMemory, 'o': syscall.FDUnknown, 0xff: syscall.FDUnknown,
	} {
		r := extra(t, user.make(t, "close", 11*second1, map[string]any{"fd": 3}), record.FD, record.File{Kind: kind, Name: []byte("x")}.Value())
		if fd := alone(t, Options{}).Reader().Read(r).FD; fd.Type != want || fd.Num != 3 || fd.Name != "x" {
			t.Errorf("%q: have %+v", kind, fd)
		}
	}
}

// TestStreamsOutliveTheirRecord: a process keeps what a record said although the
// bytes of the record are used again.
func TestStreamsOutliveTheirRecord(t *testing.T) {
	r := extra(t, execOf(t, user, 11*second1, "sh", "-c", "id"), record.Stdin, socket(3, tuple4("10.0.0.1:40000", "192.0.2.7:4444", true, 6)))
	extra(t, r, record.Stdout, record.File{Kind: 'p', Inode: 8, Name: []byte("pipe:[8]")}.Value())
	data, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var decoded record.Record
	if err := decoded.Decode(data); err != nil {
		t.Fatal(err)
	}
	p := alone(t, Options{}).Reader().Read(&decoded).Process
	for i := range data {
		data[i] = '#'
	}
	if p.Streams[0].Name != "10.0.0.1:40000->192.0.2.7:4444" || p.Streams[1].Name != "pipe:[8]" || p.Streams[2] != nil {
		t.Errorf("streams %+v %+v %+v", p.Streams[0], p.Streams[1], p.Streams[2])
	}
	if p.CommandLine() != "app -c id" || p.ExePath != "/usr/bin/sh" || p.Cwd != "/srv" || p.Cgroups[0].Path != "/system.slice/docker-"+containerID+".scope" {
		t.Errorf("process %+v", p)
	}
}

// FuzzRead hands the reader any record that can be decoded.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"execve", "clone", "openat", "connect", "renameat2", "dup2", "procexit", "chdir"} {
		r := user.make(f, name, 11*second1, nil)
		if data, err := r.Append(nil); err == nil {
			f.Add(data)
		}
	}
	data, err := execOf(f, user, 11*second1, "sh", "-c", "id").Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var r record.Record
		if r.Decode(data) != nil {
			return
		}
		reader := alone(t, Options{}).Reader()
		e := reader.Read(&r)
		if e.Process == nil || e.Type == nil || len(e.Params) != len(r.Type.Params()) {
			t.Errorf("event %+v", e)
		}
		reader.Read(&r)
	})
}

func TestParseStat(t *testing.T) {
	rest := " S 1 2 3 34816 3 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
	tests := []struct {
		text string
		want stat
		ok   bool
	}{
		{"7 (sleep)" + rest, stat{"sleep", 1, 2, 3, 34816, 12345}, true},
		{"7 (a) b (c)" + rest, stat{"a) b (c", 1, 2, 3, 34816, 12345}, true},
		{"7 ()" + rest, stat{"", 1, 2, 3, 34816, 12345}, true},
		{"7 (sleep) S 1 2", stat{}, false},
		{"7 )(" + rest, stat{}, false},
		{"7 (sleep)" + strings.Replace(rest, "12345", "x", 1), stat{}, false},
		{"", stat{}, false},
	}
	for _, tt := range tests {
		have, err := parseStat(tt.text)
		if (err == nil) != tt.ok || tt.ok && have != tt.want {
			t.Errorf("parseStat(%q) = %+v, %v", tt.text, have, err)
		}
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add(readSelf("stat"), readSelf("status"), readSelf("cgroup"))
	f.Fuzz(func(t *testing.T, statText, statusText, cgroupText string) {
		if s, err := parseStat(statText); err == nil && !strings.Contains(statText, "("+s.name+")") {
			t.Errorf("name %q of %q", s.name, statText)
		}
		parseStatus(&syscall.Process{}, statusText)
		for _, g := range parseCgroups(cgroupText) {
			if !strings.Contains(cgroupText, g.Path) {
				t.Errorf("path %q of %q", g.Path, cgroupText)
			}
		}
	})
}

func readSelf(name string) string {
	data, err := os.ReadFile("/proc/self/" + name)
	if err != nil {
		return ""
	}
	return string(data)
}
