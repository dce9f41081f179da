package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// An Authority issues identities on one machine. In a cluster, whatever issues
// certificates there takes its place.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority that lives for a day, in memory only.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := newTemplate("internship-matcher authority", 24*time.Hour)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: TrustDomain}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &Authority{certificate, key}, err
}

func newTemplate(name string, lifetime time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails, says crypto/rand
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(lifetime),
	}
}

// Issue writes a new identity of a service into a folder, which it makes if
// need be. Host names and addresses are for those who ask for them rather than
// for a SPIFFE id, as clients of PostgreSQL do.
func (a *Authority) Issue(dir, service string, lifetime time.Duration, hosts ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := newTemplate(service, lifetime)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{ID(service).URL()}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("issue identity: %w", err)
	}
	for _, file := range []struct {
		name string
		mode os.FileMode
		pem  pem.Block
	}{
		{KeyFile, 0o600, pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}},
		{CertificateFile, 0o644, pem.Block{Type: "CERTIFICATE", Bytes: der}},
		{AuthorityFile, 0o644, pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}},
	} {
		if err := os.WriteFile(filepath.Join(dir, file.name), pem.EncodeToMemory(&file.pem), file.mode); err != nil {
			return fmt.Errorf("issue identity: %w", err)
		}
	}
	return nil
}
