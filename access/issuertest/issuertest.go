// Package issuertest runs an OpenID Connect issuer for tests: discovery, keys, the
// authorization code flow with PKCE, and refresh tokens that are used once.
package issuertest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"
)

// The client that the issuer knows.
const (
	ClientID     = "kubeguardian-test"
	ClientSecret = "client-secret-0123456789"
)

// An Issuer is one that runs. Whoever comes is logged in at once, as [Issuer.User]
// says.
type Issuer struct {
	URL string

	mu      sync.Mutex
	keys    oidctest.Server
	key     *rsa.PrivateKey
	keyID   string
	user    map[string]any
	age     time.Duration
	down    bool
	codes   map[string]url.Values // the requests that they were given for
	refresh map[string]bool
	with    bool // refresh tokens are given
}

// New starts an issuer, which ends with the test.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{age: time.Hour, codes: map[string]url.Values{}, refresh: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /auth", i.authorize)
	mux.HandleFunc("POST /token", i.token)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.keys.ServeHTTP(w, r)
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		down := i.down
		i.mu.Unlock()
		if down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	i.URL = server.URL
	i.keys.SetIssuer(i.URL)
	i.Rotate(t)
	i.User(map[string]any{"sub": "user-1"})
	return i
}

// Rotate has a new key sign from now on, and forgets the one before.
func (i *Issuer) Rotate(t testing.TB) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.keyID = key, rand.Text()
	i.keys.PublicKeys = []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: i.keyID, Algorithm: "RS256"}}
}

// User sets the claims of whoever comes next.
func (i *Issuer) User(claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.user = claims
}

// Tokens sets how long ID tokens live, and whether refresh tokens come with them.
func (i *Issuer) Tokens(age time.Duration, refresh bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.age, i.with = age, refresh
}

// Down has the issuer answer nothing but 503.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Revoke takes all refresh tokens back.
func (i *Issuer) Revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.refresh)
}

// Sign returns a token with claims of a valid ID token, and others in their place.
func (i *Issuer) Sign(claims map[string]any) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sign(claims)
}

func (i *Issuer) sign(claims map[string]any) string {
	all := map[string]any{"iss": i.URL, "aud": ClientID, "iat": time.Now().Unix(), "exp": time.Now().Add(i.age).Unix()}
	maps.Copy(all, i.user)
	maps.Copy(all, claims)
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // claims of a test
	}
	return oidctest.SignIDToken(i.key, i.keyID, "RS256", string(text))
}

func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("state") == "" || q.Get("nonce") == "" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	code := rand.Text()
	i.codes[code] = q
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	answer := map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 60}
	switch {
	case id != ClientID || secret != ClientSecret:
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	case r.PostFormValue("grant_type") == "refresh_token" && i.refresh[r.PostFormValue("refresh_token")]:
		delete(i.refresh, r.PostFormValue("refresh_token"))
		answer["id_token"] = i.sign(nil)
	case r.PostFormValue("grant_type") == "authorization_code" && i.redeem(r):
		answer["id_token"] = i.sign(map[string]any{"nonce": i.codes[r.PostFormValue("code")].Get("nonce")})
		delete(i.codes, r.PostFormValue("code"))
	default:
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	if i.with {
		token := rand.Text()
		i.refresh[token], answer["refresh_token"] = true, token
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}

// redeem reports whether a code is asked for by who began its flow.
func (i *Issuer) redeem(r *http.Request) bool {
	q, known := i.codes[r.PostFormValue("code")]
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	return known && q.Get("redirect_uri") == r.PostFormValue("redirect_uri") && q.Get("code_challenge") == base64.RawURLEncoding.EncodeToString(sum[:])
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"error":%q,"error_description":"secret words of the issuer"}`, reason)
}
