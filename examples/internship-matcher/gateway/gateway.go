// Package gateway is the only public door: REST with JSON for clients, gRPC to
// the services behind it, and in between what keeps attackers and mistakes
// away from them: limits, a web application firewall and logins.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/applicationv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/authv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/api/offerv1"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/service"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

// drain is what open requests may take at the end.
const drain = 20 * time.Second

// Main runs the gateway as a program, until it is told to stop.
func Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	settings, err := FromEnv(os.Getenv)
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: settings.LogLevel})).With("service", "gateway")
	if err == nil {
		err = listenAndRun(ctx, settings, log)
	}
	if err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
}

func listenAndRun(ctx context.Context, settings Settings, log *slog.Logger) error {
	listener, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return err
	}
	return Run(ctx, settings, listener, log)
}

// Run serves until the context ends, and closes the listener then.
func Run(ctx context.Context, settings Settings, listener net.Listener, log *slog.Logger) error {
	defer listener.Close()
	stopTraces, err := service.Traces(ctx, "gateway", settings.Traces)
	if err != nil {
		return err
	}
	defer stopTraces()
	own, err := identity.Open(settings.IdentityDir, log)
	if err != nil {
		return err
	}
	tokens, err := token.NewVerifier(settings.PublicKeys)
	if err != nil {
		return err
	}
	conns, err := dial(own, settings)
	if err != nil {
		return err
	}
	defer conns.close()

	metrics := newMetrics()
	probes, err := service.ServeHealth(settings.Health, service.NewRegistry(metrics.all()...), conns.ready)
	if err != nil {
		return err
	}
	defer probes.Close()
	handler, err := newHandler(settings, conns, tokens, metrics, log)
	if err != nil {
		return err
	}
	return serve(ctx, listener, handler, log)
}

// connections are to the services behind the gateway.
type connections struct{ auth, offer, application *grpc.ClientConn }

func dial(own *identity.Identity, s Settings) (connections, error) {
	auth, err1 := service.Dial(own, s.Auth, "auth")
	offer, err2 := service.Dial(own, s.Offer, "offer")
	application, err3 := service.Dial(own, s.Application, "application")
	return connections{auth, offer, application}, errors.Join(err1, err2, err3)
}

func (c connections) each(do func(name string, conn *grpc.ClientConn)) {
	do("auth", c.auth)
	do("offer", c.offer)
	do("application", c.application)
}

func (c connections) close() {
	c.each(func(_ string, conn *grpc.ClientConn) { _ = conn.Close() }) // the program ends
}

// ready fails while a service cannot be reached.
func (c connections) ready(context.Context) error {
	var errs []error
	c.each(func(name string, conn *grpc.ClientConn) {
		conn.Connect()
		if state := conn.GetState(); state == connectivity.TransientFailure || state == connectivity.Connecting {
			errs = append(errs, fmt.Errorf("%s: %s", name, state))
		}
	})
	return errors.Join(errs...)
}

// newHandler puts the layers in order, the outermost last.
func newHandler(s Settings, conns connections, tokens *token.Verifier, metrics *metrics, log *slog.Logger) (http.Handler, error) {
	api := &api{
		auth:         authv1.NewAuthClient(conns.auth),
		offers:       offerv1.NewOffersClient(conns.offer),
		applications: applicationv1.NewApplicationsClient(conns.application),
		tokens:       tokens,
		log:          log,
	}
	handler, err := newFirewall(s.WAF, metrics, log).wrap(api.routes())
	if err != nil {
		return nil, err
	}
	handler = limitRate(s.Rate, metrics, handler)
	handler = limitBody(handler)
	handler = findClient(s.Proxies, handler)
	handler = observe(metrics, log, handler)
	return otelhttp.NewHandler(handler, "gateway"), nil
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("serving", "address", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	return server.Shutdown(ctx)
}
