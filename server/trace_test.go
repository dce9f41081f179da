package server

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// A receiver is a collector of traces by OTLP.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*trace.Span
	names map[string]string // of the service, by attribute
}

// Export implements the service.
func (r *receiver) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, from := range request.ResourceSpans {
		for _, a := range from.Resource.Attributes {
			r.names[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range from.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// collect runs a collector, and returns its address.
func collect(t *testing.T) (*receiver, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, s := &receiver{names: map[string]string{}}, grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	go s.Serve(ln)
	t.Cleanup(s.Stop)
	return r, ln.Addr().String()
}

// under returns the names of the spans that are steps of those of a name.
func (r *receiver) under(name string) (steps []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, parent := range r.spans {
		if parent.Name != name {
			continue
		}
		for _, s := range r.spans {
			if string(s.ParentSpanId) == string(parent.SpanId) && string(s.TraceId) == string(parent.TraceId) {
				steps = append(steps, s.Name)
			}
		}
	}
	slices.Sort(steps)
	return slices.Compact(steps)
}

// TestTraces follows a batch of audit events and an admission review through the
// server, as a collector sees them.
func TestTraces(t *testing.T) {
	collector, address := collect(t)
	r := start(t, options(t, t.TempDir(), "tracing: {endpoint: "+address+", plaintext: true}\n"))
	if code, body := r.webhook("/audit", eventList(t)); code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, body)
	}
	if code, body := r.webhook("/admit", review("Pod", "pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop"},"spec":{"containers":[{"name":"web","image":"nginx:1"}]}}`)); code != http.StatusOK {
		t.Fatalf("review: %d %s", code, body)
	}
	for name, want := range map[string][]string{"audit batch": {"match rules", "store alerts"}, "admission review": {"evaluate policies"}} {
		deadline := time.Now().Add(2 * time.Minute)
		for !slices.Equal(collector.under(name), want) {
			if time.Now().After(deadline) {
				t.Fatalf("steps of %s: %q, want %q", name, collector.under(name), want)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	collector.mu.Lock()
	defer collector.mu.Unlock()
	if collector.names["service.name"] != "kubeguardian" || collector.names["k8s.cluster.name"] != "test" {
		t.Errorf("traces are of %v", collector.names)
	}
	for _, s := range collector.spans {
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s ends before it begins", s.Name)
		}
	}
}

// TestTracesOff wants that nothing is wrapped, and nothing allocated, where
// nobody collects traces.
func TestTracesOff(t *testing.T) {
	r := start(t, options(t, t.TempDir(), ""))
	if allocated := testing.AllocsPerRun(100, func() {
		_, span := r.tracer.Start(t.Context(), "audit batch")
		span.End()
	}); allocated > 1 {
		t.Errorf("a span that goes nowhere takes %.0f allocations", allocated)
	}
	handler := http.NewServeMux()
	if r.tracer.Reviews(handler) != http.Handler(handler) {
		t.Error("reviews are wrapped although there are no traces")
	}
}

// TestTracesAreLostAloud: a collector that is away delays nothing, and the
// metrics say what is lost.
func TestTracesAreLostAloud(t *testing.T) {
	r := start(t, options(t, t.TempDir(), "tracing: {endpoint: "+free(t)+", plaintext: true}\n"))
	if code, body := r.webhook("/audit", eventList(t)); code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, body)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.tracer.Close(); err != nil {
		t.Log(err)
	}
	families, err := r.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "kubeguardian_trace_exports_failed_total" && f.Metric[0].Counter.GetValue() == 0 {
			t.Error("no failure is counted")
		}
	}
}
