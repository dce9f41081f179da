package bus

import (
	"context"
	"math/rand/v2"
	"time"
)

// delay returns how long to wait after so many attempts: twice as long each time,
// give or take a half, so that agents do not come back all at once.
func delay(attempts int) time.Duration {
	d := maxWait
	if attempts < 8 {
		d = min(firstWait<<max(attempts, 0), maxWait)
	}
	return d/2 + rand.N(d)
}

// pause waits, or returns false as soon as ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
