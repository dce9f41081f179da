package admission

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// How long certificates live. Both are replaced when a third of their life is
// left; a serving certificate exists in memory only.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	servingLife   = 30 * 24 * time.Hour
	clockSkew     = time.Hour // before now, for clocks that are behind
)

// maxGenerations bounds the authorities that are trusted at a time.
const maxGenerations = 8

// An Authority is the certificate authority of the webhooks. It issues the
// certificate under which they are served, and the client certificate by which
// the API server is known to them. It is safe for concurrent use, and several
// processes may have the same.
//
// # How it is replaced without a gap
//
// An authority has generations. The newest issues certificates, and all are
// trusted until they expire: [Authority.CABundle] has them all. Each generation
// is also signed by the one before, and that certificate is sent along when a
// connection is made. So a client that knows only an older generation, because
// it was not told yet or cannot be told while it runs, trusts what a newer one
// issued; and a process that has not heard of the newest generation serves what
// everybody trusts still. No step has to wait for another, or for a clock.
type Authority struct {
	keys Keys
	now  func() time.Time

	mu      sync.RWMutex
	ring    []generation // oldest first; never empty
	clients []trusted    // more authorities of client certificates
}

// A generation is one certificate authority.
type generation struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	cross []byte // the same subject and key, signed by the generation before; nil for the first
}

// A trusted authority issues certificates to the API server under these names.
type trusted struct {
	cert  *x509.Certificate
	names []string
}

// OpenAuthority returns the authority that is kept in keys. On first use it is
// made; of several processes that do so at the same time one wins and the others
// use its authority.
func OpenAuthority(ctx context.Context, keys Keys) (*Authority, error) {
	a := &Authority{keys: keys, now: time.Now}
	if err := a.Refresh(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Refresh takes over what other processes saved, and adds a generation when the
// newest has a third of its life left, or when there is none.
func (a *Authority) Refresh(ctx context.Context) error {
	return a.update(ctx, func(ring []generation) bool {
		return len(ring) == 0 || a.now().After(ring[len(ring)-1].cert.NotAfter.Add(-authorityLife/3))
	})
}

// Rotate adds a generation now.
func (a *Authority) Rotate(ctx context.Context) error {
	return a.update(ctx, func([]generation) bool { return true })
}

// update loads the generations, adds one if due says so, and takes them over.
func (a *Authority) update(ctx context.Context, due func([]generation) bool) error {
	for range maxTries {
		data, version, err := a.keys.load(ctx)
		if err != nil {
			return fmt.Errorf("load certificate authority %s: %w", a.keys, err)
		}
		var ring []generation
		if data != nil {
			if ring, err = parseRing(data); err != nil {
				return fmt.Errorf("load certificate authority %s: %w", a.keys, err)
			}
		}
		ring = slices.DeleteFunc(ring, func(g generation) bool { return a.now().After(g.cert.NotAfter) })
		if due(ring) {
			ring, err = a.extend(ctx, ring, version)
			if errors.Is(err, errStale) {
				continue
			}
			if err != nil {
				return fmt.Errorf("create certificate authority %s: %w", a.keys, err)
			}
		}
		a.mu.Lock()
		a.ring = ring
		a.mu.Unlock()
		return nil
	}
	return fmt.Errorf("create certificate authority %s: %w", a.keys, errStale)
}

// extend adds a generation and saves all.
func (a *Authority) extend(ctx context.Context, ring []generation, version string) ([]generation, error) {
	if len(ring) >= maxGenerations {
		return nil, fmt.Errorf("%d generations are valid still: remove all that no API server needs", len(ring))
	}
	next, err := newGeneration(a.now(), ring)
	if err != nil {
		return nil, err
	}
	ring = append(ring, next)
	text, err := formatRing(ring)
	if err != nil {
		return nil, err
	}
	return ring, a.keys.save(ctx, text, version)
}

// newGeneration makes a generation that follows those of ring.
func newGeneration(now time.Time, ring []generation) (g generation, err error) {
	if g.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return g, err
	}
	template := &x509.Certificate{
		// The time tells generations apart where only names are compared.
		Subject:               pkix.Name{CommonName: "KubeGuardian webhook authority " + now.UTC().Format("20060102-150405.000000")},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := sign(template, nil, g.key, g.key)
	if err != nil {
		return g, err
	}
	if g.cert, err = x509.ParseCertificate(der); err != nil || len(ring) == 0 {
		return g, err
	}
	before := ring[len(ring)-1]
	template.NotAfter = before.cert.NotAfter
	g.cross, err = sign(template, before.cert, g.key, before.key)
	return g, err
}

// formatRing writes generations as PEM: for each its certificate, its key and the
// certificate by the generation before.
func formatRing(ring []generation) ([]byte, error) {
	var out []byte
	for _, g := range ring {
		key, err := x509.MarshalECPrivateKey(g.key)
		if err != nil {
			return nil, err
		}
		out = append(out, encode("CERTIFICATE", g.cert.Raw)...)
		out = append(out, encode("EC PRIVATE KEY", key)...)
		if g.cross != nil {
			out = append(out, encode("CERTIFICATE", g.cross)...)
		}
	}
	return out, nil
}

// parseRing reads what formatRing wrote.
func parseRing(text []byte) ([]generation, error) {
	var ring []generation
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		cert, after := pem.Decode(rest)
		if cert == nil || cert.Type != "CERTIFICATE" {
			return nil, errors.New("want a certificate in PEM")
		}
		key, afterKey := pem.Decode(after)
		if key == nil || key.Type == "CERTIFICATE" {
			if err := crossed(ring, cert.Bytes); err != nil {
				return nil, err
			}
			rest = after
			continue
		}
		pair, err := tls.X509KeyPair(pem.EncodeToMemory(cert), pem.EncodeToMemory(key)) // checks that they belong together
		if err != nil {
			return nil, err
		}
		signer, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || !pair.Leaf.IsCA {
			return nil, errors.New("not a certificate authority with an ECDSA key")
		}
		ring = append(ring, generation{cert: pair.Leaf, key: signer})
		rest = afterKey
	}
	if len(ring) == 0 {
		return nil, errors.New("want a certificate and its private key in PEM")
	}
	return ring, nil
}

// crossed adds the certificate that the generation before gave to the last one.
func crossed(ring []generation, der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if len(ring) == 0 || !ring[len(ring)-1].key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("a certificate has no private key")
	}
	ring[len(ring)-1].cross = der
	return nil
}

// generations returns those that are valid, oldest first.
func (a *Authority) generations() []generation {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.ring
}

func (a *Authority) newest() generation {
	ring := a.generations()
	return ring[len(ring)-1]
}

// NotAfter returns when the oldest generation expires that is trusted. Before
// that, an API server that was given a kubeconfig by it needs a new one.
func (a *Authority) NotAfter() time.Time { return a.generations()[0].cert.NotAfter }

// CABundle returns the certificates of all generations in PEM, for clients of
// the webhooks.
func (a *Authority) CABundle() []byte {
	var out []byte
	for _, g := range a.generations() {
		out = append(out, encode("CERTIFICATE", g.cert.Raw)...)
	}
	return out
}

// TrustClients also accepts client certificates of the authorities in PEM, with
// one of these common names: the authority of a cluster has many clients, of
// which only the API server may call.
func (a *Authority) TrustClients(text []byte, names ...string) error {
	var more []trusted
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return errors.New("read authority of client certificates: want certificates in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("read authority of client certificates: %w", err)
		}
		more = append(more, trusted{cert, names})
	}
	if len(more) == 0 || len(names) == 0 {
		return errors.New("read authority of client certificates: want a certificate and the common names of clients")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clients = append(a.clients, more...)
	return nil
}

// issue signs a certificate for a new key by the newest generation. NotAfter is
// shortened so that it does not outlive it. The certificates by which older
// generations vouch for it follow.
func (a *Authority) issue(template *x509.Certificate) (*tls.Certificate, error) {
	ring := a.generations()
	by := ring[len(ring)-1]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.NotBefore = a.now().Add(-clockSkew)
	if template.NotAfter.After(by.cert.NotAfter) {
		template.NotAfter = by.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := sign(template, by.cert, key, by.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	chain := [][]byte{der}
	for _, g := range slices.Backward(ring) {
		if g.cross != nil {
			chain = append(chain, g.cross)
		}
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

// sign signs a certificate; without a parent it signs itself.
func sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	return x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// ServerTLS returns the TLS configuration of a webhook that is reached under
// the given host names or IP addresses: TLS 1.3, with a certificate that is
// chosen for each connection. A client certificate is optional, and verified if
// there is one: see [Authority.RequireClient]. Sessions are not resumed: whom to
// trust is decided for each connection.
func (a *Authority) ServerTLS(hosts ...string) *tls.Config {
	s := &serving{authority: a, hosts: hosts}
	base := tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.VerifyClientCertIfGiven,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate:         s.certificate,
	}
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := base.Clone()
		now.ClientCAs = a.clientRoots()
		return now, nil
	}
	return config
}

// clientRoots returns whose client certificates are accepted.
func (a *Authority) clientRoots() *x509.CertPool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	pool := x509.NewCertPool()
	for _, g := range a.ring {
		pool.AddCert(g.cert)
	}
	for _, c := range a.clients {
		pool.AddCert(c.cert)
	}
	return pool
}

// serving holds the current serving certificate.
type serving struct {
	authority *Authority
	hosts     []string

	mu      sync.Mutex
	current *tls.Certificate
	by      *x509.Certificate // the generation that issued it
}

func (s *serving) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, newest := s.authority.now(), s.authority.newest().cert
	if s.current != nil && s.by.Equal(newest) && now.Before(s.current.Leaf.NotAfter.Add(-servingLife/3)) {
		return s.current, nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kubeguardian"},
		NotAfter:    now.Add(servingLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range s.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	cert, err := s.authority.issue(template)
	if err != nil {
		return nil, fmt.Errorf("issue serving certificate: %w", err)
	}
	s.current, s.by = cert, newest
	return cert, nil
}

// Kubeconfig returns a kubeconfig file with which the API server calls the
// webhook at serverURL and proves who it is. It is made for both places that
// take one: --audit-webhook-config-file, which uses the server and the current
// context, and kubeConfigFile of the WebhookAdmissionConfiguration, where the
// user named "*" is used for all webhooks. The API server reads it only when it
// starts, so its certificate lives as long as the authority. It holds a private
// key: who has it may post reviews and audit events, and nothing else.
func (a *Authority) Kubeconfig(serverURL string) ([]byte, error) {
	cert, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		NotAfter:    a.newest().cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("issue client certificate: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encode client key: %w", err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, encode("CERTIFICATE", der)...)
	}
	const name, everyone = "kubeguardian", "*"
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {Server: serverURL, CertificateAuthorityData: a.CABundle()}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{everyone: {
			ClientCertificateData: chain,
			ClientKeyData:         encode("PRIVATE KEY", key),
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: everyone}},
		CurrentContext: name,
	})
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig: %w", err)
	}
	return data, nil
}

// Verified reports whether a request came with a client certificate of this
// authority or of one that [Authority.TrustClients] named, over a connection
// that [Authority.ServerTLS] configured.
func (a *Authority) Verified(r *http.Request) bool {
	if r.TLS == nil {
		return false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, chain := range r.TLS.VerifiedChains {
		root, name := chain[len(chain)-1], chain[0].Subject.CommonName
		if slices.ContainsFunc(a.ring, func(g generation) bool { return g.cert.Equal(root) }) ||
			slices.ContainsFunc(a.clients, func(c trusted) bool { return c.cert.Equal(root) && slices.Contains(c.names, name) }) {
			return true
		}
	}
	return false
}

// RequireClient refuses requests that are not [Authority.Verified] with HTTP
// 401, and calls refused for each, unless that is nil.
func (a *Authority) RequireClient(next http.Handler, refused func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.Verified(r) {
			if refused != nil {
				refused()
			}
			http.Error(w, "a client certificate of the KubeGuardian webhook authority, or of the configured one, is required", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
