// Command pgfront runs Pgpool-II in front of a highly available PostgreSQL. See
// package ha.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/ha"
)

func main() {
	var c ha.PoolConfig
	common := ha.NewFlags(flag.CommandLine)
	flag.StringVar(&c.Listen, "listen", "*", "`address` to listen on")
	flag.IntVar(&c.Port, "port", 5432, "`port` for clients")
	flag.IntVar(&c.NodePort, "node-port", 5432, "`port` of PostgreSQL on the nodes")
	flag.StringVar(&c.RunDir, "run-dir", "/run/postgresql", "`folder` of sockets and generated configuration, passwords included")
	flag.Parse()
	c.Nodes, c.IdentityDir, c.StatusPort, c.Health, c.Databases = common.Nodes, common.IdentityDir, common.StatusPort, common.Health, common.Databases
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := ha.RunPool(ctx, c, slog.New(slog.NewJSONHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "pgfront:", err)
		os.Exit(1)
	}
}
