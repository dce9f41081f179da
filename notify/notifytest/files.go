package notifytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
)

func (l *Log) std() *log.Logger { return log.New(l, "", 0) }

// secretFile writes a secret into a file of its own.
func secretFile(t *testing.T, secret string) notify.SecretFile {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	restoreFile(t, notify.SecretFile(name), []byte(secret+"\n"))
	return notify.SecretFile(name)
}

func removeFile(t *testing.T, file notify.SecretFile) []byte {
	t.Helper()
	data, err := os.ReadFile(string(file))
	if err == nil {
		err = os.Remove(string(file))
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func restoreFile(t *testing.T, file notify.SecretFile, data []byte) {
	t.Helper()
	if err := os.WriteFile(string(file), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An Authority has one certificate for 127.0.0.1, which serves both sides, and
// files of it in PEM.
type Authority struct {
	Pool                      *x509.CertPool
	Pair                      tls.Certificate
	CAFile, CertFile, KeyFile string
}

// NewAuthority returns an authority of a test.
func NewAuthority(t *testing.T) Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	a := Authority{Pool: x509.NewCertPool(), CAFile: string(secretFile(t, string(certPEM))), KeyFile: string(secretFile(t, string(keyPEM)))}
	a.CertFile = a.CAFile
	if a.Pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	a.Pool.AppendCertsFromPEM(certPEM)
	return a
}
