// Package bus carries what crosses processes: alerts and states of node agents to
// the server, and rules from the server to the agents.
//
// It is a NATS JetStream, embedded in the server by package bus/hub or a cluster
// elsewhere. Alerts go into a stream that keeps each until the server has stored
// it. An agent keeps its alerts in a spool until the stream has them, so that one
// is delivered at least once, and an id that tells it from all others makes it
// count once. Of an agent's states and of the rules the streams keep the last.
//
// An agent speaks for its own node only: the node is in the subject, and the bus
// lets it publish to no other.
package bus

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The streams.
const (
	AlertStream = "KUBEGUARDIAN_ALERTS"
	StateStream = "KUBEGUARDIAN_STATES"
	RuleStream  = "KUBEGUARDIAN_RULES"
)

const (
	alertPrefix = "kubeguardian.alerts."
	statePrefix = "kubeguardian.states."
	ruleSubject = "kubeguardian.rules.syscall"
	ruleRequest = "$JS.API.DIRECT.GET." + RuleStream + "." + ruleSubject
)

// MaxMessage bounds a message, in bytes.
const MaxMessage = 1 << 20

// nodeName is a name of a node or host: words between dots, of which NATS makes
// no pattern.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckNode returns what is wrong with the name of a node.
func CheckNode(node string) error {
	if len(node) > 253 || !nodeName.MatchString(node) {
		return fmt.Errorf("want the name of a node (letters, digits, dashes and dots, at most 253), have %.60q", node)
	}
	return nil
}

// Rights returns the subjects that the agent of a node may publish to and
// subscribe to, as a server of NATS writes them.
func Rights(node string) (publish, subscribe []string) {
	return []string{alertPrefix + node, statePrefix + node, ruleRequest}, []string{inbox(node) + ".>", ruleSubject}
}

// inbox is where answers to an agent go; no other agent's is a part of it.
func inbox(node string) string {
	sum := sha256.Sum256([]byte(node))
	return "_INBOX_AGENT." + hex.EncodeToString(sum[:12])
}

// Bounds are how much the streams may keep.
type Bounds struct {
	AlertBytes int64         // alerts that are not stored yet; when it is reached agents keep theirs
	Replicas   int           // of each stream, in a cluster
	StateAge   time.Duration // after which the state of an agent that is gone is forgotten
}

// Prepare makes the streams, or brings them up to date.
func Prepare(ctx context.Context, js jetstream.JetStream, b Bounds) error {
	for _, c := range []jetstream.StreamConfig{
		{
			Name: AlertStream, Description: "alerts of node agents, until the server has stored them", Subjects: []string{alertPrefix + ">"},
			Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: b.AlertBytes, Duplicates: duplicates,
		},
		{
			Name: StateStream, Description: "the last state of each node agent", Subjects: []string{statePrefix + ">"},
			MaxMsgsPerSubject: 1, MaxAge: b.StateAge, MaxBytes: stateBytes, Duplicates: time.Second,
		},
		{
			Name: RuleStream, Description: "rules for node agents", Subjects: []string{ruleSubject},
			MaxMsgsPerSubject: 1, MaxBytes: ruleBytes, AllowDirect: true, Duplicates: time.Second,
		},
	} {
		c.Storage, c.Replicas, c.MaxMsgSize = jetstream.FileStorage, max(b.Replicas, 1), MaxMessage
		if _, err := js.CreateOrUpdateStream(ctx, c); err != nil {
			return fmt.Errorf("prepare stream %s: %w", c.Name, err)
		}
	}
	return nil
}

const (
	// duplicates is for how long the bus knows an alert again. The store does so
	// for as long as it keeps alerts; this saves it the work after a reconnect.
	duplicates = time.Minute

	stateBytes = 64 << 20
	ruleBytes  = 8 << 20
)

// OtherBytes is what the streams besides that of alerts may take.
const OtherBytes = stateBytes + ruleBytes

// An Endpoint is how a bus is reached. All but URL may be empty. Files are read
// again with each connection.
type Endpoint struct {
	URL             string // tls://host:port, or nats://host:port on a loopback address; several with commas between
	TokenFile       string
	CredentialsFile string // of NATS: a JWT and its key
	CAFile          string // PEM; without it the system's authorities count
	CertFile        string // PEM, with KeyFile
	KeyFile         string
}

// Check returns what is wrong with the endpoint, as far as that shows without a
// connection.
func (e Endpoint) Check() error {
	for _, raw := range strings.Split(e.URL, ",") {
		u, err := url.Parse(raw)
		switch {
		case err != nil || u.Hostname() == "" || u.Scheme != "tls" && u.Scheme != "nats":
			return fmt.Errorf("want tls://host:port, have %.80q", raw)
		case u.User != nil:
			return errors.New("the URL holds credentials: they belong into a file")
		case u.Scheme == "nats" && !loopback(u.Hostname()):
			return fmt.Errorf("%s is not a loopback address: without TLS what goes there could be read and changed on the way: use tls://", u.Host)
		}
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		return errors.New("a certificate takes its key and the other way round: give both files")
	}
	return nil
}

func loopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

// How a connection is kept.
const (
	connectTimeout = 15 * time.Second // with the check of a token, which may ask Kubernetes
	firstWait      = 250 * time.Millisecond
	maxWait        = 20 * time.Second
	pingInterval   = 20 * time.Second
	maxToken       = 64 << 10
)

// connect opens a connection that is made again for as long as it is open, with
// longer and longer waits. It need not exist when connect returns.
func (e Endpoint) connect(name string, log *slog.Logger, more ...nats.Option) (*nats.Conn, error) {
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	opts := append([]nats.Option{
		nats.Name(name), nats.Timeout(connectTimeout), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectBufSize(-1), // what cannot be sent is kept by its sender, not in memory
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2), nats.IgnoreDiscoveredServers(),
		nats.CustomReconnectDelay(delay),
		nats.ConnectHandler(func(*nats.Conn) { log.Info("connected to the bus", "url", e.URL) }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to the bus again", "url", e.URL) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the bus is away", "url", e.URL, "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("the bus refuses something", "error", err)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("the bus cannot be reached", "url", e.URL, "error", err) }),
	}, more...)
	opts = append(opts, e.credentials(log)...)
	nc, err := nats.Connect(e.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	return nc, nil
}

// credentials are the options for who we are, and whom we trust.
func (e Endpoint) credentials(log *slog.Logger) (opts []nats.Option) {
	if strings.HasPrefix(e.URL, "tls://") {
		opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS13}), nats.ClientTLSConfig(e.certificate(), e.authorities()))
	}
	if e.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(e.CredentialsFile))
	}
	if e.TokenFile != "" {
		opts = append(opts, nats.TokenHandler(func() string {
			token, err := readToken(e.TokenFile)
			if err != nil {
				log.Warn("the token for the bus cannot be read", "error", err)
			}
			return token
		}))
	}
	return opts
}

func (e Endpoint) certificate() nats.TLSCertHandler {
	if e.CertFile == "" {
		return nil
	}
	return func() (tls.Certificate, error) { return tls.LoadX509KeyPair(e.CertFile, e.KeyFile) }
}

func (e Endpoint) authorities() nats.RootCAsHandler {
	return func() (*x509.CertPool, error) {
		if e.CAFile == "" {
			return x509.SystemCertPool()
		}
		text, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authority of the bus: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read authority of the bus: %s has no certificate in PEM", e.CAFile)
		}
		return pool, nil
	}
}

func readToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err == nil && len(data) > maxToken {
		err = fmt.Errorf("%s: more than %d bytes: this is no token", file, maxToken)
	}
	return strings.TrimSpace(string(data)), err
}

// Connect opens the connection of a server.
func (e Endpoint) Connect(name string, log *slog.Logger) (*nats.Conn, error) {
	return e.connect(name, log)
}

// ConnectAgent opens the connection of the agent of a node.
func (e Endpoint) ConnectAgent(node string, log *slog.Logger) (*nats.Conn, error) {
	if err := CheckNode(node); err != nil {
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	return e.connect(node, log, nats.CustomInboxPrefix(inbox(node)))
}
