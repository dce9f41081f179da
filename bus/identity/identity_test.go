package identity

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// jwt is a token for an audience, as one that Kubernetes makes; nobody here
// checks its signature.
func jwt(audience, bearer string) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"RS256"}`) + "." + part(`{"aud":`+audience+`}`) + "." + part(bearer)
}

// reviewing answers token reviews as an API server: the last part of a token says
// who its bearer is.
func reviewing(t *testing.T, answers map[string]authenticationv1.TokenReviewStatus) (kubernetes.Interface, *int) {
	t.Helper()
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || len(review.Spec.Audiences) != 1 || review.Spec.Audiences[0] != Audience {
			t.Errorf("asked for %s %+v, %v", r.URL, review, err)
		}
		bearer, err := base64.RawURLEncoding.DecodeString(review.Spec.Token[strings.LastIndexByte(review.Spec.Token, '.')+1:])
		if err != nil {
			t.Error(err)
		}
		review.Status = answers[string(bearer)]
		review.Kind, review.APIVersion = "TokenReview", "authentication.k8s.io/v1"
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: srv.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return client, &asked
}

func TestServiceAccounts(t *testing.T) {
	bearer := func(user, node string, audiences ...string) authenticationv1.TokenReviewStatus {
		s := authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: audiences, User: authenticationv1.UserInfo{Username: user, Extra: map[string]authenticationv1.ExtraValue{}}}
		if node != "" {
			s.User.Extra[podKey], s.User.Extra[nodeKey] = []string{"agent-x7k2p"}, []string{node}
		}
		return s
	}
	const agent = "system:serviceaccount:kubeguardian:kubeguardian-agent"
	client, asked := reviewing(t, map[string]authenticationv1.TokenReviewStatus{
		"good":      bearer(agent, "n1", Audience),
		"unbound":   bearer(agent, "", Audience),
		"other":     bearer("system:serviceaccount:shop:web", "n1", Audience),
		"node":      bearer("system:node:n1", "n1", Audience),
		"audience":  bearer(agent, "n1", "https://kubernetes.default.svc"),
		"no answer": {Error: "token expired"},
	})
	tokens := New(client, []string{"kubeguardian/kubeguardian-agent"}, "")
	for _, tc := range []struct{ token, node, err string }{
		{jwt(`["kubeguardian"]`, "good"), "n1", ""},
		{jwt(`"kubeguardian"`, "good"), "n1", ""},
		{jwt(`["kubeguardian"]`, "unbound"), "", "not bound to a pod and a node"},
		{jwt(`["kubeguardian"]`, "other"), "", "system:serviceaccount:shop:web, which is no agent"},
		{jwt(`["kubeguardian"]`, "node"), "", "system:node:n1, which is no agent"},
		{jwt(`["kubeguardian"]`, "audience"), "", "not for audience kubeguardian"},
		{jwt(`["kubeguardian"]`, "no answer"), "", "token expired"},
	} {
		node, err := tokens.Node(t.Context(), tc.token)
		if node != tc.node || (tc.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("node %q, %v; want %q, %q", node, err, tc.node, tc.err)
		}
		if err != nil && strings.Contains(err.Error(), tc.token) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	before := *asked
	for _, token := range []string{jwt(`["https://kubernetes.default.svc"]`, "good"), jwt(`7`, "good"), "a.b.c", "..", "x", strings.Repeat("x", 1<<20)} {
		if node, err := tokens.Node(t.Context(), token); err == nil {
			t.Errorf("node %q", node)
		}
	}
	if *asked != before {
		t.Error("the API server is asked about tokens that are not for us")
	}
}

func TestHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, _ := reviewing(t, nil)
	tokens := New(client, nil, file)
	write("# hosts\n\nbastion 0123456789abcdef\n  db-1\t\tfedcba9876543210 \n")
	for token, want := range map[string]string{"0123456789abcdef": "bastion", "fedcba9876543210": "db-1", "0123456789abcdeg": ""} {
		if node, err := tokens.Node(t.Context(), token); node != want || (err == nil) != (want != "") {
			t.Errorf("node %q, %v; want %q", node, err, want)
		}
	}
	write("bastion 1123456789abcdef\n") // another token from now on
	if node, err := tokens.Node(t.Context(), "0123456789abcdef"); err == nil {
		t.Errorf("node %q by the token before", node)
	}
	for text, want := range map[string]string{
		"bastion": "hosts:1: want", "\nbastion short": "hosts:2: want", "a 0123456789abcdef x": "hosts:1: want",
		"a 0123456789abcdef\nb 0123456789abcdef": "hosts:2: another host", strings.Repeat("#", 2<<20): "more than",
	} {
		write(text)
		if err := Check(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	if err := Check(file + "x"); err == nil {
		t.Error("a file that is not there")
	}
}

func FuzzHosts(f *testing.F) {
	f.Add([]byte("# hosts\nbastion 0123456789abcdef\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hosts, err := parseHosts("hosts", data)
		if err != nil {
			return
		}
		for _, node := range hosts {
			if node == "" || strings.ContainsAny(node, " \n") {
				t.Errorf("host %q", node)
			}
		}
	})
}
