// Package embedded runs NATS servers inside the program.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
)

const startTime = 20 * time.Second

// A Server is a NATS server that runs.
type Server struct {
	*natsd.Server
	log *logger
}

// Start starts a NATS server, and returns when connections can be made, and with
// JetStream when that keeps what it takes. It handles no signals, ends no process
// and says what it has to say to log: at level debug what anybody can cause by
// connecting.
func Start(opts *natsd.Options, log *slog.Logger) (*Server, error) {
	opts.NoSigs, opts.NoLog, opts.NoSystemAccount = true, true, true
	server, err := natsd.NewServer(opts)
	if err != nil {
		return nil, err
	}
	s := &Server{server, &logger{log: log, fatal: make(chan error, 1)}}
	server.SetLoggerV2(s.log, false, false, false)
	server.Start()
	if err := s.ready(opts.JetStream); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) ready(jetStream bool) error {
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		select {
		case err := <-s.log.fatal:
			return err
		default:
		}
		if !s.ReadyForConnections(100 * time.Millisecond) {
			continue
		}
		if jetStream && !s.JetStreamEnabled() {
			return errors.New("it keeps nothing on disk")
		}
		return nil
	}
	return fmt.Errorf("it was not ready within %s", startTime)
}

// Stop ends the server, and returns when all it has acknowledged is on disk.
func (s *Server) Stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

// LastError returns the error that the server has logged last, "" if none.
func (s *Server) LastError() string {
	if last := s.log.last.Load(); last != nil {
		return *last
	}
	return ""
}

// A logger sends what a NATS server says to the log, and keeps the last error.
type logger struct {
	log   *slog.Logger
	fatal chan error
	last  atomic.Pointer[string]
}

func (l *logger) say(level slog.Level, format string, v []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.log.Log(context.Background(), level, text)
	return text
}

// Noticef is of [natsd.Logger], and so are the others.
func (l *logger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// Warnf is of [natsd.Logger].
func (l *logger) Warnf(format string, v ...any) { l.say(slog.LevelWarn, format, v) }

// Errorf is of [natsd.Logger].
func (l *logger) Errorf(format string, v ...any) {
	text := l.say(slog.LevelDebug, format, v)
	l.last.Store(&text)
}

// Debugf is of [natsd.Logger].
func (l *logger) Debugf(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// Tracef is of [natsd.Logger].
func (l *logger) Tracef(string, ...any) {}

// Fatalf is of [natsd.Logger]. The NATS server expects it to end the process.
func (l *logger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
	}
}
