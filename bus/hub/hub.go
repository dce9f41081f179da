// Package hub runs the bus inside the server: a NATS server with JetStream on
// disk, for agents that package bus connects.
//
// The bus is on disk before it acknowledges anything: what it has acknowledged
// survives the end of the process, however that comes, and a power cut but for
// the last [Options.Sync].
package hub

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/embedded"
)

// Options are what a [Hub] is made of.
type Options struct {
	Listen string        // host:port for agents
	TLS    *tls.Config   // nil: agents connect without
	Dir    string        // of what it keeps
	Bytes  int64         // that alerts may take on disk
	Sync   time.Duration // how often it forces what it keeps to the disk; 0: before each acknowledgement

	// Node returns the node for which the bearer of a token may speak, or why there
	// is none. It is called concurrently.
	Node func(ctx context.Context, token string) (string, error)
	Log  *slog.Logger
}

// Limits of the hub, besides the bytes of alerts.
const (
	maxMemory      = 64 << 20
	maxConnections = 10_000
	maxPending     = 16 << 20 // bytes that wait for one connection
	maxSubs        = 64       // of one connection
	authTime       = 12 * time.Second
	// sessionTime is how long an agent is believed who it is; then it connects
	// again, and shows its token.
	sessionTime = time.Hour
)

// A Hub is a running bus.
type Hub struct {
	server *embedded.Server
	auth   *authentication
}

// Start starts a bus, and returns when agents can connect.
func Start(o Options) (*Hub, error) {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("start the bus: port %q: %w", port, err)
	}
	if number == 0 {
		number = natsd.RANDOM_PORT
	}
	auth := &authentication{node: o.Node, log: o.Log, own: rand.Text(), say: rate.Sometimes{Interval: 10 * time.Second}, agents: map[uint64]struct{}{}}
	opts := &natsd.Options{
		ServerName: "kubeguardian", Host: host, Port: number,
		JetStream: true, StoreDir: o.Dir, JetStreamMaxMemory: maxMemory, JetStreamMaxStore: o.Bytes + bus.OtherBytes, DisableJetStreamBanner: true,
		SyncInterval: o.Sync, SyncAlways: o.Sync == 0,
		MaxPayload: bus.MaxMessage + 4096, MaxConn: maxConnections, MaxPending: maxPending, MaxSubs: maxSubs,
		CustomClientAuthentication: auth, AuthTimeout: authTime.Seconds(),
	}
	if o.TLS != nil {
		opts.TLSConfig, opts.TLS, opts.TLSTimeout = o.TLS.Clone(), true, authTime.Seconds()
		opts.TLSConfig.NextProtos = nil // this is not HTTP
	}
	auth.mu.Lock() // agents wait until the server is known
	defer auth.mu.Unlock()
	server, err := embedded.Start(opts, o.Log.With("part", "bus"))
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	auth.open = func(id uint64) bool { return server.GetClient(id) != nil }
	return &Hub{server, auth}, nil
}

// Addr returns where agents connect.
func (h *Hub) Addr() net.Addr { return h.server.Addr() }

// Connect returns a connection of the server, which may do everything.
func (h *Hub) Connect() (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(h.server.Server), nats.Name("server"), nats.Token(h.auth.own), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	return nc, nil
}

// ConnectionErrors returns how often a connection went wrong, which anybody can cause.
func (h *Hub) ConnectionErrors() uint64 { return h.server.ConnectionErrors() }

// Connections returns how many agents are connected, and how many attempts were
// refused.
func (h *Hub) Connections() (agents int, refused uint64) {
	return h.auth.connected(), h.auth.refused.Load()
}

// Stop ends the bus. All it has acknowledged is on disk.
func (h *Hub) Stop() { h.server.Stop() }

// authentication decides who may connect, and what for.
type authentication struct {
	node    func(ctx context.Context, token string) (string, error)
	own     string // token of the server
	log     *slog.Logger
	say     rate.Sometimes
	refused atomic.Uint64
	open    func(id uint64) bool // whether a connection is

	mu     sync.Mutex
	agents map[uint64]struct{} // ids of connections that were let in; some may have ended
}

// connected returns how many connections of agents there are. What the server
// knows itself is not that: it has those that have not shown a token yet, too.
func (a *authentication) connected() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget()
	return len(a.agents)
}

// forget drops the connections that have ended. The caller has the lock.
func (a *authentication) forget() {
	maps.DeleteFunc(a.agents, func(id uint64, _ struct{}) bool { return !a.open(id) })
}

func (a *authentication) admit(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.agents) >= 2*maxConnections {
		a.forget()
	}
	a.agents[id] = struct{}{}
}

// Check is [natsd.Authentication]. It is called in a goroutine of the connection.
func (a *authentication) Check(c natsd.ClientAuthentication) bool {
	token := c.GetOpts().Token
	if subtle.ConstantTimeCompare([]byte(token), []byte(a.own)) == 1 {
		c.RegisterUser(&natsd.User{Username: "server"})
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), authTime-2*time.Second)
	defer cancel()
	node, err := a.agent(ctx, c, token)
	if err != nil {
		a.refused.Add(1)
		a.say.Do(func() { a.log.Warn("an agent may not connect to the bus", "from", remote(c), "error", err) })
		return false
	}
	a.admit(c.GetID())
	publish, subscribe := bus.Rights(node)
	c.RegisterUser(&natsd.User{
		Username: node, ConnectionDeadline: time.Now().Add(sessionTime),
		Permissions: &natsd.Permissions{Publish: &natsd.SubjectPermission{Allow: publish}, Subscribe: &natsd.SubjectPermission{Allow: subscribe}},
	})
	return true
}

func (a *authentication) agent(ctx context.Context, c natsd.ClientAuthentication, token string) (string, error) {
	if c.Kind() != natsd.CLIENT {
		return "", errors.New("only agents may")
	}
	if token == "" {
		return "", errors.New("it has no token")
	}
	node, err := a.node(ctx, token)
	if err != nil {
		return "", err
	}
	return node, bus.CheckNode(node)
}

func remote(c natsd.ClientAuthentication) string {
	if addr := c.RemoteAddress(); addr != nil {
		return addr.String()
	}
	return "unknown"
}
