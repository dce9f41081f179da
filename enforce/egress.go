package enforce

import (
	"errors"
	"time"
)

// A block keeps a container from the network.
type block struct {
	until time.Time
	lift  func() error
	first Action
}

// block keeps the container of a target from the network for a while, or longer
// if it already is.
func (e *Enforcer) block(o named, t target, act *Action) {
	long := o.For
	if long == 0 {
		long = defaultFor
	}
	act.Until = act.Time.Add(long)
	if o.DryRun {
		act.Outcome = WouldBlock
		return
	}
	act.Outcome = Blocked
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.blocked[t.container.ID]; b != nil {
		if act.Until.After(b.until) {
			b.until = act.Until
		}
		return
	}
	b, err := e.newBlock(t.container.ID)
	if err != nil {
		act.Outcome, act.Reason, act.Until = Failed, err.Error(), time.Time{}
		return
	}
	b.until, b.first = act.Until, *act
	e.blocked[t.container.ID] = b
}

func (e *Enforcer) newBlock(id string) (*block, error) {
	if e.o.Kernel == nil {
		return nil, errors.New("the sensor cannot act")
	}
	all, err := cgroups(e.path(e.hierarchy.Records))
	if err != nil {
		return nil, err
	}
	n, err := networkOf(e.path(e.hierarchy.Unified), e.o.Proc, top(all, id), id)
	if err != nil {
		return nil, err
	}
	lift, err := e.o.Kernel.BlockEgress(n.dir)
	if err != nil {
		return nil, errors.Join(err, n.leave())
	}
	return &block{lift: func() error { return errors.Join(lift(), n.leave()) }}, nil
}

// lift frees the containers whose time is over.
func (e *Enforcer) lift(now time.Time) {
	var over []*block
	e.mu.Lock()
	for id, b := range e.blocked {
		if !now.Before(b.until) {
			over = append(over, b)
			delete(e.blocked, id)
		}
	}
	e.mu.Unlock()
	for _, b := range over {
		act := b.first
		act.Time, act.Until, act.Outcome, act.By = time.Now(), time.Time{}, Lifted, agentsWay
		act.PID, act.Exe, act.Command = 0, "", ""
		if err := b.lift(); err != nil {
			act.Outcome, act.Reason = Failed, "lift: "+err.Error()
		}
		e.finish(act, nil)
	}
}
