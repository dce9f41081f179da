// Package syslog sends messages to a syslog server by RFC 5424: over TLS by RFC
// 5425, over TCP with octet counting, or over UDP.
package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
	"github.com/kubeguardian/kubeguardian/notify/post"
)

// A Config says where messages are sent, and how.
type Config struct {
	// Address is host:port.
	Address string `yaml:"address"`
	// Network is tls, tcp or udp; empty means tls.
	Network string `yaml:"network"`
	// Facility is one of syslog's, such as local0, the default.
	Facility string `yaml:"facility"`
	// Format is what follows the header: text, the default, or a format of package
	// document.
	Format string `yaml:"format"`
	// MaxBytes bounds a whole message; 0 means 8192, at most 65535, and over UDP at
	// most 65507.
	MaxBytes int `yaml:"maxBytes"`
	// TLS has the certificates and the addresses that may be connected to. Its
	// timeout is for connecting and for sending a batch.
	TLS post.Config `yaml:"tls"`
}

// facilities are in the order of their numbers.
var facilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

const (
	formatText  = "text"
	defaultSize = 8192
	minSize     = 2048 // a header is shorter
	maxData     = 1200
	maxValue    = 200 // of the structured data; escaped twice as much
	maxSize     = 65535
	maxDatagram = 65507
)

type destination struct {
	Config
	o        notify.Options
	facility int
	document *document.Writer // nil: text
	guard    post.Guard
	tls      *tls.Config
	timeout  time.Duration
	conn     net.Conn // nil: to be connected
	settle   time.Duration
}

// New returns the destination. It does not connect yet.
func New(c Config, o notify.Options) (notify.Destination, error) {
	d := &destination{Config: c, o: o, timeout: c.TLS.Timeout}
	if d.Facility == "" {
		d.Facility = "local0"
	}
	if d.Network == "" {
		d.Network = "tls"
	}
	if d.MaxBytes == 0 {
		d.MaxBytes = defaultSize
	}
	if d.timeout == 0 {
		d.timeout = 10 * time.Second
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil || host == "" {
		return nil, errors.New("address: want host:port")
	}
	if d.guard, err = post.NewGuard(c.TLS.AllowAddresses); err != nil {
		return nil, err
	}
	if d.tls, err = post.TLS(c.TLS); err != nil {
		return nil, err
	}
	d.tls.ServerName = host
	if c.Format != "" && c.Format != formatText {
		w, err := document.New(c.Format, o)
		if err != nil {
			return nil, err
		}
		d.document = &w
	}
	return d, nil
}

func (d *destination) check() error {
	d.facility = slices.Index(facilities, d.Facility)
	most := maxSize
	if d.Network == "udp" {
		most = maxDatagram
	}
	switch {
	case d.facility < 0:
		return fmt.Errorf("facility: unknown one %q: want one of %s", d.Facility, strings.Join(facilities, ", "))
	case !slices.Contains([]string{"tls", "tcp", "udp"}, d.Network):
		return fmt.Errorf("network: want tls, tcp or udp, have %q", d.Network)
	case d.MaxBytes < minSize || d.MaxBytes > most:
		return fmt.Errorf("maxBytes: want %d to %d, have %d", minSize, most, d.MaxBytes)
	case d.timeout < 0 || d.timeout > 5*time.Minute:
		return fmt.Errorf("tls.timeout: want 0s to 5m, have %s", d.timeout)
	}
	return nil
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 100 }

// Close is [notify.Destination].
func (d *destination) Close() error { return d.disconnect() }

func (d *destination) disconnect() error {
	if d.conn == nil {
		return nil
	}
	err := d.conn.Close()
	d.conn = nil
	return err
}

// Send writes a batch. A connection that the server has closed since the last
// one is noticed first, as far as that can be: a write to it would seem to
// succeed.
func (d *destination) Send(ctx context.Context, batch []notify.Notification) error {
	messages, err := d.messages(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.o.Name, err))
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if d.conn != nil && d.Network != "udp" && ended(d.conn, time.Millisecond) {
		d.disconnect()
	}
	if d.conn == nil {
		if d.conn, d.settle, err = d.connect(ctx); err != nil {
			d.conn = nil
			return fmt.Errorf("%s: connect to %s: %w", d.o.Name, d.Address, cause(err))
		}
	}
	stop := context.AfterFunc(ctx, func() { d.conn.SetWriteDeadline(time.Unix(1, 0)) })
	err = d.write(messages)
	if err == nil && d.settle > 0 && ended(d.conn, d.settle) {
		err = errors.New("the server has closed the connection")
	}
	d.settle = 0
	if !stop() || err != nil {
		d.disconnect()
		if err == nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: send to %s: %w", d.o.Name, d.Address, cause(err))
	}
	return nil
}

// cause marks an address that is forbidden, which no further attempt allows.
func cause(err error) error {
	var forbidden *post.ForbiddenError
	if errors.As(err, &forbidden) {
		return notify.Permanent(forbidden)
	}
	return err
}

// connect also returns for how long to listen to a new connection: a server that
// does not accept our certificate says so only after the handshake.
func (d *destination) connect(ctx context.Context) (conn net.Conn, settle time.Duration, err error) {
	network := "tcp"
	if d.Network == "udp" {
		network = "udp"
	}
	conn, err = d.guard.DialContext(ctx, network, d.Address)
	if err != nil || d.Network != "tls" {
		return conn, 0, err
	}
	encrypted, begin := tls.Client(conn, d.tls), time.Now()
	if err := encrypted.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("handshake: %w", err)
	}
	return encrypted, 50*time.Millisecond + 2*time.Since(begin), nil
}

// ended reports whether the other side has closed a connection. It never sends
// anything, so reading waits unless it has.
func ended(conn net.Conn, wait time.Duration) bool {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return true
	}
	_, err := conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

func (d *destination) write(messages []string) error {
	if d.Network == "udp" {
		for _, m := range messages {
			if _, err := d.conn.Write([]byte(m)); err != nil {
				return err
			}
		}
		return nil
	}
	var all strings.Builder
	for _, m := range messages {
		all.WriteString(strconv.Itoa(len(m)))
		all.WriteByte(' ')
		all.WriteString(m)
	}
	_, err := d.conn.Write([]byte(all.String()))
	return err
}

func (d *destination) messages(batch []notify.Notification) ([]string, error) {
	var out []string
	for i := range batch {
		m, err := d.message(&batch[i])
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// message writes one message as section 6 of RFC 5424 says.
func (d *destination) message(n *notify.Notification) (string, error) {
	a := &n.Alert
	id, hostname := "alert", a.Hostname
	if n.Incident != nil {
		id = "incident"
	}
	if hostname == "" {
		hostname = a.Cluster
	}
	head := fmt.Sprintf("<%d>1 %s %s kubeguardian - %s %s ", d.facility*8+int(a.Priority),
		a.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), word(hostname, 255), id, d.data(n))
	text := document.Text(n, d.MaxBytes)
	if d.document != nil {
		line, err := d.document.JSON(n)
		if err != nil {
			return "", err
		}
		text = string(line)
	}
	return head + document.Clean(text, max(d.MaxBytes-len(head), len("…"))), nil
}

// data is the structured data, as much of it as leaves room for a text.
func (d *destination) data(n *notify.Notification) string {
	a := &n.Alert
	cluster := a.Cluster
	if cluster == "" {
		cluster = d.o.Cluster
	}
	values := [][2]string{
		{"id", a.ID}, {"key", n.Key}, {"rule", a.Rule}, {"source", a.Source}, {"cluster", cluster}, {"subject", a.Subject.String()},
		{"count", strconv.Itoa(n.Count)}, {"tactics", strings.Join(a.Tactics, ",")}, {"url", n.URL},
	}
	if n.Incident != nil {
		values = append(values, [2]string{"incident", n.Incident.ID}, [2]string{"state", string(n.Incident.State)}, [2]string{"score", strconv.Itoa(n.Incident.Score)})
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)
	var b strings.Builder
	b.WriteString("[kubeguardian@0")
	for _, v := range values {
		if v[1] != "" && b.Len() < maxData-2*maxValue {
			fmt.Fprintf(&b, ` %s="%s"`, v[0], escape.Replace(document.Clean(v[1], maxValue)))
		}
	}
	b.WriteByte(']')
	return b.String()
}

// word returns a name as a field of the header: of printable ASCII, without
// blanks; - for none.
func word(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
