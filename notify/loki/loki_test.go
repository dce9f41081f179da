package loki_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/loki"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// push is what Loki takes.
type push struct {
	Streams []struct {
		Stream map[string]string
		Values [][2]string
	}
}

func read(t *testing.T, r *http.Request, body []byte) push {
	t.Helper()
	var p push
	if err := json.Unmarshal(body, &p); err != nil || r.Header.Get("Content-Type") != "application/json" || !strings.HasSuffix(r.URL.Path, "/loki/api/v1/push") {
		t.Errorf("%s %v: %v", r.URL, r.Header, err)
	}
	for _, s := range p.Streams {
		for _, v := range s.Values {
			if _, err := strconv.ParseUint(v[0], 10, 63); err != nil || !json.Valid([]byte(v[1])) {
				t.Errorf("value %q: %v", v, err)
			}
		}
	}
	return p
}

func TestConforms(t *testing.T) {
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := loki.New(loki.Config{
				URL: to.URL, Tenant: "security", Labels: []string{"rule", "namespace", "hostname", "incident"},
				Auth: post.Auth{User: "kubeguardian", PasswordFile: to.SecretFile}, HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}},
			}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			if user, password, ok := r.BasicAuth(); !ok || user != "kubeguardian" || password != "token-S3cr3tOfTheFile" || r.Header.Get("X-Scope-OrgID") != "security" {
				t.Errorf("headers %v", r.Header)
			}
			for _, s := range read(t, r, body).Streams {
				for name, value := range s.Stream {
					if len(value) > 512 || strings.ContainsAny(value, "\r\n\x00\x1b") {
						t.Errorf("label %s is %q", name, value)
					}
				}
			}
			w.WriteHeader(http.StatusNoContent)
		},
	}.Conform(t)
}

// TestStreams: what has the same labels is one stream, and what is sent again is
// equal to the first time, so that Loki keeps it once.
func TestStreams(t *testing.T) {
	var bodies []string
	var last push
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		last = read(t, r, body)
		bodies = append(bodies, string(body))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	d, err := loki.New(loki.Config{URL: srv.URL + "/", Labels: []string{"incident"}, Format: "ocsf-1.8.0", HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}}},
		notify.Options{Name: "loki", Cluster: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	batch := notifytest.Notifications(10)
	batch[0].Alert.Cluster = ""
	for range 2 {
		if err := d.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if len(bodies) != 2 || bodies[0] != bodies[1] {
		t.Error("what is sent again is not the same")
	}
	lines := 0
	for _, s := range last.Streams {
		lines += len(s.Values)
		if s.Stream["cluster"] != "prod" || s.Stream["priority"] != "Critical" || s.Stream["job"] != "kubeguardian" || !strings.Contains(s.Values[0][1], `"class_uid"`) {
			t.Errorf("stream %v", s.Stream)
		}
	}
	if len(last.Streams) != 2 || lines != len(batch) {
		t.Errorf("%d streams with %d lines, want 2 with %d", len(last.Streams), lines, len(batch))
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]loki.Config{
		"url: want one that":              {URL: "loki"},
		`labels: unknown label "pod"`:     {URL: "http://a", Labels: []string{"pod"}},
		`unknown format "xml"`:            {URL: "http://a", Format: "xml"},
		"tenant: want one line":           {URL: "http://a", Tenant: "a\r\nb"},
		"user: a name has no colon":       {URL: "http://a", Auth: post.Auth{User: "a:b", PasswordFile: "p"}},
		"timeout 10m0s: want 0s to 5m0s":  {URL: "http://a", HTTP: post.Config{Timeout: 600e9}},
		"give both or neither":            {URL: "http://a", Auth: post.Auth{PasswordFile: "p"}},
		"not a name and value that HTTP ": {URL: "http://a", HTTP: post.Config{Headers: map[string]string{"a b": ""}}},
	} {
		if _, err := loki.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
