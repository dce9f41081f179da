package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/notify/delivery"
)

// A worker delivers to one destination, and waits for no other.
type worker struct {
	config.Destination
	to      Destination
	batch   int
	queue   Queue
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{}

	sending sync.Mutex // one Send at a time

	window  time.Time // when the time of the limit began
	sent    int       // messages in it
	limited bool      // messages wait for its end
	checked time.Time // when the queue was last held to its bounds
	failing bool      // the last attempt failed
}

// maxBatch bounds what is sent at once.
const maxBatch = 500

func newWorker(c config.Destination, to Destination, q Queue, log *slog.Logger, m *metrics) *worker {
	w := &worker{Destination: c, to: to, batch: 1, queue: q, log: log, metrics: m, wake: make(chan struct{}, 1)}
	if b, ok := to.(Batcher); ok {
		w.batch = min(max(b.Batch(), 1), maxBatch)
	}
	m.known(c.Name)
	return w
}

// look says that there may be messages.
func (w *worker) look() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// How often a queue is held to its bounds, and how long to wait when the store
// fails, and at the end for an attempt that runs.
const (
	checkEvery = time.Second
	idle       = 10 * time.Second // another replica may have queued something
	storeAgain = 5 * time.Second
	lastGrace  = 5 * time.Second
)

func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		next, err := w.step(ctx)
		wait := storeAgain
		switch {
		case err != nil && ctx.Err() == nil:
			w.log.Error("nothing is delivered until the store works again", "error", err)
		case next.IsZero():
			wait = idle
		default:
			wait = min(time.Until(next), idle)
		}
		if wait > 0 {
			pause(ctx, wait, w.wake)
		}
	}
	return nil
}

// step delivers what there is to deliver now, and returns when there may be more;
// zero if that is not known.
func (w *worker) step(ctx context.Context) (next time.Time, err error) {
	now := time.Now()
	if err := w.bound(ctx, now); err != nil {
		return now, err
	}
	n := w.batch
	if w.Limit > 0 {
		end, err := w.limit(ctx, now)
		if err != nil || !end.IsZero() {
			return end, err
		}
		n = min(n, w.Limit-w.sent)
	}
	claimed, next, err := w.queue.Claim(ctx, w.Name, n, now)
	if err != nil || len(claimed) == 0 {
		return next, err
	}
	results := w.attempt(ctx, claimed)
	return time.Now(), w.queue.Finish(context.WithoutCancel(ctx), results, time.Now())
}

// bound holds the queue to its size and age.
func (w *worker) bound(ctx context.Context, now time.Time) error {
	if now.Sub(w.checked) < checkEvery {
		return nil
	}
	dead, err := w.queue.Overdue(ctx, w.Name, now.Add(-w.MaxAge), w.MaxMessages, now)
	if err != nil {
		return err
	}
	if w.checked = now; len(dead) == 0 {
		return nil
	}
	w.metrics.delivered(w.Name, "dropped", len(dead))
	w.log.Error("messages are dead letters: the queue is too long or they are too old", "messages", len(dead), "first", dead[0].Title, "reason", dead[0].Reason)
	w.checked = time.Time{} // there may be more
	return nil
}

// limit returns when the next message may be sent; zero: now. When the time is
// over in which messages had to wait, they become one.
func (w *worker) limit(ctx context.Context, now time.Time) (next time.Time, err error) {
	if end := w.window.Add(w.LimitPer); now.Before(end) {
		if w.sent < w.Limit {
			return time.Time{}, nil
		}
		w.limited = true
		return end, nil
	}
	if w.limited {
		n, err := w.queue.Summarise(ctx, w.Name, now, func(in []delivery.Message) (delivery.Message, error) { return w.summary(in, now) })
		if err != nil {
			return now, err
		}
		if n > 0 {
			w.metrics.suppressed.WithLabelValues("limit").Add(float64(n))
			w.log.Warn("messages over the limit are sent as one", "messages", n, "limit", w.Limit, "per", w.LimitPer)
		}
	}
	w.window, w.sent, w.limited = now, 0, false
	return time.Time{}, nil
}

// attempt sends messages, and returns what came of it. When one of several is
// refused for good, each is sent by itself, so that only that one is lost.
func (w *worker) attempt(ctx context.Context, claimed []delivery.Message) []delivery.Result {
	var results []delivery.Result
	var batch []Notification
	var of []delivery.Message
	for _, m := range claimed {
		n, err := notification(&m)
		if err != nil {
			results = append(results, delivery.Result{Seq: m.Seq, State: delivery.Dead, Reason: err.Error(), Next: time.Now()})
			continue
		}
		batch, of = append(batch, n), append(of, m)
	}
	if len(batch) == 0 {
		return results
	}
	err := w.timed(ctx, batch)
	if err == nil || !IsPermanent(err) || len(batch) == 1 {
		return append(results, w.results(of, err)...)
	}
	for i := range batch {
		err := w.timed(ctx, batch[i:i+1])
		if err != nil && !IsPermanent(err) { // nothing overtakes it
			return append(results, w.results(of[i:], err)...)
		}
		results = append(results, w.results(of[i:i+1], err)...)
	}
	return results
}

// timed sends within what is left of the program's life.
func (w *worker) timed(ctx context.Context, batch []Notification) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		pause(sending, lastGrace, nil)
		cancel()
	})
	defer stop()
	began := time.Now()
	err := w.send(sending, batch)
	w.metrics.took(w.Name, time.Since(began))
	return err
}

// send sends one batch within its time. A panic of the destination is its error.
func (w *worker) send(ctx context.Context, batch []Notification) (err error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil { // what it says may have a secret
			w.log.Error("the destination panicked", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = Permanent(fmt.Errorf("%s: a defect of the program, whose log has it", w.Name))
		}
	}()
	return w.to.Send(ctx, batch)
}

// maxReason bounds what is kept of an error, in characters.
const maxReason = 500

// results returns what an attempt at messages led to, and counts it.
func (w *worker) results(of []delivery.Message, err error) []delivery.Result {
	now := time.Now()
	r := delivery.Result{State: delivery.Delivered, Next: now}
	switch {
	case err == nil:
		w.sent += len(of)
		w.metrics.delivered(w.Name, "delivered", len(of))
		for _, m := range of {
			w.metrics.arrived(w.Name, now.Sub(m.Due))
		}
		if w.failing {
			w.log.Info("deliveries succeed again", "attempts", of[0].Attempts)
		}
	case IsPermanent(err):
		r.State = delivery.Dead
		w.metrics.delivered(w.Name, "dead", len(of))
		w.log.Error("a message is a dead letter", "title", of[0].Title, "key", of[0].Key, "error", err)
	default:
		r.State, r.Next = delivery.Waiting, now.Add(w.backoff(of[0].Attempts, err))
		w.metrics.delivered(w.Name, "retried", len(of))
		if !w.failing {
			w.log.Warn("deliveries fail, and are tried again", "error", err, "next", r.Next)
		}
	}
	w.failing = err != nil && !IsPermanent(err)
	if err != nil {
		r.Reason = Cut(Clean(err.Error()), maxReason)
	}
	out := make([]delivery.Result, len(of))
	for i, m := range of {
		out[i] = r
		out[i].Seq = m.Seq
	}
	return out
}

// backoff is how long to wait after a failed attempt: what the receiver asks for,
// or a time that doubles, of which up to half is left to chance so that not all
// come back at once.
func (w *worker) backoff(attempts int, err error) time.Duration {
	if asked, ok := Delay(err); ok {
		return min(max(asked, w.MinBackoff), 24*time.Hour)
	}
	d := w.MaxBackoff
	if doubled := w.MinBackoff << min(max(attempts-1, 0), 30); doubled > 0 && doubled < d {
		d = doubled
	}
	return d - rand.N(d/2+1)
}

// notification reads a message of the queue.
func notification(m *delivery.Message) (Notification, error) {
	var n Notification
	d := json.NewDecoder(bytes.NewReader(m.Body))
	d.UseNumber()
	if err := d.Decode(&n); err != nil {
		return n, fmt.Errorf("read message %d of the queue: %w", m.Seq, err)
	}
	n.Key, n.Count, n.First, n.Last = m.Key, m.Count, m.First, m.Last
	return n, nil
}

// maxLines bounds what a summary names one by one.
const maxLines = 20

// summary is one message for many: how many, and of what, incidents first.
func (w *worker) summary(in []delivery.Message, now time.Time) (delivery.Message, error) {
	out := delivery.Message{Destination: w.Name, State: delivery.Waiting, Created: now, Due: now, Next: now, Until: now, First: in[0].First, Last: in[0].Last}
	type line struct {
		text     string
		alerts   int
		incident bool
	}
	var lines []line
	a := alert.Alert{Time: now, Rule: "Messages over the limit", Priority: alert.Debug, Source: "internal", Hostname: "", OutputFields: map[string]any{}, Tags: []string{"summary"}}
	var keys []string
	for _, m := range in {
		n, err := notification(&m)
		if err != nil {
			return out, err
		}
		a.Priority, a.Cluster = min(a.Priority, n.Alert.Priority), n.Alert.Cluster
		out.Count += m.Count
		if m.First.Before(out.First) {
			out.First = m.First
		}
		if m.Last.After(out.Last) {
			out.Last = m.Last
		}
		keys = append(keys, m.Key)
		if i := slices.IndexFunc(lines, func(l line) bool { return l.text == m.Title }); i >= 0 {
			lines[i].alerts += m.Count
		} else {
			lines = append(lines, line{m.Title, m.Count, n.Incident != nil})
		}
	}
	slices.SortStableFunc(lines, func(x, y line) int {
		if x.incident != y.incident {
			if x.incident {
				return -1
			}
			return 1
		}
		return y.alerts - x.alerts
	})
	var text strings.Builder
	fmt.Fprintf(&text, "%d messages about %d alerts are not sent one by one, since %s gets at most %d in %s:", len(in), out.Count, w.Name, w.Limit, w.LimitPer)
	for i, l := range lines {
		if i == maxLines {
			fmt.Fprintf(&text, "\n… and %d others", len(lines)-i)
			break
		}
		fmt.Fprintf(&text, "\n%d × %s", l.alerts, l.text)
	}
	a.Output, a.OutputFields["messages"], a.OutputFields["alerts"] = text.String(), len(in), out.Count
	out.Key = digest(append([]string{"summary", w.Name}, keys...)...)
	a.ID, out.Title = out.Key, fmt.Sprintf("%d messages over the limit", len(in))
	body, err := json.Marshal(Notification{Key: out.Key, Alert: a, Count: out.Count, First: out.First, Last: out.Last})
	out.Body = body
	return out, err
}
