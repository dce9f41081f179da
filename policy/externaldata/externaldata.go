// Package externaldata asks Gatekeeper's external data providers: servers that
// know something about keys, such as whether an image is signed.
//
// [Load] turns files with Provider objects into an immutable set. A [Client]
// asks the providers of a set: templates by external_data, mutators by
// externalData. It speaks Gatekeeper's protocol, ProviderRequest and
// ProviderResponse as JSON over TLS 1.3, to the address that the Provider names
// and to no other: there are no proxies, redirects are not followed, and the
// addresses of metadata services are refused whatever a name resolves to.
//
// # Bounds
//
// Equal questions are asked once at a time, and answers are kept for a while. A
// provider gets at most [MaxCalls] calls at a time, a call has the timeout of
// the Provider, and an answer at most 4 MiB. One that is late again and again is
// left alone for a while. Who asked waits no longer than its
// own context; the call then goes on, for whoever asks the same next.
//
// # Where it differs from Gatekeeper
//
// What is no ProviderResponse is an error; Gatekeeper reads any JSON object as
// one that has nothing to say. Errors of keys are kept for seconds only. Answers
// that are kept have the status 200 for Rego, where Gatekeeper gives 0. Mutators
// are answered from what is kept too. A Provider without a timeout has one of
// five seconds everywhere.
package externaldata

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy"
)

const (
	group        = "externaldata.gatekeeper.sh"
	providerKind = "Provider"
)

// How long a call may take when the Provider does not say, and at most: no API
// server waits longer for a webhook.
const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = 30 * time.Second
)

// Handles reports whether [Load] takes documents of a kind.
func Handles(kind schema.GroupVersionKind) bool {
	return kind.Group == group && kind.Kind == providerKind
}

// A Set is an immutable collection of providers.
type Set struct {
	providers []*provider // by name
}

// Names returns the names of the providers, in their order.
func (s *Set) Names() []string {
	var names []string
	for _, p := range s.providers {
		names = append(names, p.name)
	}
	return names
}

// A provider is one Provider, checked.
type provider struct {
	document *policy.Document
	name     string
	url      string
	timeout  time.Duration
	roots    *x509.CertPool
}

// A providerDocument is a Provider, in any of its versions.
type providerDocument struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Status     map[string]any    `json:"status"`
	Spec       struct {
		URL      string `json:"url"`
		Timeout  int    `json:"timeout"` // seconds
		CABundle string `json:"caBundle"`
	} `json:"spec"`
}

// Load reads and checks files with Providers. The error holds one line for each
// mistake found, with file and line, at most 100 of them. Documents of other
// kinds are mistakes: see [Handles].
func Load(files ...policy.File) (*Set, error) {
	var mistakes policy.Mistakes
	first := map[string]*provider{}
	out := &Set{}
	for _, f := range files {
		docs, err := policy.Documents(f)
		mistakes.Add(err)
		for _, d := range docs {
			p, err := newProvider(d)
			mistakes.Add(err)
			switch {
			case err != nil:
			case first[p.name] != nil:
				mistakes.Add(d.At("metadata.name", "provider %q is already defined at %s", p.name, first[p.name].document.Place("metadata.name")))
			default:
				first[p.name] = p
				out.providers = append(out.providers, p)
			}
		}
	}
	if err := mistakes.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(out.providers, func(a, b *provider) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// newProvider reads a Provider.
func newProvider(d *policy.Document) (*provider, error) {
	kind := schema.FromAPIVersionAndKind(d.Text("apiVersion"), d.Text("kind"))
	if !Handles(kind) {
		return nil, d.At("kind", "kind %q of %q is not supported: want %s", kind.Kind, kind.GroupVersion(), providerKind)
	}
	if versions := []string{"v1beta1", "v1alpha1"}; !slices.Contains(versions, kind.Version) {
		return nil, d.At("apiVersion", "apiVersion: version %q of %s is not supported: want one of %q", kind.Version, providerKind, versions)
	}
	var doc providerDocument
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	p := &provider{document: d, name: doc.Metadata.Name, url: doc.Spec.URL}
	var mistakes policy.Mistakes
	if p.name == "" {
		mistakes.Add(d.At("metadata.name", "metadata.name: a value is required"))
	}
	if err := checkURL(doc.Spec.URL); err != nil {
		mistakes.Add(d.At("spec.url", "spec.url: %v", err))
	}
	var err error
	if p.roots, err = roots(doc.Spec.CABundle); err != nil {
		mistakes.Add(d.At("spec.caBundle", "spec.caBundle: %v", err))
	}
	switch seconds := doc.Spec.Timeout; {
	case seconds < 0:
		mistakes.Add(d.At("spec.timeout", "spec.timeout: want seconds, have %d", seconds))
	case seconds == 0:
		p.timeout = defaultTimeout
	default:
		p.timeout = time.Duration(min(seconds, int(maxTimeout/time.Second))) * time.Second
	}
	return p, mistakes.Err()
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q: want https://host:port/path", text)
	case u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q: only https is allowed: want https://host:port/path", text)
	case u.User != nil || u.Fragment != "":
		return errors.New("want https://host:port/path without user and fragment: a provider knows us by our certificate")
	}
	return nil
}

// roots reads the authorities of a provider: PEM in base64, as the field has it.
func roots(bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return nil, errors.New("a value is required: who issues the certificate of the provider")
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(bundle))
	if err != nil {
		return nil, fmt.Errorf("want PEM in base64: %w", err)
	}
	pool, found := x509.NewCertPool(), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("want certificates only, have %q", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", found+1, err)
		}
		pool.AddCert(certificate)
		found++
	}
	if found == 0 {
		return nil, errors.New("want PEM in base64: there is no certificate in it")
	}
	return pool, nil
}
