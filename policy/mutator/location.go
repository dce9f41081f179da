package mutator

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The bounds of a location.
const (
	maxLocation = 4096 // bytes
	maxSteps    = 100
)

// A location is the path to a field, such as spec.containers[name: "x"].image,
// or to an item of a list. Its first step is a field, and so is the one after an
// item.
type location []step

// A step leads to a field of an object or to items of a list.
type step struct {
	name string // of the field, or of that by which items are told apart
	item bool
	all  bool // any item
	key  any  // of the item: a string or an int64
}

// String writes a location so that it can be parsed again.
func (l location) String() string {
	var out strings.Builder
	for i, s := range l {
		switch {
		case s.item && s.all:
			fmt.Fprintf(&out, "[%s: *]", quote(s.name))
		case s.item:
			key, isText := s.key.(string)
			if isText {
				key = quote(key)
			} else {
				key = fmt.Sprint(s.key)
			}
			fmt.Fprintf(&out, "[%s: %s]", quote(s.name), key)
		case i > 0:
			out.WriteString("." + quote(s.name))
		default:
			out.WriteString(quote(s.name))
		}
	}
	return out.String()
}

// quote writes a name in quotes unless it can do without.
func quote(name string) string {
	if name != "" && !isDigit(rune(name[0])) && !strings.ContainsFunc(name, func(r rune) bool { return !isWord(r) }) {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// last returns the last step.
func (l location) last() step { return l[len(l)-1] }

// beginsWith reports whether another location leads to this one.
func (l location) beginsWith(other location) bool {
	return len(other) <= len(l) && slices.Equal(l[:len(other)], other)
}

// parseLocation reads a location. The error says at which character it is wrong.
func parseLocation(text string) (location, error) {
	if len(text) > maxLocation {
		return nil, fmt.Errorf("%d bytes are more than the limit of %d", len(text), maxLocation)
	}
	p := parser{text: []rune(text)}
	var out location
	for {
		name, err := p.name("a field")
		if err != nil {
			return nil, err
		}
		out = append(out, step{name: name})
		if p.take('[') {
			item, err := p.item()
			if err != nil {
				return nil, err
			}
			out = append(out, item)
		}
		if len(out) > maxSteps {
			return nil, fmt.Errorf("more than %d steps", maxSteps)
		}
		if p.atEnd() {
			return out, nil
		}
		if !p.take('.') {
			return nil, p.want(`"." or the end`)
		}
	}
}

// A parser reads a location from left to right. Space between words is skipped.
type parser struct {
	text []rune
	at   int
}

func (p *parser) skipSpace() {
	for p.at < len(p.text) && strings.ContainsRune(" \t\r\n", p.text[p.at]) {
		p.at++
	}
}

func (p *parser) atEnd() bool {
	p.skipSpace()
	return p.at == len(p.text)
}

// peek returns the next character, and 0 at the end.
func (p *parser) peek() rune {
	if p.atEnd() {
		return 0
	}
	return p.text[p.at]
}

// take takes a character if it is the next.
func (p *parser) take(r rune) bool {
	if p.atEnd() || p.text[p.at] != r {
		return false
	}
	p.at++
	return true
}

func (p *parser) want(what string) error {
	if p.atEnd() {
		return fmt.Errorf("want %s after the last character", what)
	}
	return fmt.Errorf("want %s at character %d, have %q", what, p.at+1, p.text[p.at])
}

// name takes a word, which does not begin with a digit, or a text in quotes.
func (p *parser) name(what string) (string, error) {
	switch next := p.peek(); {
	case next == '"' || next == '\'':
		p.at++
		return p.quoted(next)
	case isWord(next) && !isDigit(next):
		return p.while(isWord), nil
	}
	return "", p.want(what)
}

// while takes characters of a kind.
func (p *parser) while(is func(rune) bool) string {
	start := p.at
	for p.at < len(p.text) && is(p.text[p.at]) {
		p.at++
	}
	return string(p.text[start:p.at])
}

// quoted takes the text up to a quote. A character after a backslash is itself.
func (p *parser) quoted(quote rune) (string, error) {
	start := p.at
	var out strings.Builder
	for ; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case quote:
			p.at++
			return out.String(), nil
		case '\\':
			if p.at++; p.at == len(p.text) {
				continue
			}
		}
		out.WriteRune(p.text[p.at])
	}
	return "", fmt.Errorf("the text that begins at character %d has no end", start)
}

// item takes a step to items of a list, after its bracket.
func (p *parser) item() (step, error) {
	name, err := p.name("the key of a list")
	if err != nil {
		return step{}, err
	}
	if !p.take(':') {
		return step{}, p.want(`":" after the key of a list`)
	}
	out := step{name: name, item: true}
	switch next := p.peek(); {
	case p.take('*'):
		out.all = true
	case isDigit(next):
		if out.key, err = strconv.ParseInt(p.while(isDigit), 10, 64); err != nil {
			return step{}, fmt.Errorf("read the number before character %d: %w", p.at+1, errors.Unwrap(err))
		}
	default:
		if out.key, err = p.name(`a value or "*"`); err != nil {
			return step{}, err
		}
	}
	if !p.take(']') {
		return step{}, p.want(`"]"`)
	}
	return out, nil
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

// isWord reports whether a character needs no quotes.
func isWord(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || isDigit(r) || r == '_' || r == '-'
}
