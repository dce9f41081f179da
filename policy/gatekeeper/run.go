package gatekeeper

import (
	"context"
	"fmt"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/kubeguardian/kubeguardian/policy/deadline"
)

// The bounds of one evaluation, besides the time of its context.
const (
	maxGrowth     = 512 << 20             // of the heap while it runs, or the heap itself if that is larger
	watchAfter    = 20 * time.Millisecond // a longer evaluation is watched
	watchInterval = 5 * time.Millisecond  // of the heap
)

// errMemory ends an evaluation that takes too much.
var errMemory = fmt.Errorf("the evaluation was ended: memory grew by more than %d MiB while it ran", maxGrowth>>20)

// A stop ends evaluations; it implements [topdown.Cancel].
type stop struct{ state atomic.Int32 }

const (
	running = iota
	exhausted
	ended
)

// Cancel implements [topdown.Cancel].
func (s *stop) Cancel() { s.state.Store(ended) }

// Cancelled implements [topdown.Cancel].
func (s *stop) Cancelled() bool { return s.state.Load() != running }

// exhaust ends what runs now for its use of memory.
func (s *stop) exhaust() { s.state.CompareAndSwap(running, exhausted) }

// resume reports whether memory was the reason, and lets the next one run.
func (s *stop) resume() bool { return s.state.CompareAndSwap(exhausted, running) }

// Runaways returns how many evaluations go on, though nobody waits for them any
// more: a built-in of Rego cannot be stopped. While they are as many as may be,
// nothing is judged.
func (s *Set) Runaways() int { return s.pool.Runaways() }

// run judges all groups. Rego heeds the end of the context between two steps,
// but one built-in, such as a regular expression over a long text, is one step.
// Therefore it runs in a goroutine of its own, which is left alone when it does
// not end in time.
func (e *evaluation) run(ctx context.Context) error {
	defer e.watch()()
	judged, err := deadline.Run(ctx, e.set.pool, deadline.Work[[]found]{
		Items: len(e.groups),
		Do:    func(i int) ([]found, error) { return e.judge(&e.groups[i]) },
		Take: func(_ int, list []found) {
			for _, f := range list {
				e.violate(f.constraint, f.verdict)
			}
		},
		End: e.stop.Cancel,
	})
	if err != nil {
		return e.incomplete(e.groups[judged:], err)
	}
	return nil
}

// watch ends an evaluation that makes the heap grow too much. The heap is that
// of the process, so that only long evaluations are held to it. The function
// that it returns ends the watch.
func (e *evaluation) watch() func() {
	done := make(chan struct{})
	timer := time.AfterFunc(watchAfter, func() {
		most := heap()
		most += max(most, maxGrowth)
		for ticker := time.NewTicker(watchInterval); ; {
			select {
			case <-done:
				ticker.Stop()
				return
			case <-ticker.C:
				if heap() > most {
					e.stop.exhaust()
				}
			}
		}
	})
	return func() { timer.Stop(); close(done) }
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
