package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// streamAlerts sends alerts as server-sent events while they are added. The id
// of an event is the place of its alert in the store, so a browser that was cut
// off resumes by itself where it was (Last-Event-ID). The parameter after does
// the same for the first connection; without both, the stream starts now.
//
// All that is kept for a client is that place: the store is the queue. A client
// that does not read is cut off after a while, and resumes without a loss.
func (s *Server) streamAlerts(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, streamParams...)
	q := alertQuery(p)
	last := rest.Value(p, "after", parseSeq)
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		var err error
		last, err = parseSeq(id)
		p.Fail(err)
	}
	if p.Err != nil {
		return p.Err
	}
	newest, err := s.Alerts.LastAlert(r.Context())
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
	if err := s.stream(w, r, last, q); err != nil && (r.Context().Err() == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		s.Log.Info("live alerts cut off", "from", r.RemoteAddr, "reason", err)
	}
	return nil // the answer has begun; there is no other way left to report
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, last int64, q alert.Query) error {
	tick := time.NewTicker(s.heartbeat)
	defer tick.Stop()
	if err := s.send(w, fmt.Appendf(nil, "retry: 1000\nid: %d\n\n", last)); err != nil {
		return err
	}
	for {
		changed := s.changed() // before reading, so that no change is missed
		for {
			records, end, err := s.Alerts.AlertsAfter(r.Context(), last, q)
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
			if err := s.send(w, events); err != nil {
				return err
			}
			last = end
		}
		select {
		case <-changed:
		case <-tick.C:
			if err := s.sessions.StillAllowed(r); err != nil { // logged out meanwhile
				return err
			}
			if err := s.send(w, []byte(": still here\n\n")); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		case <-s.closed:
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

func (s *Server) send(w http.ResponseWriter, data []byte) error {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(s.patience)); err != nil {
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
