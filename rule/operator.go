package rule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// An opImpl is what an operator does for one type of field. Its functions are
// never called with a missing value: a check of one is false.
type opImpl struct {
	// constants returns the test against the operands, or the place of a wrong
	// one.
	constants func([]operand) (func(event.Value) bool, place, error)
	// fields compares with another field; nil where that is not possible.
	fields func(a, b event.Value) bool
}

// operators has the operators that each type of field knows.
var operators = map[event.Type]map[string]opImpl{
	event.TypeString: {
		"exists":     {constants: exists},
		"=":          onText(func(v, s string) bool { return v == s }),
		"==":         onText(func(v, s string) bool { return v == s }),
		"!=":         onText(func(v, s string) bool { return v != s }),
		"<":          onText(func(v, s string) bool { return v < s }),
		"<=":         onText(func(v, s string) bool { return v <= s }),
		">":          onText(func(v, s string) bool { return v > s }),
		">=":         onText(func(v, s string) bool { return v >= s }),
		"contains":   onText(strings.Contains),
		"icontains":  onText(icontains),
		"startswith": onText(strings.HasPrefix),
		"endswith":   onText(strings.HasSuffix),
		"glob":       onText(func(v, pattern string) bool { return glob(pattern, v) }),
		"in":         {textIn, func(a, b event.Value) bool { return a.Text == b.Text }},
		"intersects": {textIn, func(a, b event.Value) bool { return a.Text == b.Text }},
		"pmatch":     {constants: pathMatch},
	},
	event.TypeNumber: {
		"exists":     {constants: exists},
		"=":          onNumber(func(v, n int64) bool { return v == n }),
		"==":         onNumber(func(v, n int64) bool { return v == n }),
		"!=":         onNumber(func(v, n int64) bool { return v != n }),
		"<":          onNumber(func(v, n int64) bool { return v < n }),
		"<=":         onNumber(func(v, n int64) bool { return v <= n }),
		">":          onNumber(func(v, n int64) bool { return v > n }),
		">=":         onNumber(func(v, n int64) bool { return v >= n }),
		"in":         {numberIn, func(a, b event.Value) bool { return a.Number == b.Number }},
		"intersects": {numberIn, func(a, b event.Value) bool { return a.Number == b.Number }},
	},
	event.TypeList: {
		"exists": {constants: exists},
		"pmatch": {constants: anyPathMatch},
		"in": {
			func(items []operand) (func(event.Value) bool, place, error) {
				set := textSet(items)
				return func(v event.Value) bool {
					return !slices.ContainsFunc(v.List, func(s string) bool { return !set[s] })
				}, place{}, nil
			},
			func(a, b event.Value) bool {
				return !slices.ContainsFunc(a.List, func(s string) bool { return !slices.Contains(b.List, s) })
			},
		},
		"intersects": {
			func(items []operand) (func(event.Value) bool, place, error) {
				set := textSet(items)
				return func(v event.Value) bool {
					return slices.ContainsFunc(v.List, func(s string) bool { return set[s] })
				}, place{}, nil
			},
			func(a, b event.Value) bool {
				return slices.ContainsFunc(a.List, func(s string) bool { return slices.Contains(b.List, s) })
			},
		},
	},
}

func exists([]operand) (func(event.Value) bool, place, error) {
	return func(event.Value) bool { return true }, place{}, nil
}

func onText(compare func(v, operand string) bool) opImpl {
	return opImpl{
		constants: func(items []operand) (func(event.Value) bool, place, error) {
			s := items[0].s
			return func(v event.Value) bool { return compare(v.Text, s) }, place{}, nil
		},
		fields: func(a, b event.Value) bool { return compare(a.Text, b.Text) },
	}
}

func onNumber(compare func(v, operand int64) bool) opImpl {
	return opImpl{
		constants: func(items []operand) (func(event.Value) bool, place, error) {
			n, err := number(items[0].s)
			return func(v event.Value) bool { return compare(v.Number, n) }, items[0].place, err
		},
		fields: func(a, b event.Value) bool { return compare(a.Number, b.Number) },
	}
}

// number reads a constant as Falco does: decimal or hexadecimal.
func number(s string) (int64, error) {
	base, digits := 10, s
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		base, digits = 16, s[2:]
	}
	n, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return n, nil
}

func textSet(items []operand) map[string]bool {
	set := make(map[string]bool, len(items))
	for _, item := range items {
		set[item.s] = true
	}
	return set
}

func textIn(items []operand) (func(event.Value) bool, place, error) {
	set := textSet(items)
	return func(v event.Value) bool { return set[v.Text] }, place{}, nil
}

func numberIn(items []operand) (func(event.Value) bool, place, error) {
	set := make(map[int64]bool, len(items))
	for _, item := range items {
		n, err := number(item.s)
		if err != nil {
			return nil, item.place, err
		}
		set[n] = true
	}
	return func(v event.Value) bool { return set[v.Number] }, place{}, nil
}

// icontains ignores the case of ASCII letters only.
func icontains(v, s string) bool { return strings.Contains(lower(v), lower(s)) }

func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// pathMatch compares paths by their components, which may be globs: the value
// must begin with the components of one operand.
func pathMatch(items []operand) (func(event.Value) bool, place, error) {
	var prefixes [][]string
	for _, item := range items {
		prefixes = append(prefixes, components(item.s))
	}
	return func(v event.Value) bool {
		path := components(v.Text)
		return slices.ContainsFunc(prefixes, func(prefix []string) bool {
			return len(path) >= len(prefix) && slices.EqualFunc(prefix, path[:len(prefix)], componentMatch)
		})
	}, place{}, nil
}

// anyPathMatch is pathMatch for one element of a list or more.
func anyPathMatch(items []operand) (func(event.Value) bool, place, error) {
	match, at, err := pathMatch(items)
	return func(v event.Value) bool {
		return slices.ContainsFunc(v.List, func(s string) bool { return match(event.Text(s)) })
	}, at, err
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func componentMatch(pattern, s string) bool {
	return pattern == s || strings.ContainsAny(pattern, "?*[") && glob(pattern, s)
}

// glob reports whether all of s matches a pattern of fnmatch(3) without flags:
// * and ? match any character, a slash too.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // where to go back to: after the last star, and what it took so far
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, mark = p, i
			continue
		}
		if size, ok := globOne(pattern[p:], s[i]); ok {
			p, i = p+size, i+1
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// globOne matches one character, and returns how much of the pattern that took.
func globOne(pattern string, c byte) (size int, ok bool) {
	switch {
	case pattern == "":
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == c
	case pattern[0] == '[':
		if size, ok, closed := globSet(pattern, c); closed {
			return size, ok
		}
	}
	return 1, pattern[0] == c
}

// globSet matches a set like [a-z] or [!x]. A bracket that is not closed is an
// ordinary character.
func globSet(pattern string, c byte) (size int, ok, closed bool) {
	i := 1
	negative := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negative {
		i++
	}
	for first := i; i < len(pattern); i++ {
		if pattern[i] == ']' && i > first {
			return i + 1, ok != negative, true
		}
		low, high := pattern[i], pattern[i]
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			high = pattern[i+2]
			i += 2
		}
		ok = ok || low <= c && c <= high
	}
	return 0, false, false
}
