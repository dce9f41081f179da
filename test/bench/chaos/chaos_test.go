package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/server"
)

// TestMain lets the test be the server that it kills: it is called as the program
// is.
func TestMain(m *testing.M) {
	if len(os.Args) != 4 || os.Args[1] != "serve" {
		os.Exit(m.Run())
	}
	if err := serve(context.Background(), os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, file string) (err error) {
	opts := server.Options{Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Version: "test"}
	if opts.Config, err = config.Load(file); err != nil {
		return err
	}
	if opts.Cluster, err = clientcmd.BuildConfigFromFlags("", opts.Config.Kubeconfig); err != nil {
		return err
	}
	s, err := server.New(ctx, opts)
	if err != nil {
		return err
	}
	return errors.Join(s.Run(ctx), s.Stop())
}

// TestServerIsKilled: a server as it is by default is killed while it works, starts
// and removes old records. No alert is lost, stored twice, in two incidents, or told
// of twice.
func TestServerIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for seconds; the whole tests do it")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := settings{
		server: self, dir: t.TempDir(), single: true, kill: true, times: 6, seed: 1,
		agents: 2, rate: 50, groups: 10, before: 5000, every: time.Second,
	}
	if err := run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}
