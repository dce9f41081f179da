package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/kubeguardian/kubeguardian/notify/delivery"
	"github.com/kubeguardian/kubeguardian/web/query"
	"github.com/kubeguardian/kubeguardian/web/rest"
)

// deliveryPage returns a page of messages, and the value of before that leads to
// the next one.
func (s *Server) deliveryPage(r *http.Request, q delivery.Query) (page []delivery.Message, next string, err error) {
	page, cursor, err := s.Deliveries.Deliveries(r.Context(), q)
	if cursor > 0 {
		next = strconv.FormatInt(cursor, 10)
	}
	return page, next, err
}

func (s *Server) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, query.DeliveryParams...)
	q := query.Deliveries(p)
	if p.Err != nil {
		return p.Err
	}
	page, next, err := s.deliveryPage(r, q)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(page, next))
}

func (s *Server) listDestinations(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Deliveries.Destinations(r.Context())
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, rest.Items(all, ""))
}

var errNoDestination = &rest.Error{Code: http.StatusNotFound, Text: delivery.ErrUnknownDestination.Error()}

// retry queues dead letters of the destination in the path again.
func (s *Server) retry(r *http.Request, seq int64) (n int, err error) {
	if seq < 0 {
		return 0, rest.Bad(fmt.Errorf("seq: want the number of a message, or 0 for all, have %d", seq))
	}
	n, err = s.Deliveries.Retry(r.Context(), r.PathValue("destination"), seq)
	switch {
	case errors.Is(err, delivery.ErrUnknownDestination):
		return 0, errNoDestination
	case err == nil && n == 0 && seq != 0:
		return 0, &rest.Error{Code: http.StatusNotFound, Text: "the destination has no dead letter of this number"}
	}
	return n, err
}

// A retryRequest names a dead letter; 0 means all.
type retryRequest struct {
	Seq int64 `json:"seq,omitempty"`
}

type retried struct {
	Queued int `json:"queued"`
}

func (s *Server) retryDeliveries(w http.ResponseWriter, r *http.Request) error {
	var body retryRequest
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil && err != io.EOF {
		return rest.Bad(fmt.Errorf("read the request: %w", err))
	}
	n, err := s.retry(r, body.Seq)
	if err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, retried{n})
}

func (s *Server) retryForm(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return rest.Bad(fmt.Errorf("read the form: %w", err))
	}
	seq := int64(0)
	if text := r.PostForm.Get("seq"); text != "" {
		var err error
		if seq, err = strconv.ParseInt(text, 10, 64); err != nil {
			return rest.Bad(fmt.Errorf("seq: want a number, have %q", text))
		}
	}
	if _, err := s.retry(r, seq); err != nil {
		return err
	}
	http.Redirect(w, r, "/deliveries?destination="+url.QueryEscape(r.PathValue("destination")), http.StatusSeeOther)
	return nil
}

// test sends a test message. That a destination does not take it is no fault of
// ours, and whoever tests wants to know why.
func (s *Server) test(r *http.Request) error {
	err := s.Deliveries.Test(r.Context(), r.PathValue("destination"))
	switch {
	case errors.Is(err, delivery.ErrUnknownDestination):
		return errNoDestination
	case err != nil:
		return &rest.Error{Code: http.StatusBadGateway, Text: "the test message was not taken: " + err.Error()}
	}
	return nil
}

func (s *Server) testDestination(w http.ResponseWriter, r *http.Request) error {
	if err := s.test(r); err != nil {
		return err
	}
	return rest.WriteJSON(w, http.StatusOK, map[string]bool{"delivered": true})
}

func (s *Server) testForm(w http.ResponseWriter, r *http.Request) error {
	if err := s.test(r); err != nil {
		return err
	}
	http.Redirect(w, r, "/deliveries?tested="+url.QueryEscape(r.PathValue("destination")), http.StatusSeeOther)
	return nil
}

type deliveriesData struct {
	Destinations        []delivery.Status
	Rows                []delivery.Message
	Query               url.Values
	States              []delivery.State
	Tested              string // the destination that has taken a test message
	Filtered, May       bool
	Newest, Older, JSON string
}

func (s *Server) deliveriesPage(w http.ResponseWriter, r *http.Request) error {
	p := rest.Parse(r.URL, append([]string{"tested"}, query.DeliveryParams...)...)
	q := query.Deliveries(p)
	if p.Err != nil {
		return p.Err
	}
	all, err := s.Deliveries.Destinations(r.Context())
	if err != nil {
		return err
	}
	rows, next, err := s.deliveryPage(r, q)
	if err != nil {
		return err
	}
	data := deliveriesData{
		Destinations: all, Rows: rows, Query: p.Values, States: delivery.States(), May: s.sessions.May(r)("update deliveries"),
		Filtered: q.Destination != "" || q.State != "" || q.Incident != "", JSON: rest.With("/api/v1/deliveries", p.Values, "tested", ""),
	}
	if tested := p.Text("tested"); slices.ContainsFunc(all, func(d delivery.Status) bool { return d.Name == tested }) {
		data.Tested = tested
	}
	if next != "" {
		data.Older = rest.With("/deliveries", p.Values, "before", next, "tested", "")
	}
	if q.Before != 0 {
		data.Newest = rest.With("/deliveries", p.Values, "before", "", "tested", "")
	}
	return s.show(w, r, "deliveries", "Deliveries", data)
}
