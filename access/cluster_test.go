package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
)

// TestClusterRoles: the ClusterRoles that are published say what the roles here do.
func TestClusterRoles(t *testing.T) {
	docs := bytes.Split(content.Roles(), []byte("\n---\n"))
	if len(docs) != len(Roles()) {
		t.Fatalf("%d ClusterRoles", len(docs))
	}
	for i, role := range Roles() {
		var r rbacv1.ClusterRole
		if err := yaml.UnmarshalStrict(docs[i], &r); err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, rule := range r.Rules {
			if !slices.Equal(rule.APIGroups, []string{Group}) || len(rule.ResourceNames)+len(rule.NonResourceURLs) > 0 {
				t.Errorf("%s: %+v", r.Name, rule)
			}
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					have = append(have, verb+" "+resource)
				}
			}
		}
		var want []string
		for _, p := range role.Permissions() {
			want = append(want, string(p))
		}
		slices.Sort(have)
		slices.Sort(want)
		if r.Name != "kubeguardian-"+string(role) || !slices.Equal(have, want) {
			t.Errorf("%s has\n%v, the role has\n%v", r.Name, have, want)
		}
	}
}

// An apiServer answers reviews as an API server may that is none of the lab's: old,
// broken or slow.
type apiServer struct {
	*httptest.Server
	token  func(authenticationv1.TokenReviewSpec) (int, authenticationv1.TokenReviewStatus)
	access func(authorizationv1.SubjectAccessReviewSpec) (int, authorizationv1.SubjectAccessReviewStatus)
	asked  atomic.Int64
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		code, answer := http.StatusNotFound, any(nil)
		switch r.URL.Path {
		case "/apis/authentication.k8s.io/v1/tokenreviews":
			var review authenticationv1.TokenReview
			if err := json.Unmarshal(body, &review); err != nil {
				t.Error(err)
			}
			code, review.Status = s.token(review.Spec)
			answer = review
		case "/apis/authorization.k8s.io/v1/subjectaccessreviews":
			var review authorizationv1.SubjectAccessReview
			if err := json.Unmarshal(body, &review); err != nil {
				t.Error(err)
			}
			code, review.Status = s.access(review.Spec)
			answer = review
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) cluster(t *testing.T) *Cluster {
	t.Helper()
	c, err := NewCluster(&rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, []string{"kubeguardian"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTokenReview(t *testing.T) {
	ada := authenticationv1.UserInfo{Username: "ada", UID: "1", Groups: []string{"staff"}, Extra: map[string]authenticationv1.ExtraValue{"pod": {"a"}}}
	ours := []string{"kubeguardian"}
	for name, c := range map[string]struct {
		code   int
		status authenticationv1.TokenReviewStatus
		want   string
	}{
		"valid":              {201, authenticationv1.TokenReviewStatus{Authenticated: true, User: ada, Audiences: ours}, ""},
		"invalid":            {201, authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}, "invalid"},
		"no audiences known": {201, authenticationv1.TokenReviewStatus{Authenticated: true, User: ada}, "invalid"},
		"of another":         {201, authenticationv1.TokenReviewStatus{Authenticated: true, User: ada, Audiences: []string{"api"}}, "invalid"},
		"of nobody":          {201, authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: ours}, "invalid"},
		"not authenticated":  {201, authenticationv1.TokenReviewStatus{User: ada, Audiences: ours}, "invalid"},
		"forbidden":          {403, authenticationv1.TokenReviewStatus{Authenticated: true, User: ada, Audiences: ours}, "unknown"},
		"broken":             {500, authenticationv1.TokenReviewStatus{Authenticated: true, User: ada, Audiences: ours}, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newAPIServer(t)
			s.token = func(spec authenticationv1.TokenReviewSpec) (int, authenticationv1.TokenReviewStatus) {
				if spec.Token != "a-token" || !slices.Equal(spec.Audiences, ours) {
					t.Errorf("asked for %+v", spec)
				}
				return c.code, c.status
			}
			cluster := s.cluster(t)
			credential, err := cluster.Token(t.Context(), "a-token")
			switch {
			case c.want == "invalid" && !errors.Is(err, ErrInvalid), c.want == "unknown" && (err == nil || errors.Is(err, ErrInvalid)):
				t.Fatalf("have %v, want %s", err, c.want)
			case err != nil && strings.Contains(err.Error(), "a-token"):
				t.Errorf("the error has the token: %v", err)
			case c.want != "":
				return
			}
			for range 20 {
				if id, err := credential.Identity(t.Context()); err != nil || id.User != "ada" || id.UID != "1" || !slices.Equal(id.Extra["pod"], []string{"a"}) {
					t.Errorf("have %+v, %v", id, err)
				}
			}
			if n := s.asked.Load(); n != 1 {
				t.Errorf("asked %d times within a moment", n)
			}
		})
	}
}

// TestTokenIsAskedAbout again when the answer is old: a token that was taken back
// is of no use, and while nobody answers nor is one that was valid.
func TestTokenIsAskedAboutAgain(t *testing.T) {
	s := newAPIServer(t)
	valid, code := true, 201
	s.token = func(authenticationv1.TokenReviewSpec) (int, authenticationv1.TokenReviewStatus) {
		return code, authenticationv1.TokenReviewStatus{Authenticated: valid, User: authenticationv1.UserInfo{Username: "ada"}, Audiences: []string{"kubeguardian"}}
	}
	c := s.cluster(t)
	credential, err := c.Token(t.Context(), "a-token")
	if err != nil {
		t.Fatal(err)
	}
	age := func() {
		c.tokens.mu.Lock()
		defer c.tokens.mu.Unlock()
		for key, a := range c.tokens.answers {
			if left := time.Until(a.until); left > validFor || left < 0 {
				t.Errorf("an answer is kept for %s", left)
			}
			a.until = time.Now()
			c.tokens.answers[key] = a
		}
	}
	age()
	code = 500
	if _, err := credential.Identity(t.Context()); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("while nobody answers: %v", err)
	}
	code, valid = 201, false
	if _, err := credential.Identity(t.Context()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token that was taken back: %v", err)
	}
	for _, odd := range []string{"", "two words", "line\nbreak", "ü", strings.Repeat("x", maxToken+1)} {
		before := s.asked.Load()
		if _, err := c.Token(t.Context(), odd); !errors.Is(err, ErrInvalid) || s.asked.Load() != before {
			t.Errorf("%.10q: %v", odd, err)
		}
	}
}

func TestSubjectAccessReview(t *testing.T) {
	s := newAPIServer(t)
	code, status := 201, authorizationv1.SubjectAccessReviewStatus{Allowed: true}
	var last authorizationv1.SubjectAccessReviewSpec
	s.access = func(spec authorizationv1.SubjectAccessReviewSpec) (int, authorizationv1.SubjectAccessReviewStatus) {
		last = spec
		return code, status
	}
	c := s.cluster(t)
	g, err := New(Options{Authorizer: c})
	if err != nil {
		t.Fatal(err)
	}
	ada := Identity{User: "ada", UID: "1", Groups: []string{"staff"}, Extra: map[string][]string{"scopes": {"read"}}}
	for range 3 {
		if err := g.Allow(t.Context(), ada, "update incidents"); err != nil {
			t.Fatal(err)
		}
	}
	want := authorizationv1.ResourceAttributes{Group: "kubeguardian.dev", Resource: "incidents", Verb: "update"}
	if *last.ResourceAttributes != want || last.User != "ada" || last.UID != "1" || !slices.Equal(last.Groups, ada.Groups) || last.Extra["scopes"][0] != "read" || s.asked.Load() != 1 {
		t.Errorf("asked %d times, last %+v", s.asked.Load(), last)
	}
	status.Denied = true
	denied := (*Denied)(nil)
	if err := g.Allow(t.Context(), ada, "list actions"); !errors.As(err, &denied) {
		t.Errorf("allowed and denied: %v", err)
	}
	code = 500
	if err := g.Allow(t.Context(), ada, "list alerts"); err == nil || errors.As(err, &denied) {
		t.Errorf("while nobody answers: %v", err)
	}
	s.Close()
	ben := Identity{User: "ben"}
	if err := g.Allow(t.Context(), ben, "list alerts"); err == nil || errors.As(err, &denied) {
		t.Errorf("without an API server: %v", err)
	}
}

// TestRightsAreKeptApart: no two who may be answered differently share an answer.
func TestRightsAreKeptApart(t *testing.T) {
	seen := map[digest]int{}
	for i, id := range []Identity{
		{}, {User: "a"}, {UID: "a"}, {Groups: []string{"a"}}, {Groups: []string{"a", "b"}}, {Groups: []string{"ab"}}, {Groups: []string{"a,b"}},
		{Extra: map[string][]string{"a": nil}}, {Extra: map[string][]string{"a": {"b"}}}, {Extra: map[string][]string{"a": {}, "b": {}}},
		{User: "a", Groups: []string{"b"}}, {User: "b", Groups: []string{"a"}},
	} {
		for _, p := range []Permission{"list alerts", "get alerts"} {
			key := rightKey(id, p)
			if before, known := seen[key]; known {
				t.Errorf("%d and %d share an answer", i, before)
			}
			seen[key] = i
		}
	}
	if rightKey(Identity{Groups: []string{"a", "b"}}, "get health") != rightKey(Identity{Groups: []string{"b", "a"}}, "get health") {
		t.Error("the order of groups matters")
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache[int]
	now := time.Now()
	for i := range maxCached + 100 {
		c.put(digest{byte(i), byte(i >> 8), byte(i >> 16)}, i, now.Add(time.Hour))
	}
	if len(c.answers) > maxCached {
		t.Errorf("%d answers are kept", len(c.answers))
	}
}
