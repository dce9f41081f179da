package sensor

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A live sensor runs on this machine and keeps the records that a test asks for.
type live struct {
	*Sensor
	t    *testing.T
	mu   sync.Mutex
	kept []*record.Record
}

// load loads a sensor, or skips the test where that is not allowed.
func load(t *testing.T, config Config) *Sensor {
	t.Helper()
	s, err := New(config)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrNotSupported) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no programs in the kernel: %v", err)
		}
		t.Skipf("no programs in the kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start loads a sensor and reads what a test keeps.
func start(t *testing.T, config Config, keep func(*record.Record) bool) *live {
	t.Helper()
	s := load(t, config)
	l := &live{Sensor: s, t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- s.Run(ctx, func(_ int, r *record.Record) {
			if keep(r) {
				l.mu.Lock()
				l.kept = append(l.kept, r.Clone())
				l.mu.Unlock()
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return l
}

// mine keeps the records of the test's own process.
func mine(r *record.Record) bool { return int(r.Process.TGID) == os.Getpid() }

// wait returns the first record that is wanted, and fails if none comes.
func (l *live) wait(what string, want func(*record.Record) bool) *record.Record {
	l.t.Helper()
	for range 1000 {
		l.mu.Lock()
		i := slices.IndexFunc(l.kept, want)
		if i >= 0 {
			defer l.mu.Unlock()
			return l.kept[i]
		}
		l.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Fatalf("no record of %s among %d", what, len(l.kept))
	return nil
}

// all returns what was kept so far.
func (l *live) all() []*record.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kept)
}

func text(t *testing.T, v record.Value) string {
	t.Helper()
	b, ok := v.Text()
	if !ok {
		return "<missing>"
	}
	return string(b)
}

func is(name string) func(*record.Record) bool {
	return func(r *record.Record) bool { return r.Type.String() == name }
}
