package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A sample is how far all were at one time.
type sample struct {
	at                 time.Time
	sent, stored, told uint64
}

// A fault is a part that was killed.
type fault struct {
	name string
	at   time.Time
	note string
}

// A watcher looks how far alerts come, and who uses the processors.
type watcher struct {
	parts *parts
	done  sync.WaitGroup
	stop  context.CancelFunc

	mu      sync.Mutex
	agents  *agents
	samples []sample
	stored  uint64
	ticks   map[string]map[int]uint64 // of processor time, by part and process
}

// sampleEvery is how often it looks.
const sampleEvery = 100 * time.Millisecond

func (p *parts) watch(ctx context.Context) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{parts: p, stop: cancel, ticks: map[string]map[int]uint64{}}
	every := func(f func()) {
		w.done.Go(func() {
			for ctx.Err() == nil {
				f()
				select {
				case <-ctx.Done():
				case <-time.After(sampleEvery):
				}
			}
		})
	}
	every(func() { w.look(ctx) })
	every(w.sample)
	every(w.processors)
	return w
}

func (w *watcher) follow(a *agents) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.agents = a
}

// look asks for the number of the last alert that is stored, which may take as
// long as nobody answers.
func (w *watcher) look(ctx context.Context) {
	last, err := w.parts.lastAlert(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.stored = uint64(last)
	}
}

func (w *watcher) sample() {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := sample{at: time.Now(), stored: w.stored, told: w.parts.receiver.taken()}
	if w.agents != nil {
		s.sent, _ = w.agents.sent()
	}
	w.samples = append(w.samples, s)
}

// storedAt returns when the last alert was stored.
func (w *watcher) storedAt() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.samples[len(w.samples)-1]
	for _, s := range slices.Backward(w.samples) {
		if s.stored < w.stored {
			break
		}
		last = s
	}
	return last.at
}

// report ends the watch, and prints how long each part did nothing after each
// kill, and where the processor time of so many alerts went.
func (w *watcher) report(faults []fault, alerts int) {
	w.stop()
	w.done.Wait()
	for i, f := range faults {
		end := w.samples[len(w.samples)-1].at
		if i+1 < len(faults) {
			end = faults[i+1].at
		}
		fmt.Printf("taken away %s; nothing sent for %s, stored for %s, told for %s%s\n", f.name,
			w.gap(f.at, end, func(s sample) uint64 { return s.sent }), w.gap(f.at, end, func(s sample) uint64 { return s.stored }),
			w.gap(f.at, end, func(s sample) uint64 { return s.told }), f.note)
	}
	total := uint64(0)
	var lines []string
	for _, part := range slices.Sorted(maps.Keys(w.ticks)) {
		sum := uint64(0)
		for _, n := range w.ticks[part] {
			sum += n
		}
		total += sum
		lines = append(lines, fmt.Sprintf("%s %.3f", part, milliseconds(sum, alerts)))
	}
	fmt.Printf("processor  %.3f ms for each alert: %s\n", milliseconds(total, alerts), strings.Join(lines, ", "))
}

// milliseconds is what hundredths of a second are for each alert.
func milliseconds(ticks uint64, alerts int) float64 { return float64(ticks) * 10 / float64(alerts) }

// gap returns the longest time without progress between two times.
func (w *watcher) gap(from, to time.Time, of func(sample) uint64) time.Duration {
	longest, since, last := time.Duration(0), from, uint64(0)
	for _, s := range w.samples {
		if s.at.After(to) {
			break
		}
		if n := of(s); n != last {
			if last = n; s.at.After(from) {
				longest = max(longest, s.at.Sub(since))
				since = s.at
			}
		}
	}
	if longest == 0 { // nothing at all
		longest = to.Sub(from)
	}
	return longest.Round(sampleEvery)
}

// processors notes what each process has used until now. Of one that is gone the
// last value stays.
func (w *watcher) processors() {
	list := w.parts.consumers()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range list {
		if w.ticks[c.part] == nil {
			w.ticks[c.part] = map[int]uint64{}
		}
		pids := []int{c.pid}
		if c.sessions {
			pids = append(pids, children(c.pid)...)
		}
		for _, pid := range pids {
			if n := used(pid); n > 0 {
				w.ticks[c.part][pid] = n
			}
		}
	}
}

func children(pid int) (out []int) {
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(pid), "children")) // may have ended
	for f := range strings.FieldsSeq(string(text)) {
		n, _ := strconv.Atoi(f) // numbers, says the kernel
		out = append(out, n)
	}
	return out
}

// used returns the processor time of a process, in hundredths of a second.
func used(pid int) uint64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0 // it has ended
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseUint(fields[11], 10, 64) // numbers, says the kernel
	system, _ := strconv.ParseUint(fields[12], 10, 64)
	return user + system
}
