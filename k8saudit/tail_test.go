package k8saudit_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/store"
)

// positions keeps positions in a store, as the server does.
type positions struct{ *store.Store }

func (p positions) Position(ctx context.Context, log string) (pos k8saudit.Position, known bool, err error) {
	body, known, err := p.Checkpoint(ctx, log)
	if known {
		err = errors.Join(err, json.Unmarshal(body, &pos))
	}
	return pos, known, err
}

func (p positions) SavePosition(ctx context.Context, log string, pos k8saudit.Position) error {
	body, err := json.Marshal(pos)
	if err != nil {
		return err
	}
	return p.SaveCheckpoint(ctx, log, body)
}

// A follower is a log and what a tail has seen of it.
type follower struct {
	t         *testing.T
	log       string
	positions positions
	tail      *k8saudit.Tail
	stop      func()

	mu   sync.Mutex
	seen []string
	fail error
	next int // number of the event that is written next
}

func newFollower(t *testing.T) *follower {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f := &follower{t: t, log: filepath.Join(dir, "audit.log"), positions: positions{s}}
	f.write(2)
	return f
}

func (f *follower) start() {
	f.tail = k8saudit.NewTail(k8saudit.TailOptions{
		Path: f.log, Positions: f.positions, Poll: 5 * time.Millisecond, Log: slog.New(slog.NewTextHandler(f.t.Output(), nil)),
		Handle: func(_ context.Context, events []*event.Event) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.fail != nil {
				return f.fail
			}
			for _, e := range events {
				f.seen = append(f.seen, auditID(e))
			}
			return nil
		},
	})
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan error)
	go func() { done <- f.tail.Run(ctx) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	}
}

func (f *follower) append(text string) {
	f.t.Helper()
	file, err := os.OpenFile(f.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) line() string {
	f.next++
	return with(fmt.Sprintf("e%d", f.next), `"verb":"`+strings.Repeat("x", 100)+`"`)
}

// write adds events.
func (f *follower) write(n int) {
	for range n {
		f.append(f.line() + "\n")
	}
}

func (f *follower) rename(to string) {
	f.t.Helper()
	if err := os.Rename(f.log, filepath.Join(filepath.Dir(f.log), to)); err != nil {
		f.t.Fatal(err)
	}
}

// pack replaces a file by its packed form.
func (f *follower) pack(name string) {
	f.t.Helper()
	path := filepath.Join(filepath.Dir(f.log), name)
	data, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := os.Create(path + ".gz")
	if err != nil {
		f.t.Fatal(err)
	}
	w := gzip.NewWriter(out)
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close(), out.Close(), os.Remove(path)); err != nil {
		f.t.Fatal(err)
	}
}

// await waits until all that was written has been seen, each once, in order.
func (f *follower) await() {
	f.t.Helper()
	var want []string
	for i := range f.next {
		want = append(want, fmt.Sprintf("e%d", i+1))
	}
	var seen []string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		seen = slices.Clone(f.seen)
		f.mu.Unlock()
		if len(seen) >= len(want) {
			break
		}
	}
	if !slices.Equal(seen, want) {
		f.t.Fatalf("seen %v, want %v", seen, want)
	}
}

func TestTail(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*follower)
		gaps uint64
	}{
		{name: "grows", do: func(f *follower) { f.write(3) }},
		{name: "many at once", do: func(f *follower) {
			var lines strings.Builder
			for range 3000 {
				lines.WriteString(f.line() + "\n")
			}
			f.append(lines.String())
		}},
		{name: "a line in pieces", do: func(f *follower) {
			line := f.line()
			f.append(line[:50])
			time.Sleep(30 * time.Millisecond)
			f.append(line[50:] + "\n")
		}},
		{name: "a line of 3 MB", do: func(f *follower) {
			f.append(strings.Replace(f.line(), "xxx", strings.Repeat("y", 3<<20), 1) + "\n")
			f.write(1)
		}},
		{name: "renamed as the API server does", do: func(f *follower) {
			f.rename("audit-2026-11-26T10-00-00.000.log")
			f.write(2)
			f.await()
			f.rename("audit-2026-11-26T11-00-00.000.log")
			f.write(2)
		}},
		{name: "renamed as logrotate does", do: func(f *follower) { f.rename("audit.log.1"); f.write(2) }},
		{name: "written to after it was renamed", do: func(f *follower) {
			file, err := os.OpenFile(f.log, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				f.t.Fatal(err)
			}
			defer file.Close()
			f.rename("audit.log.1")
			fmt.Fprintln(file, f.line())
			f.write(1)
		}},
		{name: "copied and truncated", do: func(f *follower) {
			data, err := os.ReadFile(f.log)
			if err := errors.Join(err, os.WriteFile(f.log+".1", data, 0o600), os.Truncate(f.log, 0)); err != nil {
				f.t.Fatal(err)
			}
			f.write(1)
		}},
		{name: "stopped meanwhile", do: func(f *follower) { f.stop(); f.write(2); f.start() }},
		{name: "renamed twice and packed while stopped", do: func(f *follower) {
			f.stop()
			f.write(2)
			f.rename("audit-2026-11-26T10-00-00.000.log")
			f.pack("audit-2026-11-26T10-00-00.000.log")
			f.write(2)
			f.rename("audit-2026-11-26T11-00-00.000.log")
			f.write(2)
			f.start()
		}},
		{name: "packed at this moment", do: func(f *follower) {
			f.stop()
			f.write(2)
			f.rename("audit.log.1")
			if err := os.WriteFile(f.log+".1.gz", []byte{0x1f, 0x8b, 8}, 0o600); err != nil {
				f.t.Fatal(err)
			}
			f.write(2)
			f.start()
		}},
		{name: "a packed file that is damaged", gaps: 1, do: func(f *follower) {
			f.stop()
			f.write(2)
			f.rename("audit.log.2")
			if err := os.WriteFile(f.log+".1.gz", []byte{0x1f, 0x8b, 8}, 0o600); err != nil {
				f.t.Fatal(err)
			}
			f.write(2)
			f.start()
		}},
		{name: "a packed file that is cut", gaps: 1, do: func(f *follower) {
			f.stop()
			f.write(2)
			f.rename("audit.log.2")
			lines := zip(f.line() + "\n" + f.line() + "\n")
			if err := os.WriteFile(f.log+".1.gz", []byte(lines[:len(lines)-6]), 0o600); err != nil {
				f.t.Fatal(err)
			}
			f.write(2)
			f.start()
		}},
		{name: "copied and truncated while stopped, before the end was read", do: func(f *follower) {
			f.stop()
			f.write(2)
			data, err := os.ReadFile(f.log)
			if err := errors.Join(err, os.WriteFile(f.log+".1", data, 0o600), os.Truncate(f.log, 0)); err != nil {
				f.t.Fatal(err)
			}
			f.write(40) // longer than it was
			f.start()
		}},
		{name: "removed while stopped", gaps: 1, do: func(f *follower) {
			f.stop()
			time.Sleep(20 * time.Millisecond) // of the file system's clock
			if err := os.Remove(f.log); err != nil {
				f.t.Fatal(err)
			}
			f.write(2)
			f.start()
		}},
		{name: "not handled at first", do: func(f *follower) {
			f.mu.Lock()
			f.fail = errors.New("disk full")
			f.mu.Unlock()
			f.write(2)
			time.Sleep(50 * time.Millisecond)
			f.mu.Lock()
			f.fail = nil
			f.mu.Unlock()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFollower(t)
			f.start()
			f.await()
			time.Sleep(20 * time.Millisecond) // a poll
			tc.do(f)
			f.await()
			f.stop()
			if got := f.tail.Counters(); got.Gaps != tc.gaps || got.Faults != (k8saudit.Faults{}) {
				t.Errorf("counters = %+v, want %d gaps and no fault", got, tc.gaps)
			}
		})
	}
}

func TestTailCountsFaults(t *testing.T) {
	f := newFollower(t)
	f.append("{\"auditID\":\n\n" + strings.Repeat(" ", 300) + "\nnot JSON\n{\"auditID\":\"x\"}\n")
	f.write(1)
	f.start()
	f.await()
	f.stop()
	if got, want := f.tail.Counters().Faults, (k8saudit.Faults{JSON: 2, Event: 1}); got != want {
		t.Errorf("faults = %+v, want %+v", got, want)
	}
}

// A log that is not there yet is waited for.
func TestTailWaits(t *testing.T) {
	f := newFollower(t)
	f.rename("elsewhere")
	f.next = 0
	f.start()
	time.Sleep(20 * time.Millisecond)
	f.write(2)
	f.await()
	f.stop()
}

// A log that is written to and renamed all the time, read by a tail that is
// stopped and killed again and again: each event is seen, and twice only if it
// was read again after a kill.
func TestTailUnderRotation(t *testing.T) {
	f := newFollower(t)
	f.start()
	rnd := rand.New(rand.NewPCG(5, 6))
	kills := 0
	for i := range 60 {
		f.write(1 + rnd.IntN(40))
		switch rnd.IntN(6) {
		case 0:
			f.rename(fmt.Sprintf("audit-2026-11-26T10-%02d-00.000.log", i))
			f.write(1)
		case 1:
			f.stop()
			f.start()
		case 2: // what a kill leaves: the position of some time ago
			pos, known, err := f.positions.Position(t.Context(), f.log)
			if err != nil {
				t.Fatal(err)
			}
			f.stop()
			if known {
				if err := f.positions.SavePosition(t.Context(), f.log, pos); err != nil {
					t.Fatal(err)
				}
			}
			kills++
			f.start()
		default:
			time.Sleep(time.Duration(rnd.IntN(8)) * time.Millisecond)
		}
	}
	seen := map[string]int{}
	for end := time.Now().Add(2 * time.Minute); len(seen) < f.next && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		clear(seen)
		f.mu.Lock()
		for _, id := range f.seen {
			seen[id]++
		}
		f.mu.Unlock()
	}
	f.stop()
	again := 0
	for i := range f.next {
		switch n := seen[fmt.Sprintf("e%d", i+1)]; {
		case n == 0:
			t.Errorf("event %d of %d is lost", i+1, f.next)
		case n > 1:
			again++
		}
	}
	if kills == 0 || again > 0 && again == f.next {
		t.Errorf("%d kills, %d of %d events twice", kills, again, f.next)
	}
	if c := f.tail.Counters(); c.Gaps != 0 || c.Faults != (k8saudit.Faults{}) {
		t.Errorf("counters = %+v", c)
	}
	t.Logf("%d events, %d of them read again after %d kills", f.next, again, kills)
}

// A log that is renamed as fast as it goes, so that files get other names while
// they are listed.
func TestTailUnderQuickRotation(t *testing.T) {
	f := newFollower(t)
	f.start()
	f.await()
	for i := range 150 {
		f.write(1)
		f.rename(fmt.Sprintf("audit-2026-11-26T10-00-00.%03d.log", i))
	}
	f.write(1)
	f.await()
	f.stop()
	if gaps := f.tail.Counters().Gaps; gaps > 0 {
		t.Errorf("%d gaps", gaps)
	}
}
