package access

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/access/issuertest"
)

const redirectURL = "http://127.0.0.1:1/login/oidc/callback"

func newOIDC(t *testing.T, i *issuertest.Issuer, change func(*OIDCConfig)) *OIDC {
	t.Helper()
	c := OIDCConfig{Issuer: i.URL, ClientID: issuertest.ClientID, ClientSecret: issuertest.ClientSecret, RedirectURL: redirectURL, GroupsClaim: "groups"}
	if change != nil {
		change(&c)
	}
	o, err := NewOIDC(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// visit goes to the issuer as a browser does, and returns what it comes back with.
func visit(t *testing.T, address string) (state, code string) {
	t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil || !strings.HasPrefix(back.String(), redirectURL+"?") {
		t.Fatalf("the issuer sends to %v, %v", back, err)
	}
	return back.Query().Get("state"), back.Query().Get("code")
}

func begin(t *testing.T, o *OIDC) (f Flow, state, code string) {
	t.Helper()
	address, f, err := o.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state, code = visit(t, address)
	return f, state, code
}

func login(t *testing.T, o *OIDC) Credential {
	t.Helper()
	f, state, code := begin(t, o)
	c, err := o.Finish(t.Context(), f, state, code)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOIDCLogin(t *testing.T) {
	i := issuertest.New(t)
	i.User(map[string]any{"sub": "user-1", "groups": []string{"staff", "on-call"}})
	o := newOIDC(t, i, nil)
	id, err := login(t, o).Identity(t.Context())
	if err != nil || id.User != i.URL+"#user-1" || !slices.Equal(id.Groups, []string{"staff", "on-call"}) || id.Role != "" {
		t.Errorf("have %+v, %v", id, err)
	}
	for name, c := range map[string]func(f *Flow, state, code *string){
		"another state":         func(f *Flow, _, _ *string) { f.State = "x" },
		"no flow":               func(f *Flow, state, _ *string) { *f, *state = Flow{}, "" },
		"a state that was made": func(_ *Flow, state, _ *string) { *state = "x" },
		"no code":               func(_ *Flow, _, code *string) { *code = "" },
		"another code":          func(_ *Flow, _, code *string) { *code = "x" },
		"a stolen code":         func(f *Flow, _, _ *string) { f.Verifier = strings.Repeat("x", 43) },
		"a planted code":        func(f *Flow, state, code *string) { _, _, *code = begin(t, o) },
		"another nonce":         func(f *Flow, _, _ *string) { f.Nonce = "x" },
	} {
		f, state, code := begin(t, o)
		c(&f, &state, &code)
		if _, err := o.Finish(t.Context(), f, state, code); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, state, code := begin(t, o)
	if _, err := o.Finish(t.Context(), f, state, code); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Finish(t.Context(), f, state, code); !errors.Is(err, ErrInvalid) {
		t.Errorf("a code that was used: %v", err)
	}
	address, _, err := o.Begin(t.Context())
	u, _ := url.Parse(address)
	if q := u.Query(); err != nil || q.Get("scope") != "openid" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Has("client_secret") {
		t.Errorf("browsers are sent to %s, %v", address, err)
	}
}

// TestIDTokens sends what may be taken for an ID token.
func TestIDTokens(t *testing.T) {
	i, other := issuertest.New(t), issuertest.New(t)
	o := newOIDC(t, i, nil)
	now := time.Now()
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	valid := i.Sign(nil)
	payload := strings.Split(valid, ".")[1]
	for name, c := range map[string]struct {
		token string
		ok    bool
	}{
		"valid":                   {valid, true},
		"for several":             {i.Sign(map[string]any{"aud": []string{"other", issuertest.ClientID}}), true},
		"expired within the skew": {i.Sign(map[string]any{"exp": now.Add(-30 * time.Second).Unix()}), true},
		"expired":                 {i.Sign(map[string]any{"exp": now.Add(-2 * time.Minute).Unix()}), false},
		"without expiry":          {i.Sign(map[string]any{"exp": nil}), false},
		"not yet valid":           {i.Sign(map[string]any{"nbf": now.Add(time.Hour).Unix()}), false},
		"for another client":      {i.Sign(map[string]any{"aud": "other"}), false},
		"for nobody":              {i.Sign(map[string]any{"aud": nil}), false},
		"of another issuer":       {other.Sign(nil), false},
		"with another's key":      {other.Sign(map[string]any{"iss": i.URL}), false},
		"without a name":          {i.Sign(map[string]any{"sub": ""}), false},
		"changed":                 {strings.Replace(valid, "."+payload+".", "."+part(`{"iss":"`+i.URL+`","aud":"kubeguardian-test","sub":"eve","exp":9999999999}`)+".", 1), false},
		"without a signature":     {part(`{"alg":"none"}`) + "." + payload + ".", false},
		"with another algorithm":  {part(`{"alg":"HS256"}`) + "." + payload + "." + strings.Split(valid, ".")[2], false},
		"groups that are none":    {i.Sign(map[string]any{"groups": 7}), false},
		"too many groups":         {i.Sign(map[string]any{"groups": slices.Repeat([]string{"g"}, maxGroups+1)}), false},
		"too long":                {i.Sign(map[string]any{"padding": strings.Repeat("x", maxToken)}), false},
		"empty":                   {"", false},
		"no token":                {"a.b.c", false},
	} {
		credential, err := o.Token(t.Context(), c.token)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(c.token) > 100 && strings.Contains(err.Error(), c.token[20:60]) {
			t.Errorf("%s: the error has the token: %v", name, err)
		}
		if c.ok {
			if id, err := credential.Identity(t.Context()); err != nil || id.User != i.URL+"#user-1" {
				t.Errorf("%s: %+v, %v", name, id, err)
			}
		}
	}
	i.Rotate(t)
	if _, err := o.Token(t.Context(), i.Sign(nil)); err != nil {
		t.Errorf("after the issuer has another key: %v", err)
	}
	o.discovered.until = time.Now() // later
	if _, err := o.Token(t.Context(), valid); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token of the key before: %v", err)
	}
}

func TestClaims(t *testing.T) {
	i := issuertest.New(t)
	for name, c := range map[string]struct {
		config OIDCConfig
		claims map[string]any
		user   string
		groups []string
	}{
		"as they come":           {OIDCConfig{}, map[string]any{"sub": "1", "groups": []string{"a"}}, i.URL + "#1", nil},
		"without a prefix":       {OIDCConfig{UsernamePrefix: "-", GroupsClaim: "groups"}, map[string]any{"sub": "ada", "groups": "staff"}, "ada", []string{"staff"}},
		"with prefixes":          {OIDCConfig{UsernameClaim: "name", UsernamePrefix: "oidc:", GroupsClaim: "roles", GroupsPrefix: "oidc:"}, map[string]any{"name": "ada", "roles": []string{"a", "b"}}, "oidc:ada", []string{"oidc:a", "oidc:b"}},
		"email":                  {OIDCConfig{UsernameClaim: "email"}, map[string]any{"email": "ada@example.com"}, "ada@example.com", nil},
		"verified email":         {OIDCConfig{UsernameClaim: "email"}, map[string]any{"email": "ada@example.com", "email_verified": true}, "ada@example.com", nil},
		"unverified email":       {OIDCConfig{UsernameClaim: "email"}, map[string]any{"email": "ada@example.com", "email_verified": false}, "", nil},
		"odd verification":       {OIDCConfig{UsernameClaim: "email"}, map[string]any{"email": "ada@example.com", "email_verified": "true"}, "", nil},
		"no such claim":          {OIDCConfig{UsernameClaim: "name"}, map[string]any{"sub": "1"}, "", nil},
		"a name of many lines":   {OIDCConfig{UsernamePrefix: "-"}, map[string]any{"sub": "a\nb"}, "", nil},
		"a user of the cluster":  {OIDCConfig{UsernamePrefix: "-"}, map[string]any{"sub": "system:admin"}, "", nil},
		"built of two":           {OIDCConfig{UsernamePrefix: "sys"}, map[string]any{"sub": "tem:admin"}, "", nil},
		"a group of the cluster": {OIDCConfig{UsernamePrefix: "-", GroupsClaim: "groups"}, map[string]any{"sub": "eve", "groups": []string{"system:masters", "staff"}}, "eve", []string{"staff"}},
		"groups within groups":   {OIDCConfig{GroupsClaim: "groups"}, map[string]any{"sub": "1", "groups": []any{[]string{"a"}}}, "", nil},
	} {
		o := newOIDC(t, i, func(into *OIDCConfig) {
			c.config.Issuer, c.config.ClientID, c.config.RedirectURL = into.Issuer, into.ClientID, into.RedirectURL
			*into = c.config
		})
		credential, err := o.Token(t.Context(), i.Sign(c.claims))
		if c.user == "" {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id, err := credential.Identity(t.Context()); err != nil || id.User != c.user || !slices.Equal(id.Groups, c.groups) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// TestOIDCSessions: a login lives as long as its ID token, or as the issuer says
// when it is asked again, also where it was handed on to another replica.
func TestOIDCSessions(t *testing.T) {
	i := issuertest.New(t)
	o, replica := newOIDC(t, i, nil), newOIDC(t, i, nil)
	gate, err := New(Options{Issuers: []Issuer{replica}})
	if err != nil {
		t.Fatal(err)
	}
	// later returns the credential at another replica, when the issuer was asked some
	// time ago.
	later := func(c Credential, by time.Duration) Credential {
		t.Helper()
		kept := c.Keep()
		kept.Checked = kept.Checked.Add(-by)
		c, err := gate.Restore(kept)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	renew := func(c Credential) (Credential, error) {
		t.Helper()
		if _, err := c.Identity(t.Context()); !errors.Is(err, ErrStale) {
			t.Fatalf("a login that is to be renewed: %v", err)
		}
		return c.(Renewer).Renew(t.Context())
	}
	i.Tokens(time.Hour, false)
	s := login(t, o)
	if id, err := later(s, time.Hour).Identity(t.Context()); err != nil || id.User != i.URL+"#user-1" {
		t.Errorf("without a refresh token: %+v, %v", id, err)
	}
	expired := s.Keep()
	expired.Token = i.Sign(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
	if c, err := gate.Restore(expired); err != nil {
		t.Error(err)
	} else if _, err := c.Identity(t.Context()); !errors.Is(err, ErrInvalid) {
		t.Errorf("after the ID token has expired: %v", err)
	}

	i.Tokens(time.Hour, true)
	s = login(t, o)
	if id, err := later(s, recheckAfter/2).Identity(t.Context()); err != nil || id.User != i.URL+"#user-1" {
		t.Errorf("with a refresh token: %+v, %v", id, err)
	}
	expired = s.Keep()
	expired.Token = i.Sign(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
	if c, err := gate.Restore(expired); err != nil {
		t.Error(err)
	} else if s, err = renew(c); err != nil {
		t.Errorf("an ID token that has expired is not renewed: %v", err)
	}
	i.User(map[string]any{"sub": "user-1", "groups": []string{"new"}})
	for range 3 { // refresh tokens are used once
		if s, err = renew(later(s, recheckAfter)); err != nil {
			t.Fatal(err)
		}
		if id, err := s.Identity(t.Context()); err != nil || !slices.Equal(id.Groups, []string{"new"}) {
			t.Errorf("after a refresh: %+v, %v", id, err)
		}
	}
	i.Down(true)
	if _, err := renew(later(s, recheckAfter)); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("while the issuer is down: %v", err)
	}
	i.Down(false)
	i.Revoke()
	if _, err := renew(later(s, recheckAfter)); !errors.Is(err, ErrInvalid) {
		t.Errorf("after the issuer took the login back: %v", err)
	}
	s = login(t, o)
	i.User(map[string]any{"sub": "user-2"})
	if _, err := renew(later(s, recheckAfter)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a refresh that gives another user: %v", err)
	}
}

// TestRestore: what was kept is the proof, and nobody's whom the replica does not
// know.
func TestRestore(t *testing.T) {
	i, other := issuertest.New(t), issuertest.New(t)
	i.Tokens(time.Hour, true)
	o := newOIDC(t, i, nil)
	gate := func(tokens []Token, issuers ...Issuer) *Gate {
		g, err := New(Options{Tokens: tokens, Issuers: issuers})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	first := gate([]Token{{User: "ada", Role: Admin, Value: "secret"}}, o)
	ada, err := first.Token(t.Context(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := first.Token(t.Context(), i.Sign(nil))
	if err != nil {
		t.Fatal(err)
	}
	sso := login(t, o)
	forged := sso.Keep()
	forged.Token = other.Sign(map[string]any{"iss": i.URL, "sub": "eve"})
	for name, c := range map[string]struct {
		kept Kept
		gate *Gate
		user string // "": not valid
	}{
		"a login token":                     {ada.Keep(), gate([]Token{{User: "ada", Role: Admin, Value: "secret"}}), "ada"},
		"a login token that was changed":    {ada.Keep(), gate([]Token{{User: "ada", Role: Admin, Value: "another"}}), ""},
		"an ID token":                       {bearer.Keep(), gate(nil, o), i.URL + "#user-1"},
		"an ID token of another issuer":     {bearer.Keep(), gate(nil, newOIDC(t, other, nil)), ""},
		"a login at the issuer":             {sso.Keep(), gate(nil, o), i.URL + "#user-1"},
		"a login at an issuer of before":    {sso.Keep(), gate(nil, newOIDC(t, other, nil)), ""},
		"a login at an issuer, without one": {sso.Keep(), gate(nil), ""},
		"nothing":                           {Kept{}, first, ""},
		"an empty digest":                   {Kept{Login: []byte{}}, first, ""},
	} {
		id, err := Identity{}, error(nil)
		restored, err := c.gate.Restore(c.kept)
		if err == nil {
			id, err = restored.Identity(t.Context())
		}
		if (c.user == "") != errors.Is(err, ErrInvalid) || id.User != c.user {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	// Who can write where it is kept cannot say who somebody is.
	c, err := first.Restore(forged)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := c.Identity(t.Context()); err == nil {
		t.Errorf("a forged ID token is of %+v", id)
	}
}

func TestOIDCIssuers(t *testing.T) {
	i := issuertest.New(t)
	i.Down(true)
	o := newOIDC(t, i, nil)
	if _, _, err := o.Begin(t.Context()); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("an issuer that is down: %v", err)
	}
	i.Down(false)
	if _, _, err := o.Begin(t.Context()); err != nil {
		t.Errorf("one that came back: %v", err)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"another issuer": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"issuer":"https://evil.example","jwks_uri":"https://evil.example/keys"}`))
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, i.URL+r.URL.Path, http.StatusFound) },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for range 3 {
				w.Write([]byte(`"` + strings.Repeat("x", maxAnswer)))
			}
		},
	} {
		server := httptest.NewServer(answer)
		o, err := NewOIDC(OIDCConfig{Issuer: server.URL, ClientID: "x", RedirectURL: redirectURL})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.Begin(t.Context()); err == nil {
			t.Errorf("%s is accepted", name)
		}
		server.Close()
	}
	for name, c := range map[string]OIDCConfig{
		"plain HTTP":      {Issuer: "http://issuer.example", ClientID: "x", RedirectURL: redirectURL},
		"no URL":          {Issuer: "issuer", ClientID: "x", RedirectURL: redirectURL},
		"plain HTTP back": {Issuer: "https://issuer.example", ClientID: "x", RedirectURL: "http://a.example/"},
		"no client":       {Issuer: "https://issuer.example", RedirectURL: redirectURL},
		"no authorities":  {Issuer: "https://issuer.example", ClientID: "x", RedirectURL: redirectURL, CA: []byte("none")},
		"a password":      {Issuer: "https://a:b@issuer.example", ClientID: "x", RedirectURL: redirectURL},
	} {
		if _, err := NewOIDC(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzIDToken(f *testing.F) {
	o, err := NewOIDC(OIDCConfig{Issuer: "https://issuer.example", ClientID: "x", RedirectURL: redirectURL})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://issuer.example"}`)) + ".c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if o.issued(token) && (len(token) > maxToken || strings.Count(token, ".") != 2) {
			t.Errorf("%q is said to be a token", token)
		}
	})
}
