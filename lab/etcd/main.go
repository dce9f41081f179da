// Command etcd is the lab's etcd: the real server, embedded. It takes the
// flags of the real program that the lab uses, so that either can be run.
package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(configure(os.Args[1:])); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}

// configure reads the flags; wrong ones end the program with exit code 2.
func configure(args []string) *embed.Config {
	cfg := embed.NewConfig()
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	flags.StringVar(&cfg.Name, "name", cfg.Name, "`name` of this member")
	flags.StringVar(&cfg.Dir, "data-dir", "", "data `directory`")
	flags.StringVar(&cfg.LogLevel, "log-level", cfg.LogLevel, "`level` of the log")
	flags.StringVar(&cfg.InitialCluster, "initial-cluster", "", "members as `name=URL`")
	flags.BoolVar(&cfg.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk")
	urls := func(name string, into *[]url.URL, usage string) {
		flags.Func(name, usage, func(s string) (err error) {
			*into, err = parseURLs(s)
			return err
		})
	}
	urls("listen-client-urls", &cfg.ListenClientUrls, "client `URLs` to serve")
	urls("advertise-client-urls", &cfg.AdvertiseClientUrls, "client `URLs` to tell the others")
	urls("listen-peer-urls", &cfg.ListenPeerUrls, "peer `URLs` to serve")
	urls("initial-advertise-peer-urls", &cfg.AdvertisePeerUrls, "peer `URLs` to tell the others")
	flags.Parse(args)
	return cfg
}

// parseURLs reads a list separated by commas.
func parseURLs(list string) ([]url.URL, error) {
	var urls []url.URL
	for s := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(s)
		if err != nil {
			return nil, err
		}
		urls = append(urls, *u)
	}
	return urls, nil
}

// run serves until SIGINT or SIGTERM.
func run(cfg *embed.Config) error {
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return fmt.Errorf("serve: %w", err)
	}
}
