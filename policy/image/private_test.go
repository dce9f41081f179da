package image

import (
	"fmt"
	"net/http"
	"testing"

	access "github.com/kubeguardian/kubeguardian/registry"
)

// TestPrivateRegistry reads from a registry that wants a password, and gives it to
// no other.
func TestPrivateRegistry(t *testing.T) {
	h, release := newHub(t, true), newKey(t)
	image := h.push("shop/web:1")
	h.cosign(image, ".sig", release.simple(claim(image.DigestStr())))
	other := newHub(t, true)
	stranger := other.push("shop/web:1")
	guard := func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "me" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	h.answer(guard)
	other.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("the password was given to another registry")
		}
		return guard(w, r)
	})
	signed := doc("signed", "attestors:\n"+keyAttestor("release", release))
	wantOne(t, evaluate(t, load(t, Options{}, signed), podOf(image.String())), "it could not be verified: ask registry "+h.host)

	c, err := access.ParseCredentials("config.json", fmt.Appendf(nil, `{"auths": {%q: {"username": "me", "password": "secret"}}}`, h.host))
	if err != nil {
		t.Fatal(err)
	}
	set := load(t, Options{Credentials: c}, signed)
	wantNone(t, evaluate(t, set, podOf(image.String())))
	wantOne(t, evaluate(t, set, podOf(stranger.String())), "it could not be verified: ask registry "+other.host)
}
