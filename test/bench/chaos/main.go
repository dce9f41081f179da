// Command chaos kills parts of the product, with SIGKILL, while node agents raise
// alerts at a steady rate. Afterwards it holds what is stored against what was
// raised, and what a receiver of webhooks was told against both:
//
//	go run ./test/bench/chaos -kubeconfig FILE -server bin/kubeguardian
//
// kills, one after the other, the server that leads, the storage process of the bus
// and PostgreSQL's primary. Of the two servers the one that is left takes over the
// Lease before the other is started again. All parts are processes: two replicas of
// the server, a NATS server that keeps its streams in files, PostgreSQL with a
// standby that each commit waits for, which repmgr promotes, and Pgpool-II before
// both. The cluster of the kubeconfig is asked for a Lease; any will do.
//
//	go run ./test/bench/chaos -single -server bin/kubeguardian
//
// has what is there by default: one server with SQLite and its embedded bus, which
// is killed -kills times: while it starts, while it catches up and removes old
// records just after that, and later. It needs no cluster.
//
//	go run ./test/bench/chaos -kubeconfig FILE -server bin/kubeguardian -outage 3m
//
// kills nothing: PostgreSQL, without a standby, is stopped with SIGSTOP for so long,
// so that it answers nobody, and goes on then. It prints after how long the health
// says so, and how much memory the servers take meanwhile.
//
// In all the agents are the part of one that has the spool.
//
// Exit code 1 says that an alert was lost, is stored twice or in two incidents, or
// that the receiver was not told of it exactly once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// settings are what the command line says.
type settings struct {
	kubeconfig, server, dir string
	agents, rate, groups    int
	every                   time.Duration // between two kills, and before the first and after the last
	away                    time.Duration // until what was killed is started again
	pool, kill              bool
	single                  bool
	outage                  time.Duration
	times, before           int
	seed                    uint64
}

// priority is that of alerts.
func (s *settings) priority() alert.Priority {
	if s.single { // no incident pages, and keeps its alerts from being removed
		return alert.Notice
	}
	return alert.Warning
}

func main() {
	var s settings
	flag.StringVar(&s.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "`file` of the cluster in which the replicas elect a leader")
	flag.StringVar(&s.server, "server", "bin/kubeguardian", "`program` of the server")
	flag.StringVar(&s.dir, "dir", "", "`folder` for all data, which stays; empty: a temporary one")
	flag.IntVar(&s.agents, "agents", 4, "`number` of agents")
	flag.IntVar(&s.rate, "rate", 5000, "`alerts` each second, of all agents")
	flag.IntVar(&s.groups, "groups", 100, "`number` of groups of alerts, each of which becomes a message every few seconds")
	flag.DurationVar(&s.every, "every", 15*time.Second, "time between two kills, and before the first and after the last one")
	flag.DurationVar(&s.away, "away", 2*time.Second, "time until the bus is started again")
	flag.BoolVar(&s.pool, "pool", true, "reach PostgreSQL through Pgpool-II; else both servers are named in the URL")
	flag.BoolVar(&s.kill, "kill", true, "kill parts; else see what the machine does without")
	flag.BoolVar(&s.single, "single", false, "one server with SQLite and its embedded bus, as it is by default, in place of all the rest")
	flag.DurationVar(&s.outage, "outage", 0, "kill nothing, but stop PostgreSQL for this time")
	flag.IntVar(&s.times, "kills", 12, "with -single: `times` that it is killed")
	flag.IntVar(&s.before, "before", 30_000, "with -single: `alerts` that are in the database before, and so many are kept: for each that comes one of them goes; more than come in 30 s")
	flag.Uint64Var(&s.seed, "seed", rand.Uint64(), "with -single: `number` by which the moments of the kills are chosen")
	bus := flag.String("bus", "", "be the bus, with streams in this `folder`")
	listen := flag.String("listen", "", "with -bus: its address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *bus != "" {
		err = serveBus(ctx, *bus, *listen)
	} else {
		err = run(ctx, s)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos: error:", err)
		os.Exit(1)
	}
}

// run starts all parts, kills some while alerts come, and compares.
func run(ctx context.Context, s settings) (err error) {
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "kubeguardian-chaos-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	}
	p, err := start(ctx, s)
	defer func() { err = errors.Join(err, p.stop()) }()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	w := p.watch(ctx)
	agents, err := startAgents(ctx, s, p.busURL())
	if err != nil {
		return err
	}
	w.follow(agents)
	began := time.Now()
	agents.raise(s)
	faults, err := p.kills(ctx)
	if err == nil {
		err = wait(ctx, s.every)
	}
	if err != nil {
		return err
	}
	raised, took, err := agents.finish(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("offered    %d alerts by %d agents in %s, %.0f each second\n", len(raised), s.agents, took.Round(time.Millisecond), float64(len(raised))/took.Seconds())
	maps.Copy(raised, p.before)
	if err := p.settle(ctx, raised); err != nil {
		return err
	}
	w.report(faults, len(raised))
	return p.compare(ctx, raised, began, w.storedAt(), took)
}
