package event_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

func TestResolve(t *testing.T) {
	for _, tc := range []struct {
		field, arg string // no argument if arg is "-"
		want       event.Ref
		err        string
	}{
		{field: "ka.verb", arg: "-", want: event.Ref{Text: "ka.verb", Index: -1}},
		{field: "ka.verb", arg: "0", err: "field ka.verb takes no argument"},
		{field: "ka.user.groups", arg: "-", want: event.Ref{Text: "ka.user.groups", Index: -1}},
		{field: "ka.user.groups", arg: "2", want: event.Ref{Text: "ka.user.groups[2]", Key: "2", Index: 2}},
		{field: "ka.user.groups", arg: "-1", err: `argument "-1" of field ka.user.groups is not a position`},
		{field: "ka.user.groups", arg: "99999999", err: "is not a position"},
		{field: "ka.uri.param", arg: "-", err: "field ka.uri.param needs an argument: ka.uri.param[…]"},
		{field: "ka.uri.param", arg: "x", want: event.Ref{Text: "ka.uri.param[x]", Key: "x", Index: -1}},
		{field: "jevt.value", arg: "/a~1b/c~0d/~01", want: event.Ref{Text: "jevt.value[/a~1b/c~0d/~01]", Key: "/a~1b/c~0d/~01", Index: -1, Pointer: []string{"a/b", "c~d", "~1"}}},
		{field: "jevt.value", arg: "a", want: event.Ref{Text: "jevt.value[a]", Key: "a", Index: -1, Pointer: []string{"a"}}},
		{field: "jevt.value", arg: "/", want: event.Ref{Text: "jevt.value[/]", Key: "/", Index: -1}},
	} {
		t.Run(tc.field+tc.arg, func(t *testing.T) {
			f, ok := event.Lookup(event.K8sAudit, tc.field)
			if !ok {
				t.Fatal("no such field")
			}
			arg := &tc.arg
			if tc.arg == "-" {
				arg = nil
			}
			got, err := event.Resolve(f, arg)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("Resolve = %v, want %s", err, tc.err)
				}
				return
			}
			if tc.want.Field, tc.want.ID = f, got.ID; err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("Resolve = %+v, %v\nwant %+v", got, err, tc.want)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	for _, tc := range []struct {
		source, name string
		want         bool
	}{
		{event.K8sAudit, "ka.verb", true},
		{event.K8sAudit, "evt.time", true},
		{event.K8sAudit, "proc.name", false},
		{"other", "evt.time", false},
	} {
		if _, ok := event.Lookup(tc.source, tc.name); ok != tc.want {
			t.Errorf("Lookup(%s, %s) = %v, want %v", tc.source, tc.name, ok, tc.want)
		}
	}
}

func TestValue(t *testing.T) {
	for _, tc := range []struct {
		name    string
		value   event.Value
		text    string
		json    any
		missing bool
	}{
		{"missing", event.Value{}, "<NA>", nil, true},
		{"text", event.Text("a"), "a", "a", false},
		{"empty text", event.Text(""), "", "", false},
		{"number", event.Number(-3), "-3", int64(-3), false},
		{"list", event.List([]string{"a", "b"}), "(a,b)", []string{"a", "b"}, false},
		{"empty list", event.List(nil), "<NA>", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.value.String(); got != tc.text {
				t.Errorf("String = %q, want %q", got, tc.text)
			}
			if got := tc.value.JSON(); !reflect.DeepEqual(got, tc.json) {
				t.Errorf("JSON = %#v, want %#v", got, tc.json)
			}
			if got := tc.value.Missing(); got != tc.missing {
				t.Errorf("Missing = %v, want %v", got, tc.missing)
			}
		})
	}
}

func TestCommonFields(t *testing.T) {
	e := event.Event{
		Source: event.K8sAudit, Hostname: "node-1",
		Time: time.Date(2026, 3, 4, 5, 6, 7, 89, time.FixedZone("", 3600)).In(time.Local),
	}
	local := e.Time.Format("2006-01-02 15:04:05")
	for name, want := range map[string]string{
		"evt.time":         local[11:] + ".000000089",
		"evt.time.s":       local[11:],
		"evt.datetime":     local + ".000000089",
		"evt.datetime.s":   local,
		"evt.time.iso8601": "2026-03-04T04:06:07.000000089Z",
		"evt.rawtime":      "1772597167000000089",
		"evt.rawtime.s":    "1772597167",
		"evt.rawtime.ns":   "89",
		"evt.source":       "k8s_audit",
		"evt.hostname":     "node-1",
	} {
		f, _ := event.Lookup(event.K8sAudit, name)
		got := e.Value(event.Ref{Field: f})
		if got.String() != want || got.Type != f.Type {
			t.Errorf("%s = %q, a %s; want %q, a %s", name, got, got.Type, want, f.Type)
		}
	}
}
