// Package nats publishes messages to a stream of NATS JetStream.
package nats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where messages are published.
type Config struct {
	// URL is that of a server, or of several with commas between them:
	// tls://nats:4222, or nats:// without TLS.
	URL string `yaml:"url"`
	// Subject is what messages are published under; a stream must take it.
	Subject string `yaml:"subject"`
	// Format is that of the messages; empty means falco.
	Format string `yaml:"format"`
	// Auth is a user or a token; CredentialsFile is a file of credentials that nsc
	// made, in place of those.
	Auth            post.Auth         `yaml:"auth"`
	CredentialsFile notify.SecretFile `yaml:"credentialsFile"`
	// TLS has the certificates and the addresses that may be connected to. Its
	// timeout is for a batch.
	TLS post.Config `yaml:"tls"`
}

type destination struct {
	Config
	documents document.Writer
	o         notify.Options
	guard     post.Guard
	timeout   time.Duration
	conn      *nats.Conn // nil: to be connected
}

// New returns the destination. It does not connect yet.
func New(c Config, o notify.Options) (notify.Destination, error) {
	d := &destination{Config: c, o: o, timeout: c.TLS.Timeout}
	for server := range strings.SplitSeq(c.URL, ",") {
		rest, tls := strings.CutPrefix(server, "tls://")
		if !tls {
			rest, tls = strings.CutPrefix(server, "nats://")
		}
		if _, _, err := net.SplitHostPort(rest); !tls || err != nil || strings.Contains(rest, "@") {
			return nil, errors.New("url: want tls://host:port or nats://host:port, without a user")
		}
	}
	if c.Subject == "" || strings.ContainsAny(c.Subject, " \t\r\n*>") {
		return nil, fmt.Errorf("subject: want one without blanks and wildcards, have %q", c.Subject)
	}
	if err := c.Auth.Check(); err != nil {
		return nil, err
	}
	if c.CredentialsFile != "" && c.Auth != (post.Auth{}) {
		return nil, errors.New("credentialsFile: give it or auth, not both")
	}
	if d.timeout == 0 {
		d.timeout = 10 * time.Second
	}
	if d.timeout < 0 || d.timeout > 5*time.Minute {
		return nil, fmt.Errorf("tls.timeout: want 0s to 5m, have %s", d.timeout)
	}
	var err error
	if d.documents, err = document.New(c.Format, o); err != nil {
		return nil, err
	}
	if d.guard, err = post.NewGuard(c.TLS.AllowAddresses); err != nil {
		return nil, err
	}
	_, err = post.TLS(c.TLS)
	return d, err
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 200 }

// Close is [notify.Destination].
func (d *destination) Close() error {
	if d.conn != nil {
		d.conn.Close()
		d.conn = nil
	}
	return nil
}

// Send publishes a batch. It is delivered once the stream has stored it. The key
// of a message is its id, so that within the stream's window one that is sent
// again is stored once.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	messages, err := d.encode(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.o.Name, err))
	}
	if err := d.connect(ctx); err != nil {
		return fmt.Errorf("%s: connect: %w", d.o.Name, err)
	}
	if err := d.publish(ctx, messages); err != nil {
		d.Close() // nothing of this batch must be on its way when it is sent again
		return fmt.Errorf("%s: publish to %s: %w", d.o.Name, d.Subject, err)
	}
	return nil
}

func (d *destination) encode(batch []notify.Notification) ([]*nats.Msg, error) {
	var out []*nats.Msg
	for i := range batch {
		n := &batch[i]
		body, err := d.documents.JSON(n)
		if err != nil {
			return nil, err
		}
		out = append(out, &nats.Msg{Subject: d.Subject, Data: body, Header: nats.Header{jetstream.MsgIDHeader: {n.Key}, "Content-Type": {"application/json"}}})
	}
	return out, nil
}

// A dialer connects to allowed addresses, within the time of a context.
type dialer struct {
	ctx   context.Context
	guard post.Guard
	err   error // of the last attempt
}

// Dial is [nats.CustomDialer].
func (d *dialer) Dial(network, address string) (conn net.Conn, err error) {
	conn, d.err = d.guard.DialContext(d.ctx, network, address)
	return conn, d.err
}

func (d *destination) connect(ctx context.Context) error {
	if d.conn != nil && d.conn.IsConnected() {
		return nil
	}
	d.Close()
	encryption, err := post.TLS(d.TLS)
	if err != nil {
		return err
	}
	dial := &dialer{ctx: ctx, guard: d.guard}
	left := d.timeout
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline), time.Millisecond)
	}
	options := []nats.Option{
		nats.Name("kubeguardian"), nats.NoReconnect(), nats.IgnoreDiscoveredServers(), nats.Timeout(left), nats.SetCustomDialer(dial),
	}
	if strings.HasPrefix(d.URL, "tls://") {
		options = append(options, nats.Secure(encryption))
	}
	who, err := d.identity()
	if err != nil {
		return err
	}
	conn, err := nats.Connect(d.URL, append(options, who...)...)
	if err != nil {
		var forbidden *post.ForbiddenError
		if errors.As(dial.err, &forbidden) {
			return notify.Permanent(forbidden)
		}
		return errors.Join(ctx.Err(), err)
	}
	d.conn = conn
	return nil
}

// identity returns how we say who we are. Secrets are read for each connection.
func (d *destination) identity() ([]nats.Option, error) {
	switch {
	case d.CredentialsFile != "":
		if _, err := d.CredentialsFile.Read(); err != nil {
			return nil, err
		}
		return []nats.Option{nats.UserCredentials(string(d.CredentialsFile))}, nil
	case d.Auth.User != "":
		password, err := d.Auth.PasswordFile.Read()
		return []nats.Option{nats.UserInfo(d.Auth.User, string(password))}, err
	case d.Auth.TokenFile != "":
		token, err := d.Auth.TokenFile.Read()
		return []nats.Option{nats.Token(string(token))}, err
	}
	return nil, nil
}

// publish sends all and waits until the stream has stored each.
func (d *destination) publish(ctx context.Context, messages []*nats.Msg) error {
	js, err := jetstream.New(d.conn)
	if err != nil {
		return err
	}
	var acks []jetstream.PubAckFuture
	var refused error
	for _, m := range messages {
		ack, err := js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0))
		switch {
		case hopeless(err):
			refused = notify.Permanent(err)
		case err != nil:
			return err
		default:
			acks = append(acks, ack)
		}
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			if !hopeless(err) {
				return err
			}
			refused = notify.Permanent(err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return refused
}

// tooLarge is JetStream's code for a message that is larger than its stream
// allows.
const tooLarge = 10054

// hopeless reports whether an error is of the message, which stays as it is.
func hopeless(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) || errors.As(err, &api) && api.ErrorCode == tooLarge
}
