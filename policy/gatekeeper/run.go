package gatekeeper

import (
	"context"
	"fmt"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// The bounds of one evaluation, besides the time of its context.
const (
	maxGrowth     = 512 << 20              // of the heap while it runs, or the heap itself if that is larger
	watchAfter    = 20 * time.Millisecond  // a longer evaluation is watched
	watchInterval = 5 * time.Millisecond   // of the heap
	grace         = 100 * time.Millisecond // for an evaluation to heed its end
	maxRunaways   = 8                      // evaluations that do not heed it, in one set
)

// errMemory ends an evaluation that takes too much.
var errMemory = fmt.Errorf("the evaluation was ended: memory grew by more than %d MiB while it ran", maxGrowth>>20)

// errRunaways refuses to judge while others cannot be ended.
var errRunaways = fmt.Errorf("%d evaluations have not ended when their time was out: no more are begun until one does", maxRunaways)

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

// Workers are goroutines that stay for a while: evaluating Rego takes a large
// stack, which else grows, and is copied, time and again for each request.
type workers struct {
	jobs     chan func()
	runaways atomic.Int32 // that nobody waits for any more
}

const idleWorker = 10 * time.Second

// do runs a job in a goroutine that waits for one, or in a new one.
func (w *workers) do(job func()) {
	select {
	case w.jobs <- job:
	default:
		go w.work(job)
	}
}

func (w *workers) work(job func()) {
	for idle := time.NewTimer(idleWorker); ; {
		job()
		idle.Reset(idleWorker)
		select {
		case job = <-w.jobs:
		case <-idle.C:
			return
		}
	}
}

// A step is the outcome of one group.
type step struct {
	found []found
	err   error
}

// Runaways returns how many evaluations go on, though nobody waits for them any
// more: a built-in of Rego cannot be stopped. While they are as many as may be,
// nothing is judged.
func (s *Set) Runaways() int { return int(s.workers.runaways.Load()) }

// The states of a job.
const (
	awaited = iota
	left    // it is a runaway
	over
)

// leave makes a runaway of a job that is not over.
func (e *evaluation) leave() {
	if e.job.CompareAndSwap(awaited, left) {
		e.set.workers.runaways.Add(1)
	}
}

// end is called by a job when it is over.
func (e *evaluation) end() {
	if !e.job.CompareAndSwap(awaited, over) {
		e.set.workers.runaways.Add(-1)
	}
}

// run judges all groups. Rego heeds the end of the context between two steps,
// but one built-in, such as a regular expression over a long text, is one step.
// Therefore it runs in a goroutine of its own, which is left alone when it does
// not end in time. Of these there may be a few: then nothing more is judged.
func (e *evaluation) run(ctx context.Context) error {
	if e.set.Runaways() >= maxRunaways {
		return e.incomplete(e.groups, errRunaways)
	}
	defer e.watch()()
	steps := make(chan step, len(e.groups))
	judge := func() {
		defer e.end()
		for i := range e.groups {
			found, err := e.judge(&e.groups[i])
			steps <- step{found, err}
			if err != nil {
				return
			}
		}
	}
	if ctx.Done() == nil {
		judge()
	} else {
		e.set.workers.do(judge)
	}
	return e.collect(ctx, steps)
}

// collect waits for the steps, or for the end of the context.
func (e *evaluation) collect(ctx context.Context, steps <-chan step) error {
	end := ctx.Done()
	var overdue <-chan time.Time
	for judged := 0; judged < len(e.groups); {
		select {
		case s := <-steps:
			if s.err != nil {
				return e.incomplete(e.groups[judged:], s.err)
			}
			for _, f := range s.found {
				e.violate(f.constraint, f.verdict)
			}
			judged++
		case <-end:
			e.stop.Cancel()
			overdue, end = time.After(grace), nil
		case <-overdue:
			e.leave()
			return e.incomplete(e.groups[judged:], ctx.Err())
		}
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
