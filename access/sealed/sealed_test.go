package sealed

import (
	"bytes"
	"strings"
	"testing"
)

// TestOnlyTheCookieOpens: what is kept shows nothing, and opens by its own cookie
// and only as it was.
func TestOnlyTheCookieOpens(t *testing.T) {
	kept := []byte(`{"token":"secret-token","subject":"ada"}`)
	cookie, other := NewCookie(), NewCookie()
	body, err := Close(cookie, kept)
	if err != nil {
		t.Fatal(err)
	}
	if have, err := Open(cookie, body); err != nil || !bytes.Equal(have, kept) {
		t.Errorf("have %s, %v", have, err)
	}
	id, err := ID(cookie)
	if again, _ := ID(cookie); err != nil || id != again || len(id) != 64 {
		t.Errorf("the session is called %q and %q, %v", id, again, err)
	}
	for _, text := range []string{"secret", "ada", "subject", cookie} {
		if bytes.Contains(body, []byte(text)) || strings.Contains(id, text) {
			t.Errorf("%s shows in what is kept", text)
		}
	}
	if _, err := Open(other, body); err == nil {
		t.Error("another cookie opens it")
	}
	if _, err := Open(id, body); err == nil {
		t.Error("its name opens it")
	}
	for i := range body {
		changed := bytes.Clone(body)
		changed[i] ^= 1
		if _, err := Open(cookie, changed); err == nil {
			t.Fatalf("it opens with byte %d changed", i)
		}
	}
	if _, err := Close(cookie, make([]byte, maxBody+1)); err == nil {
		t.Error("a credential of any size is kept")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("cookie", []byte("body"))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, cookie string, body []byte) {
		if k, err := Open(cookie, body); err == nil {
			t.Errorf("%q was opened: %q", body, k)
		}
	})
}
