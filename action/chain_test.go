package action

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestChain holds a log against heads that were kept elsewhere.
func TestChain(t *testing.T) {
	log, other := testLog(5), testLog(5)
	other[2] = Head{2, other[1].Hash}.Seal(Entry{Time: other[2].Time, User: "eve", Result: Done})
	at := func(log []Entry, seq int64) Head { return Head{seq, log[seq-1].Hash} }
	for name, c := range map[string]struct {
		anchors []Head
		broken  int64 // 0: it is whole
	}{
		"no heads":       {nil, 0},
		"its own":        {[]Head{{}, at(log, 1), at(log, 5)}, 0},
		"of another log": {[]Head{at(other, 3)}, 3},
		"one of each":    {[]Head{at(other, 3), at(log, 3)}, 3},
		"beyond its end": {[]Head{{9, log[0].Hash}, {7, log[0].Hash}}, 7},
	} {
		chain, err := NewChain(c.anchors...), error(nil)
		for _, e := range log {
			if err = chain.Add(e); err != nil {
				break
			}
		}
		if err == nil {
			err = chain.End()
		}
		broken := (*BrokenError)(nil)
		if errors.As(err, &broken) != (c.broken > 0) || broken != nil && broken.Seq != c.broken {
			t.Errorf("%s: %v", name, err)
		}
		if c.broken == 0 && chain.Head() != at(log, 5) {
			t.Errorf("%s: the head is %s", name, chain.Head())
		}
	}
}

// TestReadExport reads a log in every form that it is given in.
func TestReadExport(t *testing.T) {
	log := testLog(3)
	text := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	type page struct {
		Items []Entry `json:"items"`
		Next  string  `json:"next,omitempty"`
	}
	backwards := []Entry{log[2], log[1], log[0]}
	for name, input := range map[string]string{
		"array":   text(backwards),
		"pages":   text(page{backwards[:2], "2"}) + "\n" + text(page{Items: backwards[2:]}),
		"lines":   text(log[0]) + "\n" + text(log[1]) + "\n" + text(log[2]) + "\n",
		"a mix":   text(log[0]) + text(backwards[:2]),
		"by hand": "[\n " + text(log[1]) + ",\n" + text(log[0]) + "]\n" + text(log[2]),
	} {
		have, err := ReadExport(strings.NewReader(input))
		if err != nil || !slices.Equal(have, log) {
			t.Errorf("%s: %v, %v", name, have, err)
		}
		if _, err := check(have); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	one := text(log[0])
	for input, want := range map[string]string{
		"{":                          "at byte 1: unexpected EOF",
		"[" + one:                    "unexpected EOF",
		one[:len(one)-1]:             "unexpected EOF",
		"7":                          "at byte 1: want an entry, a page or an array of entries, have float64",
		`{"items":7}`:                "cannot unmarshal number",
		`{"seq":1,"admin":true}`:     `unknown field "admin"`,
		`[{"seq":1,"admin":true}]`:   `unknown field "admin"`,
		`{"items":[],"more":1}`:      `unknown field "more"`,
		"[" + one + "] and the rest": "invalid character 'a'",
	} {
		if _, err := ReadExport(strings.NewReader(input)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %s", input, err, want)
		}
	}
	for _, nothing := range []string{"", " \n"} { // what a download leaves that was refused is no empty log
		if have, err := ReadExport(strings.NewReader(nothing)); err == nil || !strings.Contains(err.Error(), "nothing is there") {
			t.Errorf("nothing: %v, %v", have, err)
		}
	}
	for _, empty := range []string{"[]", `{"items":[]}`} {
		if have, err := ReadExport(strings.NewReader(empty)); err != nil || len(have) > 0 {
			t.Errorf("%s: %v, %v", empty, have, err)
		}
	}
}

// FuzzReadExport expects that what was read is read again as the same.
func FuzzReadExport(f *testing.F) {
	data, err := json.Marshal(testLog(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add(`{"items":[{"seq":1,"time":"2026-01-02T03:04:05.000000006Z"}],"next":"1"}`)
	f.Add(`{"seq":1}{"seq":2}[]`)
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := ReadExport(strings.NewReader(text))
		if err != nil || len(entries) == 0 {
			return
		}
		again, err := json.Marshal(entries)
		if err != nil {
			return // a time of a year that JSON has not
		}
		if have, err := ReadExport(strings.NewReader(string(again))); err != nil || len(have) != len(entries) {
			t.Errorf("%s: %v", again, err)
		}
	})
}
