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

// Serve runs serve, which serves srv, until ctx ends, then lets the requests that
// run finish within the grace.
func Serve(ctx context.Context, srv *http.Server, grace time.Duration, serve func() error) error {
	done := make(chan error, 1)
	go func() { done <- serve() }()
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
