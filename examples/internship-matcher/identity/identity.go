// Package identity says who a service is, and who calls it: both ends of every
// connection between services show a certificate with a SPIFFE id, and each
// service accepts the callers and methods that it needs.
package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// TrustDomain is the domain of all services of the application.
const TrustDomain = "internship-matcher"

// The files of an identity in its folder, as in a Secret of type
// kubernetes.io/tls.
const (
	CertificateFile = "tls.crt" // leaf first
	KeyFile         = "tls.key"
	AuthorityFile   = "ca.crt" // whom to trust; several while an authority is replaced
)

// ID returns the id of a service: spiffe://internship-matcher/NAME.
func ID(service string) spiffeid.ID {
	return spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString(TrustDomain), "/"+service)
}

// recheck is how long files are taken to be what they were.
const recheck = time.Second

// An Identity is a certificate, its key and the authorities to trust, read
// from a folder. New files count from the next handshake on; while they cannot
// be read, or do not belong together, the old ones stay.
type Identity struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   string // of the files that were read
	failed  string // what was logged last
	svid    *x509svid.SVID
	bundle  *x509bundle.Bundle
}

// Open reads an identity.
func Open(dir string, log *slog.Logger) (*Identity, error) {
	i := &Identity{dir: dir, log: log}
	var err error
	if i.stamp, err = i.now(); err != nil {
		return nil, err
	}
	if err := i.read(); err != nil {
		return nil, err
	}
	i.checked = time.Now()
	return i, nil
}

// now returns what tells the files apart from earlier ones.
func (i *Identity) now() (string, error) {
	var stamp string
	for _, name := range []string{CertificateFile, KeyFile, AuthorityFile} {
		info, err := os.Stat(filepath.Join(i.dir, name))
		if err != nil {
			return "", fmt.Errorf("identity: %w", err)
		}
		stamp += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
	}
	return stamp, nil
}

func (i *Identity) read() error {
	svid, err := x509svid.Load(filepath.Join(i.dir, CertificateFile), filepath.Join(i.dir, KeyFile))
	if err != nil {
		return fmt.Errorf("identity: read %s: %w", i.dir, err)
	}
	bundle, err := x509bundle.Load(svid.ID.TrustDomain(), filepath.Join(i.dir, AuthorityFile))
	if err != nil {
		return fmt.Errorf("identity: read %s: %w", i.dir, err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return fmt.Errorf("identity: %s is not of the authorities in %s: %w", CertificateFile, AuthorityFile, err)
	}
	i.svid, i.bundle = svid, bundle
	return nil
}

// refresh reads the files again if they changed.
func (i *Identity) refresh() {
	if time.Since(i.checked) < recheck {
		return
	}
	i.checked = time.Now()
	stamp, err := i.now()
	if err == nil && stamp == i.stamp {
		return
	}
	if err == nil {
		err = i.read()
	}
	switch {
	case err == nil:
		i.stamp, i.failed = stamp, ""
		i.log.Info("identity read again", "id", i.svid.ID.String(), "expires", i.svid.Certificates[0].NotAfter)
	case err.Error() != i.failed:
		i.failed = err.Error()
		i.log.Error("the old identity stays in use", "error", err)
	}
}

// GetX509SVID returns the certificate and key of now.
func (i *Identity) GetX509SVID() (*x509svid.SVID, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refresh()
	return i.svid, nil
}

// GetX509BundleForTrustDomain returns the authorities of now. Only those of
// the own trust domain are known.
func (i *Identity) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refresh()
	return i.bundle.GetX509BundleForTrustDomain(domain)
}

// Server returns credentials that ask every client for a certificate of the
// trust domain.
func (i *Identity) Server() credentials.TransportCredentials {
	return newCredentials(tlsconfig.MTLSServerConfig(i, i, tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString(TrustDomain))))
}

// Client returns credentials for calls to one service, and to no other.
func (i *Identity) Client(service string) credentials.TransportCredentials {
	return newCredentials(tlsconfig.MTLSClientConfig(i, i, tlsconfig.AuthorizeID(ID(service))))
}

// ServerTLS returns a configuration for connections from some services, and
// from no others.
func (i *Identity) ServerTLS(services ...string) *tls.Config {
	var ids []spiffeid.ID
	for _, service := range services {
		ids = append(ids, ID(service))
	}
	config := tlsconfig.MTLSServerConfig(i, i, tlsconfig.AuthorizeOneOf(ids...))
	config.MinVersion = tls.VersionTLS13
	return config
}

// ClientTLS returns a configuration for connections to one service at a host,
// which its certificate must name, and to nobody else.
func (i *Identity) ClientTLS(service, host string) *tls.Config {
	config := tlsconfig.MTLSClientConfig(i, i, tlsconfig.AuthorizeID(ID(service)))
	config.MinVersion = tls.VersionTLS13
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return state.PeerCertificates[0].VerifyHostname(host) // there is one, or it would have failed before
	}
	return config
}

func newCredentials(config *tls.Config) credentials.TransportCredentials {
	config.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(config)
}

// Allow lets each method be called by some services: full method names to
// names of services. A call that nobody allowed is PERMISSION_DENIED, and
// logged.
func Allow(callers map[string][]string, log *slog.Logger) grpc.UnaryServerInterceptor {
	allowed := map[string]map[spiffeid.ID]bool{}
	for method, services := range callers {
		allowed[method] = map[spiffeid.ID]bool{}
		for _, service := range services {
			allowed[method][ID(service)] = true
		}
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		id := caller(ctx)
		if !allowed[info.FullMethod][id] {
			log.WarnContext(ctx, "call denied", "caller", id.String(), "method", info.FullMethod)
			return nil, status.Errorf(codes.PermissionDenied, "%s may not call %s", id, info.FullMethod)
		}
		return handler(ctx, req)
	}
}

// caller returns the id in the certificate of a connection, the zero ID, which
// nobody allows, if there is none.
func caller(ctx context.Context) spiffeid.ID {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return spiffeid.ID{}
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || info.SPIFFEID == nil {
		return spiffeid.ID{}
	}
	id, _ := spiffeid.FromURI(info.SPIFFEID) // the handshake refused others
	return id
}
