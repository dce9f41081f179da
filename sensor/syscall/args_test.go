package syscall_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// sample returns a value of a kind of parameter; n tells those of an event apart.
func sample(e *syscall.Event, kind string, n int) syscall.Param {
	file := (&syscall.FD{Num: int64(3 + n), Type: syscall.FDFile, Name: fmt.Sprintf("/f%d", n)}).Ready()
	switch kind {
	case "fd":
		return syscall.Param{Known: true, Num: file.Num, FD: file}
	case "charbuf", "dyn":
		return syscall.Text("text")
	case "bytebuf":
		return syscall.Text("a\x00b\xff")
	case "fspath", "fsrelpath":
		return syscall.Text("x/../y")
	case "pid":
		return syscall.Param{Known: true, Num: 70, Text: "bash"}
	case "uid", "gid":
		return syscall.Param{Known: true, Num: 0, Text: "root"}
	case "errno":
		return syscall.Number(-int64(n) - 1)
	case "sigtype":
		return syscall.Number(15)
	case "mode":
		return syscall.Number(0o4755)
	case "reltime":
		return syscall.Number(1_500_000_000)
	case "flags8", "flags16", "flags32", "enumflags8", "enumflags16", "enumflags32":
		return syscall.Number(1)
	case "socktuple", "sockaddr":
		ends := &syscall.FD{Num: -1, Type: syscall.FDIPv4, Server: netip.MustParseAddrPort("10.0.0.2:80")}
		if kind == "socktuple" {
			ends.Client = netip.MustParseAddrPort("10.0.0.1:7000")
		}
		return syscall.Param{Known: true, FD: ends.Ready()}
	case "fdlist":
		e.Polled = []syscall.Polled{{FD: file, Events: 0x41}}
		return syscall.Param{Known: true}
	}
	return syscall.Number(int64(100 + n))
}

// full returns an event of a type with all of its parameters.
func full(typ *syscall.Type) *syscall.Event {
	e := &syscall.Event{
		Type: typ, CPU: -1, Time: 1767261605000000007, Process: (&syscall.Process{Key: syscall.Key{PID: 7}, Name: "sh", Cwd: "/app"}).Ready(),
	}
	for i, p := range typ.Params {
		e.Params = append(e.Params, sample(e, p.Kind, i))
	}
	return e
}

// All parameters of all types are printed as the table says. A type that the
// table lacks is a failure.
func TestArgsOfEachType(t *testing.T) {
	data, err := os.ReadFile("testdata/args.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, args, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		want[name] = args
	}
	args := ref(t, "evt.args")
	var all strings.Builder
	for _, name := range event.Types(event.Syscall) {
		typ := syscall.TypeOf(name)
		if len(typ.Params) == 0 {
			continue
		}
		got := (&event.Event{Record: full(typ)}).Value(args).String()
		fmt.Fprintf(&all, "%s: %s\n", name, got)
		if got != want[name] {
			t.Errorf("%s\n is %s\nwant %s", name, got, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s has no parameters, or is no type", name)
	}
	if t.Failed() && os.Getenv("WRITE_ARGS") != "" {
		if err := os.WriteFile("testdata/args.txt", []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Each parameter can be had by its name and by its position, printed and raw.
func TestParametersOfEachType(t *testing.T) {
	for _, name := range event.Types(event.Syscall) {
		typ := syscall.TypeOf(name)
		e := &event.Event{Record: full(typ)}
		for i, p := range typ.Params {
			named, placed := e.Value(ref(t, "evt.arg."+p.Name)), e.Value(ref(t, fmt.Sprintf("evt.arg[%d]", i)))
			if named.Missing() || named.String() != placed.String() || named.Type != event.TypeString {
				t.Errorf("parameter %s of %s is %q by name, %q by position", p.Name, name, named, placed)
			}
			if raw := e.Value(ref(t, "evt.rawarg["+p.Name+"]")); raw.Missing() || raw.Type != p.Type {
				t.Errorf("%s of %s is raw a %s, want a %s", p.Name, name, raw.Type, p.Type)
			}
		}
	}
}

// What is recorded of an event is the event.
func TestRoundTrip(t *testing.T) {
	var lines []string
	for _, name := range event.Types(event.Syscall) {
		line, err := syscall.AppendJSON(nil, &event.Event{Source: event.Syscall, ID: name, Num: 1, Record: full(syscall.TypeOf(name))})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	for _, e := range recorded(t, "testdata/events.jsonl") {
		line, err := syscall.AppendJSON(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	for _, line := range lines {
		e, err := syscall.Decode([]byte(line))
		if err != nil {
			t.Errorf("%v\n%s", err, line)
			continue
		}
		again, err := syscall.AppendJSON(nil, e)
		if err != nil || string(again) != line {
			t.Errorf("%v\n     %s\nwant %s", err, again, line)
		}
	}
}

// Recorded events have the values that the same events had before.
func TestRecordedValues(t *testing.T) {
	for id, e := range recorded(t, "testdata/events.jsonl") {
		line, err := syscall.AppendJSON(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		again, err := syscall.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range fieldCases {
			if r := ref(t, tc.field); e.Value(r).String() != again.Value(r).String() {
				t.Errorf("%s of %s is %q, want %q", tc.field, id, again.Value(r), e.Value(r))
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	const begin = `{"time":"2026-01-01T10:00:00Z","type":`
	for _, tc := range []struct{ line, want string }{
		{`{}`, "type is missing"},
		{`{"type":"open"}`, "time is missing"},
		{`{"time":"yesterday","type":"open"}`, `"yesterday" is no time as`},
		{`{"time":"1969-01-01T00:00:00Z","type":"open"}`, "not between 1970 and 2200"},
		{begin + `"nothing"}`, `unknown event type "nothing"`},
		{begin + `"open","colour":1}`, `unknown field "colour"`},
		{begin + `"open"} {}`, "there is more behind the JSON object"},
		{begin + `"open"} x`, "there is more behind the JSON object"},
		{begin + `"open","params":{"path":"/x"}}`, `open has no parameter "path"`},
		{begin + `"open","params":{"name":1}}`, "params: name"},
		{begin + `"open","params":{"flags":"O_NOTHING"}}`, `"O_NOTHING" is neither a number nor a name of one`},
		{begin + `"open","params":{"ino":1.5}}`, "1.5 is not a whole number"},
		{begin + `"open","params":{"fd":{"num":1,"type":"chair"}}}`, `unknown type of descriptor "chair"`},
		{begin + `"open","process":{"pid":1,"name":"x","exe":"y"}}`, `unknown field "exe"`},
		{begin + `"open","ancestors":[{"name":"x"}]}`, "ancestors without a process"},
		{begin + `"open","process":{"name":"x"},"ancestors":[null]}`, "ancestors[0] is null"},
		{begin + `"open","container":{}}`, "container has no id"},
		{begin + `"open","process":{"name":"x","caps":{"effective":"CAP_FLY"}}}`, `unknown capability "CAP_FLY"`},
		{begin + `"open","result":"EFUN"}`, `"EFUN" is neither`},
		{begin + `"poll","params":{"fds":[{"events":1}]}}`, "[0] has no fd"},
		{`[`, "unexpected EOF"},
		{strings.Repeat(" ", syscall.MaxLine) + `{}`, "over the limit"},
	} {
		n, err := syscall.Read("e.jsonl", strings.NewReader("\n"+tc.line+"\n"), func(*event.Event) error { return nil })
		if err == nil || !strings.HasPrefix(err.Error(), "e.jsonl:2: ") || !strings.Contains(err.Error(), tc.want) || n != 0 {
			t.Errorf("%.80s\nerror %v, want e.jsonl:2: %s", tc.line, err, tc.want)
		}
	}
}

// Of a line without an end nothing is lost.
func TestLastLine(t *testing.T) {
	n, err := syscall.Read("e", strings.NewReader(`{"time":"2026-01-01T10:00:00Z","type":"sync"}`), func(*event.Event) error { return nil })
	if n != 1 || err != nil {
		t.Errorf("%d events, %v", n, err)
	}
}

// What can be read can be written, read again, and asked for every field.
func FuzzDecode(f *testing.F) {
	data, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f.Add([]byte(line))
	}
	var refs []event.Ref
	for _, tc := range fieldCases {
		refs = append(refs, ref(f, tc.field))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := syscall.Decode(line)
		if err != nil {
			return
		}
		for _, r := range refs {
			_ = e.Value(r).String()
			_ = e.Value(r).JSON()
		}
		e.Record.Subject()
		first, err := syscall.AppendJSON(nil, e)
		if err != nil || !json.Valid(first) {
			t.Fatalf("%v: %s", err, first)
		}
		again, err := syscall.Decode(first)
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		second, err := syscall.AppendJSON(nil, again)
		if err != nil || string(first) != string(second) {
			t.Fatalf("%v\n     %s\nwant %s", err, second, first)
		}
	})
}
