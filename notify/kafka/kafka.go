// Package kafka produces messages to a topic of Apache Kafka, or of what speaks
// its protocol.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where records are produced.
type Config struct {
	// Brokers are host:port, at least one; the others are learned from them.
	Brokers []string `yaml:"brokers"`
	Topic   string   `yaml:"topic"`
	// Format is that of the records; empty means falco.
	Format string `yaml:"format"`
	// SASL is plain, scram-sha-256 or scram-sha-512, for the user of Auth; empty
	// means none.
	SASL string    `yaml:"sasl"`
	Auth post.Auth `yaml:"auth"`
	// Plaintext connects without TLS.
	Plaintext bool `yaml:"plaintext"`
	// TLS has the certificates and the addresses that may be connected to. Its
	// timeout is for a batch.
	TLS post.Config `yaml:"tls"`
}

type destination struct {
	Config
	records document.Writer
	o       notify.Options
	options []kgo.Opt
	timeout time.Duration
	client  *kgo.Client           // nil: to be made
	refused atomic.Pointer[error] // why the last connection failed: the client keeps that to itself
}

// New returns the destination. It does not connect yet.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if len(c.Brokers) == 0 || c.Topic == "" {
		return nil, errors.New("brokers and topic: give both")
	}
	for _, b := range c.Brokers {
		if host, _, err := net.SplitHostPort(b); err != nil || host == "" {
			return nil, fmt.Errorf("brokers: want host:port, have %q", b)
		}
	}
	d := &destination{Config: c, o: o, timeout: c.TLS.Timeout}
	if d.timeout == 0 {
		d.timeout = 30 * time.Second
	}
	if d.timeout < time.Second || d.timeout > 5*time.Minute {
		return nil, fmt.Errorf("tls.timeout: want 1s to 5m, have %s", d.timeout)
	}
	var err error
	if d.records, err = document.New(c.Format, o); err != nil {
		return nil, err
	}
	mechanism, err := c.mechanism()
	if err != nil {
		return nil, err
	}
	dial, err := d.dialer()
	if err != nil {
		return nil, err
	}
	d.options = []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.DefaultProduceTopic(c.Topic), kgo.ClientID("kubeguardian"), kgo.Dialer(dial), kgo.DisableClientMetrics(),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProduceRequestTimeout(d.timeout), kgo.RetryTimeout(d.timeout),
		kgo.UnknownTopicRetries(2), kgo.MaxBufferedRecords(2 * batch),
	}
	if mechanism != nil {
		d.options = append(d.options, kgo.SASL(mechanism))
	}
	return d, nil
}

// mechanism returns how we say who we are; the password is read each time.
func (c Config) mechanism() (sasl.Mechanism, error) {
	if err := c.Auth.Check(); err != nil {
		return nil, err
	}
	if c.SASL == "" && c.Auth == (post.Auth{}) {
		return nil, nil
	}
	if c.Auth.User == "" {
		return nil, errors.New("auth: SASL is for a user and passwordFile")
	}
	password := func() (string, error) {
		secret, err := c.Auth.PasswordFile.Read()
		return string(secret), err
	}
	scrams := func() func(context.Context) (scram.Auth, error) {
		return func(context.Context) (scram.Auth, error) {
			pass, err := password()
			return scram.Auth{User: c.Auth.User, Pass: pass}, err
		}
	}
	switch c.SASL {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := password()
			return plain.Auth{User: c.Auth.User, Pass: pass}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(scrams()), nil
	case "scram-sha-512":
		return scram.Sha512(scrams()), nil
	}
	return nil, fmt.Errorf("sasl: want plain, scram-sha-256 or scram-sha-512, have %q", c.SASL)
}

// dialer connects to brokers, to those too that others have told of.
func (d *destination) dialer() (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	guard, err := post.NewGuard(d.TLS.AllowAddresses)
	if err != nil {
		return nil, err
	}
	encryption, err := post.TLS(d.TLS)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		defer func() {
			if d.refused.Store(nil); err != nil {
				d.refused.Store(&err)
			}
		}()
		conn, err = guard.DialContext(ctx, network, address)
		if err != nil || d.Plaintext {
			return conn, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			conn.Close()
			return nil, err
		}
		own := encryption.Clone()
		own.ServerName = host
		encrypted := tls.Client(conn, own)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		return encrypted, nil
	}, nil
}

// batch is how many records are produced at once.
const batch = 200

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return batch }

// Close is [notify.Destination].
func (d *destination) Close() error {
	if d.client != nil {
		d.client.Close()
		d.client = nil
	}
	return nil
}

// Send produces a batch. It is delivered once all replicas that are in sync have
// it; the producer is idempotent, so that what it sends again by itself is there
// once.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	records, err := d.encode(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.o.Name, err))
	}
	if d.client == nil {
		if d.client, err = kgo.NewClient(d.options...); err != nil {
			d.client = nil
			return fmt.Errorf("%s: make client: %w", d.o.Name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	results := make(chan error, len(records))
	for _, r := range records {
		d.client.Produce(ctx, r, func(_ *kgo.Record, err error) { results <- err })
	}
	var failed []error
	for range records {
		select {
		case err := <-results:
			if err != nil {
				failed = append(failed, err)
			}
			continue
		case <-ctx.Done():
			failed = append(failed, ctx.Err())
		}
		break
	}
	if len(failed) == 0 {
		return nil
	}
	d.Close() // nothing of this batch must be in its buffers when it is sent again
	err = judge(failed)
	if refused := d.refused.Load(); refused != nil {
		err = fmt.Errorf("%w: last connection: %w", err, *refused)
		if hopeless(*refused) {
			err = notify.Permanent(err)
		}
	}
	return fmt.Errorf("%s: produce to topic %s: %w", d.o.Name, d.Topic, err)
}

// judge returns one of the errors: a permanent one only if all of them are.
func judge(failed []error) error {
	if at := slices.IndexFunc(failed, func(err error) bool { return !hopeless(err) }); at >= 0 {
		return failed[at]
	}
	return notify.Permanent(failed[0])
}

// hopeless reports whether an error is of the record, which stays as it is, or of
// an address that is forbidden.
func hopeless(err error) bool {
	var forbidden *post.ForbiddenError
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord) ||
		errors.Is(err, kerr.InvalidTopicException) || errors.As(err, &forbidden)
}

func (d *destination) encode(batch []notify.Notification) ([]*kgo.Record, error) {
	var out []*kgo.Record
	for i := range batch {
		n := &batch[i]
		value, err := d.records.JSON(n)
		if err != nil {
			return nil, err
		}
		cluster := n.Alert.Cluster
		if cluster == "" {
			cluster = d.o.Cluster
		}
		out = append(out, &kgo.Record{
			Key:       []byte(strings.TrimSuffix(cluster+"/"+n.Alert.Subject.String(), "/")),
			Value:     value,
			Timestamp: n.Alert.Time,
			Headers:   []kgo.RecordHeader{{Key: "kubeguardian-key", Value: []byte(n.Key)}, {Key: "content-type", Value: []byte("application/json")}},
		})
	}
	return out, nil
}
