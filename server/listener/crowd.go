package listener

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// maxHandshake bounds what a TLS handshake sends us: crypto/tls would keep 256 KiB
// of anybody.
const maxHandshake = 32 << 10

// ours is how long a request that has come whole is our delay, not its sender's: as
// long as an API server waits for a webhook at most.
const ours = 30 * time.Second

// awaited is what a connection weighs, or a request that has not come whole, when one
// that has weighs 1.
const awaited = 32

// A Crowd is who is connected, of whom any may be a stranger. There is always a place
// for one more: when there are too many, the address that weighs most loses the
// connection that has kept us waiting longest, since it came or was answered. So nobody
// shuts others out, what all hold together is bounded, and neither a burst of
// connections nor those of many addresses cost the requests that we work at. What counts is a connection, with its
// buffers, also those of the kernel, and each request in it until its answer is taken.
// Listeners may share one.
type Crowd struct {
	name   string
	limit  int
	log    *slog.Logger
	say    rate.Sometimes
	closed atomic.Uint64

	mu      sync.Mutex
	held    int
	callers map[string]*caller
}

// A caller is an address with connections. Both lists are of *conn, the one that moved
// on last at the end.
type caller struct {
	weight  int
	waiting list.List // we wait for them
	working list.List // they wait for us, with a request that has come whole
}

// A conn is a connection of a crowd.
type conn struct {
	net.Conn
	crowd     *Crowd
	from      string
	at        *list.Element // of among; nil: it counts no more
	among     *list.List
	moved     time.Time // when it came, brought a whole request, or was answered
	held      int
	weight    int
	whole     int // requests that have come whole, and are not answered
	end       context.CancelFunc
	handshake int // bytes that may still come in it; none: there is none any more
}

// NewCrowd returns a crowd of at most so many connections and requests together. The
// name is that of its ports in metrics and log.
func NewCrowd(name string, limit int, log *slog.Logger) *Crowd {
	return &Crowd{name: name, limit: limit, log: log, say: rate.Sometimes{Interval: time.Minute}, callers: map[string]*caller{}}
}

// Collector returns the metrics of the crowd.
func (c *Crowd) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "kubeguardian", Name: "connections_closed_total",
		Help: "Connections at ports of HTTP that were closed because there were too many.", ConstLabels: prometheus.Labels{"port": c.name},
	}, func() float64 { return float64(c.closed.Load()) })
}

// Serve serves srv to the crowd until ctx ends, by TLS if there is a configuration
// for it, then lets the requests that run finish within the grace.
func (c *Crowd) Serve(ctx context.Context, srv *http.Server, ln net.Listener, config *tls.Config, grace time.Duration) error {
	srv.Handler = counted(srv.Handler)
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if secured, ok := nc.(*tls.Conn); ok {
			nc = secured.NetConn()
		}
		return nc.(*conn).context(ctx)
	}
	ln = entrance{ln, c, config != nil}
	if config != nil {
		ln = tls.NewListener(ln, bounding(config))
	}
	return serve(ctx, srv, ln, grace)
}

type connKey struct{}

// counted counts requests in their connection.
func counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &request{ReadCloser: r.Body, conn: r.Context().Value(connKey{}).(*conn)}
		req.begin(r.ContentLength == 0)
		defer req.done()
		if r.ContentLength != 0 {
			r.Body = req
		}
		next.ServeHTTP(w, r)
		if r.ProtoMajor == 2 { // who does not take the answer still holds the stream
			http.NewResponseController(w).Flush() //nolint:errcheck // the sender is gone
		}
	})
}

// bounding returns a configuration with which handshakes are bounded.
func bounding(config *tls.Config) *tls.Config {
	out := config.Clone()
	out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		one, err := config, error(nil)
		if config.GetConfigForClient != nil {
			one, err = config.GetConfigForClient(hello)
		}
		if one == nil || err != nil {
			return nil, errors.Join(err, errors.New("no configuration for TLS"))
		}
		one = one.Clone()
		verify := one.VerifyConnection
		one.VerifyConnection = func(state tls.ConnectionState) error {
			hello.Conn.(*conn).handshake = 0
			if verify == nil {
				return nil
			}
			return verify(state)
		}
		return one, nil
	}
	return out
}

// An entrance is a listener whose connections are of a crowd.
type entrance struct {
	net.Listener
	crowd  *Crowd
	secure bool
}

// Accept lets in the next one.
func (e entrance) Accept() (net.Conn, error) {
	nc, err := e.Listener.Accept()
	if err != nil {
		return nil, err
	}
	from, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		from = nc.RemoteAddr().String()
	}
	c := &conn{Conn: nc, crowd: e.crowd, from: from}
	if e.secure {
		c.handshake = maxHandshake
	}
	e.crowd.enter(c)
	return c, nil
}

var errHandshake = errors.New("the TLS handshake is too large")

// Read bounds the handshake.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.handshake == 0 {
		return n, err
	}
	if c.handshake -= n; c.handshake <= 0 {
		c.handshake = 1
		return 0, errHandshake
	}
	return n, err
}

// Close leaves the crowd, and ends what is done in the connection, which may be
// waiting for anything.
func (c *conn) Close() error {
	c.crowd.mu.Lock()
	c.leave()
	end := c.end
	c.crowd.mu.Unlock()
	if end != nil {
		end()
	}
	return c.Conn.Close()
}

// context returns that of the connection.
func (c *conn) context(ctx context.Context) context.Context {
	c.crowd.mu.Lock()
	defer c.crowd.mu.Unlock()
	ctx, c.end = context.WithCancel(context.WithValue(ctx, connKey{}, c))
	if c.at == nil {
		c.end()
	}
	return ctx
}

func (c *Crowd) enter(nc *conn) {
	c.mu.Lock()
	from := c.callers[nc.from]
	if from == nil {
		from = &caller{}
		c.callers[nc.from] = from
	}
	nc.move(from)
	c.count(nc, 1, awaited)
	c.unlockShedding()
}

// moveOn notes what a connection did, if it still counts.
func (c *conn) moveOn() {
	if c.at != nil {
		c.among.Remove(c.at)
		c.move(c.crowd.callers[c.from])
	}
}

// move puts a connection behind the others of its caller.
func (c *conn) move(of *caller) {
	c.among, c.moved = &of.waiting, time.Now()
	if c.whole > 0 {
		c.among = &of.working
	}
	c.at = c.among.PushBack(c)
}

// leave takes a connection out of the count.
func (c *conn) leave() {
	if c.at == nil {
		return
	}
	from := c.crowd.callers[c.from]
	c.among.Remove(c.at)
	c.at = nil
	c.crowd.held -= c.held
	if from.weight -= c.weight; from.weight == 0 {
		delete(c.crowd.callers, c.from)
	}
}

// count adds to what a connection holds and weighs, if it still counts.
func (c *Crowd) count(nc *conn, held, weight int) {
	if nc.at == nil {
		return
	}
	nc.held, nc.weight = nc.held+held, nc.weight+weight
	c.held += held
	c.callers[nc.from].weight += weight
}

// unlockShedding closes connections while there are too many, after it has unlocked.
func (c *Crowd) unlockShedding() {
	var shed []*conn
	for c.held > c.limit {
		worst := c.worst()
		worst.leave()
		shed = append(shed, worst)
	}
	c.mu.Unlock()
	c.closed.Add(uint64(len(shed)))
	for _, nc := range shed {
		nc.Close() //nolint:errcheck // it is of no use any more
		c.say.Do(func() {
			c.log.Warn("too many connections: those are closed that wait longest, of the address that has most", "port", c.name, "address", nc.from, "limit", c.limit)
		})
	}
}

// worst returns the connection to close: of the caller that weighs most, the one that
// has kept us waiting longest.
func (c *Crowd) worst() *conn {
	var worst *conn
	most := 0
	for _, caller := range c.callers {
		nc := caller.worst()
		if caller.weight > most || caller.weight == most && nc.late().Before(worst.late()) {
			worst, most = nc, caller.weight
		}
	}
	return worst
}

func (c *caller) worst() *conn {
	waiting, working := c.waiting.Front(), c.working.Front()
	if waiting == nil || working != nil && working.Value.(*conn).late().Before(waiting.Value.(*conn).late()) {
		return working.Value.(*conn)
	}
	return waiting.Value.(*conn)
}

// late returns since when a connection has kept us waiting.
func (c *conn) late() time.Time {
	if c.whole > 0 {
		return c.moved.Add(ours)
	}
	return c.moved
}

// A request is what a crowd knows of one: that it is there, and whether its body is.
type request struct {
	io.ReadCloser // its body
	conn          *conn
	whole         bool
}

func (r *request) begin(whole bool) {
	c := r.conn.crowd
	c.mu.Lock()
	c.count(r.conn, 1, awaited)
	if whole {
		r.came()
	}
	c.unlockShedding()
}

// Read reads the body, and notes its end.
func (r *request) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if err == io.EOF {
		r.conn.crowd.mu.Lock()
		defer r.conn.crowd.mu.Unlock()
		r.came()
	}
	return n, err
}

// came notes that the request is there as a whole.
func (r *request) came() {
	if r.whole {
		return
	}
	r.whole = true
	r.conn.whole++
	r.conn.crowd.count(r.conn, 0, 1-awaited)
	r.conn.moveOn()
}

func (r *request) done() {
	c := r.conn.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	weight := awaited
	if r.whole {
		r.conn.whole--
		weight = 1
	}
	c.count(r.conn, -1, -weight)
	r.conn.moveOn()
}
