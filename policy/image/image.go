// Package image judges the images of pods by who signed them and how they were
// made: what needs a registry, and so cannot be said in CEL or Rego.
//
// [Load] reads ImagePolicy documents into an immutable [Set]. (*Set).Mutate pins
// the tags of an object to the digests that they lead to, and (*Set).Evaluate
// judges an object: that its images come from allowed repositories, have a
// digest, are signed, and carry the demanded attestations. What was verified is
// thereby what runs: a tag is resolved once, the digest is written into the
// object, and the object that is stored must have it.
//
// A [Verifier] asks registries, within bounds of time, size and rate, and
// remembers what it saw. It verifies with keys and trusted roots that are given,
// never with ones that it fetches. When a registry does not answer, the
// failurePolicy of each policy decides.
package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// maxImages bounds the different images of one object that are looked at. An
// object with more is refused.
const maxImages = 100

// A Set is an immutable collection of policies. It is safe for concurrent use.
type Set struct {
	verifier *Verifier
	policies []*Policy
}

// A Policy is one ImagePolicy. It is safe for concurrent use.
type Policy struct {
	name    string
	id      string // of all that it says: what is remembered belongs to it
	failure string // Fail, Warn or Ignore
	actions []string
	mutate  bool

	namespaces, objects labels.Selector
	images, excluded    patterns

	requireDigest bool
	allowed       patterns // none: all are
	attestors     []*attestor
	signatures    int // of different attestors
	attestations  []*attestation
}

// Name returns the name of the policy.
func (p *Policy) Name() string { return p.name }

// Policies returns the policies in the order of their names. The slice belongs
// to the caller.
func (s *Set) Policies() []*Policy { return slices.Clone(s.policies) }

// Enforced tells what each policy does about violations.
func (s *Set) Enforced(tell func(policy, binding, enforcement string)) {
	for _, p := range s.policies {
		for _, action := range p.actions {
			tell(p.name, "", action)
		}
	}
}

// Len returns the number of policies.
func (s *Set) Len() int { return len(s.policies) }

// Handles reports whether [Load] takes documents of a kind: ImagePolicy.
func Handles(kind schema.GroupVersionKind) bool {
	return kind.Kind == Kind && kind.Group == apiGroup
}

// A named image is one that an object names, at one or more places.
type named struct {
	reference
	text   string
	err    error // it is no reference
	places []usage
}

// group brings together the places that name the same image.
func group(usages []usage) []*named {
	var out []*named
	seen := map[string]*named{}
	for _, u := range usages {
		n := seen[u.image]
		if n == nil {
			n = &named{text: u.image}
			n.reference, n.err = parseReference(u.image)
			seen[u.image] = n
			out = append(out, n)
		}
		n.places = append(n.places, u)
	}
	return out
}

// Evaluate judges the images that a request brings in. There is one violation for
// each action of a policy and each thing that is wrong, in the order of policies,
// then of images. An image that cannot be judged, because of its registry or
// because ctx ends, is reported as the failurePolicy of the policy says: Fail as
// what is wrong with it, Warn as a warning, Ignore for the audit only. The error
// is one of the object, which has another form than its kind.
func (s *Set) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	images, err := brought(&req)
	if err != nil || len(images) == 0 {
		return nil, err
	}
	var wait sync.WaitGroup
	results := make([][][]finding.Violation, len(s.policies))
	for i, p := range s.policies {
		applies, err := p.selects(ctx, &req)
		results[i] = make([][]finding.Violation, len(images))
		for j, n := range images {
			switch {
			case !p.matches(n):
			case err != nil:
				results[i][j] = p.violations(n, outcome{failure: err})
			case !applies:
			case len(images) > maxImages:
				results[i][0] = p.violations(images[0], outcome{problems: []string{fmt.Sprintf("%d different images are more than the limit of %d", len(images), maxImages)}})
			default:
				wait.Go(func() { results[i][j] = p.violations(n, p.judge(ctx, s.verifier, n)) })
			}
		}
	}
	wait.Wait()
	return slices.Concat(slices.Concat(results...)...), nil
}

// brought returns the images that a request brings in.
func brought(req *policy.Request) ([]*named, error) {
	w := workloadOf(req)
	if w == nil {
		return nil, nil
	}
	usages, err := w.changed(req)
	return group(usages), err
}

// Mutate returns the object of a request with its tags pinned to digests, where a
// policy with mutateDigest matches: "web:1" becomes "web:1@sha256:…". The object
// of the request is not changed; it is returned itself if there is nothing to
// pin. A tag that cannot be resolved stays as it is, for Evaluate to judge. The
// changes name the policies that pinned something, each once.
func (s *Set) Mutate(ctx context.Context, req policy.Request) (*unstructured.Unstructured, []policy.Change, error) {
	images, err := brought(&req)
	if err != nil || len(images) == 0 || len(images) > maxImages {
		return req.Object, nil, err
	}
	var wait sync.WaitGroup
	pins, by := make([]string, len(images)), make([][]*Policy, len(images))
	for i, n := range images {
		if n.err != nil {
			continue
		}
		if by[i] = s.pinning(ctx, &req, n); len(by[i]) > 0 {
			wait.Go(func() { pins[i] = s.pin(ctx, n, by[i]) })
		}
	}
	wait.Wait()
	digests, used := map[string]string{}, map[*Policy]bool{}
	for i, n := range images {
		if n.digest == "" && pins[i] != "" {
			digests[n.text] = pins[i]
			for _, p := range by[i] {
				used[p] = true
			}
		}
	}
	object, err := pinned(&req, digests)
	return object, s.changes(used), err
}

// changes names the policies that changed an object, in their order.
func (s *Set) changes(used map[*Policy]bool) (out []policy.Change) {
	for _, p := range s.policies {
		if used[p] {
			out = append(out, policy.Change{Policy: p.name})
		}
	}
	return out
}

// pinning returns the policies that pin an image and let it be looked at.
func (s *Set) pinning(ctx context.Context, req *policy.Request, n *named) []*Policy {
	var out []*Policy
	for _, p := range s.policies {
		if !p.mutate || !p.matches(n) || !p.allows(n) {
			continue
		}
		if applies, err := p.selects(ctx, req); err == nil && applies {
			out = append(out, p)
		}
	}
	return out
}

// pin returns the digest of an image, and begins to verify it: the answer is
// asked for soon.
func (s *Set) pin(ctx context.Context, n *named, policies []*Policy) string {
	digest := n.digest
	if digest == "" {
		digest, _ = s.verifier.resolve(ctx, n.repo.Tag(n.tag))
	}
	for _, p := range policies {
		if digest != "" && p.verifies() {
			s.verifier.begin(p, n.at(digest))
		}
	}
	return digest
}

// pinned returns a copy of the object with digests behind the images given.
func pinned(req *policy.Request, digests map[string]string) (*unstructured.Unstructured, error) {
	if len(digests) == 0 {
		return req.Object, nil
	}
	after := *req
	after.Object = req.Object.DeepCopy()
	usages, err := workloadOf(&after).changed(&after)
	for _, u := range usages {
		if digest := digests[u.image]; digest != "" {
			u.holder[u.key] = u.image + "@" + digest
		}
	}
	return after.Object, err
}

// matches reports whether a policy is for an image. One whose name cannot be read
// is for all: it might be any.
func (p *Policy) matches(n *named) bool {
	return n.err != nil || p.images.match(n.name) && !p.excluded.match(n.name)
}

func (p *Policy) allows(n *named) bool { return len(p.allowed) == 0 || p.allowed.match(n.name) }

// selects reports whether a policy is for an object. As in a policy of the API
// server, the labels before or after an update may be those looked for.
func (p *Policy) selects(ctx context.Context, req *policy.Request) (bool, error) {
	matches := p.objects.Matches(labels.Set(req.Object.GetLabels())) ||
		req.OldObject != nil && p.objects.Matches(labels.Set(req.OldObject.GetLabels()))
	if !matches || p.namespaces.Empty() {
		return matches, nil
	}
	if req.Namespaces == nil {
		return false, fmt.Errorf("look up namespace %q: no namespaces are known", req.Namespace)
	}
	namespace, err := req.Namespaces.Namespace(ctx, req.Namespace)
	if err == nil && namespace == nil {
		err = errors.New("not found")
	}
	if err != nil {
		return false, fmt.Errorf("look up namespace %q: %w", req.Namespace, err)
	}
	return p.namespaces.Matches(labels.Set(namespace.Labels)), nil
}

// judge judges one image. Registries are asked only about images from allowed
// repositories.
func (p *Policy) judge(ctx context.Context, v *Verifier, n *named) outcome {
	switch {
	case n.err != nil:
		return outcome{problems: []string{n.err.Error()}}
	case !p.allows(n):
		return outcome{problems: []string{"it is not from an allowed repository"}}
	case n.digest != "" && p.verifies():
		return v.verify(ctx, p, n.at(n.digest))
	case n.digest != "":
		return outcome{}
	case p.requireDigest && !p.mutate:
		return outcome{problems: []string{"it has no digest: a tag may lead to another image tomorrow; write name:tag@sha256:…"}}
	case !p.verifies() && !p.requireDigest:
		return outcome{}
	}
	digest, o := v.resolve(ctx, n.repo.Tag(n.tag))
	switch {
	case o.failure != nil || len(o.problems) > 0:
		return o
	case p.requireDigest:
		return outcome{problems: []string{fmt.Sprintf("it has no digest, and was not given one when the object was changed; write %s@%s", n.text, digest)}}
	}
	return v.verify(ctx, p, n.at(digest))
}

// violations turns an outcome into violations.
func (p *Policy) violations(n *named, o outcome) []finding.Violation {
	var out []finding.Violation
	add := func(problem string, enforcements ...string) {
		for _, e := range enforcements {
			out = append(out, finding.Violation{
				Policy: p.name, Enforcement: e, Message: fmt.Sprintf("image %s (%s): %s", n.shown(), n.where(), problem),
				Details: map[string]string{"image": n.shown()},
			})
		}
	}
	for _, problem := range o.problems {
		add(problem, p.actions...)
	}
	if o.failure != nil {
		problem := "it could not be verified: " + oneLine(o.failure)
		switch p.failure {
		case "Warn":
			add(problem, "warn")
		case "Ignore":
			add(problem, "audit")
		default:
			add(problem, p.actions...)
		}
	}
	return out
}

// shown returns the image as it is written, shortened if it is too long to be one.
func (n *named) shown() string {
	if len(n.text) > maxReference {
		return n.text[:60] + "…"
	}
	return n.text
}

// where names the fields that hold the image.
func (n *named) where() string {
	text := n.places[0].path
	if more := len(n.places) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
