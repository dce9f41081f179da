package splunk_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/post"
	"github.com/kubeguardian/kubeguardian/notify/splunk"
)

func TestConforms(t *testing.T) {
	times := map[string]bool{}
	notifytest.HTTP{
		New: func(t *testing.T, to notifytest.Target) notify.Destination {
			d, err := splunk.New(splunk.Config{
				URL: to.URL, TokenFile: to.SecretFile, Index: "security", HTTP: post.Config{AllowAddresses: []string{"127.0.0.1"}},
			}, to.Options)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Accept: func(t *testing.T, w http.ResponseWriter, r *http.Request, body []byte) {
			if r.Header.Get("Authorization") != "Splunk token-S3cr3tOfTheFile" || !strings.HasSuffix(r.URL.Path, "/services/collector/event") {
				t.Errorf("%s %v", r.URL, r.Header)
			}
			d := json.NewDecoder(bytes.NewReader(body))
			for n := 0; ; n++ {
				var e struct {
					Time                            json.Number
					Host, Source, SourceType, Index string
					Event                           struct {
						Rule         string
						Notification struct{ Key string }
					}
				}
				err := d.Decode(&e)
				if errors.Is(err, io.EOF) && n > 0 {
					break
				}
				if err != nil || e.Host != "node-1" || e.SourceType != "kubeguardian:alert" || e.Index != "security" || e.Event.Notification.Key == "" || e.Event.Rule == "" {
					t.Errorf("event %d: %+v, %v", n, e, err)
					break
				}
				times[e.Time.String()] = true
			}
			io.WriteString(w, `{"text":"Success","code":0}`)
		},
	}.Conform(t)
	if !times["1795694400.123"] {
		t.Errorf("the times of the events are %v", times)
	}
}

func TestAuthenticatesBothSides(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t0ken"), 0o600); err != nil {
		t.Fatal(err)
	}
	notifytest.AuthenticatesBothSides(t, func(t *testing.T, url, ca, cert, key string) notify.Destination {
		d, err := splunk.New(splunk.Config{URL: url, TokenFile: notify.SecretFile(token), HTTP: post.Config{
			CAFile: ca, CertFile: cert, KeyFile: key, AllowAddresses: []string{"127.0.0.1"},
		}}, notify.Options{Name: "splunk"})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]splunk.Config{
		"url: want one that":    {URL: "splunk", TokenFile: "t"},
		"tokenFile is missing":  {URL: "https://a"},
		`unknown format "text"`: {URL: "https://a", TokenFile: "t", Format: "text"},
		"read allowed address":  {URL: "https://a", TokenFile: "t", HTTP: post.Config{AllowAddresses: []string{"x"}}},
	} {
		if _, err := splunk.New(c, notify.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
