package condition

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A lexer walks through a condition. The language has no tokens of its own:
// what a word is depends on where it stands, so the parser asks for what may
// come next.
type lexer struct {
	text *Text
	s    string
	i    int
}

var (
	identToken  = regexp.MustCompile(`^[a-zA-Z]+[a-zA-Z0-9_]*`)
	fieldToken  = regexp.MustCompile(`^[a-zA-Z]+[a-zA-Z0-9_]*(\.[a-zA-Z]+[a-zA-Z0-9_]*)+`)
	argToken    = regexp.MustCompile(`^[^\]\["'\s]+`)
	bareToken   = regexp.MustCompile(`^[^()"'\s=,]+`)
	numberToken = regexp.MustCompile(`^(0[xX][0-9a-fA-F]+|[+-]?[0-9]+[.]?[0-9]*([eE][+-][0-9]+)?)`)
	symbolToken = regexp.MustCompile(`^(==|!=|<=|>=|[^\s\w])`)
)

// fail returns a mistake at the current place.
func (l *lexer) fail(format string, args ...any) *Error { return l.failAt(l.i, format, args...) }

func (l *lexer) failAt(offset int, format string, args ...any) *Error {
	return &Error{Place{l.text, offset}, fmt.Sprintf(format, args...)}
}

func isBlank(c byte) bool { return strings.IndexByte(" \t\b\r\n", c) >= 0 }

func (l *lexer) blank() {
	for l.i < len(l.s) && isBlank(l.s[l.i]) {
		l.i++
	}
}

func (l *lexer) rest() string { return l.s[l.i:] }

// peek returns the next byte, 0 at the end.
func (l *lexer) peek() byte {
	if l.i < len(l.s) {
		return l.s[l.i]
	}
	return 0
}

// literal consumes s if it comes next.
func (l *lexer) literal(s string) bool {
	if !strings.HasPrefix(l.rest(), s) {
		return false
	}
	l.i += len(s)
	return true
}

// keyword consumes and, or, not, which a blank or a parenthesis must follow.
func (l *lexer) keyword(word string) bool {
	rest, ok := strings.CutPrefix(l.rest(), word)
	if !ok || rest == "" || !isBlank(rest[0]) && rest[0] != '(' {
		return false
	}
	l.i += len(word)
	return true
}

// word consumes an operator that is a word and that a blank must follow.
func (l *lexer) word(word string) bool {
	rest, ok := strings.CutPrefix(l.rest(), word)
	if !ok || rest == "" || !isBlank(rest[0]) {
		return false
	}
	l.i += len(word)
	return true
}

// token consumes the longest match of a pattern, "" if there is none.
func (l *lexer) token(pattern *regexp.Regexp) string {
	m := pattern.FindString(l.rest())
	l.i += len(m)
	return m
}

// next describes what comes next, for error messages.
func (l *lexer) next() string {
	rest := l.rest()
	if rest == "" {
		return "the end"
	}
	m := bareToken.FindString(rest)
	if m == "" {
		m = symbolToken.FindString(rest)
	}
	return fmt.Sprintf("%.40q", m)
}

// quoted consumes a string in quotes. ok is false if none comes next.
//
// The closing quote is the first one that no backslash stands before, as in
// Falco: a string cannot end in a backslash, not even in an escaped one.
func (l *lexer) quoted() (s string, ok bool, err *Error) {
	quote := l.peek()
	if quote != '"' && quote != '\'' {
		return "", false, nil
	}
	begin := l.i + 1
	for end := begin; end < len(l.s); end++ {
		if l.s[end] == quote && l.s[end-1] != '\\' {
			l.i = end + 1
			s, err := l.unescape(begin, end, quote)
			return s, true, err
		}
	}
	return "", false, l.fail("string has no closing %c", quote)
}

var escapes = map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '/': '/', ' ': '\\'}

func (l *lexer) unescape(begin, end int, quote byte) (string, *Error) {
	var b strings.Builder
	for i := begin; i < end; i++ {
		if l.s[i] != '\\' {
			b.WriteByte(l.s[i])
			continue
		}
		i++
		switch c := l.s[i]; {
		case c == quote:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			return "", l.failAt(i-1, `invalid \%c escape in %c-quoted string`, c, quote)
		case c == 'x':
			if i+2 >= end {
				return "", l.failAt(i-1, "truncated hex char escape sequence")
			}
			n, err := strconv.ParseUint(l.s[i+1:i+3], 16, 8)
			if err != nil {
				return "", l.failAt(i-1, "invalid hex char escape sequence")
			}
			b.WriteByte(byte(n))
			i += 2
		case escapes[c] != 0:
			b.WriteByte(escapes[c])
		default:
			return "", l.failAt(i-1, `unsupported string escape sequence: \%c`, c)
		}
	}
	return b.String(), nil
}
