package externaldata

import (
	"fmt"
	"sync"
	"time"
)

// How often a provider may be late one time after the other, and how long it is
// then left alone.
const (
	patience = 3
	pause    = 5 * time.Second
)

// A breaker keeps a provider that hangs from holding up whoever asks: requests
// that wait for it would take the place of others. After some calls without an
// answer in time, nobody asks for a while, then one tries. It is safe for
// concurrent use.
type breaker struct {
	mu    sync.Mutex
	late  int       // calls in a row
	until time.Time // when the next one may ask
}

// allow returns an error when the provider is to be left alone now.
func (b *breaker) allow(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.late < patience {
		return nil
	}
	if now.Before(b.until) {
		return fmt.Errorf("not asked: it was late %d times in a row", b.late)
	}
	b.until = now.Add(pause) // the others wait for how this one ends
	return nil
}

// note keeps whether a call was late.
func (b *breaker) note(late bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !late {
		b.late = 0
		return
	}
	b.late++
	b.until = now.Add(pause)
}
