package bus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/spool"
)

// How alerts are sent.
const (
	window     = 256 // that are under way
	ackTimeout = 10 * time.Second
)

// A Publisher sends the alerts of a node. They are in the spool first, so that
// they outlast the process and a server that is away, and leave it when the bus
// has them.
type Publisher struct {
	node  string
	spool *spool.Spool
	log   *slog.Logger

	sent, refused, failed atomic.Uint64
	failing               atomic.Pointer[failure] // nil while alerts are sent
}

// A failure is why alerts are not sent.
type failure struct {
	err   error
	since time.Time
}

// NewPublisher returns one for the agent of a node.
func NewPublisher(node string, s *spool.Spool, log *slog.Logger) *Publisher {
	return &Publisher{node: node, spool: s, log: log}
}

// Publish puts an alert into the spool. It may be called concurrently; alerts of
// one caller stay in their order.
func (p *Publisher) Publish(a *alert.Alert) error {
	var record bytes.Buffer
	record.WriteString(a.ID)
	record.WriteByte('\n')
	enc := json.NewEncoder(&record)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		return fmt.Errorf("encode alert of rule %q: %w", a.Rule, err)
	}
	// What the bus adds to it must fit into a message, too.
	if record.Len() > MaxMessage-4096 {
		p.refused.Add(1)
		return fmt.Errorf("alert of rule %q has %d bytes, at most %d: %w", a.Rule, record.Len(), MaxMessage-4096, spool.ErrTooLarge)
	}
	return p.spool.Append(bytes.TrimSuffix(record.Bytes(), []byte("\n")))
}

// PublishStats are what became of alerts.
type PublishStats struct {
	Sent    uint64    // that the bus has
	Refused uint64    // that are too large for the bus
	Failed  uint64    // attempts that were repeated
	Err     error     // why alerts are not sent now; nil if they are
	Since   time.Time // when that began; zero if it is the spool's disk
	Spool   spool.Stats
}

// Stats returns what became of alerts since the start.
func (p *Publisher) Stats() PublishStats {
	s := PublishStats{Sent: p.sent.Load(), Refused: p.refused.Load(), Failed: p.failed.Load(), Spool: p.spool.Stats(), Err: p.spool.Err()}
	if f := p.failing.Load(); f != nil {
		s.Err, s.Since = cmp.Or(s.Err, f.err), f.since
	}
	return s
}

// underway is an alert that was sent, and of which it is not known yet whether it
// arrived.
type underway struct {
	number uint64
	future jetstream.PubAckFuture
}

// Run sends alerts until ctx ends, and then those that wait, for a few seconds at
// most. Alerts are sent in their order, many at a time. After a failure it goes on
// with the first one that is not known to have arrived: what the bus has already it
// knows by its id.
func (p *Publisher) Run(ctx context.Context, nc *nats.Conn) error {
	for attempt := 0; ; attempt++ {
		before := p.sent.Load()
		err := p.send(ctx, nc)
		if ctx.Err() != nil {
			return nil
		}
		if p.sent.Load() > before || errors.Is(err, errAway) { // looking costs nothing
			attempt = 0
		}
		p.failed.Add(1)
		f := &failure{err, time.Now()}
		if last := p.failing.Load(); last != nil {
			f.since = last.since
		} else {
			p.log.Warn("alerts wait in the spool", "error", err, "waiting", p.spool.Stats().Waiting)
		}
		p.failing.Store(f)
		if !pause(ctx, delay(min(attempt, 5))) {
			return nil
		}
	}
}

// send sends alerts until something fails.
func (p *Publisher) send(ctx context.Context, nc *nats.Conn) error {
	if !nc.IsConnected() {
		return errAway
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(2*window), jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return fmt.Errorf("send alerts: %w", err)
	}
	defer js.CleanupPublisher()
	p.spool.Rewind()
	var flight []underway
	for {
		if flight, err = p.fill(js, flight); err != nil {
			return err
		}
		var arrived <-chan *jetstream.PubAck
		var failed <-chan error
		ready := p.spool.Ready()
		if len(flight) > 0 {
			arrived, failed = flight[0].future.Ok(), flight[0].future.Err()
		} else {
			p.works()
		}
		if len(flight) == window {
			ready = nil
		}
		select {
		case <-ctx.Done():
			p.settle(js, flight)
			return ctx.Err()
		case <-ready:
		case <-arrived:
			flight = p.arrived(flight)
		case err := <-failed:
			return fmt.Errorf("send alert: %w", err)
		}
	}
}

// fill sends alerts until the window is full or there are no more.
func (p *Publisher) fill(js jetstream.JetStream, flight []underway) ([]underway, error) {
	for len(flight) < window {
		number, record, ok, err := p.spool.Next()
		if err != nil || !ok {
			return flight, err
		}
		id, data, _ := bytes.Cut(record, []byte("\n"))
		msg := &nats.Msg{Subject: alertPrefix + p.node, Data: data, Header: nats.Header{jetstream.MsgIDHeader: {string(id) + "@" + p.node}}}
		future, err := js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
		if err != nil {
			return flight, fmt.Errorf("send alert: %w", err)
		}
		flight = append(flight, underway{number, future})
	}
	return flight, nil
}

// arrived takes the alerts at the begin of the window out that have arrived, at
// least one.
func (p *Publisher) arrived(flight []underway) []underway {
	n := 1
	for n < len(flight) && ready(flight[n].future) {
		n++
	}
	p.sent.Add(uint64(n))
	p.spool.Delivered(flight[n-1].number)
	p.works()
	return append(flight[:0], flight[n:]...)
}

// works notes that nothing keeps alerts from being sent.
func (p *Publisher) works() {
	if p.failing.Swap(nil) != nil {
		p.log.Info("alerts are sent again", "waiting", p.spool.Stats().Waiting)
	}
}

func ready(f jetstream.PubAckFuture) bool {
	select {
	case <-f.Ok():
		return true
	default:
		return false
	}
}

// settleTime is how long at most an agent that ends sends what waits.
const settleTime = 5 * time.Second

// settle sends what is left, so that it need not wait for the next start.
func (p *Publisher) settle(js jetstream.JetStream, flight []underway) {
	end := time.After(settleTime)
	for {
		var err error
		if flight, err = p.fill(js, flight); err != nil || len(flight) == 0 {
			return
		}
		select {
		case <-end:
			return
		case <-flight[0].future.Err():
			return
		case <-flight[0].future.Ok():
			flight = p.arrived(flight)
		}
	}
}

// errAway says that nothing can be sent as there is no connection.
var errAway = errors.New("the bus is away")

// SendState sends the state of an agent.
func SendState(ctx context.Context, nc *nats.Conn, s *fleet.State) error {
	if !nc.IsConnected() {
		return errAway
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state of node %s: %w", s.Node, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("send state of node %s: %w", s.Node, err)
	}
	if _, err := js.Publish(ctx, statePrefix+s.Node, data); err != nil {
		return fmt.Errorf("send state of node %s: %w", s.Node, err)
	}
	return nil
}
