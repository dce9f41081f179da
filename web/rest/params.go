package rest

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxValue bounds a parameter; a longer one is no name and no search.
const MaxValue = 512

// The sizes of a page of a list in memory, those of the other lists.
const (
	PageSize    = 50
	MaxPageSize = 1000
)

// Params are the parameters of a URL: each at most once, none unknown. An empty
// one, as forms send, is one that is not given.
type Params struct {
	Values url.Values
	Err    error // the first mistake, for the client; nil: none yet
}

// Parse reads the parameters of a URL that knows some.
func Parse(u *url.URL, known ...string) *Params {
	values, err := url.ParseQuery(u.RawQuery)
	p := &Params{Values: values}
	if err != nil {
		p.Fail(fmt.Errorf("read the query of the URL: %w", err))
	}
	for name, list := range values {
		switch {
		case !slices.Contains(known, name):
			p.Fail(fmt.Errorf("unknown parameter %q: want one of %s", name, strings.Join(known, ", ")))
		case len(list) > 1:
			p.Fail(fmt.Errorf("parameter %s is given %d times", name, len(list)))
		case len(list[0]) > MaxValue:
			p.Fail(fmt.Errorf("parameter %s is longer than %d bytes", name, MaxValue))
		}
	}
	return p
}

// Fail notes a mistake, if it is the first one.
func (p *Params) Fail(err error) {
	if p.Err == nil && err != nil {
		p.Err = Bad(err)
	}
}

// Text returns a parameter, "" when it is not given.
func (p *Params) Text(name string) string { return p.Values.Get(name) }

// Value reads a parameter by a Parse function; the zero value when it is not
// given.
func Value[T any](p *Params, name string, parse func(string) (T, error)) (v T) {
	s := p.Text(name)
	if s == "" {
		return v
	}
	v, err := parse(s)
	if err != nil {
		p.Fail(fmt.Errorf("parameter %s: %w", name, err))
	}
	return v
}

// ParseTime reads a time, or a duration before now.
func ParseTime(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("want a time such as 2026-03-01T12:00:00Z or an age such as 24h, have %q", s)
	}
	return t, nil
}

// ParseNatural reads a number from 0 on.
func ParseNatural(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("want a number, have %q", s)
	}
	return int64(n), nil
}

// With returns the link to a page with some parameters changed; pairs are names
// and values, and an empty value removes the name.
func With(path string, values url.Values, pairs ...string) string {
	out := url.Values{}
	for name, list := range values {
		if len(list) > 0 && list[0] != "" {
			out.Set(name, list[0])
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		out.Del(pairs[i])
		if pairs[i+1] != "" {
			out.Set(pairs[i], pairs[i+1])
		}
	}
	if len(out) == 0 {
		return path
	}
	return path + "?" + out.Encode()
}

// Slice returns a page of a list in memory, and where the next one starts.
func Slice[T any](p *Params, all []T) (page []T, next string) {
	after := int(Value(p, "after", ParseNatural))
	limit := min(cmp.Or(int(Value(p, "limit", ParseNatural)), PageSize), MaxPageSize)
	if after >= len(all) {
		return nil, ""
	}
	if after+limit < len(all) {
		next = strconv.Itoa(after + limit)
	}
	return all[after:min(after+limit, len(all))], next
}

// Steps returns the links from a page of a list in memory to its first and its
// next one, "" where there is none.
func Steps(path string, p *Params, next string) (first, more string) {
	if next != "" {
		more = With(path, p.Values, "after", next)
	}
	if p.Text("after") != "" {
		first = With(path, p.Values, "after", "")
	}
	return first, more
}
