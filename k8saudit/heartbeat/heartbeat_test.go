package heartbeat

import (
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// Only a heartbeat that we sent is one, and the ones before it are done with.
func TestBeats(t *testing.T) {
	var b Beats
	at := func(s int) time.Time { return time.Date(2026, 3, 4, 5, 6, s, 0, time.UTC) }
	saw := func(id string, s int) (time.Duration, bool) {
		return b.Saw(Of(&event.Event{ID: id + "\x00rest"}), at(s))
	}
	if _, n := b.Missing(); n != 0 {
		t.Errorf("%d are missing before any was sent", n)
	}
	for i, id := range []string{"kubeguardian-a", "kubeguardian-b", "kubeguardian-c", "kubeguardian-d"} {
		b.Add(id, at(10*i))
	}
	b.Remove("kubeguardian-d") // there was no answer
	for _, id := range []string{"kubeguardian-forged", "kubeguardian-d", "somebody"} {
		if _, ours := saw(id, 21); ours {
			t.Errorf("%s is taken for ours", id)
		}
	}
	if oldest, n := b.Missing(); n != 3 || !oldest.Equal(at(0)) || !b.Last().IsZero() {
		t.Errorf("%d are missing since %v, last seen %v", n, oldest, b.Last())
	}
	if delay, ours := saw("kubeguardian-b", 22); !ours || delay != 12*time.Second {
		t.Errorf("our own is seen after %v, %v; want 12 s", delay, ours)
	}
	if oldest, n := b.Missing(); n != 1 || !oldest.Equal(at(20)) || !b.Last().Equal(at(22)) {
		t.Errorf("%d are missing since %v, last seen %v", n, oldest, b.Last())
	}
	for i := range 100 {
		b.Forget(6)
		b.Add("kubeguardian-x"+strings.Repeat("x", i), at(30+i))
	}
	if oldest, n := b.Missing(); n > 10 || !oldest.Equal(at(20)) {
		t.Errorf("%d are kept, the oldest of %v", n, oldest)
	}
}
