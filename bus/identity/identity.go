// Package identity says which node's agent the bearer of a token is: of a token
// of a Kubernetes ServiceAccount, the node of the pod that it is bound to; for
// hosts outside the cluster there is a file of tokens.
package identity

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Audience is what a token must be for: one that was made for the API server, or
// anything else, is refused.
const Audience = "kubeguardian"

// Keys of what Kubernetes says of the bearer of a token that is bound to a pod.
const (
	nodeKey = "authentication.kubernetes.io/node-name"
	podKey  = "authentication.kubernetes.io/pod-name"
)

const (
	maxToken = 16 << 10
	minToken = 16
	maxFile  = 1 << 20
)

// Tokens knows the bearers of tokens. It is safe for concurrent use.
type Tokens struct {
	client   kubernetes.Interface
	accounts []string // user names of the agents' ServiceAccounts
	file     string
	reviews  *rate.Limiter
}

// New returns what knows the tokens of these ServiceAccounts, each as
// namespace/name, and those in a file, unless that is empty. It has a line for
// each host: its name, a blank and its token. It is read again for each token.
func New(client kubernetes.Interface, accounts []string, file string) *Tokens {
	t := &Tokens{client: client, file: file, reviews: rate.NewLimiter(50, 500)}
	for _, a := range accounts {
		t.accounts = append(t.accounts, "system:serviceaccount:"+strings.ReplaceAll(a, "/", ":"))
	}
	return t
}

// Node returns the node for which the bearer of a token may speak, or why there
// is none. The error does not hold the token.
func (t *Tokens) Node(ctx context.Context, token string) (string, error) {
	switch {
	case len(token) > maxToken:
		return "", fmt.Errorf("its token has more than %d bytes", maxToken)
	case strings.Count(token, ".") == 2:
		return t.reviewed(ctx, token)
	case t.file != "":
		return t.listed(token)
	}
	return "", errors.New("its token is not of a ServiceAccount")
}

// reviewed asks Kubernetes for the bearer of a token. What is not even meant for
// us is not worth a question.
func (t *Tokens) reviewed(ctx context.Context, token string) (string, error) {
	if !meant(token) {
		return "", fmt.Errorf("its token is not for audience %s", Audience)
	}
	if err := t.reviews.Wait(ctx); err != nil {
		return "", fmt.Errorf("too many tokens are to be checked: %w", err)
	}
	review, err := t.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("check its token: %w", err)
	}
	s := review.Status
	switch {
	case !s.Authenticated:
		return "", fmt.Errorf("the API server does not know its token: %s", s.Error)
	case !slices.Contains(s.Audiences, Audience):
		return "", fmt.Errorf("its token is not for audience %s", Audience)
	case !slices.Contains(t.accounts, s.User.Username):
		return "", fmt.Errorf("its token is of %s, which is no agent", s.User.Username)
	}
	pod, node := s.User.Extra[podKey], s.User.Extra[nodeKey]
	if len(pod) != 1 || len(node) != 1 {
		return "", fmt.Errorf("its token, of %s, is not bound to a pod and a node (Kubernetes 1.32 or later does that)", s.User.Username)
	}
	return node[0], nil
}

// meant reports whether a token says that it is for us. It does not check that.
func meant(token string) bool {
	part := strings.Split(token, ".")[1]
	data, err := base64.RawURLEncoding.DecodeString(part)
	var claims struct {
		Audience json.RawMessage `json:"aud"`
	}
	if err != nil || json.Unmarshal(data, &claims) != nil {
		return false
	}
	var many []string
	var one string
	if json.Unmarshal(claims.Audience, &many) != nil {
		return json.Unmarshal(claims.Audience, &one) == nil && one == Audience
	}
	return slices.Contains(many, Audience)
}

// listed looks for a token in the file.
func (t *Tokens) listed(token string) (string, error) {
	hosts, err := readHosts(t.file)
	if err != nil {
		return "", err
	}
	node, known := hosts[sha256.Sum256([]byte(token))] // digests: the time it takes tells nothing of a token
	if !known {
		return "", errors.New("its token is not in the file of hosts")
	}
	return node, nil
}

// Check returns what is wrong with a file of hosts.
func Check(file string) error {
	_, err := readHosts(file)
	return err
}

// readHosts reads a file of hosts, by digests of their tokens.
func readHosts(file string) (map[[sha256.Size]byte]string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read tokens of hosts: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read tokens of hosts: %s has more than %d bytes", file, maxFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read tokens of hosts: %w", err)
	}
	return parseHosts(file, data)
}

func parseHosts(file string, data []byte) (map[[sha256.Size]byte]string, error) {
	hosts := map[[sha256.Size]byte]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) != 2 || len(words[1]) < minToken || strings.Count(words[1], ".") == 2 {
			return nil, fmt.Errorf("%s:%d: want the name of a host and its token, of %d characters at least and not two dots", file, n, minToken)
		}
		digest := sha256.Sum256([]byte(words[1]))
		if _, twice := hosts[digest]; twice {
			return nil, fmt.Errorf("%s:%d: another host has this token", file, n)
		}
		hosts[digest] = words[0]
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return hosts, nil
}
