// Package dialer connects to PostgreSQL, and gives up connections on which no answer
// comes: of a server that hangs, or whose machine is gone. A kernel waits for such
// an answer for a quarter of an hour, and for a server that is stopped for ever.
package dialer

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Dialer makes connections. The zero value waits for answers without a limit. It is
// safe for concurrent use.
type Dialer struct {
	net     net.Dialer
	silence atomic.Int64
}

// Limit sets for how long an answer may take, on all connections, from now on: until
// something comes, not until all of it has. Then reading fails with a timeout.
func (d *Dialer) Limit(silence time.Duration) { d.silence.Store(int64(silence)) }

// Dial connects, as [net.Dialer.DialContext] does.
func (d *Dialer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := d.net.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, dialer: d}, nil
}

// A conn reads within the limit, and within the deadline of who uses it.
type conn struct {
	net.Conn
	dialer *Dialer

	mu       sync.Mutex
	deadline time.Time // of who uses it, for reading; zero: none
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (int, error) {
	if err := c.await(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// await sets until when there has to be an answer.
func (c *conn) await() error {
	silence := time.Duration(c.dialer.silence.Load())
	if silence == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	until := time.Now().Add(silence)
	if !c.deadline.IsZero() && c.deadline.Before(until) {
		until = c.deadline
	}
	return c.Conn.SetReadDeadline(until)
}

// SetDeadline implements [net.Conn].
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}
