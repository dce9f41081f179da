package condition

import "strings"

// Glob reports whether all of s matches a pattern of fnmatch(3) without flags:
// * and ? match any character, a slash too.
func Glob(pattern, s string) bool {
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
		if size, in := globClass(pattern[i:], c); size > 0 {
			ok = ok || in
			i += size - 1
			continue
		}
		if pattern[i] == '\\' && i+1 < len(pattern) {
			i++
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

// globClass matches a class like [:digit:] in a set. size is 0 if none comes next.
func globClass(pattern string, c byte) (size int, ok bool) {
	name, ok := strings.CutPrefix(pattern, "[:")
	if !ok {
		return 0, false
	}
	name, _, ok = strings.Cut(name, ":]")
	class, known := globClasses[name]
	if !ok || !known {
		return 0, false
	}
	return len("[:") + len(name) + len(":]"), class(c)
}

func between(low, c, high byte) bool { return low <= c && c <= high }

func isLetter(c byte) bool { return between('a', c, 'z') || between('A', c, 'Z') }

// globClasses are the classes of the locale C.
var globClasses = map[string]func(byte) bool{
	"alnum":  func(c byte) bool { return isLetter(c) || between('0', c, '9') },
	"alpha":  isLetter,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 127 },
	"digit":  func(c byte) bool { return between('0', c, '9') },
	"graph":  func(c byte) bool { return between('!', c, '~') },
	"lower":  func(c byte) bool { return between('a', c, 'z') },
	"print":  func(c byte) bool { return between(' ', c, '~') },
	"punct":  func(c byte) bool { return between('!', c, '~') && !isLetter(c) && !between('0', c, '9') },
	"space":  func(c byte) bool { return c == ' ' || between('\t', c, '\r') },
	"upper":  func(c byte) bool { return between('A', c, 'Z') },
	"xdigit": func(c byte) bool { return between('0', c, '9') || between('a', c, 'f') || between('A', c, 'F') },
}

// Components splits a path at its slashes; empty components do not count.
func Components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// ComponentMatch compares one component of a path with one of a constant, which
// may be a glob.
func ComponentMatch(pattern, s string) bool {
	return pattern == s || IsGlob(pattern) && Glob(pattern, s)
}

// IsGlob reports whether a component of a path is a glob.
func IsGlob(component string) bool { return strings.ContainsAny(component, "?*[") }

// Lower returns s with its ASCII letters in lower case.
func Lower(s string) string { return mapASCII(s, 'A', 'Z', 'a'-'A') }

// Upper returns s with its ASCII letters in upper case.
func Upper(s string) string { return mapASCII(s, 'a', 'z', 'A'-'a'+256) }

// mapASCII adds delta to the bytes from low to high. It does not copy s if there
// are none.
func mapASCII(s string, low, high byte, delta int) string {
	for i := range len(s) {
		if s[i] < low || s[i] > high {
			continue
		}
		out := []byte(s)
		for j := i; j < len(out); j++ {
			if out[j] >= low && out[j] <= high {
				out[j] += byte(delta)
			}
		}
		return string(out)
	}
	return s
}

// CString returns s up to its first NUL byte.
func CString(s string) string {
	if i := strings.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}

// Wildcard reports whether all of s matches a pattern in which only * is
// special.
func Wildcard(pattern, s string) bool { return Glob(wildcard.Replace(pattern), s) }

var wildcard = strings.NewReplacer(`\`, `\\`, "?", `\?`, "[", `\[`)
