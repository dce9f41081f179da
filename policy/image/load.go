package image

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"

	"github.com/kubeguardian/kubeguardian/policy"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// Bounds of a load.
const (
	maxFileBytes = 3 << 20
	maxPolicies  = 1000 // of one file
)

// Load parses and checks policy files into a set that uses a [Verifier] with
// the usual options: see [Verifier.Load].
func Load(files ...policy.File) (*Set, error) { return New(Options{}).Load(files...) }

// Load parses and checks policy files into a set. Beside the policies, the files
// may be public keys and certificates of sigstore (trusted_root.json), which
// policies name by the last part of the file's name. Nothing is read from disk
// or network. The error holds one line for each mistake found, with file and
// line, at most 100 of them.
func (v *Verifier) Load(files ...policy.File) (*Set, error) {
	l := loader{beside: map[string][]byte{}, defined: map[string]string{}}
	var texts []policy.File
	for _, f := range files {
		switch {
		case len(f.Data) > maxFileBytes:
			l.mistakes.Add(policy.Coded(policy.CodeTooLarge, fmt.Errorf("%s: file has %d bytes, more than the limit of %d", f.Name, len(f.Data), maxFileBytes)))
		case isMaterial(f.Data):
			l.keep(f)
		default:
			texts = append(texts, f)
		}
	}
	for _, f := range texts {
		items, err := yamldoc.All[document](f.Name, f.Data, maxPolicies)
		l.mistakes.Add(err)
		for _, item := range items {
			l.add(&checker{document: item.Value, file: f.Name, root: item.Root})
		}
	}
	if err := l.mistakes.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(l.policies, func(a, b *Policy) int { return cmp.Compare(a.name, b.name) })
	return &Set{verifier: v, policies: l.policies}, nil
}

// IsMaterial reports whether a file is what policies name beside themselves: a
// public key, a certificate or a trusted root.
func IsMaterial(f policy.File) bool { return isMaterial(f.Data) }

// A loader collects the policies of a load and what is wrong with them.
type loader struct {
	beside   map[string][]byte // keys and trusted roots, by file name
	defined  map[string]string // where each policy is
	policies []*Policy
	mistakes policy.Mistakes
}

// isMaterial reports whether a file is a key or a trusted root.
func isMaterial(data []byte) bool {
	data = bytes.TrimSpace(data)
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return true
	}
	var head struct {
		MediaType string `json:"mediaType"`
	}
	return bytes.HasPrefix(data, []byte("{")) && json.Unmarshal(data, &head) == nil && head.MediaType != ""
}

func (l *loader) keep(f policy.File) {
	base := path.Base(f.Name)
	if before, ok := l.beside[base]; ok && !bytes.Equal(before, f.Data) {
		l.mistakes.Add(fmt.Errorf("%s: another file is called %s, and policies could mean either", f.Name, base))
	}
	l.beside[base] = f.Data
}

func (l *loader) add(c *checker) {
	p := l.compile(c)
	at := fmt.Sprintf("%s:%d", c.file, yamldoc.Line(c.root, "metadata.name"))
	if first, ok := l.defined[p.name]; ok {
		c.bad("metadata.name", "policy %q is already defined at %s", p.name, first)
		last := len(c.errs) - 1
		c.errs[last] = policy.Coded(policy.CodeDefined, c.errs[last])
	}
	l.defined[p.name] = at
	l.mistakes.Add(c.err())
	l.policies = append(l.policies, p)
}

// compile turns a document into a policy.
func (l *loader) compile(c *checker) *Policy {
	s := &c.Spec
	p := &Policy{
		name:       c.head(),
		actions:    c.actions(),
		mutate:     s.MutateDigest == nil || *s.MutateDigest,
		namespaces: c.selector("spec.match.namespaceSelector", s.Match.NamespaceSelector),
		objects:    c.selector("spec.match.objectSelector", s.Match.ObjectSelector),
		images:     c.patterns("spec.match.images", s.Match.Images),
		excluded:   c.patterns("spec.match.excludeImages", s.Match.ExcludeImages),
		allowed:    c.patterns("spec.rules.allowedImages", s.Rules.AllowedImages),
	}
	p.requireDigest = p.mutate
	if s.Rules.RequireDigest != nil {
		p.requireDigest = *s.Rules.RequireDigest
	}
	if p.mutate && !p.requireDigest {
		c.bad("spec.rules.requireDigest", "an image without digest cannot be allowed where mutateDigest sets it")
	}
	p.failure = cmp.Or(s.FailurePolicy, "Fail")
	c.oneOf("spec.failurePolicy", p.failure, "Fail", "Warn", "Ignore")
	if len(s.Match.Images) == 0 {
		c.bad("spec.match.images", "at least one pattern is required: ** stands for every image")
	}
	l.attestors(c, p)
	l.attestations(c, p)
	p.required(c)
	if !p.requireDigest && len(p.allowed) == 0 && p.signatures == 0 && len(p.attestations) == 0 {
		c.bad("spec.rules", "the policy demands nothing")
	}
	p.id = l.identity(c)
	return p
}

// required sets how many attestors must have signed.
func (p *Policy) required(c *checker) {
	const path = "spec.rules.requiredSignatures"
	p.signatures = min(1, len(p.attestors))
	if n := c.Spec.Rules.RequiredSignatures; n != nil {
		if *n < 0 || *n > len(p.attestors) {
			c.bad(path, "%d is not possible: there are %d attestors", *n, len(p.attestors))
		}
		p.signatures = *n
	}
	if p.signatures == 0 && len(p.attestors) > 0 && len(p.attestations) == 0 {
		c.bad(path, "nothing has to be signed by the attestors")
	}
}

// identity returns what tells the results of this policy from those of others:
// a hash of all that it says.
func (l *loader) identity(c *checker) string {
	hash := sha256.New()
	if text, err := json.Marshal(c.Spec); err != nil {
		c.bad("spec", "%v", err)
	} else {
		hash.Write(text)
	}
	for _, a := range c.Spec.Attestors {
		for _, from := range []*content{a.Key, a.root()} {
			if from != nil {
				hash.Write(l.beside[from.File])
			}
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}
