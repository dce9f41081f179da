package mutator

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

func TestParseLocation(t *testing.T) {
	for text, want := range map[string]location{
		"spec":                               {{name: "spec"}},
		" spec . \n replicas\t":              {{name: "spec"}, {name: "replicas"}},
		`metadata.labels."a.b/c"`:            {{name: "metadata"}, {name: "labels"}, {name: "a.b/c"}},
		`'it\'s'."a\\\b"`:                    {{name: "it's"}, {name: `a\b`}},
		`spec.containers[name: *].image`:     {{name: "spec"}, {name: "containers"}, {name: "name", item: true, all: true}, {name: "image"}},
		`spec.containers["name" : "x y"]`:    {{name: "spec"}, {name: "containers"}, {name: "name", item: true, key: "x y"}},
		`ports[containerPort: 080].protocol`: {{name: "ports"}, {name: "containerPort", item: true, key: int64(80)}, {name: "protocol"}},
		`ports[containerPort: "80"]`:         {{name: "ports"}, {name: "containerPort", item: true, key: "80"}},
		`-a._b.c9`:                           {{name: "-a"}, {name: "_b"}, {name: "c9"}},
		`a[b: '*']`:                          {{name: "a"}, {name: "b", item: true, key: "*"}},
		`"".'é'`:                             {{name: ""}, {name: "é"}},
	} {
		got, err := parseLocation(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("parseLocation(%q) = %v, %v, want %v", text, got, err, want)
		}
		again, err := parseLocation(got.String())
		if err != nil || !slices.Equal(again, want) {
			t.Errorf("%q is written as %q, which reads as %v, %v", text, got, again, err)
		}
	}
}

func TestParseLocationErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "want a field after the last character",
		"a.":                              "want a field after the last character",
		".a":                              "want a field at character 1, have '.'",
		"a..b":                            "want a field at character 3",
		"0a":                              "want a field at character 1",
		"a b":                             `want "." or the end at character 3`,
		"a/b":                             `want "." or the end at character 2`,
		"a[b: c][d: e]":                   `want "." or the end at character 8`,
		"a[]":                             "want the key of a list at character 3",
		"a[b]":                            `want ":" after the key of a list at character 4`,
		"a[b:":                            `want a value or "*" after the last character`,
		"a[b: c":                          `want "]" after the last character`,
		"a[b: 1x]":                        `want "]" at character 7`,
		"a[b: 99999999999999999999]":      "read the number before character 26: value out of range",
		`a."b`:                            "the text that begins at character 3 has no end",
		`"a\`:                             "the text that begins at character 1 has no end",
		strings.Repeat("a", 4097):         "4097 bytes are more than the limit of 4096",
		"a" + strings.Repeat(".a", 100):   "more than 100 steps",
		"spec.containers[name: *].*":      "want a field at character 26",
		"spec.containers[*: x].image":     "want the key of a list at character 17",
		"spec.containers[name: *]image":   `want "." or the end at character 25`,
		"spec.containers[name: *].image]": `want "." or the end`,
	} {
		if got, err := parseLocation(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseLocation(%q) = %v, %v, want error %s", text, got, err, want)
		}
	}
}

// FuzzParseLocation wants what was read to be the same when it is written and
// read again.
func FuzzParseLocation(f *testing.F) {
	for _, seed := range []string{"spec.a", `a["b c": "\"\\"].d`, "a[b: *].c", "a[b: 12]", "a[b: 'x'", "''.\t\"\"", "\xff", `"\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLocation(text)
		if err != nil || len(l.String()) > maxLocation {
			return
		}
		again, err := parseLocation(l.String())
		if err != nil || !slices.Equal(l, again) {
			t.Errorf("%q was read as %v, again as %v, %v", text, l, again, err)
		}
	})
}
