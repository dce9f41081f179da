package words

import (
	"strings"
	"testing"
)

func TestIn(t *testing.T) {
	for _, tt := range []struct {
		text, in string
		want     bool
	}{
		{"web-0", "Pod shop/web-07 deleted", true},
		{"WEB-0", "shop/web-07", true},
		{"web", "shop/MYWEB web", true},
		{"eb-0", "shop/web-07", false},
		{"0", "web-07", true},
		{"7", "web-07", false},
		{"10.7.7.7", "from 10.7.7.77", true},
		{"7.7.7", "from 10.7.7.7", true},
		{"-07", "shop/web-07", true},
		{"by ada", "made by Ada", true},
		{"ünder", "an ünder, a sünder", true},
		{"ünder", "a sünder", false},
		{"", "all", true},
		{"none", "", false},
		{"a", "ba", false},
	} {
		if have := Parse(tt.text).In(tt.in); have != tt.want {
			t.Errorf("%q in %q: %v", tt.text, tt.in, have)
		}
	}
}

func TestTerms(t *testing.T) {
	for text, want := range map[string]string{
		"offer-service-7d4b": "offer-servic service-7d4b 7d4b*",
		"by ada ":            "by ada",
		"ad":                 "",
		"10.7.7.7":           "10.7.7.7* 7.7.7* 7.7*",
		"/pods/exec?command": "pods exec command*",
		"é":                  "",
		"0123456789éé":       "0123456789é",
	} {
		var have []string
		for _, term := range Parse(text).Terms() {
			if term.Prefix {
				term.Text += "*"
			}
			have = append(have, term.Text)
		}
		if strings.Join(have, " ") != want {
			t.Errorf("%q: %q, want %q", text, have, want)
		}
	}
}

// FuzzQuery: where a text is found, the index has all its terms.
func FuzzQuery(f *testing.F) {
	f.Add("web-0", "Pod shop/web-07")
	f.Add("7.7.7 a", "10.7.7.7 A-b_c")
	f.Add("é-ö", "x/é-öü\xff\x00")
	f.Add("0123456789éé", "0123456789ééé")
	f.Fuzz(func(t *testing.T, text, in string) {
		if len(text) > 1000 || len(in) > 10_000 {
			return
		}
		queries := []string{text}
		for i := range in { // what is found for sure, or not because it begins within a word
			queries = append(queries, in[i:], in[i:i+(len(in)-i)/2])
			if i > 50 {
				break
			}
		}
		index := map[string]bool{}
		Add(index, in)
		for term := range index {
			if term == "" || len(term) > termSize || strings.ContainsAny(term, " '\"\\*\x00") {
				t.Fatalf("a term %q", term)
			}
		}
		for _, text := range queries {
			q := Parse(text)
			if !q.In(in) {
				continue
			}
			for _, name := range q.Names() {
				if !strings.Contains(lower(in), name) {
					t.Errorf("%q is found in %q, its name %q is not", text, in, name)
				}
			}
			for _, term := range q.Terms() {
				if !has(index, term) {
					t.Errorf("%q is found in %q, which has no term %+v", text, in, term)
				}
			}
		}
	})
}

func has(index map[string]bool, term Term) bool {
	for have := range index {
		if have == term.Text || term.Prefix && strings.HasPrefix(have, term.Text) {
			return true
		}
	}
	return false
}
