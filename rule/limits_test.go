package rule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/rule"
)

// What a small file can make of itself ends in a mistake that names it.
func TestLimits(t *testing.T) {
	long := strings.Repeat("ka.verb = get or ", 20_000) + "ka.verb = put"
	var lists, users strings.Builder
	for i := range 9_000 {
		fmt.Fprintf(&lists, "- {list: l%d, items: [x]}\n", i)
		fmt.Fprintf(&users, "- {macro: m%d, condition: ka.verb in (l%d)}\n", i, i)
	}
	for _, tc := range []struct{ name, file, want string }{
		{"the same long condition again and again", "- &a {macro: m, condition: " + long + "}\n" + strings.Repeat("- *a\n", 50_000), "too large to be loaded"},
		{"appended again and again", "- {macro: m, condition: ka.verb exists}\n- &a {macro: m, condition: or " + long + ", append: true}\n" + strings.Repeat("- *a\n", 1000), "too large to be loaded"},
		{"many lists and many conditions", lists.String() + "\n---\n" + users.String(), "too large to be loaded"},
		{"deep transformers", auditRule("A", strings.Repeat("tolower(", 900)+"ka.verb"+strings.Repeat(")", 900)+" = x", ""), ""},
		{"deep parentheses", auditRule("A", strings.Repeat("(", 900)+"ka.verb = x"+strings.Repeat(")", 900), ""), ""},
		{"many negations", auditRule("A", strings.Repeat("not ", 50_000)+"ka.verb = x", ""), ""},
		{"a long name that is like another", "- {macro: " + strings.Repeat("a", 60_000) + ", condition: ka.verb exists}\n" + auditRule("A", strings.Repeat("a", 60_001), ""), "Undefined macro"},
		{"many constants", auditRule("A", "ka.verb in ("+strings.Repeat("a, ", 100_000)+"a)", ""), ""},
		{"long substrings", auditRule("A", "ka.uri contains anyof ("+strings.TrimSuffix(strings.Repeat(strings.Repeat("ab", 120)+", ", 1500), ", ")+")", ""), ""},
	} {
		if testing.Short() && strings.Contains(tc.want, "too large") {
			continue // they take seconds
		}
		t.Run(tc.name, func(t *testing.T) {
			_, err := rule.Load(rule.File{Name: "f.yaml", Data: []byte(tc.file)})
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Load = %.300v, want %q", err, tc.want)
			}
		})
	}
}
