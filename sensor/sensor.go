// Package sensor hands over what happens on a node as the kernel sees it, as
// package record describes: processes that start and end, and system calls.
//
// Its kernel side is bpf/sensor.c, compiled into this package. [New] loads and
// attaches what the wanted types of events need and no more; [Sensor.Run] reads;
// [Sensor.Counters] says what was made, dropped and filtered, so that nothing is
// lost silently; [Sensor.Features] says what this kernel does not give.
//
// All events of a process go through one pair of ring buffers, one for its
// begin, its programs and its end, one for the rest, so that a flood of calls
// does not cost the former. They are read by one goroutine, in the order of the
// events of each thread. Events of different processes are in no order; a child
// names its parent by [record.Key].
//
// Processes have the ids that they have in the sensor's process namespace, so that
// /proc and signals are about the same ones; what is not in it makes no records,
// and is counted. That is the node where the node is a container itself.
//
// Calls of 32-bit programs are not covered, but those of wanted types are counted.
package sensor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package sensor -target amd64,arm64 -cflags "-mcpu=v3 -Wall -Werror" kernel bpf/sensor.c

// ErrNotSupported says that the kernel lacks something, or refuses it.
var ErrNotSupported = errors.New("not supported by this kernel")

// A Config says what is wanted. The zero value of each field but Types is a good
// choice.
type Config struct {
	Types   []string // of events, as in event.Types; others are reported as not covered
	Filters Filters

	Partitions    int           // pairs of ring buffers, each with a goroutine: a power of two, at most 64; by default the CPUs, at most 8
	BufferSize    int           // bytes of each buffer of calls: a power of two, by default 4 MiB
	LifecycleSize int           // bytes of each buffer of processes: by default 1 MiB
	Watermark     int           // bytes that wait in a buffer before the reader is woken: by default an eighth of it
	Flush         time.Duration // how long less than that waits: by default 100 ms
	Environment   bool          // execs have the environment, which may hold secrets
	Enforce       bool          // programs may kill and block, as [Sensor.SetGuards] and [Sensor.BlockEgress] say; without it they hold no code for that
	Deny          bool          // guards may refuse to start a program, if also Enforce is set; see [Sensor.CanDeny]
	Node          Node          // what tells the node's own processes from those of containers, which guards need; see [FindNode]
}

const (
	maxPartitions        = 64
	defaultBufferSize    = 4 << 20
	defaultLifecycleSize = 1 << 20
	defaultFlush         = 100 * time.Millisecond
)

func (c Config) withDefaults() (Config, error) {
	if c.Partitions == 0 {
		c.Partitions = 1 << (bits.Len(uint(min(runtime.NumCPU(), 8))) - 1)
	}
	c.BufferSize = or(c.BufferSize, defaultBufferSize)
	c.LifecycleSize = or(c.LifecycleSize, defaultLifecycleSize)
	c.Watermark = or(c.Watermark, min(c.BufferSize, c.LifecycleSize)/8)
	c.Flush = or(c.Flush, defaultFlush)
	if c.Partitions < 0 || c.Partitions > maxPartitions || bits.OnesCount(uint(c.Partitions)) != 1 {
		return c, fmt.Errorf("%d partitions: want a power of two up to %d", c.Partitions, maxPartitions)
	}
	for _, size := range []int{c.BufferSize, c.LifecycleSize} {
		if size < 64<<10 || size > 1<<30 || bits.OnesCount(uint(size)) != 1 {
			return c, fmt.Errorf("buffer of %d bytes: want a power of two from 64 KiB to 1 GiB", size)
		}
	}
	if c.Watermark < 0 || c.Flush < time.Millisecond {
		return c, fmt.Errorf("watermark %d and flush %s: want 1 byte and 1 ms at least", c.Watermark, c.Flush)
	}
	return c, c.Filters.check()
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// denies reports whether guards may deny.
func (s *Sensor) denies() bool { return s.config.Enforce && s.config.Deny }

// A Sensor owns programs and buffers in the kernel until it is closed. Run is
// called once; the other methods may be called at any time before Close.
type Sensor struct {
	config     Config
	collection *ebpf.Collection // maps and variables
	maps       map[string]*ebpf.Map
	programs   map[string]*ebpf.Program
	rings      []*ring              // the partitions' buffers of calls, then those of processes
	calls      []call               // that the table of calls leads to
	wanted     map[record.Type]bool // of these, those that are now
	features   []Feature
	onClose    []func()

	filters   sync.Mutex // held while they are replaced
	guards    sync.Mutex
	types     sync.Mutex // guards programs, calls, wanted, features and Config.Types once the sensor runs
	egress    sync.Mutex // guards onClose once the sensor runs
	seen      [len(kernelCounters{}.Made)]atomic.Uint64
	malformed atomic.Uint64
}

// New loads what the types need and attaches it. What the kernel refuses is in
// [Sensor.Features]; it fails if it refuses everything. It needs root, or the
// capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE.
func New(config Config) (*Sensor, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure sensor: %w", err)
	}
	s := &Sensor{config: config, programs: map[string]*ebpf.Program{}, wanted: map[record.Type]bool{}}
	if err := s.load(); err != nil {
		s.Close()
		return nil, fmt.Errorf("load sensor: %w", err)
	}
	return s, nil
}

// Close detaches the programs and frees the buffers.
func (s *Sensor) Close() {
	s.egress.Lock()
	defer s.egress.Unlock()
	for _, undo := range slices.Backward(s.onClose) {
		undo()
	}
	s.onClose = nil
}

// attach starts a program; events come from now on.
func (s *Sensor) attach(name string) error {
	l, err := link.AttachTracing(link.TracingOptions{Program: s.programs[name]})
	if err != nil {
		return fmt.Errorf("attach %s: %w", name, err)
	}
	s.onClose = append(s.onClose, func() { l.Close() })
	return nil
}

// Run reads the buffers until the context ends, and then what was made before
// that. It calls handle for each record: from one goroutine for each partition, so
// from several at once, but for one process from the same one. The record is valid
// until handle returns.
func (s *Sensor) Run(ctx context.Context, handle func(partition int, r *record.Record)) error {
	errs := make(chan error, s.config.Partitions)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	for i := range s.config.Partitions {
		workers.Go(func() {
			if err := s.read(ctx, i, handle); err != nil {
				errs <- fmt.Errorf("read partition %d: %w", i, err)
				cancel()
			}
		})
	}
	workers.Wait()
	close(errs)
	return <-errs
}

// mostAtOnce is how many records are read before the end of the context is looked
// for again.
const mostAtOnce = 10_000

func (s *Sensor) read(ctx context.Context, partition int, handle func(int, *record.Record)) error {
	calls, processes := s.rings[partition], s.rings[s.config.Partitions+partition]
	wait, err := newWaiter(calls.m.FD(), processes.m.FD())
	if err != nil {
		return err
	}
	defer wait.close()
	var r record.Record
	// next handles a record that was made until then, and reports whether there was
	// one.
	next := func(until uint64) bool {
		from, sample := oldest(processes, calls)
		if sample == nil || record.TimeOf(sample) > until {
			return false
		}
		s.handle(&r, sample, partition, handle)
		from.next(uint64(len(sample)))
		return true
	}
	for ctx.Err() == nil {
		n := 0
		for n < mostAtOnce && next(math.MaxUint64) {
			n++
		}
		if n == mostAtOnce {
			continue
		}
		if err := wait.wait(s.config.Flush); err != nil {
			return err
		}
	}
	var end unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &end); err != nil {
		return fmt.Errorf("read the time since boot: %w", err)
	}
	for next(uint64(end.Nano())) {
	}
	return nil
}

func (s *Sensor) handle(r *record.Record, sample []byte, partition int, handle func(int, *record.Record)) {
	if err := r.Decode(sample); err != nil {
		s.malformed.Add(1)
		return
	}
	s.seen[int(r.Type)%len(s.seen)].Add(1)
	handle(partition, r)
}

// oldest returns the older of the first samples of two rings. What one thread
// wrote first is visible first: so the ring that seemed empty is looked at again
// after the other turned out not to be.
func oldest(a, b *ring) (*ring, []byte) {
	first, second := a.peek(), b.peek()
	if first == nil && second != nil {
		first = a.peek()
	}
	if first == nil || second != nil && record.TimeOf(second) < record.TimeOf(first) {
		return b, second
	}
	return a, first
}

// A waiter waits for ring buffers to have something.
type waiter struct {
	epoll  int
	events [2]syscall.EpollEvent
}

func newWaiter(fds ...int) (*waiter, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for ring buffers: %w", err)
	}
	w := &waiter{epoll: epoll}
	for _, fd := range fds {
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN}); err != nil {
			w.close()
			return nil, fmt.Errorf("wait for ring buffer: %w", err)
		}
	}
	return w, nil
}

func (w *waiter) wait(most time.Duration) error {
	_, err := syscall.EpollWait(w.epoll, w.events[:], int(most.Milliseconds()))
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("wait for ring buffers: %w", err)
	}
	return nil
}

func (w *waiter) close() { syscall.Close(w.epoll) }
