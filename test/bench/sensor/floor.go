package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// An arrangement is a way to look at calls, which costs something before any
// program does anything.
type arrangement struct {
	name  string
	start func() (stop func(), err error)
}

// elsewhere is a call that no workload makes.
const elsewhere = "setns"

var arrangements = []arrangement{
	{"tracing alone", traceElsewhere},
	{"empty program for each call", emptyProgram},
	{"empty program for open and close", func() (func(), error) { return emptyPrograms("open", "openat", "close") }},
	{"agent", nil},
}

// floor prints how much of the overhead is there whatever the sensor does: of a
// kernel that traces one call, which no workload makes; of an empty program at
// the hook of the sensor, which runs for every call; of empty programs that are
// bound to single calls. Each is measured in turns with nothing and the agent.
func floor(ctx context.Context, out io.Writer, rounds int, only, program string) error {
	fmt.Fprintf(out, "%-12s %-34s %10s %8s\n", "workload", "what looks at calls", "CPU", "more")
	for _, w := range workloads {
		if only != "" && only != w.name {
			continue
		}
		if err := floorOf(ctx, out, rounds, w, program); err != nil {
			return fmt.Errorf("floor of %s: %w", w.name, err)
		}
	}
	return nil
}

func floorOf(ctx context.Context, out io.Writer, rounds int, w workload, program string) error {
	var r result
	var without []sample
	with := make([][]sample, len(arrangements))
	for range rounds {
		s, err := execute(ctx, w)
		if err != nil {
			return err
		}
		without = append(without, s)
		for i, a := range arrangements {
			if a.start == nil {
				s, err = r.watched(program)(ctx, w)
			} else {
				s, err = beside(ctx, w, a.start)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			with[i] = append(with[i], s)
		}
	}
	cpu := func(s sample) time.Duration { return s.cpu }
	base := median(without, cpu)
	fmt.Fprintf(out, "%-12s %-34s %10s\n", w.name, "nothing", base.Round(time.Millisecond))
	for i, a := range arrangements {
		m := median(with[i], cpu)
		fmt.Fprintf(out, "%-12s %-34s %10s %8s\n", w.name, a.name, m.Round(time.Millisecond), percent(float64(m)/float64(base)))
	}
	return nil
}

// beside runs a workload while something looks at calls.
func beside(ctx context.Context, w workload, start func() (func(), error)) (sample, error) {
	stop, err := start()
	if err != nil {
		return sample{}, err
	}
	defer stop()
	return execute(ctx, w)
}

func empty(spec ebpf.ProgramSpec) (*ebpf.Program, error) {
	spec.License = "GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	return ebpf.NewProgram(&spec)
}

func emptyProgram() (func(), error) {
	p, err := empty(ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sys_exit"})
	if err != nil {
		return nil, fmt.Errorf("load an empty program: %w", err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("attach an empty program: %w", err)
	}
	return func() { l.Close(); p.Close() }, nil
}

func emptyPrograms(calls ...string) (stop func(), err error) {
	var undo []func()
	stop = func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	p, err := empty(ebpf.ProgramSpec{Type: ebpf.TracePoint})
	if err != nil {
		return nil, fmt.Errorf("load an empty program: %w", err)
	}
	undo = append(undo, func() { p.Close() })
	for _, call := range calls {
		fd, err := traced(call)
		if err != nil {
			stop()
			return nil, err
		}
		undo = append(undo, func() { unix.Close(fd) })
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: p, Attach: ebpf.AttachPerfEvent})
		if err != nil {
			stop()
			return nil, fmt.Errorf("attach an empty program to %s: %w", call, err)
		}
		undo = append(undo, func() { l.Close() })
	}
	return stop, nil
}

func traceElsewhere() (func(), error) {
	fd, err := traced(elsewhere)
	if err != nil {
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}

// traced returns a perf event of the end of a call.
func traced(call string) (int, error) {
	id, err := tracepoint("events/syscalls/sys_exit_" + call + "/id")
	if err != nil {
		return 0, fmt.Errorf("find the tracepoint of %s: %w", call, err)
	}
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("trace %s: %w", call, err)
	}
	return fd, nil
}

// tracepoint reads a number from the kernel's file system of tracepoints, of a
// mount that nobody else sees.
func tracepoint(name string) (uint64, error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("open tracefs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, fmt.Errorf("open tracefs: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("mount tracefs: %w", err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	var text [32]byte
	n, err := syscall.Read(fd, text[:])
	if err != nil {
		return 0, errors.Join(fmt.Errorf("read %s", name), err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(text[:n])), 10, 64)
}
