// Package deadline keeps work within its time that cannot be stopped.
//
// Policies heed the end of a context between two steps, but one step may take
// long, such as a regular expression over a long text. Such work goes on by
// itself, as a runaway, while its caller has long got an answer. A [Pool] counts
// runaways, and begins nothing more while there are too many.
package deadline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// MaxRunaways is how many runaways a pool bears. Work that was begun before they
// were so many may add to them.
const MaxRunaways = 8

const (
	idle  = 10 * time.Second       // how long a goroutine waits for more work
	grace = 100 * time.Millisecond // for work to heed the end of its time
)

// ErrRunaways refuses to begin work.
var ErrRunaways = fmt.Errorf("%d evaluations have not ended when their time was out: no more are begun until one does", MaxRunaways)

// A Pool has goroutines that stay for a while: evaluating takes a large stack,
// which else grows, and is copied, time and again. It is safe for concurrent use.
type Pool struct {
	jobs     chan func()
	runaways atomic.Int32
}

// NewPool returns a pool without goroutines.
func NewPool() *Pool { return &Pool{jobs: make(chan func())} }

// Runaways returns how many there are.
func (p *Pool) Runaways() int { return int(p.runaways.Load()) }

// start runs a job in a goroutine that waits for one, or in a new one.
func (p *Pool) start(job func()) {
	select {
	case p.jobs <- job:
	default:
		go p.work(job)
	}
}

func (p *Pool) work(job func()) {
	for timer := time.NewTimer(idle); ; {
		job()
		timer.Reset(idle)
		select {
		case job = <-p.jobs:
		case <-timer.C:
			return
		}
	}
}

// Work is a number of items, done one after the other.
type Work[T any] struct {
	Items int
	Do    func(item int) (T, error) // in a goroutine of the pool
	Take  func(item int, outcome T) // in that of the caller
	End   func()                    // called when the time is over; nil: nothing is
}

// An outcome is what became of an item.
type outcome[T any] struct {
	value    T
	err      error
	panicked error
}

// The states of a job.
const (
	awaited = iota
	left    // it is a runaway
	over
)

// Run does all items. It returns how many were taken, and why not all were: the
// error of the next one, that of the context, or [ErrRunaways]. Work that does
// not end with the context goes on without its caller: what it reads must not be
// changed. A panic of the work is one of Run.
func Run[T any](ctx context.Context, p *Pool, w Work[T]) (taken int, err error) {
	if p.Runaways() >= MaxRunaways {
		return 0, ErrRunaways
	}
	if ctx.Done() == nil {
		for ; taken < w.Items; taken++ {
			value, err := w.Do(taken)
			if err != nil {
				return taken, err
			}
			w.Take(taken, value)
		}
		return taken, nil
	}
	outcomes := make(chan outcome[T], w.Items)
	var state atomic.Int32
	p.start(func() {
		defer func() {
			if cause := recover(); cause != nil {
				outcomes <- outcome[T]{panicked: fmt.Errorf("%v\n%s", cause, debug.Stack())}
			}
			if !state.CompareAndSwap(awaited, over) {
				p.runaways.Add(-1)
			}
		}()
		for i := range w.Items {
			value, err := w.Do(i)
			outcomes <- outcome[T]{value: value, err: err}
			if err != nil {
				return
			}
		}
	})
	taken, err = collect(ctx, w, outcomes)
	if errors.Is(err, errOverdue) {
		err = ctx.Err()
		if state.CompareAndSwap(awaited, left) {
			p.runaways.Add(1)
		}
	}
	return taken, err
}

var errOverdue = errors.New("overdue")

// collect takes outcomes until all are there, one has failed, or the time is over.
func collect[T any](ctx context.Context, w Work[T], outcomes <-chan outcome[T]) (taken int, err error) {
	end := ctx.Done()
	var overdue <-chan time.Time
	for taken < w.Items {
		select {
		case o := <-outcomes:
			switch {
			case o.panicked != nil:
				panic(o.panicked)
			case o.err != nil:
				return taken, o.err
			}
			w.Take(taken, o.value)
			taken++
		case <-end:
			if w.End != nil {
				w.End()
			}
			overdue, end = time.After(grace), nil
		case <-overdue:
			return taken, errOverdue
		}
	}
	return taken, nil
}
