// Package registry reaches OCI registries for all that reads from them or writes
// to them: by HTTPS only but on this machine, with the credentials and the
// authorities that are given for each, and never at an address where no registry
// is.
package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Options are what is known of registries. The zero value is ready for use.
type Options struct {
	// CredentialsFile is a configuration file of Docker, see [ParseCredentials]:
	// a pull secret that is mounted. Without it nobody asks.
	CredentialsFile string
	// Authorities are for registries whose certificates the system does not know.
	Authorities []Authority
	// AllowLoopback lets any registry be on this machine. One that has an
	// authority may be there anyway.
	AllowLoopback bool
}

// An Authority vouches for one registry, in place of those of the system.
type Authority struct {
	Host   string // with the port, unless it is 443
	CAFile string // PEM
}

// An Access reaches registries. It is a transport and a keychain: the files that
// it was given are read again when they change. It is safe for concurrent use.
type Access struct {
	credentials *watched[*Credentials] // nil: none
	transport   http.RoundTripper      // for registries without an authority
	byHost      map[string]*watched[*http.Transport]
}

// New reads the files that the options name.
func New(o Options) (*Access, error) {
	a := &Access{transport: NewTransport(nil, o.AllowLoopback), byHost: map[string]*watched[*http.Transport]{}}
	var errs []error
	if o.CredentialsFile != "" {
		a.credentials = watch(o.CredentialsFile, ParseCredentials)
		_, err := a.credentials.get()
		errs = append(errs, err)
	}
	for _, authority := range o.Authorities {
		host := CanonicalHost(authority.Host)
		if a.byHost[host] != nil {
			errs = append(errs, fmt.Errorf("registry %s has two authorities", host))
		}
		a.byHost[host] = watch(authority.CAFile, trusting)
		_, err := a.byHost[host].get()
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return a, nil
}

// trusting returns a transport to a registry that the authorities of a file
// vouch for.
func trusting(name string, data []byte) (*http.Transport, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: no certificate in PEM", name)
	}
	return NewTransport(roots, true), nil
}

// RoundTrip implements [http.RoundTripper].
func (a *Access) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := CheckURL(req.URL); err != nil {
		return nil, err
	}
	known := a.byHost[CanonicalHost(req.URL.Host)]
	if known == nil {
		return a.transport.RoundTrip(req)
	}
	transport, err := known.get()
	if err != nil {
		return nil, err
	}
	return transport.RoundTrip(req)
}

// Resolve implements [authn.Keychain].
func (a *Access) Resolve(target authn.Resource) (authn.Authenticator, error) {
	if a.credentials == nil {
		return authn.Anonymous, nil
	}
	known, err := a.credentials.get()
	if err != nil {
		return nil, err
	}
	return known.Resolve(target)
}

// maxFileBytes bounds a file with credentials or authorities.
const maxFileBytes = 3 << 20

// A watched file is parsed again after it has changed. A mounted Secret changes
// by a link that points elsewhere, which the time and the size of what is behind
// it show.
type watched[T any] struct {
	name  string
	parse func(name string, data []byte) (T, error)

	mu    sync.Mutex
	at    time.Time
	size  int64
	value T
	err   error
}

func watch[T any](name string, parse func(string, []byte) (T, error)) *watched[T] {
	return &watched[T]{name: name, parse: parse, size: -1}
}

// get returns what the file says now. An error is kept until the file changes: to
// go on with what it said before would trust what was taken back.
func (w *watched[T]) get() (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	info, err := os.Stat(w.name)
	if err != nil {
		return *new(T), err
	}
	if info.ModTime().Equal(w.at) && info.Size() == w.size {
		return w.value, w.err
	}
	w.at, w.size = info.ModTime(), info.Size()
	if w.size > maxFileBytes {
		w.value, w.err = *new(T), fmt.Errorf("%s: file has %d bytes, more than the limit of %d", w.name, w.size, maxFileBytes)
		return w.value, w.err
	}
	data, err := os.ReadFile(w.name)
	if err != nil {
		w.size = -1
		return *new(T), err
	}
	w.value, w.err = w.parse(w.name, data)
	return w.value, w.err
}

// dialer connects to registries only: a reference may be written by whoever may
// make a pod, and must not lead to the metadata service of a cloud or, unless
// allowed, to what listens on this machine.
func dialer(loopback bool) *net.Dialer {
	return &net.Dialer{
		Timeout: 5 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("read address %s: %w", address, err)
			}
			ip := to.Addr().Unmap()
			if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip.IsLoopback() && !loopback {
				return &ForbiddenError{ip}
			}
			return nil
		},
	}
}

// A ForbiddenError is an address to which no registry may lead.
type ForbiddenError struct{ IP netip.Addr }

// Error says which address it is.
func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("address %s is not that of a registry", e.IP)
}

// NewTransport returns the usual transport to registries, which refuses addresses
// that are those of no registry. Without roots the authorities of the system
// vouch for them.
func NewTransport(roots *x509.CertPool, loopback bool) *http.Transport {
	return &http.Transport{
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer(loopback).DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    5 * time.Second,
	}
}

// errPlain keeps passwords and answers from those who listen: the library would
// try HTTP for private addresses, and follow where it is sent.
var errPlain = errors.New("registries are asked by HTTPS only")

// CheckURL refuses what is not asked by HTTPS, but on this machine.
func CheckURL(u *url.URL) error {
	if u.Scheme != "https" && !onThisMachine(u.Hostname()) {
		return errPlain
	}
	return nil
}

func onThisMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// CanonicalHost returns the one name by which a registry is known: host names are
// not case-sensitive, 443 is the port without being said, and Docker Hub has three
// names.
func CanonicalHost(host string) string {
	host = strings.ToLower(host)
	if bare := strings.TrimSuffix(host, ":443"); strings.Contains(bare, ".") { // else the port shows that it is a host
		host = bare
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}
