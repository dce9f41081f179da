package externaldata

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// A certificate is the one that providers know us by, read from files that may
// be renewed at any time. It is safe for concurrent use.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate // nil: none
	of      [2]version       // of the files
}

// A version of a file differs when the file was written.
type version struct {
	changed time.Time
	size    int64
}

// newCertificate reads a certificate; without files there is none.
func newCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if certFile == "" && keyFile == "" {
		return c, nil
	}
	return c, c.read()
}

// read reads the files if they have changed.
func (c *certificate) read() error {
	var now [2]version
	for i, file := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("read client certificate for providers: %w", err)
		}
		now[i] = version{info.ModTime(), info.Size()}
	}
	if c.current != nil && now == c.of {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read client certificate for providers: %w", err)
	}
	c.current, c.of = &pair, now
	return nil
}

// get returns the certificate for a connection. While the files are being
// exchanged they may not fit together: then it is the one before.
func (c *certificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.certFile == "" {
		return &tls.Certificate{}, nil // TLS for: we have none
	}
	if err := c.read(); err != nil && c.current == nil {
		return nil, err
	}
	return c.current, nil
}
