package tracing_test

import (
	"context"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kubeguardian/kubeguardian/tracing"
)

// A counter counts the spans that it is sent.
type counter struct {
	collector.UnimplementedTraceServiceServer
	spans chan string
}

// Export implements the service.
func (c *counter) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, s := range r.ResourceSpans[0].ScopeSpans[0].Spans {
		c.spans <- s.Name
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// TestTLS sends a span to a collector whose authority is in a file, and none to
// one whose authority is not known.
func TestTLS(t *testing.T) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := web.TLS.Clone()
	config.NextProtos = []string{"h2"}
	c, s := &counter{spans: make(chan string, 1)}, grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	collector.RegisterTraceServiceServer(s, c)
	go s.Serve(ln)
	defer s.Stop()

	failed := make(chan error, 8)
	for file, known := range map[string]bool{ca: true, "": false} {
		tracer, err := tracing.Open(t.Context(), tracing.Options{Endpoint: ln.Addr().String(), CAFile: file, Ratio: 1, Failed: func(err error) { failed <- err }})
		if err != nil {
			t.Fatal(err)
		}
		_, span := tracer.Start(t.Context(), "step")
		span.End()
		if err := tracer.Close(); err != nil {
			t.Error(err)
		}
		if known {
			if name := <-c.spans; name != "step" {
				t.Errorf("the collector has %q", name)
			}
		} else if len(c.spans) > 0 {
			t.Error("spans go to a collector that nobody vouches for")
		}
	}
}

func TestBadAuthority(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{empty: "empty.pem: no certificate in PEM", "missing.pem": "read tracing.caFile: open missing.pem"} {
		if _, err := tracing.Open(t.Context(), tracing.Options{Endpoint: "127.0.0.1:1", CAFile: file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestRatio sends none of the traces at a ratio of almost nothing.
func TestRatio(t *testing.T) {
	tracer, err := tracing.Open(t.Context(), tracing.Options{Endpoint: "127.0.0.1:1", Plaintext: true, Ratio: 1e-12, Failed: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer tracer.Close()
	for range 100 {
		_, span := tracer.Start(t.Context(), "step")
		if span.IsRecording() {
			t.Fatal("a span is recorded")
		}
		span.End()
	}
}
