// Package service runs a gRPC service as all of them run: with an identity,
// logins, deadlines, a database, health, metrics, logs and traces, and an end
// that lets open calls finish.
package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

const (
	maxMessage = 1 << 20          // bytes of one request
	maxCall    = 30 * time.Second // what a call may take whose caller sets no deadline
	drain      = 20 * time.Second // what open calls may take at the end
	startup    = 2 * time.Minute  // how long to wait for the database
)

// A Service is what distinguishes one service from another.
type Service struct {
	Name       string              // auth, offer, application
	Callers    map[string][]string // who may call which method; see [identity.Allow]
	Open       []string            // methods that need no login
	Migrations fs.FS               // of its database

	// Register adds the service to the server.
	Register func(server grpc.ServiceRegistrar, with Resources) error
}

// Resources are what a service works with.
type Resources struct {
	Settings Settings
	Database *pgxpool.Pool
	Identity *identity.Identity
	Tokens   *token.Verifier
	Log      *slog.Logger
}

// Main runs a service as a program, until it is told to stop.
func Main(s Service) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	settings, err := FromEnv(os.Getenv)
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: settings.LogLevel})).With("service", s.Name)
	if err == nil {
		err = listenAndRun(ctx, s, settings, log)
	}
	if err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
}

func listenAndRun(ctx context.Context, s Service, settings Settings, log *slog.Logger) error {
	listener, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return err
	}
	return Run(ctx, s, settings, listener, log)
}

// Run runs a service until the context ends, and closes the listener then.
// Whoever connects before the database has the right schema waits.
func Run(ctx context.Context, s Service, settings Settings, listener net.Listener, log *slog.Logger) error {
	defer listener.Close()
	resources, err := open(ctx, settings, log)
	if err != nil {
		return err
	}
	defer resources.Database.Close()
	stopTraces, err := Traces(ctx, s.Name, settings.Traces)
	if err != nil {
		return err
	}
	defer stopTraces()

	metrics := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram())
	registry := NewRegistry(metrics)
	server := newServer(s, resources, metrics)
	if err := s.Register(server, resources); err != nil {
		return err
	}
	metrics.InitializeMetrics(server)
	alive := health.NewServer()
	healthpb.RegisterHealthServer(server, alive)
	alive.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)

	probes, err := ServeHealth(settings.Health, registry, func(ctx context.Context) error { return resources.Database.Ping(ctx) })
	if err != nil {
		return err
	}
	defer probes.Close()
	if err := migrate(ctx, resources.Database, s.Migrations); ctx.Err() != nil {
		return nil // stopped before it began
	} else if err != nil {
		return err
	}
	alive.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	log.Info("serving", "address", listener.Addr().String())
	return serve(ctx, server, listener, alive)
}

func open(ctx context.Context, settings Settings, log *slog.Logger) (Resources, error) {
	r := Resources{Settings: settings, Log: log}
	var err error
	if r.Identity, err = identity.Open(settings.IdentityDir, log); err != nil {
		return r, err
	}
	if r.Tokens, err = token.NewVerifier(settings.PublicKeys); err != nil {
		return r, err
	}
	r.Database, err = database.Open(ctx, settings.Database)
	return r, err
}

func migrate(ctx context.Context, pool *pgxpool.Pool, migrations fs.FS) error {
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	return database.Migrate(ctx, pool, migrations)
}

// newServer puts the interceptors in order: what is measured and logged is
// also what was denied.
func newServer(s Service, r Resources, metrics *grpcprom.ServerMetrics) *grpc.Server {
	callers := map[string][]string{healthpb.Health_Check_FullMethodName: {"auth", "offer", "application", "gateway"}}
	for method, services := range s.Callers {
		callers[method] = services
	}
	return grpc.NewServer(
		grpc.Creds(r.Identity.Server()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1000),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: maxCall}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.StatsHandler(otelgrpc.NewServerHandler()),
		grpc.ChainUnaryInterceptor(
			metrics.UnaryServerInterceptor(),
			logged(r.Log),
			recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(panicked(r.Log))),
			deadline,
			identity.Allow(callers, r.Log),
			token.Require(r.Tokens, append(s.Open, healthpb.Health_Check_FullMethodName)...),
		),
	)
}

// logged writes a line for each call: what and how long, never with what.
func logged(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := time.Now()
		res, err := handler(ctx, req)
		code, level := status.Code(err), slog.LevelDebug
		attrs := []slog.Attr{slog.String("method", info.FullMethod), slog.String("code", code.String()), slog.Duration("took", time.Since(start))}
		if code == codes.Internal || code == codes.Unknown || code == codes.Unavailable {
			level = slog.LevelError
			attrs = append(attrs, slog.Any("error", err))
		}
		log.LogAttrs(ctx, level, "call", attrs...)
		return res, hide(err)
	}
}

// hide keeps what went wrong inside from callers: whatever is not a status of
// ours is only said to be internal, or that it took too long.
func hide(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "it took too long")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller went away")
	}
	return status.Error(codes.Internal, "internal error")
}

func panicked(log *slog.Logger) recovery.RecoveryHandlerFuncContext {
	return func(ctx context.Context, p any) error {
		log.ErrorContext(ctx, "panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error")
	}
}

// deadline bounds a call.
func deadline(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	return handler(ctx, req)
}

// serve answers until the context ends, and then lets open calls finish.
func serve(ctx context.Context, server *grpc.Server, listener net.Listener, alive *health.Server) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	alive.Shutdown()
	stopped := make(chan struct{})
	go func() { server.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(drain):
		server.Stop()
	}
	return nil
}

// NewRegistry returns a registry of metrics with those of the process.
func NewRegistry(collectors ...prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors...)
	registry.MustRegister(processCollectors()...)
	return registry
}

// ServeHealth answers probes and serves metrics, over HTTP because neither the
// kubelet nor Prometheus has an identity here.
func ServeHealth(address string, registry *prometheus.Registry, ready func(context.Context) error) (*http.Server, error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := ready(ctx); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return server, nil
}
