package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// How long certificates live. A serving certificate is replaced when a third of
// its life is left; it exists in memory only.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	servingLife   = 30 * 24 * time.Hour
	clockSkew     = time.Hour // before now, for clocks that are behind
)

// An Authority is the certificate authority of the webhooks. It issues the
// certificate under which they are served, and the client certificate by which
// the API server is known to them. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time
}

// OpenAuthority returns the authority whose certificate and key are kept in
// dir, in one file that only its owner may read. On first use both are made;
// of several processes that do so at the same time one wins and the others use
// its authority.
func OpenAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of the certificate authority: %w", err)
	}
	file := filepath.Join(dir, "ca.pem")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := createAuthority(file); err != nil {
			return nil, fmt.Errorf("create certificate authority %s: %w", file, err)
		}
	}
	a, err := loadAuthority(file)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority %s: %w", file, err)
	}
	return a, nil
}

// createAuthority writes a new authority, unless there is one by then.
func createAuthority(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	der, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "KubeGuardian webhook authority"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}, nil, key, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writeOnce(file, append(encode("CERTIFICATE", der), encode("EC PRIVATE KEY", keyDER)...))
}

// writeOnce writes a file that appears complete or not at all, and leaves one
// that exists as it is.
func writeOnce(file string, data []byte) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(file), ".ca-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(temp.Name())) }()
	_, err = temp.Write(data)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), file); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func loadAuthority(file string) (*Authority, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others may read the key: mode is %04o, want 0600", mode)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(data, data) // checks that they belong together
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("not a certificate authority with an ECDSA key")
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("expired on %s; remove the file to make a new one, and give its kubeconfig to the API server", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &Authority{cert: pair.Leaf, key: key, now: time.Now}, nil
}

// NotAfter returns when the authority expires. Then a new one has to be made,
// and the API server needs its kubeconfig.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// CABundle returns the certificate of the authority in PEM, for clients of the
// webhooks.
func (a *Authority) CABundle() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// issue signs a certificate for a new key. NotAfter is shortened so that it does
// not outlive the authority.
func (a *Authority) issue(template *x509.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.NotBefore = a.now().Add(-clockSkew)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := sign(template, a.cert, key, a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
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
// replaced well before it expires. A client certificate is optional, and
// verified if there is one: see [Authority.RequireClient].
func (a *Authority) ServerTLS(hosts ...string) *tls.Config {
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	s := serving{authority: a, hosts: hosts}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      clients,
		GetCertificate: s.certificate,
	}
}

// serving holds the current serving certificate.
type serving struct {
	authority *Authority
	hosts     []string

	mu      sync.Mutex
	current *tls.Certificate
}

func (s *serving) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.now()
	if s.current != nil && now.Before(s.current.Leaf.NotAfter.Add(-servingLife/3)) {
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
	s.current = cert
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
		NotAfter:    a.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("issue client certificate: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encode client key: %w", err)
	}
	const name, everyone = "kubeguardian", "*"
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {Server: serverURL, CertificateAuthorityData: a.CABundle()}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{everyone: {
			ClientCertificateData: encode("CERTIFICATE", cert.Certificate[0]),
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
// authority, over a connection that [Authority.ServerTLS] configured.
func (a *Authority) Verified(r *http.Request) bool {
	if r.TLS == nil {
		return false
	}
	for _, chain := range r.TLS.VerifiedChains {
		if chain[len(chain)-1].Equal(a.cert) {
			return true
		}
	}
	return false
}

// RequireClient refuses requests that are not [Authority.Verified] with HTTP
// 401.
func (a *Authority) RequireClient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.Verified(r) {
			http.Error(w, "a client certificate of the KubeGuardian webhook authority is required", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
