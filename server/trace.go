package server

import (
	"context"

	"github.com/kubeguardian/kubeguardian/tracing"
)

// openTracing opens where traces go, if they go anywhere.
func (s *Server) openTracing(ctx context.Context) (err error) {
	c := s.cfg.Tracing
	s.tracer, err = tracing.Open(ctx, tracing.Options{
		Endpoint: c.Endpoint, CAFile: c.CAFile, Plaintext: c.Plaintext, Ratio: c.Ratio, Cluster: s.cfg.Cluster, Version: s.version,
		Failed: func(err error) {
			s.metrics.tracesFailed.Inc()
			s.traceSilence.Do(func() { s.log.Warn("traces are lost", "error", err) })
		},
	})
	if err == nil {
		s.onStop(s.tracer.Close)
	}
	return err
}
