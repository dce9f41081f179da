// Package listener opens the ports of the server, and serves HTTP on them until it
// ends.
package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// An Error is a listener that cannot be opened. Name is how the configuration calls
// it.
type Error struct {
	Name string
	Err  error
}

// Error says which listener it is.
func (e *Error) Error() string { return fmt.Sprintf("bind %s listener: %v", e.Name, e.Err) }

// Hint says what the user can do.
func (e *Error) Hint() string {
	return fmt.Sprintf("end the program that uses the port, or set %s.listen to another one", e.Name)
}

// Bind opens a listener; its error is an [Error].
func Bind(name, address string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &Error{name, err}
	}
	return ln, nil
}

// Closer returns what closes ln; that an HTTP server closed it before is no error.
func Closer(ln net.Listener) func() error {
	return func() error {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// serve serves srv until ctx ends, then lets the requests that run finish within the
// grace.
func serve(ctx context.Context, srv *http.Server, ln net.Listener, grace time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(ending); err != nil {
		return srv.Close()
	}
	return nil
}

// Limits bound what a client that is slow, or means to be, can hold on to.
type Limits struct {
	Body   time.Duration // for the body of a request to come
	Answer time.Duration // for an answer to be taken, since the request; those that flush are for the handler to bound
}

// NewServer returns a server for whoever reaches the port, logged in or not. A
// request without a body may take as long as it needs, as streams do.
func NewServer(handler http.Handler, limits Limits) *http.Server {
	return &http.Server{
		Handler:           bounded(handler, limits.Body),
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      limits.Answer,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// bounded gives the bodies of requests a time to come, also those that the handler
// does not read and the server does. It is not [http.Server.ReadTimeout], which ends
// the context of any request that takes longer, streams included.
func bounded(handler http.Handler, body time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// It fails for no connection of ours, and then the body has no time limit.
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(body)) //nolint:errcheck
		}
		handler.ServeHTTP(w, r)
	})
}
