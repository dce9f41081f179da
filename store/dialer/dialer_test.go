package dialer

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// connected returns both ends of a connection.
func connected(t *testing.T, d *Dialer) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ours, err = d.Dial(t.Context(), "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if theirs, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return ours, theirs
}

// TestSilence: an answer that never comes is given up, one that comes bit by bit is
// not; and the deadline of who reads counts besides.
func TestSilence(t *testing.T) {
	var d Dialer
	ours, theirs := connected(t, &d)
	b := make([]byte, 1)
	past := func() { // as a driver does whose context ends
		if err := ours.SetDeadline(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
	}
	time.AfterFunc(50*time.Millisecond, past)
	if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
	d.Limit(time.Hour)
	if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline, within the limit: %v", err)
	}
	if err := ours.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, past)
	if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline that comes while it reads: %v", err)
	}
	if err := ours.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(ours, make([]byte, 2)); err != nil {
		t.Errorf("an answer: %v", err)
	}
	d.Limit(100 * time.Millisecond)
	if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	if _, err := theirs.Write([]byte("c")); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(b); err != nil || b[0] != 'c' {
		t.Errorf("an answer after all: %q, %v", b, err)
	}
}
