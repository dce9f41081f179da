package k8saudit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// checkAgainstStandard holds the reader to encoding/json: both take the same
// texts, and both see the same in them.
func checkAgainstStandard(t *testing.T, data []byte) {
	t.Helper()
	in := reader{b: data}
	in.value(maxDepth)
	err := in.end()
	if want := json.Valid(data); (err == nil) != want && !tooDeep(data) {
		t.Fatalf("%q: read = %v, encoding/json says %v", data, err, want)
	}
	if err != nil {
		return
	}
	r := &record{doc: data, arena: &arena{}, at: span{0, uint32(len(data)), container}}
	r.arena.reset()
	in = reader{b: data}
	root := in.value(maxDepth)
	compare(t, r.root(wholeRoot, root), data)
}

func tooDeep(data []byte) bool {
	return bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) >= maxDepth
}

// compare walks both forms of a value.
func compare(t *testing.T, n node, data []byte) {
	t.Helper()
	data = bytes.TrimSpace(data)
	got, ok := n.text()
	if !ok {
		t.Fatalf("%q is absent", data)
	}
	switch data[0] {
	case '"':
		var want string
		if err := json.Unmarshal(data, &want); err != nil || got != want {
			t.Fatalf("text of %q = %q, want %q (%v)", data, got, want, err)
		}
	case '{':
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		for name, v := range want {
			compare(t, n.at(name), v)
		}
		sameJSON(t, got, data)
	case '[':
		var want []json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || n.list() != len(want) {
			t.Fatalf("%q has %d elements, want %d (%v)", data, n.list(), len(want), err)
		}
		for i, v := range want {
			compare(t, n.element(i), v)
		}
		sameJSON(t, got, data)
	default:
		if got != string(data) {
			t.Fatalf("text of %q = %q", data, got)
		}
	}
}

func sameJSON(t *testing.T, got string, want []byte) {
	t.Helper()
	var a, b any
	errs := []error{json.Unmarshal([]byte(got), &a), json.Unmarshal(want, &b)}
	if errs[0] != nil || errs[1] != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Fatalf("%q reads as %q: %v, want %v (%v)", want, got, a, b, errs)
	}
}

// A writer makes random JSON, most of it valid: with blanks, escapes, bytes
// that are not Unicode and names that come twice.
type writer struct {
	*rand.Rand
	bytes.Buffer
}

func (w *writer) pick(choices ...string) { w.WriteString(choices[w.IntN(len(choices))]) }

func (w *writer) text() {
	w.WriteByte('"')
	for range w.IntN(12) {
		w.pick("a", "name", "0123456789", " ", `\"`, `\\`, `\/`, `\n`, `\u0041`, `\ud83d\ude00`, `\ud83d`, `\ude00`, `\u0000`, "é", "世", "\xff", "\xc3", "{", "[", ":", "\u2028", "<&>")
	}
	w.WriteByte('"')
}

func (w *writer) value(depth int) {
	w.pick("", "", "", " ", "\n\t ")
	switch n := w.IntN(10); {
	case n < 4 || depth == 0:
		w.text()
	case n == 4:
		w.pick("0", "-1", "1.50", "2e10", "3E-2", "true", "false", "null")
	case n < 7:
		w.WriteByte('[')
		for i := range w.IntN(4) {
			if i > 0 {
				w.WriteByte(',')
			}
			w.value(depth - 1)
		}
		w.WriteByte(']')
	default:
		w.WriteByte('{')
		for i := range w.IntN(5) {
			if i > 0 {
				w.WriteByte(',')
			}
			if w.IntN(3) == 0 {
				w.pick(`"a"`, `"\u0061"`, `"b"`)
			} else {
				w.text()
			}
			w.WriteByte(':')
			w.value(depth - 1)
		}
		w.WriteByte('}')
	}
	w.pick("", "", "", " ", "\r\n")
}

func TestReaderAgainstStandard(t *testing.T) {
	w := &writer{Rand: rand.New(rand.NewPCG(1, 2))}
	for range 20_000 {
		w.Reset()
		w.value(4)
		data := bytes.Clone(w.Bytes())
		checkAgainstStandard(t, data)
		// The same with a byte changed, added or cut off.
		i := w.IntN(len(data))
		const bytesOfNote = "{}[]\":,\\u0-.eEtfn \x00\x1f\x7f\xffx"
		c := bytesOfNote[w.IntN(len(bytesOfNote))]
		changed := bytes.Clone(data)
		changed[i] = c
		checkAgainstStandard(t, changed)
		checkAgainstStandard(t, append(bytes.Clone(data[:i]), append([]byte{c}, data[i:]...)...))
		checkAgainstStandard(t, data[:i])
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e-3,true,false,null],"\u0061":"\ud83d\ude00\n","b":{"c":{}}}`, `"`, `"\u00`, `[[],{}]`, "[1,]", `{"a"}`, "-", "01", "\"\xff\"", " null ", "nul", "\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkAgainstStandard(t, data) })
}

func TestDepth(t *testing.T) {
	for _, tc := range []struct {
		depth int
		ok    bool
	}{{maxDepth, true}, {maxDepth + 1, false}, {100_000, false}} {
		for _, pair := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
			data := strings.Repeat(pair[0], tc.depth) + "1" + strings.Repeat(pair[1], tc.depth)
			in := reader{b: []byte(data)}
			in.value(maxDepth)
			if err := in.end(); (err == nil) != tc.ok {
				t.Errorf("%d times %s: %v", tc.depth, pair[0], err)
			}
		}
	}
}

func TestParseTime(t *testing.T) {
	for _, s := range []string{
		"2026-03-04T05:06:07Z", "2026-03-04T05:06:07.1Z", "2026-03-04T05:06:07.123456Z", "2026-03-04T05:06:07.123456789Z",
		"2024-02-29T23:59:59.000001Z", "2026-12-31T00:00:00Z", "2026-03-04T05:06:07+02:00", "0001-01-01T00:00:00Z",
		"2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-32T00:00:00Z", "2026-01-01T24:00:00Z",
		"2026-01-01T00:60:00Z", "2026-01-01T00:00:60Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00.1-2Z", "", "now", "2026-01-01T00:00:00ZZ",
	} {
		var want time.Time
		wantErr := want.UnmarshalText([]byte(s))
		got, err := parseTime(s)
		if (err == nil) != (wantErr == nil) || err == nil && (!got.Equal(want) || got.Format(time.RFC3339Nano) != want.Format(time.RFC3339Nano)) {
			t.Errorf("parseTime(%q) = %v, %v; want %v, %v", s, got, err, want, wantErr)
		}
	}
}
