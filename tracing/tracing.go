// Package tracing makes traces of the pipeline and sends them to a collector, by
// OTLP over gRPC.
package tracing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/credentials"
)

// Spans wait in memory until they are sent, so many at most; what comes while
// they are that many is dropped, and work never waits for the collector.
const (
	maxQueued = 2048
	sendEvery = 2 * time.Second
	sendWait  = 10 * time.Second
	closeWait = 3 * time.Second
)

// Options say where traces go.
type Options struct {
	// Endpoint is host:port of the collector; without it there are no traces.
	Endpoint string
	// CAFile has the authority of the collector's certificate, in PEM; "" stands
	// for those of the system.
	CAFile string
	// Plaintext sends without TLS.
	Plaintext bool
	// Ratio is the share of traces that are sent, 0 to 1.
	Ratio float64
	// Cluster and Version are said with each trace.
	Cluster, Version string
	// Failed is told why spans could not be sent. It may be called at any time
	// until Close returns.
	Failed func(error)
}

// A Tracer makes spans. It is safe for concurrent use.
type Tracer struct {
	trace.Tracer
	off    bool
	close  func(context.Context) error
	failed func(error)
}

// Off makes spans that go nowhere and cost next to nothing.
func Off() *Tracer {
	return &Tracer{noop.NewTracerProvider().Tracer(""), true, func(context.Context) error { return nil }, func(error) {}}
}

// Open returns a tracer. It does not wait for the collector, which may come later
// and be away.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	if o.Endpoint == "" {
		return Off(), nil
	}
	settings := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(o.Endpoint), otlptracegrpc.WithTimeout(sendWait)}
	if o.Plaintext {
		settings = append(settings, otlptracegrpc.WithInsecure())
	} else {
		secure, err := transport(o.CAFile)
		if err != nil {
			return nil, err
		}
		settings = append(settings, otlptracegrpc.WithTLSCredentials(secure))
	}
	exporter, err := otlptracegrpc.New(ctx, settings...)
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", o.Endpoint, err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(reporting{exporter, o.Failed}, sdk.WithMaxQueueSize(maxQueued), sdk.WithBatchTimeout(sendEvery), sdk.WithExportTimeout(sendWait)),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(o.Ratio))),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "kubeguardian"), attribute.String("service.version", o.Version), attribute.String("k8s.cluster.name", o.Cluster))),
	)
	return &Tracer{provider.Tracer("github.com/kubeguardian/kubeguardian"), false, provider.Shutdown, o.Failed}, nil
}

func transport(caFile string) (credentials.TransportCredentials, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read tracing.caFile: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read tracing.caFile %s: no certificate in PEM", caFile)
		}
	}
	return credentials.NewTLS(c), nil
}

// End ends a span, and notes how what it stands for ended.
func End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Close sends what waits, for some seconds at most. What could not be sent is
// told, and is no error.
func (t *Tracer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	if err := t.close(ctx); err != nil {
		t.failed(fmt.Errorf("send the last spans: %w", err))
	}
	return nil
}

// reporting tells of spans that could not be sent: what the library does with
// errors is to print them, wherever that is.
type reporting struct {
	sdk.SpanExporter
	failed func(error)
}

// ExportSpans is sdk.SpanExporter.
func (r reporting) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := r.SpanExporter.ExportSpans(ctx, spans); err != nil {
		r.failed(fmt.Errorf("send %d spans: %w", len(spans), err))
	}
	return nil
}
