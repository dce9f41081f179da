package rest

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParams(t *testing.T) {
	for query, want := range map[string]string{
		"limit=3":                           "",
		"limit=":                            "",
		"limit=-1":                          `parameter limit: want a number, have "-1"`,
		"since=soon":                        `parameter since: want a time such as 2026-03-01T12:00:00Z or an age such as 24h, have "soon"`,
		"since=24h":                         "",
		"limit=1&limit=2":                   "parameter limit is given 2 times",
		"other=1":                           `unknown parameter "other": want one of limit, since`,
		"limit=" + strings.Repeat("1", 513): "parameter limit is longer than 512 bytes",
		"limit=%zz":                         `read the query of the URL: invalid URL escape "%zz"`,
	} {
		p := Parse(&url.URL{RawQuery: query}, "limit", "since")
		Value(p, "limit", ParseNatural)
		Value(p, "since", ParseTime)
		have := ""
		if p.Err != nil {
			have = p.Err.Error()
			if known := (*Error)(nil); !errors.As(p.Err, &known) || known.Code != http.StatusBadRequest {
				t.Errorf("%s: %#v is not the client's mistake", query, p.Err)
			}
		}
		if have != want {
			t.Errorf("%s: %q, want %q", query, have, want)
		}
	}
	if at, err := ParseTime("1h"); err != nil || time.Since(at) < time.Hour {
		t.Errorf("an hour ago is %s, %v", at, err)
	}
}

// TestSlice goes through a list page by page.
func TestSlice(t *testing.T) {
	all := slices.Collect(maps.Keys(map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true}))
	slices.Sort(all)
	var seen []int
	query := "limit=2"
	for range 3 {
		p := Parse(&url.URL{RawQuery: query}, "after", "limit")
		page, next := Slice(p, all)
		seen = append(seen, page...)
		first, more := Steps("/list", p, next)
		if (first != "") != (p.Text("after") != "") || (more == "") != (len(seen) == len(all)) {
			t.Errorf("%s leads to %q and %q", query, first, more)
		}
		_, query, _ = strings.Cut(more, "?")
	}
	if !slices.Equal(seen, all) {
		t.Errorf("the pages have %v", seen)
	}
	if page, next := Slice(Parse(&url.URL{RawQuery: "after=9"}, "after"), all); page != nil || next != "" {
		t.Errorf("beyond the end: %v %q", page, next)
	}
}

func TestReadJSON(t *testing.T) {
	for body, ok := range map[string]bool{`{"a":1}`: true, ` {"a":1} `: true, `{"a":1}{}`: false, `{"b":1}`: false, `{`: false, ``: false} {
		var v struct{ A int }
		if err := ReadJSON(httptest.NewRequest("POST", "/", strings.NewReader(body)), &v); (err == nil) != ok || ok && v.A != 1 {
			t.Errorf("%q: %+v, %v", body, v, err)
		}
	}
}

// TestTold expects that errors of ours stay in the log.
func TestTold(t *testing.T) {
	var log strings.Builder
	r := httptest.NewRequest("GET", "/alerts", nil)
	logger := slog.New(slog.NewTextHandler(&log, nil))
	if told := Told(logger, r, fmt.Errorf("step: %w", ErrNotFound)); told != ErrNotFound || log.Len() > 0 {
		t.Errorf("%v, and the log says %s", told, &log)
	}
	told := Told(logger, r, errors.New("secret path"))
	if told.Code != http.StatusInternalServerError || strings.Contains(told.Text, "secret") || !strings.Contains(log.String(), "secret path") {
		t.Errorf("%v, and the log says %s", told, &log)
	}
}

// FuzzParams expects of what was understood that it survives a link.
func FuzzParams(f *testing.F) {
	f.Add("limit=3&since=24h")
	f.Add("text=%25_%5c'&after=")
	known := []string{"limit", "since", "text", "after"}
	f.Fuzz(func(t *testing.T, query string) {
		p := Parse(&url.URL{RawQuery: query}, known...)
		if p.Err != nil {
			return
		}
		again := Parse(&url.URL{RawQuery: strings.TrimPrefix(With("", p.Values), "?")}, known...)
		for _, name := range known {
			if again.Err != nil || again.Text(name) != p.Text(name) {
				t.Errorf("%q becomes %v: %v", query, again.Values, again.Err)
			}
		}
	})
}
