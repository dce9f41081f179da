package k8saudit

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A scanner cuts JSON into values without judging them. It sees brackets and
// strings only, so that neither the depth nor a fault of one value keeps it
// from the next one. It is for events that a [reader] refuses.
type scanner struct {
	data []byte
	pos  int
}

// A value is the text of a JSON value; depth counts its nested objects and
// arrays.
type value struct {
	raw   []byte
	depth int
}

func (s *scanner) space() {
	for s.pos < len(s.data) && isSpace(s.data[s.pos]) {
		s.pos++
	}
}

// take skips blanks and then c, if it is there.
func (s *scanner) take(c byte) bool {
	if s.space(); s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// unexpected says why the scanner cannot go on.
func (s *scanner) unexpected() error {
	if s.space(); s.pos >= len(s.data) {
		return errUnfinished
	}
	return badJSON("unexpected character %q", s.data[s.pos])
}

func (s *scanner) end() error {
	if s.space(); s.pos < len(s.data) {
		return s.unexpected()
	}
	return nil
}

// value takes the next value.
func (s *scanner) value() (value, error) {
	s.space()
	start, depth, deepest, quoted := s.pos, 0, 0, false
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case quoted && c == '\\':
			s.pos++
			continue
		case c == '"':
			quoted = !quoted
		case quoted:
			continue
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
			continue
		case (c == '}' || c == ']') && depth > 0:
			depth--
		default:
			if depth == 0 {
				return s.scalar(start)
			}
			continue
		}
		if depth == 0 && !quoted {
			s.pos++
			return value{s.data[start:s.pos], deepest}, nil
		}
	}
	return value{}, errUnfinished
}

// scalar takes a number or a word.
func (s *scanner) scalar(start int) (value, error) {
	n := bytes.IndexAny(s.data[start:], ",:]}\" \t\r\n")
	if n < 0 {
		n = len(s.data) - start
	}
	if n == 0 {
		return value{}, s.unexpected()
	}
	s.pos = start + n
	return value{raw: s.data[start:s.pos]}, nil
}

// object takes an object and yields its members; name is as written, with its
// quotes.
func (s *scanner) object(yield func(name []byte, v value)) error {
	return s.series('{', '}', func() error {
		name, err := s.value()
		if err != nil {
			return err
		}
		if name.raw[0] != '"' || !s.take(':') {
			return s.unexpected()
		}
		v, err := s.value()
		if err == nil {
			yield(name.raw, v)
		}
		return err
	})
}

func (s *scanner) series(open, closing byte, one func() error) error {
	if !s.take(open) {
		return s.unexpected()
	}
	if s.take(closing) {
		return nil
	}
	for {
		if err := one(); err != nil {
			return err
		}
		if s.take(closing) {
			return nil
		}
		if !s.take(',') {
			return s.unexpected()
		}
	}
}

// complete reports whether data is one JSON value as far as its brackets tell.
func complete(data []byte) bool {
	s := scanner{data: data}
	_, err := s.value()
	return err == nil && s.end() == nil
}

// A member is one of an object's.
type member struct {
	name []byte
	value
}

func (m member) isBody() bool {
	var name string
	return json.Unmarshal(m.name, &name) == nil && (name == "requestObject" || name == "responseObject")
}

// trim returns an event that is over the limits with null for the bodies that
// are the reason, so that rules still see who did what; null also tells it from
// an event that never had a body. The error says what is left out. It returns
// no event if that does not help.
func trim(v value) ([]byte, error) {
	var members []member
	s := scanner{data: v.raw}
	err := s.object(func(name []byte, v value) { members = append(members, member{name, v}) })
	if err != nil {
		return nil, err
	}
	size, tooDeep := len(v.raw), false
	drop := func(m *member) {
		size -= len(m.raw) - len("null")
		m.value = value{raw: []byte("null")}
	}
	for i := range members {
		if m := &members[i]; m.depth >= maxDepth {
			if tooDeep = true; !m.isBody() {
				return nil, errTooDeep
			}
			drop(m)
		}
	}
	for size > maxEvent {
		var largest *member
		for i := range members {
			if m := &members[i]; m.isBody() && len(m.raw) > len("null") && (largest == nil || len(m.raw) > len(largest.raw)) {
				largest = m
			}
		}
		if largest == nil {
			return nil, tooLarge(len(v.raw))
		}
		drop(largest)
	}
	var out bytes.Buffer
	for i, m := range members {
		out.WriteByte("{,"[min(i, 1)])
		out.Write(m.name)
		out.WriteByte(':')
		out.Write(m.raw)
	}
	out.WriteByte('}')
	if tooDeep {
		return out.Bytes(), fmt.Errorf("body left out: %w", errTooDeep)
	}
	return out.Bytes(), fmt.Errorf("body left out: %w", tooLarge(len(v.raw)))
}
