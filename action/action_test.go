package action

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func testLog(n int) (out []Entry) {
	head := Head{}
	for i := range n {
		e := head.Seal(Entry{
			Time: time.Unix(1_800_000_000, int64(i)), User: "ada", Source: "192.0.2.1", Action: "update incidents",
			Object: "/incidents/one", Change: `{"state":"acknowledged"}`, Result: Allowed,
		})
		out, head = append(out, e), Head{e.Seq, e.Hash}
	}
	return out
}

func check(entries []Entry) (head Head, err error) {
	for _, e := range entries {
		if head, err = head.Next(e); err != nil {
			return head, err
		}
	}
	return head, nil
}

// TestFormat computes a hash from the words of the documentation alone.
func TestFormat(t *testing.T) {
	e := Head{}.Seal(Entry{Time: time.Unix(0, 42), User: "ådå", Source: "::1", Action: "log in", Result: "done"})
	sum := sha256.Sum256([]byte("21:kubeguardian action 1,1:1,2:42,5:ådå,3:::1,6:log in,0:,0:,4:done,0:,"))
	if want := hex.EncodeToString(sum[:]); e.Hash != want || e.Previous != "" {
		t.Errorf("have %s, want %s", e.Hash, want)
	}
}

func TestTampering(t *testing.T) {
	whole := testLog(5)
	head, err := check(whole)
	if err != nil || head.Seq != 5 || head.Hash != whole[4].Hash {
		t.Fatalf("an honest log: %v, %v", head, err)
	}
	resealed := func(i int, change func(*Entry)) []Entry {
		out := slices.Clone(whole)
		change(&out[i])
		out[i].Hash = out[i].Sum()
		return out
	}
	for name, c := range map[string]struct {
		entries []Entry
		at      int64
	}{
		"edited": {func() []Entry {
			out := slices.Clone(whole)
			out[2].User = "ben"
			return out
		}(), 3},
		"edited, with its hash":  {resealed(2, func(e *Entry) { e.User = "ben" }), 4},
		"moved text":             {resealed(2, func(e *Entry) { e.User, e.Source = "ada1", "92.0.2.1" }), 4},
		"time":                   {resealed(1, func(e *Entry) { e.Time = e.Time.Add(1) }), 3},
		"removed":                {slices.Delete(slices.Clone(whole), 1, 2), 2},
		"the first removed":      {whole[1:], 1},
		"reordered":              {[]Entry{whole[0], whole[2], whole[1], whole[3]}, 2},
		"twice":                  {[]Entry{whole[0], whole[0], whole[1]}, 2},
		"removed and renumbered": {resealed(1, func(e *Entry) { e.Seq = 1; e.Previous = "" })[1:], 2},
		"added":                  {[]Entry{whole[0], Head{1, whole[0].Hash}.Seal(Entry{User: "eve"}), whole[1]}, 3},
	} {
		_, err := check(c.entries)
		var broken *BrokenError
		if !errors.As(err, &broken) || broken.Seq != c.at {
			t.Errorf("%s: %v, want entry %d", name, err, c.at)
		}
	}
	// What the chain alone cannot see, a head that was kept elsewhere shows.
	if cut, err := check(whole[:3]); err != nil || cut == head {
		t.Errorf("a log without its end: %v, %v", cut, err)
	}
}

func TestTextsAreBounded(t *testing.T) {
	for name, text := range map[string]string{"long": strings.Repeat("ä", 5000), "NUL": "a\x00b", "not UTF-8": "a\xffb", "cut in a letter": strings.Repeat("a", 509) + "äääääää"} {
		e := Head{}.Seal(Entry{User: text, Change: text})
		if len(e.User) > maxText || len(e.Change) > maxChange || !utf8.ValidString(e.User+e.Change) || strings.Contains(e.User, "\x00") || e.Hash != e.Sum() {
			t.Errorf("%s: %d and %d bytes, %q", name, len(e.User), len(e.Change), e.User)
		}
	}
}

func TestParseHead(t *testing.T) {
	want := Head{12, strings.Repeat("ab", 32)}
	if have, err := ParseHead(strings.ToUpper(want.String())); err != nil || have != want {
		t.Errorf("have %v, %v", have, err)
	}
	if have, err := ParseHead(Head{}.String()); err != nil || have != (Head{}) {
		t.Errorf("of an empty log: %v, %v", have, err)
	}
	for _, text := range []string{"", "12", "12:", ":ab", "-1:" + want.Hash, "0:" + want.Hash, "12:" + want.Hash[1:], "12:" + want.Hash + "00", "x:" + want.Hash, strings.Repeat("9", 10_000)} {
		if head, err := ParseHead(text); err == nil || len(err.Error()) > 300 {
			t.Errorf("%.20q: %v, %v", text, head, err)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add("12:" + strings.Repeat("ab", 32))
	f.Fuzz(func(t *testing.T, text string) {
		if head, err := ParseHead(text); err == nil {
			if again, err := ParseHead(head.String()); err != nil || again != head {
				t.Errorf("%q: %v, %v", text, again, err)
			}
		}
	})
}
