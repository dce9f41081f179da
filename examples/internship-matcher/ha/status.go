package ha

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Status is what a node says about itself.
type Status struct {
	Name      string `json:"name"`
	Up        bool   `json:"up"`        // PostgreSQL answers
	Primary   bool   `json:"primary"`   // and takes writes
	Streaming bool   `json:"streaming"` // it follows a primary
	Timeline  int    `json:"timeline"`
}

// status asks the node's own PostgreSQL.
func (n *Node) status(ctx context.Context) Status {
	return Ask(ctx, n.Config)
}

// Ask asks the PostgreSQL of a node on this machine.
func Ask(ctx context.Context, c Config) Status {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := Status{Name: c.Name}
	conn, err := pgx.Connect(ctx, c.local("postgres"))
	if err != nil {
		return s
	}
	defer conn.Close(ctx)
	const query = `SELECT NOT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'), timeline_id
		FROM pg_control_checkpoint()`
	s.Up = conn.QueryRow(ctx, query).Scan(&s.Primary, &s.Streaming, &s.Timeline) == nil
	return s
}

// serveStatus answers the other supervisors, and probes.
func (n *Node) serveStatus() (*http.Server, error) {
	listener, err := net.Listen("tcp", n.statusAddress(n.Host))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(n.status(r.Context())) // whoever asked went away
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if !n.status(r.Context()).Up {
			http.Error(w, "PostgreSQL does not answer", http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 2 * time.Second, WriteTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return server, nil
}

// ask asks the supervisor of another node.
func (n *Node) ask(ctx context.Context, p Peer) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.statusAddress(p.Host)+"/status", nil)
	if err != nil {
		return Status{}, err
	}
	res, err := http.DefaultClient.Do(req)
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
