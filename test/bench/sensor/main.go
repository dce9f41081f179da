// Command sensor measures what the sensor costs the programs of a node: it runs
// each workload in pairs, without and with the sensor, in turns of who is first,
// and prints the ratio of the pairs' medians, of the time on the clock and of the
// CPU time that the workload used. The programs in the kernel run on the
// workload's account; what the reader uses itself is printed beside.
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
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/record"
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
	pairs := flags.Int("pairs", 5, "`number` of pairs for each workload")
	only := flags.String("only", "", "the one `workload` to measure")
	of := flags.String("types", strings.Join(types, " "), "`types` of events that the sensor shows: one that never happens leaves the cost of looking at each call")
	bottom := flags.Bool("floor", false, "print how much of the overhead is the kernel's own tracing, which no program avoids")
	work := flags.String("work", "", "run one workload and exit (used by the measurement itself)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *work != "" {
		return child(*work, flags.Args(), stderr)
	}
	if *bottom {
		if err := floor(ctx, stdout, *pairs, *only, strings.Fields(*of)); err != nil {
			fmt.Fprintf(stderr, "sensor: measure the %v\n", err)
			return 2
		}
		return 0
	}
	fmt.Fprintf(stdout, "%-12s %10s %10s %8s %8s %12s %9s %9s\n", "workload", "without", "with", "clock", "CPU", "reader CPU", "events", "dropped")
	for _, w := range workloads {
		if *only != "" && *only != w.name {
			continue
		}
		r, err := measure(ctx, w, *pairs, strings.Fields(*of))
		if err != nil {
			fmt.Fprintf(stderr, "sensor: measure %s: %v\n", w.name, err)
			return 2
		}
		fmt.Fprintf(stdout, "%-12s %10s %10s %8s %8s %12s %9d %9d\n", w.name, r.without.Round(time.Millisecond), r.with.Round(time.Millisecond),
			percent(r.clock), percent(r.cpu), fmt.Sprintf("%.1f %%", 100*r.reader), r.events, r.dropped)
	}
	return 0
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

// types are those that rules for containers ask for, with what keeps the state of
// processes.
var types = []string{
	"clone", "clone3", "fork", "vfork", "execve", "execveat", "procexit", "open", "openat", "openat2", "creat", "connect", "accept",
	"accept4", "listen", "bind", "socket", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat",
	"chmod", "fchmod", "fchmodat", "symlink", "symlinkat", "link", "linkat", "ptrace", "dup", "dup2", "dup3", "init_module",
	"finit_module", "setns", "unshare", "setuid", "setgid", "setresuid", "setresgid", "bpf", "userfaultfd", "memfd_create", "mount",
	"chdir", "fchdir", "chroot", "capset", "prctl", "kill", "setsid", "setpgid",
}

// filters are those of rules about sensitive files and connections.
var filters = sensor.Filters{
	Opens: sensor.OpenFilter{
		Reads: sensor.WatchedReads,
		Prefixes: []string{
			"/etc/shadow", "/etc/sudoers", "/etc/pam.d/", "/etc/kubernetes/", "/var/spool/cron/", "/var/log/", "/var/run/secrets/",
			"/run/secrets/", "/proc/1/", "/var/lib/kubelet/",
		},
		Names: []string{"id_rsa", "id_ed25519", "credentials", ".git-credentials", "environ"},
	},
	Families: []uint16{syscall.AF_INET, syscall.AF_INET6},
}

type result struct {
	types           []string
	without, with   time.Duration // medians, on the clock
	clock, cpu      float64       // ratios
	reader          float64       // CPUs that the reader kept busy
	events, dropped uint64
}

type sample struct{ clock, cpu time.Duration }

func measure(ctx context.Context, w workload, pairs int, types []string) (result, error) {
	r := result{types: types}
	var without, with []sample
	for i := range pairs {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		// Who is first changes with each pair, so that what drifts hits both.
		for _, watched := range []bool{i%2 == 0, i%2 != 0} {
			if !watched {
				s, err := execute(ctx, w)
				if err != nil {
					return r, err
				}
				without = append(without, s)
				continue
			}
			s, err := r.watch(ctx, w)
			if err != nil {
				return r, err
			}
			with = append(with, s)
		}
	}
	clock := func(s sample) time.Duration { return s.clock }
	cpu := func(s sample) time.Duration { return s.cpu }
	r.without, r.with = median(without, clock), median(with, clock)
	r.clock = float64(r.with) / float64(r.without)
	r.cpu = float64(median(with, cpu)) / float64(median(without, cpu))
	r.reader /= float64(pairs)
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

// watch runs a workload while the sensor runs in this process.
func (r *result) watch(ctx context.Context, w workload) (sample, error) {
	s, err := sensor.New(sensor.Config{Types: r.types, Filters: filters})
	if err != nil {
		return sample{}, err
	}
	defer s.Close()
	if missing := s.Missing(); len(missing) > 0 {
		return sample{}, fmt.Errorf("not covered: %v", missing)
	}
	reading, stop := context.WithCancel(ctx)
	done := make(chan error)
	var seen atomic.Uint64
	go func() { done <- s.Run(reading, func(int, *record.Record) { seen.Add(1) }) }()
	before, begin := ownCPU(), time.Now()
	got, err := execute(ctx, w)
	r.reader += float64(ownCPU()-before) / float64(time.Since(begin))
	stop()
	if err := errors.Join(err, <-done); err != nil {
		return got, err
	}
	counters, err := s.Counters()
	for _, c := range counters.Types {
		r.dropped += c.Dropped
	}
	r.events += seen.Load()
	return got, err
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
	return sample{time.Since(begin), duration(u)}, nil
}

func duration(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return duration(&u)
}

// name returns the path of a numbered file.
func name(dir string, i int) string { return dir + "/file" + strconv.Itoa(i) }
