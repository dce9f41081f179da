// Command soak runs short processes beside the agent, as many as a busy node
// begins in a day or as fast as they go for some time, and prints what memory the
// agent has on the way, which shows whether it grows. The ids of processes are
// used again meanwhile, if they last for so long; it says how often.
//
// Run it as root:  go run ./test/bench/soak -for 10m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/kubeguardian/kubeguardian/test/bench/agentrun"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	missed, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(2)
	case missed:
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	processes, rate, steps int
	duration               time.Duration
	limit                  float64
}

func run(ctx context.Context, args []string, out io.Writer) (missed bool, err error) {
	var o options
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.IntVar(&o.processes, "processes", 200_000, "`number` of short processes")
	flags.DurationVar(&o.duration, "for", 0, "run short processes for so `long`, in place of a number of them")
	flags.IntVar(&o.rate, "rate", 0, "most processes in a second; 0 is as many as go")
	flags.IntVar(&o.steps, "steps", 10, "`number` of measurements")
	flags.Float64Var(&o.limit, "limit", 60, "`MB` that the agent may have")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	program, err := agentrun.Build(ctx, dir)
	if err != nil {
		return false, err
	}
	a, err := agentrun.Start(ctx, program)
	if err != nil {
		return false, err
	}
	missed, err = o.soak(ctx, a, out)
	return missed, errors.Join(err, a.Stop())
}

// soak runs the processes and prints a line after each step.
func (o *options) soak(ctx context.Context, a *agentrun.Agent, out io.Writer) (missed bool, err error) {
	const format = "%9s %10s %9s %8s %9s %8s %8s %8s\n"
	fmt.Fprintf(out, format, "time", "processes", "RSS", "known", "id again", "dropped", "unknown", "rate")
	began, done := time.Now(), 0
	ids := map[int]bool{} // that were used
	again := 0
	each := func(pid int) {
		done++
		if ids[pid] {
			again++
		}
		ids[pid] = true
	}
	most := 0.0
	for i := range o.steps + 1 {
		m, err := a.Metrics(ctx)
		if err != nil {
			return false, err
		}
		rss := m["resident_memory_bytes"] / 1e6
		most = max(most, rss)
		took := time.Since(began)
		fmt.Fprintf(out, format, took.Round(time.Second), fmt.Sprint(done), fmt.Sprintf("%.1f MB", rss), fmt.Sprint(m["processes"]), fmt.Sprint(again),
			fmt.Sprint(m[agentrun.Dropped]), fmt.Sprint(m["processes_unknown_total"]), fmt.Sprintf("%.0f/s", float64(done)/took.Seconds()))
		if i == o.steps {
			break
		}
		if err := o.step(ctx, began.Add(o.duration*time.Duration(i+1)/time.Duration(o.steps)), each); err != nil {
			return false, err
		}
	}
	verdict := "ok"
	if missed = most > o.limit; missed {
		verdict = "too much"
	}
	fmt.Fprintf(out, "at most %.1f MB, of %.0f: %s\n", most, o.limit, verdict)
	return missed, nil
}

// step runs the processes of one step: until a time, or its share of them.
func (o *options) step(ctx context.Context, until time.Time, each func(int)) error {
	if o.duration == 0 {
		return agentrun.Processes(ctx, o.processes/o.steps, o.rate, each)
	}
	for time.Now().Before(until) {
		if err := agentrun.Processes(ctx, 500, o.rate, each); err != nil {
			return err
		}
	}
	return nil
}
