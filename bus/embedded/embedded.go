// Package embedded runs NATS servers inside the program.
package embedded

import (
	"errors"
	"fmt"
	"log/slog"
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
// JetStream when that keeps what it takes. It handles no signals and ends no process.
// Its own faults, such as those of the disk, are in the log as warnings and errors,
// some at once and then a few each minute; what anybody can cause by connecting is
// counted, and there at level info once a minute. All of it is there at level debug.
func Start(opts *natsd.Options, log *slog.Logger) (*Server, error) {
	opts.NoSigs, opts.NoLog, opts.NoSystemAccount = true, true, true
	server, err := natsd.NewServer(opts)
	if err != nil {
		return nil, err
	}
	s := &Server{server, newLogger(log)}
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

// ConnectionErrors returns how often a connection went wrong: protocol, TLS,
// authentication. Anybody can cause that.
func (s *Server) ConnectionErrors() uint64 { return s.log.connections.count.Load() }
