// Package s3 writes messages as compressed lines of JSON into a bucket of S3, or
// of what speaks its protocol.
package s3

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where objects are written.
type Config struct {
	// URL is that of the service, without the bucket, such as
	// https://s3.eu-central-1.amazonaws.com.
	URL    string `yaml:"url"`
	Bucket string `yaml:"bucket"`
	Region string `yaml:"region"` // empty means us-east-1
	// Account is a part of the names of objects; empty means the cluster's name.
	Account string `yaml:"account"`
	// Prefix begins the names of objects; empty means kubeguardian.
	Prefix string `yaml:"prefix"`
	// Format is that of the lines; empty means falco.
	Format string `yaml:"format"`
	// AccessKeyFile and SecretKeyFile have the credentials, SessionTokenFile one of
	// their session, if they are temporary. They are read for each request.
	AccessKeyFile    notify.SecretFile `yaml:"accessKeyFile"`
	SecretKeyFile    notify.SecretFile `yaml:"secretKeyFile"`
	SessionTokenFile notify.SecretFile `yaml:"sessionTokenFile"`
	// TLS has the certificates, the timeout of a request, and the addresses that may
	// be connected to.
	TLS post.Config `yaml:"tls"`
}

type destination struct {
	Config
	lines   document.Writer
	o       notify.Options
	client  *minio.Client
	http    *http.Transport
	timeout time.Duration
}

var part = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._=/-]{0,200}$`)

// New returns the destination.
func New(c Config, o notify.Options) (notify.Destination, error) {
	d := &destination{Config: c, o: o, timeout: c.TLS.Timeout}
	if d.Region == "" {
		d.Region = "us-east-1"
	}
	if d.Account == "" {
		d.Account = o.Cluster
	}
	if d.Prefix == "" {
		d.Prefix = "kubeguardian"
	}
	if d.timeout == 0 {
		d.timeout = 30 * time.Second
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	var err error
	if d.lines, err = document.New(c.Format, o); err != nil {
		return nil, err
	}
	guard, err := post.NewGuard(c.TLS.AllowAddresses)
	if err != nil {
		return nil, err
	}
	encryption, err := post.TLS(c.TLS)
	if err != nil {
		return nil, err
	}
	d.http = &http.Transport{
		DialContext: guard.DialContext, TLSClientConfig: encryption, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns: 4, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	to, err := url.Parse(c.URL)
	if err != nil || to.Host == "" || strings.Trim(to.Path, "/") != "" {
		return nil, errors.New("url: want https://host, without a path")
	}
	d.client, err = minio.New(to.Host, &minio.Options{
		Creds: credentials.New(files{c}), Secure: to.Scheme == "https", Region: d.Region, MaxRetries: 1,
		Transport: judged{d.http, "KubeGuardian/" + o.Version},
	})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return d, nil
}

func (d *destination) check() error {
	if err := post.CheckURL(d.URL); err != nil {
		return err
	}
	if d.AccessKeyFile == "" || d.SecretKeyFile == "" {
		return errors.New("accessKeyFile and secretKeyFile: give both")
	}
	for _, p := range []struct{ key, value string }{{"bucket", d.Bucket}, {"region", d.Region}, {"account", d.Account}, {"prefix", d.Prefix}} {
		if !part.MatchString(p.value) || strings.Contains(p.value, "..") || p.key != "prefix" && strings.Contains(p.value, "/") {
			return fmt.Errorf("%s: want letters, digits, dots and dashes, have %q", p.key, p.value)
		}
	}
	if d.timeout < 0 || d.timeout > 5*time.Minute {
		return fmt.Errorf("tls.timeout: want 0s to 5m, have %s", d.timeout)
	}
	return nil
}

// files are credentials that are read each time: they may be replaced.
type files struct{ Config }

// RetrieveWithCredContext is [credentials.Provider].
func (f files) RetrieveWithCredContext(*credentials.CredContext) (v credentials.Value, err error) {
	read := func(file notify.SecretFile) string {
		if file == "" || err != nil {
			return ""
		}
		secret, fault := file.Read()
		err = fault
		return string(secret)
	}
	v = credentials.Value{
		AccessKeyID: read(f.AccessKeyFile), SecretAccessKey: read(f.SecretKeyFile), SessionToken: read(f.SessionTokenFile), SignerType: credentials.SignatureV4,
	}
	return v, err
}

// Retrieve is [credentials.Provider].
func (f files) Retrieve() (credentials.Value, error) { return f.RetrieveWithCredContext(nil) }

// IsExpired is [credentials.Provider].
func (f files) IsExpired() bool { return true }

// judged makes an error of each answer that does not accept a request, by the
// table that all destinations have.
type judged struct {
	http.RoundTripper
	agent string
}

// RoundTrip is [http.RoundTripper].
func (j judged) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", j.agent) // it is not signed
	resp, err := j.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := post.StatusError(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	resp.Body = body{io.LimitReader(resp.Body, maxAnswer), resp.Body} // the client reads all of it
	return resp, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

type body struct {
	io.Reader
	io.Closer
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 500 }

// Close is [notify.Destination].
func (d *destination) Close() error {
	d.http.CloseIdleConnections()
	return nil
}

// Send writes a batch, one object for each day of it. The name of an object
// follows from what is in it: a batch that is sent again replaces itself.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	for from := 0; from < len(batch); {
		day, to := dayOf(&batch[from]), from+1
		for to < len(batch) && day.Equal(dayOf(&batch[to])) {
			to++
		}
		if err := d.put(ctx, day, batch[from:to]); err != nil {
			return fmt.Errorf("%s: %w", d.o.Name, err)
		}
		from = to
	}
	return nil
}

func (d *destination) put(ctx context.Context, day time.Time, batch []notify.Notification) error {
	lines, err := d.lines.Lines(batch)
	if err != nil {
		return notify.Permanent(err)
	}
	body, err := compress(lines)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	name := d.name(day, batch)
	_, err = d.client.PutObject(ctx, d.Bucket, name, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{ContentType: "application/gzip", DisableMultipart: true})
	if err != nil {
		return fmt.Errorf("put %s: %w", name, cause(ctx, err))
	}
	return nil
}

// cause returns why a request failed, without what the service has written.
func cause(ctx context.Context, err error) error {
	var forbidden *post.ForbiddenError
	var failed *url.Error
	var answer minio.ErrorResponse
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &forbidden):
		return notify.Permanent(forbidden)
	case errors.As(err, &failed):
		return failed.Err
	case errors.As(err, &answer): // it was accepted, and is no answer of S3
		return fmt.Errorf("answer %d is not that of S3", answer.StatusCode)
	}
	return err
}

// name returns where a batch is kept: partitions of region, account and day, as
// lakes of security data have them.
func (d *destination) name(day time.Time, batch []notify.Notification) string {
	sum := sha256.New()
	for _, n := range batch {
		sum.Write([]byte(n.Key + "\x00"))
	}
	return fmt.Sprintf("%s/region=%s/accountId=%s/eventDay=%s/%s-%s.json.gz", d.Prefix, d.Region, d.Account, day.Format("20060102"),
		batch[0].Alert.Time.UTC().Format("20060102T150405.000Z"), hex.EncodeToString(sum.Sum(nil)[:8]))
}

func dayOf(n *notify.Notification) time.Time { return n.Alert.Time.UTC().Truncate(24 * time.Hour) }

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		return nil, fmt.Errorf("compress lines: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress lines: %w", err)
	}
	return out.Bytes(), nil
}
