// Command sensor measures what the agent costs the programs of a node, with its
// default rules: it runs each workload in turns with nothing, with the kernel's
// own tracing of calls alone, and with the agent, and prints how much more
// processor time and time on the clock the medians have. The programs in the
// kernel run on the workload's account; what the agent uses itself is printed
// beside. Then it measures the agent's memory after many short processes, and what
// it uses when nothing happens. All is compared with what it should be.
//
// Run it as root:  go run ./test/bench/sensor
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/test/bench/agentrun"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sensor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pairs := flags.Int("pairs", 5, "`number` of rounds for each workload")
	only := flags.String("only", "", "the one `workload` to measure, or memory")
	bottom := flags.Bool("floor", false, "print what empty programs in the kernel cost, which the agent cannot be below")
	quiet := flags.Duration("quiet", 30*time.Second, "how `long` the agent is looked at when nothing happens")
	work := flags.String("work", "", "run one workload and exit (used by the measurement itself)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *work != "" {
		return child(*work, flags.Args(), stderr)
	}
	if err := measureAll(ctx, stdout, *pairs, *only, *bottom, *quiet); err != nil {
		fmt.Fprintf(stderr, "sensor: %v\n", err)
		return 2
	}
	return 0
}

func measureAll(ctx context.Context, out io.Writer, pairs int, only string, bottom bool, quiet time.Duration) error {
	dir, err := os.MkdirTemp("", "sensor-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := agentrun.Build(ctx, dir)
	if err != nil {
		return err
	}
	if bottom {
		return floor(ctx, out, pairs, only, program)
	}
	const format = "%-10s %9s %9s %9s %9s %9s %9s %8s  %-16s %9s %9s %9s\n"
	if only == "memory" {
		return measureAgent(ctx, out, program, quiet)
	}
	fmt.Fprintf(out, format, "workload", "nothing", "agent", "clock", "CPU", "tracing", "above it", "target", "", "agent CPU", "events", "dropped")
	for _, w := range workloads {
		if only != "" && only != w.name {
			continue
		}
		r, err := measure(ctx, w, pairs, program)
		if err != nil {
			return fmt.Errorf("measure %s: %w", w.name, err)
		}
		target, verdict := r.verdict(w)
		fmt.Fprintf(out, format, w.name, r.without.Round(time.Millisecond), r.with.Round(time.Millisecond), percent(r.clock), percent(r.cpu), r.tracing(),
			r.above(), target, verdict, fmt.Sprintf("%.1f %%", 100*r.agent), fmt.Sprint(r.events), fmt.Sprint(r.dropped))
	}
	if only != "" {
		return nil
	}
	return measureAgent(ctx, out, program, quiet)
}

func percent(ratio float64) string { return fmt.Sprintf("%+.1f %%", 100*(ratio-1)) }

func child(name string, args []string, stderr io.Writer) int {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
	if i < 0 || len(args) != 1 {
		fmt.Fprintln(stderr, "sensor: no such workload")
		return 2
	}
	if err := workloads[i].run(args[0]); err != nil {
		fmt.Fprintf(stderr, "sensor: %s: %v\n", name, err)
		return 1
	}
	return 0
}

type result struct {
	without, with   time.Duration // medians, on the clock
	clock, cpu      float64       // ratios
	floor           float64       // ratio of CPU time, of the kernel's tracing of calls alone; 0 where it cannot be had
	agent           float64       // CPUs that the agent kept busy
	events, dropped uint64
}

func (r *result) tracing() string {
	if r.floor == 0 {
		return "-"
	}
	return percent(r.floor)
}

// above returns how much the agent adds to the kernel's own tracing.
func (r *result) above() string {
	if r.floor == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", 100*(r.cpu-r.floor))
}

// verdict compares with what should be: more CPU time than without the agent by
// less than the target, and no event dropped.
func (r *result) verdict(w workload) (target, verdict string) {
	if w.target == 0 {
		return "-", ""
	}
	target = fmt.Sprintf("< %.0f %%", 100*w.target)
	switch {
	case r.dropped > 0:
		return target, "missed: dropped"
	case r.cpu < 1+w.target:
		return target, "ok"
	case r.floor >= 1+w.target:
		return target, "missed: tracing"
	}
	return target, "missed"
}

type sample struct{ clock, cpu time.Duration }

// A turn is one way to run a workload.
type turn func(context.Context, workload) (sample, error)

func measure(ctx context.Context, w workload, rounds int, program string) (result, error) {
	var r result
	turns := []turn{execute, nil, r.watched(program)}
	if stop, err := traceElsewhere(); err == nil {
		stop()
		turns[1] = func(ctx context.Context, w workload) (sample, error) { return beside(ctx, w, traceElsewhere) }
	}
	samples := make([][]sample, len(turns))
	for i := range rounds {
		// Who is first changes with each round, so that what drifts hits all.
		for j := range turns {
			n := (i + j) % len(turns)
			if turns[n] == nil {
				continue
			}
			s, err := turns[n](ctx, w)
			if err != nil {
				return r, err
			}
			samples[n] = append(samples[n], s)
		}
	}
	clock := func(s sample) time.Duration { return s.clock }
	cpu := func(s sample) time.Duration { return s.cpu }
	r.without, r.with = median(samples[0], clock), median(samples[2], clock)
	r.clock = float64(r.with) / float64(r.without)
	r.cpu = float64(median(samples[2], cpu)) / float64(median(samples[0], cpu))
	if len(samples[1]) > 0 {
		r.floor = float64(median(samples[1], cpu)) / float64(median(samples[0], cpu))
	}
	r.agent /= float64(rounds)
	return r, nil
}

func median(samples []sample, of func(sample) time.Duration) time.Duration {
	var values []time.Duration
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// watched runs a workload beside an agent, and adds up what that does.
func (r *result) watched(program string) turn {
	return func(ctx context.Context, w workload) (sample, error) {
		a, err := agentrun.Start(ctx, program)
		if err != nil {
			return sample{}, err
		}
		s, err := r.beside(ctx, w, a)
		return s, errors.Join(err, a.Stop())
	}
}

func (r *result) beside(ctx context.Context, w workload, a *agentrun.Agent) (sample, error) {
	before, err := a.Metrics(ctx)
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	s, err := execute(ctx, w)
	if err != nil {
		return s, err
	}
	took := time.Since(begin)
	after, err := a.Metrics(ctx)
	if err != nil {
		return s, err
	}
	r.agent += (after["cpu_seconds_total"] - before["cpu_seconds_total"]) / took.Seconds()
	r.events += uint64(after["events_total"] - before["events_total"])
	r.dropped += uint64(after[agentrun.Dropped])
	return s, nil
}

// What the agent should need at most.
const (
	mostMB      = 60.0
	mostIdle    = 0.005 // of a core
	manyShort   = 20_000
	shortPerSec = 500
)

// measureAgent measures an agent that has just begun, after many short processes,
// and when nothing happens.
func measureAgent(ctx context.Context, out io.Writer, program string, quiet time.Duration) error {
	a, err := agentrun.Start(ctx, program)
	if err != nil {
		return err
	}
	return errors.Join(measureRunning(ctx, out, a, quiet), a.Stop())
}

func measureRunning(ctx context.Context, out io.Writer, a *agentrun.Agent, quiet time.Duration) error {
	const format = "%-48s %10s %10s  %s\n"
	verdict := func(ok bool) string {
		if ok {
			return "ok"
		}
		return "missed"
	}
	fmt.Fprintf(out, "\n"+format, "agent", "", "target", "")
	memory := func(when string) error {
		m, err := a.Metrics(ctx)
		if err != nil {
			return err
		}
		rss := m["resident_memory_bytes"] / 1e6
		fmt.Fprintf(out, format, "memory "+when, fmt.Sprintf("%.1f MB", rss), fmt.Sprintf("< %.0f MB", mostMB), verdict(rss < mostMB))
		return nil
	}
	if err := memory("at the begin"); err != nil {
		return err
	}
	if err := agentrun.Processes(ctx, manyShort, shortPerSec, nil); err != nil {
		return err
	}
	if err := memory(fmt.Sprintf("after %d processes, %d in a second", manyShort, shortPerSec)); err != nil {
		return err
	}
	time.Sleep(min(quiet, 15*time.Second)) // until what has ended is forgotten
	before, err := a.Metrics(ctx)
	if err != nil {
		return err
	}
	time.Sleep(quiet)
	after, err := a.Metrics(ctx)
	if err != nil {
		return err
	}
	core := (after["cpu_seconds_total"] - before["cpu_seconds_total"]) / quiet.Seconds()
	events := after["events_total"] - before["events_total"]
	when := fmt.Sprintf("CPU of a core in %s with %.0f events", quiet, events)
	fmt.Fprintf(out, format, when, fmt.Sprintf("%.2f %%", 100*core), fmt.Sprintf("< %.1f %%", 100*mostIdle), verdict(core < mostIdle))
	return memory("then")
}

// execute runs a workload in a process of its own.
func execute(ctx context.Context, w workload) (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	dir, err := os.MkdirTemp("", "sensor-bench-")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, self, "-work", w.name, dir)
	cmd.Stderr = os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("run workload: %w", err)
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{time.Since(begin), time.Duration(u.Utime.Nano() + u.Stime.Nano())}, nil
}

// name returns the path of a numbered file.
func name(dir string, i int) string { return dir + "/file" + strconv.Itoa(i) }
