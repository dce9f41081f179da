package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor"
)

// setfsgidRules are about a call that no other program of a node makes.
const setfsgidRules = `
- rule: Group for files
  desc: A process has set its group for files
  condition: evt.type = setfsgid
  output: "pid=%proc.vpid."
  priority: NOTICE
`

// A dam is where alerts are written to: nothing comes through before it is opened,
// and the agent waits meanwhile.
type dam struct {
	live
	open chan struct{}
}

func (d *dam) Write(b []byte) (int, error) {
	<-d.open
	return d.live.Write(b)
}

// A stream starts short processes, one after the other, that each make one call,
// until it is stopped.
type stream struct {
	mu   sync.Mutex
	pids []int
	err  error
	stop context.CancelFunc
	done chan struct{}
}

func startStream() *stream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{stop: cancel, done: make(chan struct{})}
	script := fmt.Sprintf("syscall(%d, -1)", unix.SYS_SETFSGID) // asks, changes nothing
	go func() {
		defer close(s.done)
		for ctx.Err() == nil {
			cmd := exec.Command("perl", "-e", script)
			err := cmd.Run()
			s.mu.Lock()
			if s.err = err; err == nil {
				s.pids = append(s.pids, cmd.Process.Pid)
			}
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

// all returns the processes so far.
func (s *stream) all(t *testing.T) []int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.pids[:len(s.pids):len(s.pids)]
}

// waitFor waits for something to hold, and fails when for a minute nothing has
// moved.
func waitFor(t *testing.T, what string, holds func() (bool, int)) {
	t.Helper()
	last, since := -1, time.Now()
	for {
		ok, progress := holds()
		if ok {
			return
		}
		if progress != last {
			last, since = progress, time.Now()
		}
		if time.Since(since) > time.Minute {
			t.Fatalf("%s: nothing moves at %d", what, progress)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestStartLosesNothingSilently starts an agent among short processes and keeps it
// from reading until its buffer is full. Of the processes from the first one that
// it saw, each is in an alert or counted as dropped, none twice.
func TestStartLosesNothingSilently(t *testing.T) {
	if testing.Short() {
		t.Skip("watches the whole machine")
	}
	if _, err := exec.LookPath("perl"); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	processes := startStream()
	defer func() { processes.stop(); <-processes.done }()
	waitFor(t, "processes before the agent", func() (bool, int) { n := len(processes.all(t)); return n >= 10, n })

	c := configOf(t, setfsgidRules)
	c.BufferSize = minBuffer
	out := &dam{live: live{t: t}, open: make(chan struct{})}
	a, err := New(Options{Config: c, Out: out, Log: slog.New(slog.DiscardHandler), Open: OpenSensor})
	if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrNotExist) || errors.Is(err, sensor.ErrNotSupported) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no programs in the kernel: %v", err)
		}
		t.Skipf("no programs in the kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	opened := sync.OnceFunc(func() { close(out.open) })
	defer opened()

	count := func() sensor.Count {
		counters, err := a.source.(*kernel).Counters()
		if err != nil {
			t.Fatal(err)
		}
		return counters.Types["setfsgid"]
	}
	waitFor(t, "a full buffer", func() (bool, int) { n := count(); return n.Dropped >= 20, int(n.Made) + len(processes.all(t)) })
	opened()
	processes.stop()
	<-processes.done
	waitFor(t, "all that was made", func() (bool, int) { n := count(); return n.Seen+n.Dropped == n.Made, int(n.Seen) })
	n := count()
	waitFor(t, "alerts", func() (bool, int) { have := len(out.alerts()); return have >= int(n.Seen), have })

	pids, next := processes.all(t), 0
	first := -1
	alerts := out.alerts()
	for _, alert := range alerts {
		pid, err := strconv.Atoi(regexp.MustCompile(`pid=(\d+)\.`).FindStringSubmatch(alert.Output)[1])
		if err != nil {
			t.Fatal(err)
		}
		for next < len(pids) && pids[next] != pid {
			next++
		}
		if next == len(pids) {
			t.Fatalf("an alert of process %d, which is none or comes twice: %s", pid, alert.Output)
		}
		if first < 0 {
			first = next
		}
		next++
	}
	t.Logf("%d processes, the first that was seen is number %d; %+v", len(pids), first, n)
	if first < 0 || len(alerts) != int(n.Seen) || int(n.Made) != len(pids)-first {
		t.Errorf("%d alerts, %+v: want that each of %d processes from number %d is seen or dropped", len(alerts), n, len(pids), first)
	}
}
