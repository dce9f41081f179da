package ha

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A Status is what a node says about itself.
type Status struct {
	ID        int    `json:"id"`
	Name      string `json:"name"`
	Data      bool   `json:"data"`      // it has been a member already
	Up        bool   `json:"up"`        // PostgreSQL answers
	Primary   bool   `json:"primary"`   // and takes writes
	Streaming bool   `json:"streaming"` // it follows a primary
	Timeline  int    `json:"timeline"`
	Received  int64  `json:"received"` // how much of the write-ahead log it has, of a standby
}

// better reports whether a standby rather than another is to be promoted: it has
// more, or as much and the lower number, as repmgr has it.
func (s Status) better(than Status) bool {
	return s.Received > than.Received || s.Received == than.Received && s.ID < than.ID
}

// Ask asks the PostgreSQL of a node on this machine.
func Ask(ctx context.Context, c Config) Status {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := Status{ID: c.ID, Name: c.Name, Data: c.hasData()}
	conn, err := pgx.Connect(ctx, c.local("postgres"))
	if err != nil {
		return s
	}
	defer conn.Close(ctx)
	// The timeline of the last checkpoint is still the old one after a promotion.
	const query = `SELECT NOT standby, EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
		CASE WHEN standby THEN (SELECT timeline_id FROM pg_control_checkpoint())
		ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
		CASE WHEN standby THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0' ELSE 0 END::bigint
		FROM pg_is_in_recovery() standby`
	s.Up = conn.QueryRow(ctx, query).Scan(&s.Primary, &s.Streaming, &s.Timeline, &s.Received) == nil
	return s
}

// serveStatus answers the other supervisors, and nobody else.
func (n *Node) serveStatus() (*http.Server, error) {
	host := n.Listen
	if host == "*" {
		host = ""
	}
	listener, err := tls.Listen("tcp", statusAddress(host, n.StatusPort), n.own.ServerTLS(admin, watcher))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(Ask(r.Context(), n.Config)) // whoever asked went away
	})
	server := newServer(mux, n.log)
	go func() { _ = server.Serve(listener) }() // ends with Close
	return server, nil
}

// An observer asks the supervisors of nodes.
type observer struct {
	port    int
	clients map[Peer]*http.Client
}

func newObserver(own *identity.Identity, port int, peers []Peer) observer {
	o := observer{port, map[Peer]*http.Client{}}
	for _, p := range peers {
		o.clients[p] = &http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: own.ClientTLS(admin, p.Host)}}
	}
	return o
}

// A view is what an observer saw: the nodes that answered and, if there is one,
// the primary of the highest timeline.
type view struct {
	nodes    []Status
	primary  *Peer
	timeline int
}

// look asks all at once.
func (o observer) look(ctx context.Context) (v view) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range o.clients {
		wg.Go(func() {
			s, err := o.ask(ctx, p)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			v.nodes = append(v.nodes, s)
			if s.Primary && s.Timeline > v.timeline {
				v.primary, v.timeline = &p, s.Timeline
			}
		})
	}
	wg.Wait()
	return v
}

func (o observer) ask(ctx context.Context, p Peer) (Status, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+statusAddress(p.Host, o.port)+"/status", nil)
	if err != nil {
		return Status{}, err
	}
	res, err := o.clients[p].Do(req)
	if err != nil {
		return Status{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Status{}, fmt.Errorf("%s: %s", p.Name, res.Status)
	}
	var s Status
	return s, json.NewDecoder(io.LimitReader(res.Body, 1<<10)).Decode(&s)
}
