package registry

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func parse(text string) (*Credentials, error) {
	return ParseCredentials("config.json", []byte(text))
}

func TestCredentials(t *testing.T) {
	c, err := parse(fmt.Sprintf(`{"auths": {
		"https://index.docker.io/v1/": {"auth": %q},
		"r.example.com": {"username": "all", "password": "p"},
		"r.example.com/shop": {"username": "shop", "password": "p"},
		"token.example.com:5000": {"identitytoken": "t"}
	}}`, base64.StdEncoding.EncodeToString([]byte("hub:p:q"))))
	if err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string]string{
		"nginx": "hub:p:q", "r.example.com/other": "all:p", "r.example.com/shop/web": "shop:p", "r.example.com/shopping": "all:p",
		"token.example.com:5000/x": ":", "token.example.com/x": ":", "evil.com/r.example.com": ":", "r.example.com.evil.com/shop": ":",
	} {
		at, err := name.NewRepository(repo)
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.Resolve(at)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := found.Authorization()
		if err != nil {
			t.Fatal(err)
		}
		if have := auth.Username + ":" + auth.Password; have != want {
			t.Errorf("%s gets %q, want %q", repo, have, want)
		}
		if (found == authn.Anonymous) != (want == ":" && repo != "token.example.com:5000/x") {
			t.Errorf("%s: %v", repo, found)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(text, "hub") || strings.Contains(text, "shop") {
		t.Errorf("printed: %s", text)
	}
	for text, want := range map[string]string{
		`{`:                                 "config.json: parse Docker configuration: ",
		`{"credsStore": "x"}`:               "credsStore and credHelpers name programs, and none is run",
		`{"credHelpers": {"r": "x"}}`:       "credsStore and credHelpers name programs, and none is run",
		`{"auths": {"r": {"auth":"?"}}}`:    "auths of r: auth is not base64",
		`{"auths": {"r": {"auth":"AA=="}}}`: "auths of r: auth is not a name and a password",
		`{"auths": {"*.r.com": {}}}`:        "auths of *.r.com: wildcards are not supported",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "r.example.com/shop": {"username": "a"}}}`))
	f.Add([]byte(`{"credHelpers": {"r": "x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCredentials("f", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f: ") {
				t.Error(err)
			}
			return
		}
		at, err := name.NewRepository("r.example.com/shop/web")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Resolve(at); err != nil {
			t.Error(err)
		}
	})
}
