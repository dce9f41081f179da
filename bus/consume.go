package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
)

// How alerts are taken from the bus.
const (
	consumer   = "server" // all replicas of a server share it
	batchSize  = 500
	ackWait    = 10 * time.Second // after which what a server that was killed had is given to another
	underWork  = 8 * batchSize    // that a server has and has not acknowledged
	retryAfter = 2 * time.Second

	// suspectAfter is how often alerts are delivered before each is tried by
	// itself, and those that alone cannot be handled are given up.
	suspectAfter = 5
)

// A Message is an alert that an agent has sent. The server has it until it is
// acknowledged: after [Message.Hold] that is for [Message.Done].
type Message struct {
	Node  string
	Alert alert.Alert

	msg       jetstream.Msg
	delivered uint64
	sequence  uint64 // in the stream
	held      bool
}

// Hold keeps the message from being acknowledged when the handler returns.
func (m *Message) Hold() { m.held = true }

// Extend says that a message that is held is still worked on. Call it every three
// seconds or so.
func (m *Message) Extend() error { return m.msg.InProgress() }

// Done acknowledges a message that was held.
func (m *Message) Done() error { return m.msg.Ack() }

// A Handler stores alerts. When it returns nil they are on disk, but for those it
// holds. After an error all come again.
type Handler func(ctx context.Context, batch []*Message) error

// ConsumeStats are what became of alerts of agents, since the start, and what is
// still to come.
type ConsumeStats struct {
	Received, Redelivered uint64
	Rejected              map[string]uint64 // by cause
	Failed                uint64            // batches that came again
	Pending               uint64            // alerts that nobody has taken
	Unacknowledged        int               // that were taken and are not done
	Lag                   time.Duration     // from when the bus got the alert that was taken last, until then
	Err                   error             // why alerts are not taken now; nil if they are
}

// A Consumer takes alerts from the bus. It is made by [NewConsumer] and safe for
// concurrent use.
type Consumer struct {
	handle Handler
	log    *slog.Logger
	say    rate.Sometimes

	received, redelivered, failed atomic.Uint64
	lag                           atomic.Int64

	stored   time.Time            // when alerts were stored last
	suspects map[uint64]time.Time // when messages were tried last that could not be stored often, by their number

	mu       sync.Mutex
	rejected map[string]uint64
	pending  uint64
	unacked  int
	err      error
}

// NewConsumer returns one that has taken nothing yet.
func NewConsumer(handle Handler, log *slog.Logger) *Consumer {
	return &Consumer{handle: handle, log: log, say: rate.Sometimes{Interval: 10 * time.Second}, rejected: map[string]uint64{}, suspects: map[uint64]time.Time{}}
}

// Stats returns what became of alerts.
func (c *Consumer) Stats() ConsumeStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ConsumeStats{
		Received: c.received.Load(), Redelivered: c.redelivered.Load(), Failed: c.failed.Load(), Rejected: map[string]uint64{},
		Pending: c.pending, Unacknowledged: c.unacked, Lag: time.Duration(c.lag.Load()), Err: c.err,
	}
	for cause, n := range c.rejected {
		s.Rejected[cause] = n
	}
	return s
}

// Run takes alerts until ctx ends. What is handled then is finished.
func (c *Consumer) Run(ctx context.Context, js jetstream.JetStream) error {
	for ctx.Err() == nil {
		err := c.consume(ctx, js)
		if ctx.Err() != nil {
			return nil
		}
		c.note(err)
		c.log.Error("alerts of agents are not taken from the bus until that works again", "error", err)
		pause(ctx, retryAfter)
	}
	return nil
}

func (c *Consumer) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *Consumer) consume(ctx context.Context, js jetstream.JetStream) error {
	cons, err := js.CreateOrUpdateConsumer(ctx, AlertStream, jetstream.ConsumerConfig{
		Durable: consumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: underWork, MaxDeliver: -1,
		FilterSubject: alertPrefix + ">",
	})
	if err != nil {
		return fmt.Errorf("take alerts from the bus: %w", err)
	}
	arriving := make(chan jetstream.Msg, batchSize)
	lost := make(chan error, 1)
	taking, err := cons.Consume(func(m jetstream.Msg) {
		select {
		case arriving <- m:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(2*batchSize), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		if !errors.Is(err, jetstream.ErrNoHeartbeat) { // the connection is made again, and told of
			select {
			case lost <- err:
			default:
			}
		}
	}))
	if err != nil {
		return fmt.Errorf("take alerts from the bus: %w", err)
	}
	defer taking.Stop()
	watching := time.NewTicker(watchInterval)
	defer watching.Stop()
	c.watch(ctx, cons)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-taking.Closed():
			return errors.New("take alerts from the bus: the bus ended that")
		case err := <-lost:
			return fmt.Errorf("take alerts from the bus: %w", err)
		case <-watching.C:
			c.watch(ctx, cons)
		case m := <-arriving:
			c.batch(ctx, gather(m, arriving))
		}
	}
}

// watchInterval is how often the bus is asked how much is still to come.
const watchInterval = 5 * time.Second

func (c *Consumer) watch(ctx context.Context, cons jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(ctx, watchInterval)
	defer cancel()
	info, err := cons.Info(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err == nil {
		c.pending, c.unacked = info.NumPending, info.NumAckPending
	}
}

// gather returns what has arrived, at most a batch.
func gather(first jetstream.Msg, arriving <-chan jetstream.Msg) []jetstream.Msg {
	batch := []jetstream.Msg{first}
	for len(batch) < batchSize {
		select {
		case m := <-arriving:
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

// batch handles what has arrived. What cannot be read is given up, and counted.
func (c *Consumer) batch(ctx context.Context, arrived []jetstream.Msg) {
	batch := make([]*Message, 0, len(arrived))
	for _, m := range arrived {
		msg, cause, err := decode(m)
		if err != nil {
			c.reject(m, cause, err)
			continue
		}
		c.received.Add(1)
		if msg.delivered > 1 {
			c.redelivered.Add(1)
		}
		batch = append(batch, msg)
	}
	if len(batch) == 0 {
		return
	}
	err := c.handle(context.WithoutCancel(ctx), batch)
	switch {
	case err == nil:
		c.done(batch)
	case batch[0].delivered >= suspectAfter && len(batch) > 1:
		c.each(ctx, batch)
	case batch[0].delivered >= suspectAfter && c.alone(batch[0]):
		c.reject(batch[0].msg, causeUnstorable, err)
	default:
		c.again(batch, err)
		pause(ctx, retryAfter)
	}
}

// alone reports whether others were stored between two attempts to store a
// message: then it is not the disk.
func (c *Consumer) alone(m *Message) bool {
	before, known := c.suspects[m.sequence]
	if len(c.suspects) > maxSuspects {
		clear(c.suspects)
	}
	c.suspects[m.sequence] = time.Now()
	return known && c.stored.After(before)
}

const maxSuspects = 1000

func (c *Consumer) done(batch []*Message) {
	c.stored = time.Now()
	for _, m := range batch {
		if m.held {
			continue
		}
		if err := m.msg.Ack(); err != nil { // it comes again, and is known by its id
			c.log.Debug("acknowledge alert", "error", err)
		}
	}
	if meta, err := batch[len(batch)-1].msg.Metadata(); err == nil {
		c.lag.Store(int64(time.Since(meta.Timestamp)))
	}
	c.note(nil)
}

func (c *Consumer) again(batch []*Message, err error) {
	c.failed.Add(1)
	c.note(err)
	c.say.Do(func() {
		c.log.Error("alerts of agents wait on the bus until they can be stored", "alerts", len(batch), "error", err)
	})
	for _, m := range batch {
		if err := m.msg.NakWithDelay(retryAfter); err != nil {
			c.log.Debug("give alert back", "error", err)
		}
	}
}

// each handles alerts one by one, that came many times in vain. If some can be
// handled, it is not the disk that keeps the others from it.
func (c *Consumer) each(ctx context.Context, batch []*Message) {
	var good, bad []*Message
	var errs []error
	for _, m := range batch {
		if err := c.handle(context.WithoutCancel(ctx), []*Message{m}); err != nil {
			bad, errs = append(bad, m), append(errs, err)
		} else {
			good = append(good, m)
		}
	}
	if len(good) == 0 {
		c.again(bad, errs[0])
		pause(ctx, retryAfter)
		return
	}
	c.done(good)
	for i, m := range bad {
		c.reject(m.msg, causeUnstorable, errs[i])
	}
}

// reject gives a message up.
func (c *Consumer) reject(m jetstream.Msg, cause string, err error) {
	c.mu.Lock()
	c.rejected[cause]++
	c.mu.Unlock()
	c.say.Do(func() {
		c.log.Error("an alert of an agent is rejected", "subject", m.Subject(), "cause", cause, "error", err)
	})
	if err := m.TermWithReason(cause); err != nil {
		c.log.Debug("give alert up", "error", err)
	}
}

// The causes for which a message is given up.
const (
	causeMalformed  = "malformed"  // no alert
	causeUnstorable = "unstorable" // an alert that cannot be stored while others can
	causeForeign    = "foreign"    // an alert that the agent of this node may not raise
)

// decode reads the alert that the agent of a node has sent. Its id is made one of
// the node: no agent can take the id of an alert that it has not raised itself.
func decode(m jetstream.Msg) (msg *Message, cause string, err error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, causeMalformed, err
	}
	msg = &Message{msg: m, delivered: meta.NumDelivered, sequence: meta.Sequence.Stream}
	msg.Node = m.Subject()[len(alertPrefix):]
	if cause, err = readAlert(m.Data(), msg.Node, &msg.Alert); err != nil {
		return nil, cause, err
	}
	msg.Alert.ID = ID(msg.Node, msg.Alert)
	return msg, "", nil
}

// ID returns the id by which the server knows an alert of a node's agent.
func ID(node string, a alert.Alert) string {
	return alert.NewID(event.Syscall, node+"\x00"+a.ID, a.Rule)
}

// internal is the source of what an agent says of itself by an alert.
const internal = "internal"

// Bounds of an alert, besides its size.
const (
	maxName   = 1024 // bytes of an id, the name of a rule and others
	maxFields = 512
	maxTags   = 256
	maxDepth  = 4 // of an output field
)

// readAlert reads an alert of a node.
func readAlert(data []byte, node string, a *alert.Alert) (cause string, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // nanoseconds are more than a float can hold
	if err := dec.Decode(a); err != nil {
		return causeMalformed, err
	}
	switch {
	case dec.InputOffset() < int64(len(bytes.TrimSpace(data))):
		return causeMalformed, errors.New("there is more than an alert")
	case a.ID == "" || a.Rule == "" || a.Time.IsZero():
		return causeMalformed, errors.New("id, rule or time is missing")
	case max(len(a.ID), len(a.Rule), len(a.Hostname)) > maxName:
		return causeMalformed, fmt.Errorf("an id or a name has more than %d bytes", maxName)
	case len(a.OutputFields) > maxFields || len(a.Tags) > maxTags || len(a.Entities) > maxTags || len(a.Tactics) > maxTags:
		return causeMalformed, fmt.Errorf("more than %d fields or %d tags", maxFields, maxTags)
	case a.Source != event.Syscall && a.Source != internal:
		return causeForeign, fmt.Errorf("source %.60q: agents have %s and %s", a.Source, event.Syscall, internal)
	case a.Hostname != node:
		return causeForeign, fmt.Errorf("host %.60q, from node %s", a.Hostname, node)
	case a.Attribution != nil || a.Repeats != nil || a.Previous != nil || a.OverLimit:
		return causeForeign, errors.New("it says what only the server can know")
	}
	for name, v := range a.OutputFields {
		if len(name) > maxName || deeper(v, maxDepth) {
			return causeMalformed, fmt.Errorf("field %.60q is nested too deep, or its name too long", name)
		}
	}
	return "", nil
}

// deeper reports whether a value is nested in more than n levels.
func deeper(v any, n int) bool {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if n == 0 || deeper(item, n-1) {
				return true
			}
		}
	case map[string]any:
		for _, item := range v {
			if n == 0 || deeper(item, n-1) {
				return true
			}
		}
	}
	return false
}
