package leaf

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/embedded"
	"github.com/kubeguardian/kubeguardian/bus/roster"
	"github.com/kubeguardian/kubeguardian/finding"
)

// A Source is the store of a cluster.
type Source interface {
	// AlertsAfter returns what was added after seq, in that order, and the seq up
	// to which it looked.
	AlertsAfter(ctx context.Context, seq int64, q alert.Query) ([]alert.Record, int64, error)
	// Alerts returns a page, newest first.
	Alerts(context.Context, alert.Query) ([]alert.Record, finding.Cursor, error)
	// LastAlert returns the seq of the alert that was added last.
	LastAlert(context.Context) (int64, error)
	// Checkpoint returns what SaveCheckpoint kept last under a name.
	Checkpoint(ctx context.Context, name string) (body []byte, found bool, err error)
	SaveCheckpoint(ctx context.Context, name string, body []byte) error
}

// SpokeOptions are what a [Spoke] is made of. All but CAFile are needed.
type SpokeOptions struct {
	URL     string // of the hub: tls://host:port, or nats://host:port on a loopback address
	CAFile  string // PEM; without it the system's authorities count
	KeyFile string // of this cluster, as [NewKey] makes it
	Cluster string // the name that the hub knows the key by
	Alerts  Source
	// State returns what to say of this cluster, but for what the spoke knows
	// itself. It must be quick.
	State    func() roster.State
	Interval time.Duration // between states
	Log      *slog.Logger
}

// How alerts are sent.
const (
	checkpoint  = "hub" // up to which alert the hub has all
	lookEvery   = time.Second
	firstWait   = 250 * time.Millisecond
	maxWait     = 15 * time.Second
	askTime     = 60 * time.Second
	openAgain   = 30 * time.Second // without a connection, after which the files are read again
	firstWindow = time.Hour        // of alerts that are sent when a cluster joins; what is older stays there
)

// Check returns what is wrong with the options, as far as that shows without a
// connection.
func (o *SpokeOptions) Check() error {
	if err := CheckCluster(o.Cluster); err != nil {
		return fmt.Errorf("report to the hub: %w", err)
	}
	if err := (bus.Endpoint{URL: o.URL}).Check(); err != nil {
		return fmt.Errorf("report to the hub: %w", err)
	}
	if err := CheckKey(o.KeyFile); err != nil {
		return err
	}
	_, err := o.tls()
	return err
}

// A Spoke reports to a hub. It is safe for concurrent use.
type Spoke struct {
	SpokeOptions
	started time.Time
	wake    chan struct{}

	mu    sync.Mutex
	stats SpokeStats
}

// SpokeStats are what a spoke has sent since the start, and what is still to come.
type SpokeStats struct {
	Running   bool // it reports, or tries to
	Connected bool
	Sent      uint64            // alerts that the hub has
	Refused   map[string]uint64 // of these, those that it gave up, by cause; too_large ones were not sent
	Failed    uint64            // attempts that were repeated
	Waiting   int64             // alerts that are not sent yet, at most
	Oldest    time.Time         // of these; zero: there are none
	Err       error             // why alerts are not sent now; nil if they are
}

// CauseTooLarge is why an alert is not sent at all.
const CauseTooLarge = "too_large"

// NewSpoke returns a spoke that is not connected yet.
func NewSpoke(o SpokeOptions) (*Spoke, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return &Spoke{SpokeOptions: o, started: time.Now(), wake: make(chan struct{}, 1), stats: SpokeStats{Refused: map[string]uint64{}}}, nil
}

// Alerted says that there are new alerts. It never waits.
func (s *Spoke) Alerted() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stats returns what became of alerts.
func (s *Spoke) Stats() SpokeStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Refused = maps.Clone(out.Refused)
	return out
}

func (s *Spoke) note(f func(*SpokeStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// Run reports until ctx ends. One for each cluster runs at a time.
func (s *Spoke) Run(ctx context.Context) error {
	s.note(func(st *SpokeStats) { st.Running = true })
	wait := firstWait
	for ctx.Err() == nil {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			break
		}
		s.fail(err)
		if time.Since(began) > openAgain {
			wait = firstWait
		}
		pause(ctx, wait)
		wait = min(2*wait, maxWait)
	}
	// What waits now is of who runs next.
	s.note(func(st *SpokeStats) {
		st.Running, st.Connected, st.Waiting, st.Oldest, st.Err = false, false, 0, time.Time{}, nil
	})
	return nil
}

func (s *Spoke) fail(err error) {
	first := false
	s.note(func(st *SpokeStats) { first, st.Err, st.Failed = st.Err == nil, err, st.Failed+1 })
	if first {
		s.Log.Warn("alerts wait until the hub takes them", "hub", s.URL, "error", err)
	}
}

// session connects to the hub and reports, until it was away for a while: then
// the files are read again.
func (s *Spoke) session(ctx context.Context) error {
	server, err := s.open()
	if err != nil {
		return fmt.Errorf("connect to the hub: %w", err)
	}
	defer server.Stop()
	conn, err := nats.Connect("", nats.InProcessServer(server.Server), nats.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("connect to the hub: %w", err)
	}
	defer conn.Close()
	link := &link{Spoke: s, server: server, conn: conn, seen: time.Now()}
	return link.run(ctx)
}

// open starts the NATS server that is a leaf node of the hub's.
func (s *Spoke) open() (*embedded.Server, error) {
	key, err := readKey(s.KeyFile)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	remote := &natsd.RemoteLeafOpts{URLs: []*url.URL{u}, FirstInfoTimeout: authTime, DialTimeout: authTime}
	public, _ := key.Public().(ed25519.PublicKey)
	u.User = url.User(encodeKey(public))
	remote.SignatureCB = func(nonce []byte) (string, []byte, error) { return "", ed25519.Sign(key, signed(nonce)), nil }
	if remote.TLSConfig, err = s.tls(); err != nil {
		return nil, err
	}
	remote.TLS, remote.TLSTimeout = remote.TLSConfig != nil, authTime.Seconds()
	return embedded.Start(&natsd.Options{
		ServerName: s.Cluster, DontListen: true, MaxPayload: maxMessage, MaxPending: maxPending,
		PingInterval: pingInterval, MaxPingsOut: 2,
		LeafNode: natsd.LeafNodeOpts{Remotes: []*natsd.RemoteLeafOpts{remote}, ReconnectInterval: time.Second},
	}, s.Log.With("part", "hub"))
}

// tls returns how the hub is trusted; nil is without TLS.
func (o *SpokeOptions) tls() (*tls.Config, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "tls" {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: u.Hostname()}
	if o.CAFile == "" {
		return c, nil
	}
	text, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read authority of the hub: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read authority of the hub: %s has no certificate in PEM", o.CAFile)
	}
	return c, nil
}

// A link is a spoke with a server that connects to the hub.
type link struct {
	*Spoke
	server *embedded.Server
	conn   *nats.Conn
	seen   time.Time // when there was a connection last
	told   time.Time // when the state was sent last
	seq    int64     // up to which alert the hub has all
}

// run reports until ctx ends or the connection was away for long.
func (l *link) run(ctx context.Context) (err error) {
	if l.seq, err = l.begin(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer l.goodbye()
	for wait := firstWait; ; {
		more, err := l.report(ctx)
		l.measure(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if wait = firstWait; more {
				continue
			}
		case time.Since(l.seen) > openAgain:
			return err
		default:
			l.fail(err)
			pause(ctx, wait)
			wait = min(2*wait, maxWait)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
		case <-tick.C:
		}
	}
}

// begin returns where to go on. A cluster that has just joined tells of the last
// hour.
func (l *link) begin(ctx context.Context) (seq int64, err error) {
	seq, found, err := Sent(ctx, l.Alerts)
	if err != nil || found {
		return seq, err
	}
	older, _, err := l.Alerts.Alerts(ctx, alert.Query{Until: time.Now().Add(-firstWindow), Limit: 1})
	if err != nil {
		return 0, err
	}
	if len(older) > 0 {
		seq = older[0].Seq
	}
	return seq, l.save(ctx, seq)
}

// Sent returns up to which alert the hub has all that a store has, which found says
// is known.
func Sent(ctx context.Context, s interface {
	Checkpoint(context.Context, string) ([]byte, bool, error)
}) (seq int64, found bool, err error) {
	body, found, err := s.Checkpoint(ctx, checkpoint)
	if err != nil || !found {
		return 0, false, err
	}
	if _, err := fmt.Sscan(string(body), &seq); err != nil {
		return 0, false, fmt.Errorf("read up to where alerts were sent: %q: %w", body, err)
	}
	return seq, true, nil
}

func (l *link) save(ctx context.Context, seq int64) error {
	return l.Alerts.SaveCheckpoint(ctx, checkpoint, fmt.Append(nil, seq))
}

// report sends some alerts, and the state when it is time. It says whether there
// may be more alerts.
func (l *link) report(ctx context.Context) (more bool, err error) {
	connected := l.server.NumLeafNodes() > 0
	l.note(func(st *SpokeStats) { st.Connected = connected })
	if !connected {
		return false, l.away()
	}
	l.seen = time.Now()
	if time.Since(l.told) >= l.Interval {
		if err := l.tell(ctx, l.state()); err != nil {
			return false, err
		}
		l.told = time.Now()
	}
	records, last, err := l.Alerts.AlertsAfter(ctx, l.seq, alert.Query{Limit: batchSize})
	if err != nil {
		return false, err
	}
	if len(records) > 0 {
		if last, err = l.send(ctx, records, last); err != nil {
			return false, err
		}
	}
	if last == l.seq {
		l.note(func(st *SpokeStats) { st.Err = nil })
		return false, nil
	}
	if err := l.save(ctx, last); err != nil {
		return false, err
	}
	l.seq = last
	back := false
	l.note(func(st *SpokeStats) { back, st.Err = st.Err != nil, nil })
	if back {
		l.Log.Info("the hub takes alerts again", "hub", l.URL)
	}
	return true, nil
}

// away says why there is no connection.
func (l *link) away() error {
	if last := l.server.LastError(); last != "" {
		return fmt.Errorf("there is no connection to the hub: %s", last)
	}
	return errors.New("there is no connection to the hub")
}

// send sends as many alerts as fit into one message, and returns the seq up to
// which the hub has all; last is that of all.
func (l *link) send(ctx context.Context, records []alert.Record, last int64) (int64, error) {
	b, size := batch{Cluster: l.Cluster}, 0
	tooLarge := uint64(0)
	for i := range records {
		records[i].Cluster = l.Cluster // it may have had another name then
		data, err := json.Marshal(&records[i].Alert)
		if err != nil {
			return l.seq, fmt.Errorf("encode alert %s: %w", records[i].ID, err)
		}
		if len(data) > maxAlert {
			tooLarge++
			l.Log.Error("an alert is not sent to the hub: it is too large", "alert", records[i].ID, "rule", records[i].Rule, "bytes", len(data))
			continue
		}
		if len(b.Alerts) > 0 && size+len(data) > batchBytes {
			last = records[i].Seq - 1
			break
		}
		b.Alerts, size = append(b.Alerts, data), size+len(data)
	}
	var refused map[string]int
	if len(b.Alerts) > 0 {
		a, err := l.ask(ctx, alertService, b)
		if err != nil {
			return l.seq, err
		}
		refused = a.Refused
	}
	l.note(func(st *SpokeStats) {
		st.Sent += uint64(len(b.Alerts))
		if tooLarge > 0 {
			st.Refused[CauseTooLarge] += tooLarge
		}
		for cause, n := range refused {
			st.Refused[cause] += uint64(n)
		}
	})
	return last, nil
}

// ask sends something to the hub, and returns its answer.
func (l *link) ask(ctx context.Context, service string, question any) (a answer, err error) {
	data, err := json.Marshal(question)
	if err != nil {
		return a, fmt.Errorf("encode for the hub: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	lost := l.untilLost(ctx, cancel)
	m, err := l.conn.RequestWithContext(ctx, service, data)
	switch {
	case err != nil && lost.Load():
		return a, l.away()
	case errors.Is(err, nats.ErrNoResponders):
		return a, l.away()
	case err != nil:
		return a, fmt.Errorf("ask the hub: %w", err)
	}
	if err := decode(m.Data, &a); err != nil {
		return a, fmt.Errorf("read the answer of the hub: %w", err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("the hub refuses: %s", a.Error)
	}
	return a, nil
}

// untilLost calls cancel when the connection is lost before ctx ends: then there
// will be no answer.
func (l *link) untilLost(ctx context.Context, cancel func()) *atomic.Bool {
	lost, id := &atomic.Bool{}, l.connection()
	go func() {
		for ctx.Err() == nil {
			if l.connection() != id {
				lost.Store(true)
				cancel()
				return
			}
			pause(ctx, firstWait)
		}
	}()
	return lost
}

// connection returns what tells the connection to the hub from those before; 0:
// there is none.
func (l *link) connection() uint64 {
	leafs, err := l.server.Leafz(nil)
	if err != nil || len(leafs.Leafs) == 0 {
		return 0
	}
	return leafs.Leafs[0].ID
}

// state returns what to say of this cluster.
func (l *link) state() roster.State {
	st, now := l.State(), l.Stats()
	st.Started, st.Interval, st.Waiting, st.Oldest = l.started.UTC(), l.Interval, now.Waiting, now.Oldest
	st.Bound()
	return st
}

func (l *link) tell(ctx context.Context, st roster.State) error {
	_, err := l.ask(ctx, stateService, st)
	return err
}

// goodbyeTime is how long a spoke that ends tries to say so.
const goodbyeTime = time.Second

// goodbye says that the cluster stops to report on purpose.
func (l *link) goodbye() {
	if l.server.NumLeafNodes() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	st := l.state()
	st.Stopped = true
	if err := l.tell(ctx, st); err != nil {
		l.Log.Debug("say goodbye to the hub", "error", err)
	}
}

// measure notes how much is still to come.
func (l *link) measure(ctx context.Context) {
	last, err := l.Alerts.LastAlert(ctx)
	var oldest time.Time
	if err == nil && last > l.seq {
		var next []alert.Record
		if next, _, err = l.Alerts.AlertsAfter(ctx, l.seq, alert.Query{Limit: 1}); len(next) > 0 {
			oldest = next[0].Time
		}
	}
	l.note(func(st *SpokeStats) {
		if st.Err == nil {
			st.Err = err
		}
		st.Waiting, st.Oldest = max(last-l.seq, 0), oldest
	})
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
