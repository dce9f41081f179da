package leaf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
)

const startTime = 20 * time.Second

// run starts a NATS server, and returns when connections can be made.
func run(opts *natsd.Options, log *logger) (*natsd.Server, error) {
	server, err := natsd.NewServer(opts)
	if err != nil {
		return nil, err
	}
	server.SetLoggerV2(log, false, false, false)
	server.Start()
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		select {
		case err := <-log.fatal:
			stop(server)
			return nil, err
		default:
		}
		if server.ReadyForConnections(100 * time.Millisecond) {
			return server, nil
		}
	}
	stop(server)
	return nil, fmt.Errorf("it was not ready within %s", startTime)
}

func stop(server *natsd.Server) {
	server.Shutdown()
	server.WaitForShutdown()
}

// A logger sends what a NATS server says to the log, at level debug: anybody can
// cause it by connecting. It keeps the last error.
type logger struct {
	log   *slog.Logger
	fatal chan error
	last  atomic.Pointer[string]
}

func newLogger(log *slog.Logger) *logger {
	return &logger{log: log.With("part", "hub"), fatal: make(chan error, 1)}
}

func (l *logger) say(format string, v []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.log.Log(context.Background(), slog.LevelDebug, text)
	return text
}

// Noticef is of [natsd.Logger], and so are the others.
func (l *logger) Noticef(format string, v ...any) { l.say(format, v) }

// Warnf is of [natsd.Logger].
func (l *logger) Warnf(format string, v ...any) { l.say(format, v) }

// Errorf is of [natsd.Logger].
func (l *logger) Errorf(format string, v ...any) {
	text := l.say(format, v)
	l.last.Store(&text)
}

// Debugf is of [natsd.Logger].
func (l *logger) Debugf(format string, v ...any) { l.say(format, v) }

// Tracef is of [natsd.Logger].
func (l *logger) Tracef(string, ...any) {}

// Fatalf is of [natsd.Logger]. The NATS server expects it to end the process.
func (l *logger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
	}
}

// decode reads one JSON value and nothing after it. Numbers stay exact.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one value")
	}
	return nil
}
