package process

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A Clock turns times since boot into times of the day. It is safe for
// concurrent use.
type Clock struct{ offset atomic.Int64 }

// NewClock returns a clock that is right now.
func NewClock() *Clock {
	c := &Clock{}
	c.Set()
	return c
}

// Set measures anew, for when the time of the day was set. Events before and
// after have the times that the node's clock showed.
func (c *Clock) Set() {
	// Of several measurements the one that took least time is the best.
	best := int64(-1)
	for range 3 {
		before, wall, after := now(unix.CLOCK_BOOTTIME), now(unix.CLOCK_REALTIME), now(unix.CLOCK_BOOTTIME)
		if took := after - before; best < 0 || took < best {
			best = took
			c.offset.Store(wall - before - took/2)
		}
	}
}

// Wall returns the time of the day.
func (c *Clock) Wall(boot uint64) syscall.Instant {
	return syscall.Instant(int64(boot) + c.offset.Load())
}

// Boot returns the time since boot, in nanoseconds.
func (c *Clock) Boot() uint64 { return uint64(now(unix.CLOCK_BOOTTIME)) }

func now(clock int32) int64 {
	var t unix.Timespec
	if unix.ClockGettime(clock, &t) != nil {
		return 0
	}
	return t.Nano()
}
