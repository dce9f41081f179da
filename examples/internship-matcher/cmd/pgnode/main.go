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
	"strings"
	"syscall"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/ha"
)

func main() {
	var c ha.Config
	var node, peers string
	flag.StringVar(&node, "node", "", "this node, as `ID:NAME:HOST`")
	flag.StringVar(&peers, "peers", "", "the others, separated by commas")
	flag.IntVar(&c.Port, "port", 5432, "port of PostgreSQL on all nodes")
	flag.IntVar(&c.StatusPort, "status-port", 8009, "port of pgnode on all nodes")
	flag.StringVar(&c.Dir, "dir", "", "`folder` of data and sockets")
	flag.StringVar(&c.PasswordFile, "password-file", "", "`file` with the password of the superuser repmgr")
	flag.StringVar(&c.BinDir, "bin", "/usr/lib/postgresql/15/bin", "`folder` of PostgreSQL's programs")
	c.Databases = map[string]string{}
	flag.Func("database", "`NAME=FILE`: a database and its role to make in a new cluster, and the file of its password; repeatable", func(v string) error {
		name, file, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=FILE", v)
		}
		c.Databases[name] = file
		return nil
	})
	flag.Parse()
	if err := run(c, node, peers); err != nil {
		fmt.Fprintln(os.Stderr, "pgnode:", err)
		os.Exit(1)
	}
}

func run(c ha.Config, node, peers string) error {
	own, err := ha.ReadPeers(node)
	if err != nil {
		return err
	}
	c.Peer = own[0]
	if c.Peers, err = ha.ReadPeers(peers); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return ha.Run(ctx, c, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
}
