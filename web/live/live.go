// Package live tells browsers of new alerts, as server-sent events.
//
// All that is kept for a client is how far it has come: the store is the queue. A
// client that does not read is cut off after a while, and resumes without a loss.
package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// Alerts reads stored alerts.
type Alerts interface {
	// AlertsAfter returns what was added after seq, in that order, and the seq
	// up to which it looked.
	AlertsAfter(ctx context.Context, seq int64, q alert.Query) ([]alert.Record, int64, error)
	// LastAlert returns the seq of the alert that was added last.
	LastAlert(context.Context) (int64, error)
}

// A Feed serves streams of alerts. All but its times are needed, which [New] sets.
type Feed struct {
	Alerts    Alerts
	Allowed   func(*http.Request) error // an error when a stream may not go on
	Log       *slog.Logger
	Heartbeat time.Duration // of a stream, so that proxies keep it open
	Patience  time.Duration // how long a stream waits for a client to read

	mu     sync.Mutex
	added  chan struct{} // closed and replaced by Wake
	closed chan struct{}
	once   sync.Once
}

// New returns a feed of stored alerts.
func New(alerts Alerts, allowed func(*http.Request) error, log *slog.Logger) *Feed {
	return &Feed{
		Alerts: alerts, Allowed: allowed, Log: log, Heartbeat: 15 * time.Second, Patience: 10 * time.Second,
		added: make(chan struct{}), closed: make(chan struct{}),
	}
}

// Wake tells the streams that the store has new alerts. It never waits for a client:
// each stream reads from the store what it has not sent yet.
func (f *Feed) Wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.added)
	f.added = make(chan struct{})
}

// changed returns a channel that the next Wake closes.
func (f *Feed) changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.added
}

// Close ends all streams, which would otherwise keep an [http.Server] from shutting
// down.
func (f *Feed) Close() { f.once.Do(func() { close(f.closed) }) }

func parseSeq(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("want the id of a stream event, have %q", s)
	}
	return int64(n), nil
}

// Stream sends alerts as server-sent events while they are added. The id
// of an event is the place of its alert in the store, so a browser that was cut
// off resumes by itself where it was (Last-Event-ID). The parameter after does
// the same for the first connection; without both, the stream starts now.
func (f *Feed) Stream(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.StreamParams...)
	q := query.Alerts(p)
	last := rest.Value(p, "after", parseSeq)
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		var err error
		last, err = parseSeq(id)
		p.Fail(err)
	}
	if p.Err != nil {
		return p.Err
	}
	newest, err := f.Alerts.LastAlert(r.Context())
	if err != nil {
		return err
	}
	fresh := p.Text("after") == "" && r.Header.Get("Last-Event-ID") == ""
	if fresh || last > newest { // a place beyond the end is one of another database
		last = newest
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // no buffering in a proxy before us
	// A client that has gone ends its context, but so does one that was cut off.
	if err := f.stream(w, r, last, q); err != nil && (r.Context().Err() == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		f.Log.Info("live alerts cut off", "from", r.RemoteAddr, "reason", err)
	}
	return nil // the answer has begun; there is no other way left to report
}

func (f *Feed) stream(w http.ResponseWriter, r *http.Request, last int64, q alert.Query) error {
	tick := time.NewTicker(f.Heartbeat)
	defer tick.Stop()
	if err := f.Send(w, fmt.Appendf(nil, "retry: 1000\nid: %d\n\n", last)); err != nil {
		return err
	}
	for {
		changed := f.changed() // before reading, so that no change is missed
		for {
			records, end, err := f.Alerts.AlertsAfter(r.Context(), last, q)
			if err != nil {
				return err
			}
			if end == last {
				break
			}
			events, err := encodeEvents(records, end)
			if err != nil {
				return err
			}
			if err := f.Send(w, events); err != nil {
				return err
			}
			last = end
		}
		select {
		case <-changed:
		case <-tick.C:
			if err := f.Allowed(r); err != nil { // logged out meanwhile
				return err
			}
			if err := f.Send(w, []byte(": still here\n\n")); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		case <-f.closed:
			return nil
		}
	}
}

// encodeEvents writes one event for each alert, and the place reached at the
// end even when no alert was selected, so that a resumed stream skips it.
func encodeEvents(records []alert.Record, end int64) ([]byte, error) {
	var b bytes.Buffer
	for _, r := range records {
		data, err := json.Marshal(r) // without line breaks
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "id: %d\nevent: alert\ndata: %s\n\n", r.Seq, data)
	}
	if len(records) == 0 || records[len(records)-1].Seq != end {
		fmt.Fprintf(&b, "id: %d\n\n", end)
	}
	return b.Bytes(), nil
}

// Send writes and flushes data to a client that may be slow, within the patience.
func (f *Feed) Send(w http.ResponseWriter, data []byte) error {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(f.Patience)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("send alerts: %w", err)
	}
	if err := control.Flush(); err != nil {
		return fmt.Errorf("send alerts: %w", err)
	}
	return nil
}
