// Package post sends messages to destinations by HTTP: within a time, to allowed
// addresses only, without following redirects, and with one table that says
// which answers are worth another attempt.
//
// No error of it holds a secret: neither the URL beyond its host, nor a header,
// nor anything of an answer but its status.
package post

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
)

// A Config is how a destination is reached. The zero value is of use.
type Config struct {
	// Timeout is for one request with its answer; 0 means 10s, at most 5m.
	Timeout time.Duration `yaml:"timeout"`
	// CAFile has authorities in PEM that vouch for the receiver, in place of those
	// of the system.
	CAFile string `yaml:"caFile"`
	// CertFile and KeyFile are PEM files with the certificate that the receiver
	// knows us by; both or neither.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// InsecureSkipVerify takes any certificate of the receiver.
	InsecureSkipVerify bool `yaml:"insecureSkipVerify"`
	// Headers are added to each request.
	Headers map[string]string `yaml:"headers"`
	// HeaderFiles are headers whose values are secrets, in files.
	HeaderFiles map[string]notify.SecretFile `yaml:"headerFiles"`
	// AllowAddresses are addresses and networks, of this machine or private, that
	// may be connected to, such as that of a cluster's services: see [Guard].
	AllowAddresses []string `yaml:"allowAddresses"`
	// Proxy is the URL of a proxy to connect through, which then decides which
	// addresses a name leads to. Without one there is none, whatever the
	// environment says.
	Proxy string `yaml:"proxy"`
}

// A Client sends requests to one receiver. It may be used concurrently.
type Client struct {
	name    string
	http    *http.Client
	guard   Guard
	timeout time.Duration
	headers map[string]string
	files   map[string]notify.SecretFile
	agent   string
}

// Bounds of a request's time.
const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 5 * time.Minute
)

// New returns a client. It reads CAFile and the certificate; errors name what of
// the configuration is wrong.
func New(c Config, o notify.Options) (*Client, error) {
	guard, err := NewGuard(c.AllowAddresses)
	if err != nil {
		return nil, err
	}
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		return nil, fmt.Errorf("timeout %s: want 0s to %s", c.Timeout, maxTimeout)
	}
	encryption, err := TLS(c)
	if err != nil {
		return nil, err
	}
	if err := checkHeaders(c); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: encryption, DialContext: guard.DialContext, ForceAttemptHTTP2: true,
		MaxIdleConns: 4, MaxConnsPerHost: 8, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if c.Proxy != "" {
		proxy, err := url.Parse(c.Proxy)
		if err != nil || proxy.Host == "" {
			return nil, errors.New("proxy: want a URL such as http://proxy:3128")
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Client{
		name: o.Name, guard: guard, timeout: timeout, headers: c.Headers, files: c.HeaderFiles, agent: "KubeGuardian/" + o.Version,
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// TLS returns how the configuration encrypts, for destinations that do so
// without HTTP.
func TLS(c Config) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities: %s: no certificate in PEM", c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("certFile and keyFile: give both or neither")
	}
	if c.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile) // it may have been renewed
			return &pair, err
		}
	}
	return out, nil
}

func checkHeaders(c Config) error {
	for name, value := range c.Headers {
		if !isToken(name) || strings.ContainsAny(value, "\r\n\x00") {
			return fmt.Errorf("header %q: not a name and value that HTTP knows", name)
		}
	}
	for name := range c.HeaderFiles {
		if !isToken(name) {
			return fmt.Errorf("header %q: not a name that HTTP knows", name)
		}
	}
	return nil
}

func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(tokenBytes, r) })
}

// tokenBytes are those of the names of headers.
const tokenBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// A Request is what to send. Method is POST if it is empty.
type Request struct {
	Method string
	URL    string
	Type   string // Content-Type of the body
	Header http.Header
	Body   []byte
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// ErrAnswerTooLarge is an answer of more than 1 MiB.
var ErrAnswerTooLarge = errors.New("the answer has more than 1 MiB")

// Send sends a request and returns the body of an answer that accepts it, which
// is at most 1 MiB. Other answers are errors as [StatusError] says; what could
// not be sent, or was not answered in time, may be tried again, but not where the
// address is forbidden or the URL is none. What the error says is for people, and
// has no secret.
func (c *Client) Send(ctx context.Context, r Request) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: send to %s: %w", c.name, req.URL.Host, plain(err))
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if fault := StatusError(resp); fault != nil { // says more than that the body was broken
		return nil, fmt.Errorf("%s: send to %s: %w", c.name, req.URL.Host, fault)
	}
	if err == nil && len(answer) > maxAnswer {
		err = ErrAnswerTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read answer of %s: %w", c.name, req.URL.Host, plain(err))
	}
	return answer, nil
}

func (c *Client) request(ctx context.Context, r Request) (*http.Request, error) {
	method := r.Method
	if method == "" {
		method = http.MethodPost
	}
	to, err := url.Parse(r.URL)
	if err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, notify.Permanent(errors.New("the URL is not one of http or https")) // and may be a secret
	}
	if ip, err := netip.ParseAddr(to.Hostname()); err == nil { // a proxy would not ask the guard
		if err := c.guard.Check(ip); err != nil {
			return nil, notify.Permanent(err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, notify.Permanent(errors.New("make request: the method or URL is not valid"))
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	req.Header.Set("User-Agent", c.agent)
	if r.Type != "" {
		req.Header.Set("Content-Type", r.Type)
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	for name, file := range c.files {
		value, err := file.Read()
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		req.Header.Set(name, string(value))
	}
	return req, nil
}

// Close ends connections that are not in use.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// plain returns the cause of a failed request without its URL, which may be a
// secret, and without anything that the other side has written.
func plain(err error) error {
	var forbidden *ForbiddenError
	var certificate *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &forbidden):
		return notify.Permanent(forbidden)
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &certificate):
		return fmt.Errorf("its certificate is not accepted: %w", certificate.Err)
	case errors.As(err, &header):
		return errors.New("it does not speak TLS")
	case errors.Is(err, ErrAnswerTooLarge):
		return ErrAnswerTooLarge
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &op):
		return op
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed before the answer")
	}
	return errors.New("no valid answer")
}
