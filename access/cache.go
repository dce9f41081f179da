package access

import (
	"sync"
	"time"
)

// maxCached bounds how many answers are kept.
const maxCached = 10_000

// A cache keeps answers for a while, by the digest of what was asked.
type cache[V any] struct {
	mu      sync.Mutex
	answers map[digest]answer[V]
}

type digest [32]byte

type answer[V any] struct {
	value V
	until time.Time
}

func (c *cache[V]) get(key digest, now time.Time) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers[key]
	return a.value, ok && now.Before(a.until)
}

func (c *cache[V]) put(key digest, value V, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = map[digest]answer[V]{}
	}
	if len(c.answers) >= maxCached {
		c.makeRoom(time.Now())
	}
	c.answers[key] = answer[V]{value, until}
}

// makeRoom forgets what is too old, or else any one.
func (c *cache[V]) makeRoom(now time.Time) {
	before := len(c.answers)
	for key, a := range c.answers {
		if !now.Before(a.until) {
			delete(c.answers, key)
		}
	}
	for key := range c.answers {
		if len(c.answers) < before {
			return
		}
		delete(c.answers, key)
	}
}
