package ha

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// serveHealth answers probes, over HTTP: /livez while the supervisor works,
// /readyz while what it supervises does, too.
func serveHealth(address string, ready func(context.Context) error, log *slog.Logger) (*http.Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	server := newServer(mux, log)
	go func() { _ = server.Serve(listener) }() // ends with Close
	return server, nil
}

func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 2 * time.Second, WriteTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // who has no certificate
	}
}

// ready says what keeps a node from being counted on, if anything.
func (n *Node) ready(ctx context.Context) error {
	s := Ask(ctx, n.Config)
	switch {
	case !s.Up:
		return errors.New("PostgreSQL does not answer")
	case !s.Primary && !s.Streaming:
		return errors.New("a standby that follows nobody")
	}
	return nil
}
