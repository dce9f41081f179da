// Command app runs the whole application on this machine, on loopback, until
// it is interrupted: PostgreSQL, the services, and the gateway.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/local"
)

func main() {
	var o local.Options
	flag.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "`address` of the gateway")
	flag.StringVar(&o.WAF, "waf", "block", "what the firewall does: block, detect or off")
	flag.IntVar(&o.Rate, "rate", 1000, "requests that one client may send per second")
	verbose := flag.Bool("v", false, "log every call")
	flag.Parse()
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(o local.Options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.Dir, err = os.MkdirTemp("", "internship-matcher-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	app, err := local.Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("%s  (API: %[1]s/openapi.yaml; stop with Ctrl-C)\n", app.URL)
	return errors.Join(app.Wait(ctx), app.Stop())
}
