package server

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
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

// traced runs one step of a trace. Its error is noted and returned.
func (s *Server) traced(ctx context.Context, step string, do func(context.Context) error) error {
	ctx, span := s.tracer.Start(ctx, step)
	err := do(ctx)
	end(span, err)
	return err
}

// end ends a span, and notes how.
func end(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// traceReviews makes a trace of each admission review.
func (s *Server) traceReviews(admit http.Handler) http.Handler {
	if s.cfg.Tracing.Endpoint == "" {
		return admit
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := s.tracer.Start(r.Context(), "admission review", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("url.path", r.URL.Path)))
		defer span.End()
		admit.ServeHTTP(w, r.WithContext(ctx))
	})
}

// A tracedPolicies makes a step of a trace of what policies say.
type tracedPolicies struct {
	admission.Policies
	tracer trace.Tracer
}

// tracedEnforced returns the policies in force, with a step of the trace for each
// evaluation.
func (s *Server) tracedEnforced() admission.Policies {
	if s.cfg.Tracing.Endpoint == "" {
		return s.enforced()
	}
	return tracedPolicies{s.enforced(), s.tracer}
}

// Evaluate is admission.Policies. The span names what the request is about, and
// nothing that is in the object.
func (p tracedPolicies) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	ctx, span := p.tracer.Start(ctx, "evaluate policies", trace.WithAttributes(
		attribute.String("k8s.namespace.name", req.Namespace), attribute.String("k8s.object.name", req.Name), attribute.String("kubeguardian.operation", string(req.Operation)),
		attribute.String("kubeguardian.kind", req.Kind.Kind)))
	violations, err := p.Policies.Evaluate(ctx, req)
	span.SetAttributes(attribute.Int("kubeguardian.violations", len(violations)))
	end(span, err)
	return violations, err
}
