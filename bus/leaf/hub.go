package leaf

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/embedded"
	"github.com/kubeguardian/kubeguardian/bus/roster"
)

// HubOptions are what a [Hub] is made of. All but TLS are needed.
type HubOptions struct {
	Listen  string      // host:port for clusters
	TLS     *tls.Config // nil: clusters connect without
	Own     string      // name of the hub's own cluster, which no other may have
	Members string      // the file of clusters; see [ReadMembers]

	// Alerts stores alerts of a cluster, which have its name and ids of the hub.
	// When it returns nil they are on disk; after an error they come again.
	Alerts func(ctx context.Context, cluster string, alerts []alert.Alert) error
	// State keeps what a cluster says of itself.
	State func(ctx context.Context, cluster string, s *roster.State) error
	Log   *slog.Logger
}

// How the hub looks after its clusters.
const (
	authTime     = 10 * time.Second
	handleTime   = 45 * time.Second // that storing may take
	membersEvery = 2 * time.Second  // after which a key that was taken out is no longer good
	maxPending   = 32 << 20         // bytes that wait for one connection
	pingInterval = 20 * time.Second // a peer that is gone without a word is noticed after three
	maxQueued    = 4                // messages of one cluster that wait; it waits for its answers
)

// A Hub takes what clusters report. It is safe for concurrent use.
type Hub struct {
	HubOptions
	server  *embedded.Server
	addr    net.Addr
	account *natsd.Account // in which clusters have no part
	own     string         // the token of our connection
	conn    *nats.Conn
	say     rate.Sometimes
	end     func()
	ended   sync.WaitGroup

	mu        sync.Mutex
	clusters  map[string]*cluster
	connected map[uint64]guest // by the number of the connection
	refused   uint64
	failing   error // why the file of clusters cannot be read
}

// A guest is who has connected.
type guest struct {
	cluster, key string
	at           time.Time
}

// A cluster is one that has connected since the start.
type cluster struct {
	account *natsd.Account
	counts  Counts
}

// Counts are what became of what a cluster has sent since the hub started.
type Counts struct {
	Connected bool
	Received  uint64            // alerts that were stored, those that came again among them
	Refused   map[string]uint64 // alerts that were given up, by cause
	Failed    uint64            // batches that could not be stored, and came again
}

// StartHub starts a hub, and returns when clusters can connect.
func StartHub(o HubOptions) (*Hub, error) {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start the hub: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("start the hub: port %q: %w", port, err)
	}
	if number == 0 {
		number = natsd.RANDOM_PORT
	}
	if _, err := o.members(); err != nil {
		return nil, err
	}
	h := &Hub{
		HubOptions: o, own: rand.Text(), say: rate.Sometimes{Interval: 10 * time.Second},
		clusters: map[string]*cluster{}, connected: map[uint64]guest{},
	}
	opts := &natsd.Options{
		ServerName: "kubeguardian-hub", DontListen: true,
		CustomClientAuthentication: authentication{h}, AlwaysEnableNonce: true,
		MaxPayload: maxMessage, MaxPending: maxPending, AuthTimeout: authTime.Seconds(), PingInterval: pingInterval, MaxPingsOut: 2,
		LeafNode: natsd.LeafNodeOpts{Host: host, Port: number, AuthTimeout: authTime.Seconds(), NoAdvertise: true},
	}
	if o.TLS != nil {
		opts.LeafNode.TLSConfig, opts.LeafNode.TLSTimeout = o.TLS.Clone(), authTime.Seconds()
		opts.LeafNode.TLSConfig.NextProtos = nil // this is not HTTP
	}
	if err := h.open(opts); err != nil {
		return nil, fmt.Errorf("start the hub: %w", err)
	}
	ctx, end := context.WithCancel(context.Background())
	h.end = end
	h.ended.Go(func() { h.watch(ctx) })
	return h, nil
}

// open starts the NATS server. Clusters wait until the hub is there.
func (h *Hub) open(opts *natsd.Options) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server, err = embedded.Start(opts, h.Log.With("part", "hub")); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			h.server.Stop()
		}
	}()
	if h.account, err = h.server.RegisterAccount("hub"); err != nil {
		return err
	}
	listening, err := h.server.Varz(nil)
	if err != nil {
		return err
	}
	h.addr = &net.TCPAddr{IP: net.ParseIP(opts.LeafNode.Host), Port: listening.LeafNode.Port}
	h.conn, err = nats.Connect("", nats.InProcessServer(h.server.Server), nats.Token(h.own), nats.MaxReconnects(-1))
	return err
}

// ConnectionErrors returns how often a connection went wrong, which anybody can cause.
func (h *Hub) ConnectionErrors() uint64 { return h.server.ConnectionErrors() }

// Addr returns where clusters connect.
func (h *Hub) Addr() net.Addr { return h.addr }

// Stop ends the hub. What it has answered for is stored.
func (h *Hub) Stop() {
	h.end()
	h.ended.Wait()
	h.conn.Close()
	h.server.Stop()
}

// members reads who may report.
func (o *HubOptions) members() (Members, error) {
	m, err := ReadMembers(o.Members)
	if err != nil {
		return nil, err
	}
	for _, name := range m {
		if name == o.Own {
			return nil, fmt.Errorf("%s: %s is the name of this cluster itself", o.Members, name)
		}
	}
	return m, nil
}

// Clusters returns the names of those that may report, and what became of what
// they have sent.
func (h *Hub) Clusters() map[string]Counts {
	m, err := h.members()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = err
	out := map[string]Counts{}
	for _, name := range m {
		out[name] = Counts{}
	}
	for name, c := range h.clusters {
		if _, member := out[name]; member || err != nil {
			counts := c.counts
			counts.Refused = maps.Clone(c.counts.Refused)
			out[name] = counts
		}
	}
	return out
}

// Refused returns how many attempts to connect were refused, and why the file of
// clusters cannot be read; then nobody can connect anew.
func (h *Hub) Refused() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused, h.failing
}

// authentication decides who may connect, and as whom.
type authentication struct{ *Hub }

// Check is [natsd.Authentication]. It is called in a goroutine of the connection.
func (a authentication) Check(c natsd.ClientAuthentication) bool {
	if c.Kind() == natsd.CLIENT {
		own := subtle.ConstantTimeCompare([]byte(c.GetOpts().Token), []byte(a.own)) == 1
		if own {
			c.RegisterUser(&natsd.User{Username: "server", Account: a.account})
		}
		return own
	}
	if err := a.admit(c); err != nil {
		a.mu.Lock()
		a.refused++
		a.mu.Unlock()
		a.say.Do(func() { a.Log.Warn("a cluster may not connect to the hub", "from", c.RemoteAddress(), "error", err) })
		return false
	}
	return true
}

// admit gives a leaf node the account of its cluster.
func (h *Hub) admit(c natsd.ClientAuthentication) error {
	if c.Kind() != natsd.LEAF {
		return errors.New("only leaf nodes may")
	}
	o := c.GetOpts()
	key := o.Username
	signature, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil || key == "" {
		return errors.New("it shows no key")
	}
	members, err := h.members()
	if err != nil {
		return err
	}
	name, err := members.of(key, c.GetNonce(), signature)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	joined, err := h.join(name)
	if err != nil {
		return err
	}
	h.connected[c.GetID()] = guest{name, key, time.Now()}
	c.RegisterUser(&natsd.User{Username: name, Account: joined.account})
	return nil
}

// join returns a cluster with its account, which is made when it is needed first.
// The hub is locked.
func (h *Hub) join(name string) (*cluster, error) {
	if c := h.clusters[name]; c != nil {
		return c, nil
	}
	account, err := h.server.RegisterAccount("cluster " + name)
	if err != nil {
		return nil, fmt.Errorf("make the account of cluster %s: %w", name, err)
	}
	for _, service := range []struct {
		subject, here string
		handle        func(string, []byte) answer
	}{{alertService, alertPrefix + name, h.take}, {stateService, statePrefix + name, h.state}} {
		err := errors.Join(h.account.AddServiceExport(service.here, []*natsd.Account{account}), account.AddServiceImport(h.account, service.subject, service.here))
		if err != nil {
			return nil, fmt.Errorf("make the services of cluster %s: %w", name, err)
		}
		// Each has a goroutine: none waits for another cluster.
		sub, err := h.conn.Subscribe(service.here, func(m *nats.Msg) {
			data, err := json.Marshal(service.handle(name, m.Data))
			if err = errors.Join(err, m.Respond(data)); err != nil {
				h.Log.Debug("answer cluster", "cluster", name, "error", err)
			}
		})
		if err == nil {
			err = sub.SetPendingLimits(maxQueued, maxQueued*maxMessage)
		}
		if err != nil {
			return nil, fmt.Errorf("serve cluster %s: %w", name, err)
		}
	}
	c := &cluster{account: account, counts: Counts{Refused: map[string]uint64{}}}
	h.clusters[name] = c
	return c, h.conn.Flush()
}

// take stores a batch of a cluster.
func (h *Hub) take(name string, data []byte) answer {
	var b batch
	if err := decode(data, &b); err != nil || len(b.Alerts) > batchSize {
		return answer{Error: fmt.Sprintf("this is no batch of at most %d alerts", batchSize)}
	}
	if b.Cluster != name {
		h.say.Do(func() {
			h.Log.Error("a cluster is refused that says it is another one", "cluster", name, "says", fmt.Sprintf("%.60q", b.Cluster))
		})
		h.count(name, func(c *Counts) { c.Refused[CauseForeign] += uint64(len(b.Alerts)) })
		return answer{Error: fmt.Sprintf("its key is of cluster %s, and it says that it is %.60q", name, b.Cluster)}
	}
	alerts, refused := make([]alert.Alert, 0, len(b.Alerts)), map[string]int{}
	for _, raw := range b.Alerts {
		var a alert.Alert
		if cause, err := readAlert(raw, name, &a); err != nil {
			refused[cause]++
			h.say.Do(func() { h.Log.Error("an alert of a cluster is refused", "cluster", name, "cause", cause, "error", err) })
			continue
		}
		alerts = append(alerts, a)
	}
	ctx, cancel := context.WithTimeout(context.Background(), handleTime)
	defer cancel()
	if err := h.Alerts(ctx, name, alerts); err != nil {
		h.count(name, func(c *Counts) { c.Failed++ })
		h.say.Do(func() {
			h.Log.Error("alerts of a cluster wait there until they can be stored", "cluster", name, "error", err)
		})
		return answer{Error: "the hub cannot store alerts now"}
	}
	h.count(name, func(c *Counts) {
		c.Received += uint64(len(alerts))
		for cause, n := range refused {
			c.Refused[cause] += uint64(n)
		}
	})
	return answer{Refused: refused}
}

func (h *Hub) count(name string, f func(*Counts)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.clusters[name].counts)
}

// state keeps what a cluster says of itself.
func (h *Hub) state(name string, data []byte) answer {
	s, err := decodeState(data)
	if err != nil {
		return answer{Error: "this is no state of a cluster"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), handleTime)
	defer cancel()
	if err := h.State(ctx, name, s); err != nil {
		h.say.Do(func() { h.Log.Error("the state of a cluster is not kept", "cluster", name, "error", err) })
		return answer{Error: "the hub cannot keep states now"}
	}
	return answer{}
}

// watch ends connections by keys that are no longer good, until ctx ends.
func (h *Hub) watch(ctx context.Context) {
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.revoke()
		}
	}
}

func (h *Hub) revoke() {
	members, err := h.members()
	leafs, lerr := h.server.Leafz(nil)
	if lerr != nil {
		h.Log.Error("connections of clusters are not checked", "error", lerr)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = err
	for _, c := range h.clusters {
		c.counts.Connected = false
	}
	open := map[uint64]bool{}
	for _, l := range leafs.Leafs {
		open[l.ID] = true
		who := h.connected[l.ID]
		if err == nil && (who.key == "" || members[who.key] != who.cluster) {
			h.Log.Warn("a cluster is cut off: its key is no longer in the file of clusters", "cluster", who.cluster, "from", l.IP)
			go h.server.DisconnectClientByID(l.ID)
			continue
		}
		if c := h.clusters[who.cluster]; c != nil {
			c.counts.Connected = true
		}
	}
	maps.DeleteFunc(h.connected, func(id uint64, g guest) bool { return !open[id] && time.Since(g.at) > authTime })
}
