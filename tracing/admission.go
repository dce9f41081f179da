package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// Reviews makes a trace of each admission review that a handler answers.
func (t *Tracer) Reviews(admit http.Handler) http.Handler {
	if t.off {
		return admit
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := t.Start(r.Context(), "admission review", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("url.path", r.URL.Path)))
		defer span.End()
		admit.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Policies makes a step of a trace of each evaluation by policies.
func (t *Tracer) Policies(p admission.Policies) admission.Policies {
	if t.off {
		return p
	}
	return tracedPolicies{p, t}
}

type tracedPolicies struct {
	admission.Policies
	tracer *Tracer
}

// Evaluate is admission.Policies. The span names what the request is about, and
// nothing that is in the object.
func (p tracedPolicies) Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error) {
	ctx, span := p.tracer.Start(ctx, "evaluate policies", trace.WithAttributes(
		attribute.String("k8s.namespace.name", req.Namespace), attribute.String("k8s.object.name", req.Name),
		attribute.String("kubeguardian.operation", string(req.Operation)), attribute.String("kubeguardian.kind", req.Kind.Kind)))
	violations, err := p.Policies.Evaluate(ctx, req)
	span.SetAttributes(attribute.Int("kubeguardian.violations", len(violations)))
	End(span, err)
	return violations, err
}

// Step runs one step of a trace. Its error is noted and returned.
func (t *Tracer) Step(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, span := t.Start(ctx, name)
	err := do(ctx)
	End(span, err)
	return err
}
