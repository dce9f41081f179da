// Package email sends notifications as mail by SMTP.
package email

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	netmail "net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	mail "github.com/wneessen/go-mail"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// Config is what the destination is made of.
type Config struct {
	// Server is host:port of a mail server.
	Server string `yaml:"server"`
	// Encryption is starttls, if it is not given, tls from the first byte on, or
	// none, without which nobody logs in.
	Encryption string `yaml:"encryption"`
	// From is whom mail is of, and To whom it is for: a@example.org or
	// Name <a@example.org>.
	From string   `yaml:"from"`
	To   []string `yaml:"to"`
	// Username and PasswordFile log in to the server; both or neither.
	Username     string            `yaml:"username"`
	PasswordFile notify.SecretFile `yaml:"passwordFile"`
	// Auth is how: plain, if it is not given, login, cram-md5 or scram-sha-256.
	Auth string `yaml:"auth"`
	// Helo is how we introduce ourselves; the name of the host if it is not given.
	Helo string `yaml:"helo"`
	// TLS has what is the same as for HTTP: timeout, certificates, allowAddresses.
	// It has no headers and no proxy.
	TLS post.Config `yaml:"tls"`
}

type destination struct {
	Config
	options notify.Options
	host    string
	port    int
	auth    mail.SMTPAuthType
	guard   post.Guard
	tls     *tls.Config
	timeout time.Duration
}

const (
	defaultTimeout = 20 * time.Second
	maxTimeout     = 5 * time.Minute
	maxRecipients  = 100
)

// New makes the destination.
func New(c Config, o notify.Options) (_ notify.Destination, err error) {
	d := &destination{Config: c, options: o, timeout: c.TLS.Timeout}
	if err := d.server(); err != nil {
		return nil, err
	}
	if err := d.login(); err != nil {
		return nil, err
	}
	if len(c.To) == 0 || len(c.To) > maxRecipients {
		return nil, fmt.Errorf("to: want 1 to %d addresses, have %d", maxRecipients, len(c.To))
	}
	for _, address := range append([]string{c.From}, c.To...) {
		if _, err := netmail.ParseAddress(address); err != nil {
			return nil, fmt.Errorf("address %q: want a@example.org or Name <a@example.org>", address)
		}
	}
	if len(c.TLS.Headers) > 0 || len(c.TLS.HeaderFiles) > 0 || c.TLS.Proxy != "" {
		return nil, errors.New("tls: headers and proxies are those of HTTP")
	}
	if d.guard, err = post.NewGuard(c.TLS.AllowAddresses); err != nil {
		return nil, err
	}
	if d.tls, err = post.TLS(c.TLS); err != nil {
		return nil, err
	}
	d.tls.ServerName = d.host
	return d, nil
}

func (d *destination) server() error {
	host, port, err := net.SplitHostPort(d.Server)
	if err == nil {
		d.port, err = strconv.Atoi(port)
	}
	if err != nil || host == "" || d.port < 1 || d.port > 65535 {
		return fmt.Errorf("server %q: want host:port, such as smtp.example.org:587", d.Server)
	}
	d.host = host
	switch d.Encryption {
	case "":
		d.Encryption = "starttls"
	case "starttls", "tls", "none":
	default:
		return fmt.Errorf("encryption %q: want starttls, tls or none", d.Encryption)
	}
	if d.timeout == 0 {
		d.timeout = defaultTimeout
	}
	if d.timeout < 0 || d.timeout > maxTimeout {
		return fmt.Errorf("timeout %s: want 0s to %s", d.timeout, maxTimeout)
	}
	if d.Helo == "" {
		d.Helo = "localhost"
		if name, err := os.Hostname(); err == nil && name != "" {
			d.Helo = name
		}
	}
	return nil
}

func (d *destination) login() error {
	switch {
	case (d.Username == "") != (d.PasswordFile == ""):
		return errors.New("username and passwordFile: give both or neither")
	case d.Username != "" && d.Encryption == "none":
		return errors.New("encryption none: the password could be read on the way")
	}
	switch d.Auth {
	case "", "plain":
		d.auth = mail.SMTPAuthPlain
	case "login":
		d.auth = mail.SMTPAuthLogin
	case "cram-md5":
		d.auth = mail.SMTPAuthCramMD5
	case "scram-sha-256":
		d.auth = mail.SMTPAuthSCRAMSHA256
	default:
		return fmt.Errorf("auth %q: want plain, login, cram-md5 or scram-sha-256", d.Auth)
	}
	return nil
}

// Send implements [notify.Destination].
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	for i := range batch {
		m, err := d.message(&batch[i])
		if err != nil {
			return notify.Permanent(fmt.Errorf("%s: write mail: %w", d.options.Name, err))
		}
		if err := d.send(ctx, m); err != nil {
			return fmt.Errorf("%s: send by %s: %w", d.options.Name, d.Server, err)
		}
	}
	return nil
}

// Close implements [notify.Destination]. No connection outlives a Send.
func (d *destination) Close() error { return nil }

// send sends one mail by a connection of its own.
func (d *destination) send(ctx context.Context, m *mail.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var conn net.Conn
	dial := func(dialing context.Context, network, address string) (net.Conn, error) {
		raw, err := d.guard.DialContext(dialing, network, address)
		if err != nil {
			return nil, err
		}
		conn = raw
		context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) }) // ends what waits
		bounded := &boundedConn{Conn: raw, left: maxAnswers}
		if d.Encryption != "tls" {
			return bounded, nil
		}
		secure := tls.Client(bounded, d.tls)
		return secure, secure.HandshakeContext(dialing)
	}
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	options := []mail.Option{
		mail.WithPort(d.port), mail.WithHELO(d.Helo), mail.WithTimeout(d.timeout), mail.WithTLSConfig(d.tls), mail.WithDialContextFunc(dial), mail.WithTLSPolicy(mail.NoTLS), mail.WithoutNoop(),
	}
	if d.Encryption == "starttls" {
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if d.Username != "" {
		password, err := d.PasswordFile.Read()
		if err != nil {
			return err
		}
		options = append(options, mail.WithSMTPAuth(d.auth), mail.WithUsername(d.Username), mail.WithPassword(string(password)))
	}
	client, err := mail.NewClient(d.host, options...)
	if err != nil {
		return notify.Permanent(fmt.Errorf("prepare connection: %w", err))
	}
	err = client.DialAndSendWithContext(ctx, m)
	if m.IsDelivered() { // whatever became of the farewell
		return nil
	}
	return outcome(ctx, err)
}

// outcome says what an error is worth, without the words of the server, which may
// repeat what it was sent. What the server says of the mail is for good if it says
// so; what it says before, such as of a password, is not the mail's fault.
func outcome(ctx context.Context, err error) error {
	var forbidden *post.ForbiddenError
	var certificate *tls.CertificateVerificationError
	var sending *mail.SendError
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &forbidden):
		return notify.Permanent(forbidden)
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &sending) && sending.ErrorCode() >= 500:
		return notify.Permanent(fmt.Errorf("%s: answer %d", sending.Reason, sending.ErrorCode()))
	case errors.As(err, &sending) && sending.ErrorCode() > 0:
		return fmt.Errorf("%s: answer %d", sending.Reason, sending.ErrorCode())
	case errors.As(err, &sending):
		return fmt.Errorf("%s: no valid answer", sending.Reason)
	case errors.As(err, &certificate):
		return fmt.Errorf("its certificate is not accepted: %w", certificate.Err)
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &op):
		return op
	}
	return errors.New("connect and log in: the server does not want to, or does not offer what is configured")
}

// maxAnswers bounds what is read of a server, which sends short lines.
const maxAnswers = 256 << 10

type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Bounds of texts, in characters.
const (
	maxSubject = 200
	maxText    = 10_000
)

// message writes one mail. Its id follows from the key, so that mail that comes
// twice can be told.
func (d *destination) message(n *notify.Notification) (*mail.Msg, error) {
	m := mail.NewMsg()
	if err := m.From(d.From); err != nil {
		return nil, err
	}
	if err := m.To(d.To...); err != nil {
		return nil, err
	}
	m.Subject("[KubeGuardian] " + notify.Cut(n.Heading(), maxSubject))
	m.SetDateWithValue(time.Now())
	m.SetMessageIDWithValue(n.Key + "@kubeguardian")
	if n.Update != nil {
		m.SetGenHeader(mail.HeaderInReplyTo, "<"+n.Thread()+"@kubeguardian>")
		m.SetGenHeader(mail.HeaderReferences, "<"+n.Thread()+"@kubeguardian>")
	}
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-KubeGuardian-Key", n.Key)
	if n.Urgency() <= alert.Critical {
		m.SetImportance(mail.ImportanceHigh)
	}
	m.SetBodyString(mail.TypeTextPlain, body(n))
	return m, nil
}

func body(n *notify.Notification) string {
	var b strings.Builder
	b.WriteString(n.Text(maxText) + "\n\n")
	for _, f := range n.Facts() {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	if n.URL != "" {
		b.WriteString("\n" + n.URL + "\n")
	}
	return b.String()
}
