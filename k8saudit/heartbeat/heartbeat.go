// Package heartbeat tells whether an audit log arrives: by requests of our own, under
// audit ids of our own, which it must show.
package heartbeat

import (
	"strings"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// Prefix begins the audit ids of our requests.
const Prefix = "kubeguardian-"

// Beats are the requests that were sent so that they appear in the audit log. The
// zero value is ready; all methods may be called concurrently.
type Beats struct {
	mu   sync.Mutex
	sent map[string]time.Time // that were answered or may be, and have not been seen
	last time.Time            // when one was seen last; zero: never
}

// Of returns the id of the request of which an event is, if that is a
// heartbeat, of us or of another replica.
func Of(e *event.Event) string {
	if !strings.HasPrefix(e.ID, Prefix) {
		return ""
	}
	id, _, _ := strings.Cut(e.ID, "\x00")
	return id
}

// Saw notes that one of ours has come, and returns how long it took. An id that
// nobody knows was sent by somebody else, or before a restart.
func (b *Beats) Saw(id string, now time.Time) (delay time.Duration, ours bool) {
	if id == "" {
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	sent, ours := b.sent[id]
	if ours {
		b.last = now
		for id, other := range b.sent { // what was sent before is of no more interest
			if !other.After(sent) {
				delete(b.sent, id)
			}
		}
	}
	return now.Sub(sent), ours
}

// Missing returns how many still are to be seen, and when the oldest of them
// was sent.
func (b *Beats) Missing() (oldest time.Time, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sent := range b.sent {
		if oldest.IsZero() || sent.Before(oldest) {
			oldest = sent
		}
	}
	return oldest, len(b.sent)
}

// Add notes that a request is about to be sent.
func (b *Beats) Add(id string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent == nil {
		b.sent = map[string]time.Time{}
	}
	b.sent[id] = at
}

// Remove takes back one that the API server cannot have got.
func (b *Beats) Remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sent, id)
}

// Last returns when one was seen last, the zero time if never.
func (b *Beats) Last() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// Forget keeps the oldest of more than most that are missing: it says since when.
func (b *Beats) Forget(most int) {
	oldest, _ := b.Missing()
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, sent := range b.sent {
		if len(b.sent) > most && sent.After(oldest) {
			delete(b.sent, id)
		}
	}
}
