package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A receiver takes webhooks, and counts them by their keys.
type receiver struct {
	server *http.Server
	url    string

	mu       sync.Mutex
	told     map[string]*told // by key
	requests uint64
	errs     []error
}

// told is what one message said.
type told struct {
	group    string
	count    int
	times    int // that it came
	incident bool
}

func startReceiver() (*receiver, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{url: "http://" + ln.Addr().String(), told: map[string]*told{}}
	r.server = &http.Server{Handler: http.HandlerFunc(r.take), ReadHeaderTimeout: time.Minute}
	go func() { _ = r.server.Serve(ln) }() // ends with Close
	return r, nil
}

func (r *receiver) take(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest) // of a process that was killed
		return
	}
	var m struct {
		UUID         string
		Count        int
		OutputFields struct{ Case string } `json:"output_fields"`
		Incident     json.RawMessage
	}
	if err = json.Unmarshal(body, &m); err == nil && m.UUID != q.Header.Get("Idempotency-Key") {
		err = fmt.Errorf("message %q has the key %q", m.UUID, q.Header.Get("Idempotency-Key"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errs = append(r.errs, err)
	}
	r.requests++
	before := r.told[m.UUID]
	if before == nil {
		r.told[m.UUID] = &told{group: m.OutputFields.Case, count: m.Count, times: 1, incident: m.Incident != nil}
		return
	}
	before.times++
	if before.count != m.Count || before.group != m.OutputFields.Case {
		r.errs = append(r.errs, fmt.Errorf("message %s says %d alerts of %q, and said %d of %q", m.UUID, m.Count, m.OutputFields.Case, before.count, before.group))
	}
}

func (r *receiver) taken() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// alerts returns of how many alerts it was told.
func (r *receiver) alerts() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.told {
		if !t.incident {
			n += t.count
		}
	}
	return n
}

// compare holds what was told against the groups of what was raised.
func (r *receiver) compare(raised map[string]string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	want, have := map[string]int{}, map[string]int{}
	for _, group := range raised {
		want[group]++
	}
	keys, once, again, alerts := 0, 0, 0, 0
	for _, t := range r.told {
		if t.incident {
			continue
		}
		keys++
		have[t.group] += t.count
		alerts += t.count
		again += t.times - 1
		if t.times == 1 {
			once++
		}
	}
	errs := append([]error(nil), r.errs...)
	for group, n := range want {
		if have[group] != n {
			errs = append(errs, fmt.Errorf("%d alerts of %s were raised, and %d told of", n, group, have[group]))
		}
	}
	fmt.Printf("told       %d alerts of %d groups, in %d messages, %d of them once and %d requests again, under their keys\n", alerts, len(have), keys, once, again)
	if len(errs) > 10 {
		errs = append(errs[:10], fmt.Errorf("and %d more", len(errs)-10))
	}
	return errors.Join(errs...)
}
