package condition

import "testing"

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"?", "/", true},
		{"?", "", false},
		{"a*b*c", "a/x/b/y/c", true},
		{"a*b*c", "a/x/b/y", false},
		{"**", "ab", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{`a\`, `a\`, true},
		{"[abc]", "b", true},
		{"[!abc]", "b", false},
		{"[^abc]", "d", true},
		{"[a-c]x", "bx", true},
		{"[]a]", "]", true},
		{"[a-]", "-", true},
		{"[", "[", true},
		{"[a", "[a", true},
		{"[[:digit:]x]*", "7", true},
		{"[[:digit:]x]*", "y", false},
		{"[![:space:]]", "a", true},
		{"[[:upper:]]", "a", false},
		{"[[:nothing:]]", ":]", true},
		{`[\]]`, "]", true},
		{"*.[[:alpha:]]", "x.y.Z", true},
	} {
		if got := Glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("Glob(%q, %q) = %v, want %v", tc.pattern, tc.s, got, tc.want)
		}
	}
}

func TestASCIICase(t *testing.T) {
	for s, want := range map[string][2]string{
		"":       {"", ""},
		"aB1":    {"ab1", "AB1"},
		"KÄSE ä": {"kÄse ä", "KÄSE ä"},
		"z[Z@`{": {"z[z@`{", "Z[Z@`{"},
	} {
		if Lower(s) != want[0] || Upper(s) != want[1] {
			t.Errorf("%q: %q, %q, want %q", s, Lower(s), Upper(s), want)
		}
	}
}
