package registry

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestBound(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", len(r.URL.Path)))
	}))
	defer server.Close()
	get := func(transport http.RoundTripper, url string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return len(data), err
	}
	for name, test := range map[string]struct {
		bounds Bounds
		paths  []string
		want   string // of the last one; the others are answered
	}{
		"within":            {Bounds{3, 10, 30}, []string{"/234567890", "/234567890", "/234567890"}, ""},
		"too many requests": {Bounds{2, 10, 30}, []string{"/", "/", "/"}, "it takes more than 2 requests"},
		"a large answer":    {Bounds{2, 10, 30}, []string{"/2345678901"}, "the registry sends more than"},
		"large in all":      {Bounds{4, 10, 25}, []string{"/234567890", "/234567890", "/234567890"}, "the registry sends more than"},
	} {
		transport := Bound(NewTransport(nil, true), test.bounds)
		for i, path := range test.paths {
			n, err := get(transport, server.URL+path)
			switch bound := (*BoundError)(nil); {
			case i < len(test.paths)-1 || test.want == "":
				if err != nil || n != len(path) {
					t.Errorf("%s: %d bytes, %v", name, n, err)
				}
			case !errors.As(err, &bound) || !strings.Contains(err.Error(), test.want):
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
		}
	}
	if _, err := get(Bound(NewTransport(nil, true), Bounds{1, 1, 1}), "http://registry.example.com/"); !errors.Is(err, errPlain) {
		t.Errorf("without TLS: %v", err)
	}
}
