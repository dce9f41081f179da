// Command pgnode runs one node of a highly available PostgreSQL. See package
// ha.
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
	var c ha.Config
	common := ha.NewFlags(flag.CommandLine)
	name := flag.String("name", "", "`name` of this node, one of them")
	flag.StringVar(&c.Listen, "listen", "*", "`address` to listen on")
	flag.IntVar(&c.Port, "port", 5432, "`port` of PostgreSQL, the same on all nodes")
	flag.StringVar(&c.Dir, "dir", "/var/lib/postgresql/node", "`folder` of the data")
	flag.StringVar(&c.RunDir, "run-dir", "/run/postgresql", "`folder` of sockets and generated configuration")
	flag.StringVar(&c.BinDir, "bin", "/usr/lib/postgresql/15/bin", "`folder` of PostgreSQL's programs")
	promote := flag.Bool("promote", false, "ask the node that runs with this run-dir to become the primary, and do nothing else")
	flag.Parse()
	if *promote {
		exit(ha.Promote(context.Background(), c.RunDir))
	}
	c.IdentityDir, c.StatusPort, c.Health, c.Databases = common.IdentityDir, common.StatusPort, common.Health, common.Databases
	exit(run(c, common.Nodes, *name))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgnode:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(c ha.Config, nodes []ha.Peer, name string) error {
	if err := c.Among(nodes, name); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return ha.Run(ctx, c, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
}
