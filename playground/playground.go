// Package playground tries a detection rule on one event, and policies on one
// object, without effect on anything: nothing is stored and nobody is asked.
//
// What is tried comes from people, so it is bounded: in size, in time, and in how
// many trials there are at a time. A trial that runs on after its time counts as
// one until it has ended.
package playground

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/rule"
)

// Bounds of what is tried.
const (
	MaxText   = 48 << 10        // bytes of each text
	limit     = 5 * time.Second // of a trial
	maxTrials = 4               // at a time
)

// ErrBusy is that the session has a trial already, or that there are too many.
var ErrBusy = errors.New("another trial is running: wait until it has ended")

// ErrTooLong is that a trial did not end in time.
var ErrTooLong = fmt.Errorf("the trial did not end within %s: make it simpler", limit)

// An InputError says what is wrong with what is to be tried.
type InputError struct{ err error }

// Error says what is wrong.
func (e *InputError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.err }

func wrong(format string, args ...any) error { return &InputError{fmt.Errorf(format, args...)} }

// Options are what [New] needs.
type Options struct {
	// Rules returns files whose lists and macros rules may use, for each trial.
	Rules func() ([]rule.File, error)
	// Program is a program that is [Process] when its argument is [ProcessName];
	// policies are tried in it. Empty: in this process, whose memory they can
	// exhaust.
	Program string
}

// A Playground runs trials. It may be used concurrently.
type Playground struct {
	Options
	mu   sync.Mutex
	busy map[string]bool // by session
}

// New returns a playground.
func New(opts Options) *Playground { return &Playground{Options: opts, busy: map[string]bool{}} }

// run runs a trial of a session, and no longer than the limit.
func run[T any](ctx context.Context, p *Playground, session string, trial func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		result T
		err    error
	}
	var none T
	if !p.begin(session) {
		return none, ErrBusy
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if v := recover(); v != nil {
				o = outcome{none, fmt.Errorf("try it: %v", v)}
			}
			p.end(session) // whoever has the result may try the next
			done <- o
		}()
		o.result, o.err = trial(ctx)
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		return none, ErrTooLong
	}
}

func (p *Playground) begin(session string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[session] || len(p.busy) >= maxTrials {
		return false
	}
	p.busy[session] = true
	return true
}

func (p *Playground) end(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, session)
}
