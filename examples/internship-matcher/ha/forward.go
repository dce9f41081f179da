package ha

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A forwarder leads connections from this machine to the PostgreSQL of one node,
// with TLS: it shows its own certificate, and verifies that the other end is that
// node. Pgpool-II could do neither; and it would wait for a node that is cut off
// for as long as TCP does.
type forwarder struct {
	own     *identity.Identity
	host    string
	address string
	log     *slog.Logger
}

// Requests that begin a connection in place of a startup message. PostgreSQL's
// manual, "Message Formats".
const (
	sslRequest = 80877103
	gssRequest = 80877104
)

// openWithin bounds the handshakes of a connection.
const openWithin = 3 * time.Second

// serve accepts connections until the context ends.
func (f *forwarder) serve(ctx context.Context, listener net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // it is closed
		}
		go func() {
			if err := f.forward(ctx, conn); err != nil && ctx.Err() == nil {
				f.log.Debug("connection not led on", "to", f.address, "error", err)
			}
		}()
	}
}

// forward leads one connection on, and ends both when one ends.
func (f *forwarder) forward(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	first, err := startup(conn)
	if err != nil {
		return err
	}
	node, err := f.dial(ctx)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = node.Close() })
	if _, err := node.Write(first[:]); err != nil {
		return err
	}
	go func() {
		defer cancel()
		_, _ = io.Copy(node, conn) // whichever end broke off, both go
	}()
	_, err = io.Copy(conn, node)
	return err
}

// startup reads the first bytes of a startup message or of a request to cancel.
// Encryption, which is for the way to the node, it declines.
func startup(conn net.Conn) (first [8]byte, err error) {
	if err := conn.SetDeadline(time.Now().Add(openWithin)); err != nil {
		return first, err
	}
	for range 3 { // each kind of encryption once, then the message
		if _, err := io.ReadFull(conn, first[:]); err != nil {
			return first, err
		}
		switch binary.BigEndian.Uint32(first[4:]) {
		case sslRequest, gssRequest:
			if _, err := conn.Write([]byte("N")); err != nil {
				return first, err
			}
		default:
			return first, conn.SetDeadline(time.Time{})
		}
	}
	return first, errors.New("it asks for encryption again and again")
}

// dial connects to the node, and takes no for an answer to TLS as an error.
func (f *forwarder) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	conn, err := database.Dialer().DialContext(ctx, "tcp", f.address)
	if err != nil {
		return nil, err
	}
	secure, err := f.secure(ctx, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

func (f *forwarder) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), sslRequest)
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, fmt.Errorf("%s speaks no TLS", f.address)
	}
	secure := tls.Client(conn, f.own.ClientTLS(admin, f.host))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, conn.SetDeadline(time.Time{})
}
