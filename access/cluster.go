package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Group is the API group of the resources that permissions name.
const Group = "kubeguardian.dev"

// How long answers of the API server are kept: what it takes for a token or a
// right that was taken away to be of no use here.
const (
	validFor   = 30 * time.Second // a token that is valid
	invalidFor = 5 * time.Second  // a token that is not, and a right that is missing
	allowedFor = 10 * time.Second // a right
)

// askWithin bounds how long the API server may take.
const askWithin = 5 * time.Second

// maxToken bounds a token: a longer one is none of the cluster's.
const maxToken = 16 << 10

// A Cluster asks an API server whose a token is, and what they may do. It is safe
// for concurrent use.
type Cluster struct {
	client    kubernetes.Interface
	audiences []string
	tokens    cache[*Identity] // nil: not valid
	rights    cache[bool]
	asking    singleflight.Group
}

// NewCluster returns what asks an API server, without speaking to it yet. Tokens
// must be for one of the audiences; when there are none, for the API server.
func NewCluster(config *rest.Config, audiences []string) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst, config.Timeout = 50, 100, askWithin
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	return &Cluster{client: client, audiences: audiences}, nil
}

// Token asks whose a token is.
func (c *Cluster) Token(ctx context.Context, token string) (Credential, error) {
	if len(token) == 0 || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, ErrInvalid
	}
	credential := clusterToken{c, token}
	_, err := credential.Identity(ctx)
	return credential, err
}

// A clusterToken is asked about again when the answer is old.
type clusterToken struct {
	cluster *Cluster
	value   string
}

// Identity returns whose token it is.
func (t clusterToken) Identity(ctx context.Context) (Identity, error) {
	c, key := t.cluster, digest(sha256.Sum256([]byte(t.value)))
	id, known := c.tokens.get(key, time.Now())
	if !known {
		var err error
		id, err = once(ctx, &c.asking, "token"+string(key[:]), func(ctx context.Context) (*Identity, error) {
			id, err := c.review(ctx, t.value)
			if err == nil {
				c.tokens.put(key, id, time.Now().Add(lifetime(id != nil, validFor)))
			}
			return id, err
		})
		if err != nil {
			return Identity{}, fmt.Errorf("ask the API server whose a token is: %w", err)
		}
	}
	if id == nil {
		return Identity{}, ErrInvalid
	}
	return *id, nil
}

// Keep is of [Credential].
func (t clusterToken) Keep() Kept { return Kept{Token: t.value} }

func lifetime(good bool, d time.Duration) time.Duration {
	if good {
		return d
	}
	return invalidFor
}

// once asks for what others ask for at the same time too. Whoever asked first may
// go; the others are answered.
func once[T any](ctx context.Context, group *singleflight.Group, key string, ask func(context.Context) (T, error)) (answer T, err error) {
	done := group.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWithin)
		defer cancel()
		return ask(ctx)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return answer, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

// review returns whose a token is, nil if it is not valid. An API server that does
// not know audiences accepts tokens that are not for us, and says so by naming none.
func (c *Cluster) review(ctx context.Context, token string) (*Identity, error) {
	answer, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: c.audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	status := answer.Status
	ours := len(c.audiences) == 0 || slices.ContainsFunc(status.Audiences, func(a string) bool { return slices.Contains(c.audiences, a) })
	if !status.Authenticated || !ours || status.User.Username == "" {
		return nil, nil
	}
	id := &Identity{User: status.User.Username, UID: status.User.UID, Groups: status.User.Groups, Extra: map[string][]string{}}
	for key, values := range status.User.Extra {
		id.Extra[key] = values
	}
	return id, nil
}

// Allowed asks whether somebody has a right on a resource of [Group] in the whole
// cluster.
func (c *Cluster) Allowed(ctx context.Context, id Identity, p Permission) (bool, error) {
	key := rightKey(id, p)
	if allowed, known := c.rights.get(key, time.Now()); known {
		return allowed, nil
	}
	return once(ctx, &c.asking, "right"+string(key[:]), func(ctx context.Context) (bool, error) {
		allowed, err := c.ask(ctx, id, p)
		if err == nil {
			c.rights.put(key, allowed, time.Now().Add(lifetime(allowed, allowedFor)))
		}
		return allowed, err
	})
}

func (c *Cluster) ask(ctx context.Context, id Identity, p Permission) (bool, error) {
	verb, resource := p.split()
	extra := map[string]authorizationv1.ExtraValue{}
	for name, values := range id.Extra {
		extra[name] = values
	}
	answer, err := c.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: id.User, UID: id.UID, Groups: id.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: Group, Resource: resource, Verb: verb},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed && !answer.Status.Denied, nil
}

// rightKey is different for what the API server may answer differently.
func rightKey(id Identity, p Permission) (key digest) {
	h := sha256.New()
	write(h, string(p), id.User, id.UID)
	write(h, slices.Sorted(slices.Values(id.Groups))...)
	for _, name := range slices.SortedFunc(maps.Keys(id.Extra), cmp.Compare) {
		write(h, name)
		write(h, id.Extra[name]...)
	}
	h.Sum(key[:0])
	return key
}

// write writes a list so that no other list is written as the same bytes.
func write(h hash.Hash, texts ...string) {
	fmt.Fprintf(h, "%d;", len(texts))
	for _, text := range texts {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
}
