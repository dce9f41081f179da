// Package local runs the whole application on one machine, on loopback: a
// PostgreSQL server with a database for each service, an authority for
// identities, and the services.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/application"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/auth"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/gateway"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/offer"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/service"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

// Options say how to run the application.
type Options struct {
	Dir    string // for everything that is kept; must exist
	Listen string // of the gateway; "127.0.0.1:0" for any free port
	WAF    string // block, detect or off
	Rate   int    // requests of one client per second
	Log    *slog.Logger
}

// An App is the running application.
type App struct {
	URL       string // of the gateway
	Services  map[string]string
	Postgres  *Postgres
	Authority *identity.Authority

	dir    string
	cancel context.CancelFunc
	ended  chan error
	count  int
}

// identityLifetime is short on purpose: nothing on one machine lasts longer.
const identityLifetime = 24 * time.Hour

// Start starts everything. It returns while services still wait for their
// schema; requests wait with them.
func Start(ctx context.Context, o Options) (*App, error) {
	a := &App{dir: o.Dir, Services: map[string]string{}, ended: make(chan error, 4)}
	var err error
	if a.Authority, err = identity.NewAuthority(); err != nil {
		return nil, err
	}
	if a.Postgres, err = StartPostgres(ctx, o.Dir, a.Authority); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	a.cancel = cancel
	if err := a.start(running, o); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

func (a *App) start(ctx context.Context, o Options) error {
	if err := os.MkdirAll(a.Tokens(), 0o700); err != nil {
		return err
	}
	if err := token.Generate(a.Tokens()); err != nil {
		return err
	}
	for _, s := range []service.Service{auth.New(), offer.New(), application.New()} {
		db, err := a.Postgres.Create(ctx, s.Name, a.dir)
		if err != nil {
			return err
		}
		if err := a.serve(ctx, s, db, o.Log); err != nil {
			return err
		}
	}
	return a.serveGateway(ctx, o)
}

// Dir is the folder of all that is kept.
func (a *App) Dir() string { return a.dir }

// Tokens is the folder of the keys that sign logins.
func (a *App) Tokens() string { return filepath.Join(a.dir, "token") }

// Identity is the folder of a service's identity.
func (a *App) Identity(name string) string { return filepath.Join(a.dir, "identity", name) }

func (a *App) serve(ctx context.Context, s service.Service, db database.Config, log *slog.Logger) error {
	if err := a.Authority.Issue(a.Identity(s.Name), s.Name, identityLifetime); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a.Services[s.Name] = listener.Addr().String()
	settings := service.Settings{
		Health:       "127.0.0.1:0",
		IdentityDir:  a.Identity(s.Name),
		PublicKeys:   filepath.Join(a.Tokens(), token.PublicFile),
		SigningKey:   filepath.Join(a.Tokens(), token.PrivateFile),
		Database:     db,
		OfferAddress: a.Services["offer"],
	}
	a.run(s.Name, func() error { return service.Run(ctx, s, settings, listener, log.With("service", s.Name)) })
	return nil
}

func (a *App) serveGateway(ctx context.Context, o Options) error {
	if err := a.Authority.Issue(a.Identity("gateway"), "gateway", identityLifetime); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return err
	}
	a.URL = fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	settings := gateway.Settings{
		Health:      "127.0.0.1:0",
		IdentityDir: a.Identity("gateway"),
		PublicKeys:  filepath.Join(a.Tokens(), token.PublicFile),
		Auth:        a.Services["auth"], Offer: a.Services["offer"], Application: a.Services["application"],
		WAF: o.WAF, Rate: o.Rate,
	}
	a.run("gateway", func() error { return gateway.Run(ctx, settings, listener, o.Log.With("service", "gateway")) })
	return nil
}

func (a *App) run(name string, f func() error) {
	a.count++
	go func() {
		err := f()
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		a.ended <- err
	}()
}

// Wait returns when a service ends by itself, or with the context.
func (a *App) Wait(ctx context.Context) error {
	select {
	case err := <-a.ended:
		a.count--
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stop ends the services, then the database.
func (a *App) Stop() error {
	a.cancel()
	var errs []error
	for ; a.count > 0; a.count-- {
		errs = append(errs, <-a.ended)
	}
	return errors.Join(append(errs, a.Postgres.Stop())...)
}
