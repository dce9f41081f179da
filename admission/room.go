package admission

import (
	"context"
	"slices"
	"sync"
	"time"
)

// How long a body may take to come while others wait for its room: patience, and
// besides, unless those others hold less, what it takes at slowest bytes a second; and
// times as long if they are of the same sender, which has itself to blame.
const (
	patience = 200 * time.Millisecond
	slowest  = 4 << 20
	times    = 5
)

// A room is memory for reviews, shared among senders, of whom any may be a
// stranger. Who finds none waits, and whoever would hold least comes first. A
// review gives way while its body is still to come, but not once it has: what is
// judged ends by itself. So nobody keeps others out by claiming much and sending
// nothing.
type room struct {
	size int64

	mu      sync.Mutex
	taken   int64 // leaving included
	leaving int64 // what was told to give way, and has not yet
	senders map[string]*sender
	looking bool // a look at who is late is due
}

// A sender is who holds places, or waits for them.
type sender struct {
	held    int64
	places  int
	line    []*place // those that wait, oldest first
	reading []*place // those whose bodies come, oldest first
}

// A place is what one review takes.
type place struct {
	room    *room
	name    string
	of      *sender
	bytes   int64
	giveWay func()

	among   *[]*place // of the sender's; nil: its body is there, or it leaves
	since   time.Time // in the line, then in the room
	ready   chan struct{}
	inside  bool
	leaving bool
}

func newRoom(size int64) *room { return &room{size: size, senders: map[string]*sender{}} }

// take waits for room for a review, which must leave it again. Until it has come,
// giveWay may be called once, with the room locked: the body is then not worth
// waiting for.
func (r *room) take(ctx context.Context, name string, bytes int64, giveWay func()) (*place, error) {
	r.mu.Lock()
	s := r.senders[name]
	if s == nil {
		s = &sender{}
		r.senders[name] = s
	}
	s.places++
	p := &place{room: r, name: name, of: s, bytes: bytes, giveWay: giveWay, ready: make(chan struct{})}
	p.move(&s.line)
	r.settle()
	r.mu.Unlock()
	select {
	case <-p.ready:
		return p, nil
	case <-ctx.Done():
		p.leave()
		return nil, ctx.Err()
	}
}

// came says that the body is there.
func (p *place) came() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.leaving { // and it made it all the same
		p.leaving = false
		p.room.leaving -= p.bytes
		p.of.held += p.bytes
	}
	p.move(nil)
}

// gaveWay reports whether the body was not waited for.
func (p *place) gaveWay() bool {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.leaving
}

// leave makes room for others. After it giveWay is not called.
func (p *place) leave() {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	p.move(nil)
	switch {
	case p.leaving:
		r.taken, r.leaving = r.taken-p.bytes, r.leaving-p.bytes
	case p.inside:
		r.taken, p.of.held = r.taken-p.bytes, p.of.held-p.bytes
	}
	if p.of.places--; p.of.places == 0 {
		delete(r.senders, p.name)
	}
	r.settle()
}

// move puts a place at the end of those of its sender, or among none.
func (p *place) move(to *[]*place) {
	if from := p.among; from != nil {
		i := slices.Index(*from, p)
		*from = slices.Delete(*from, i, i+1)
	}
	if p.among = to; to != nil {
		*to, p.since = append(*to, p), time.Now()
	}
}

// settle lets in whom there is room for, and looks again while somebody waits.
func (r *room) settle() {
	for next := r.next(); next != nil; next = r.next() {
		if r.taken+next.bytes > r.size {
			r.makeRoom(next)
			r.lookAgain()
			return
		}
		r.taken += next.bytes
		next.of.held += next.bytes
		next.inside = true
		next.move(&next.of.reading)
		close(next.ready)
	}
}

func (r *room) lookAgain() {
	if r.looking {
		return
	}
	r.looking = true
	time.AfterFunc(patience/4, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.looking = false
		r.settle()
	})
}

// next returns the place that waits whose sender would hold least with it.
func (r *room) next() *place {
	var least *place
	for _, s := range r.senders {
		if len(s.line) > 0 && (least == nil || s.line[0].before(least)) {
			least = s.line[0]
		}
	}
	return least
}

func (p *place) before(other *place) bool {
	mine, others := p.of.held+p.bytes, other.of.held+other.bytes
	return mine < others || mine == others && p.since.Before(other.since)
}

// makeRoom tells places to give way, those of who holds most first.
func (r *room) makeRoom(next *place) {
	for r.taken-r.leaving+next.bytes > r.size {
		var late *place
		for _, s := range r.senders {
			if len(s.reading) > 0 && s.reading[0].late(next) && (late == nil || s.held > late.of.held) {
				late = s.reading[0]
			}
		}
		if late == nil {
			return
		}
		late.move(nil)
		late.leaving = true
		late.of.held -= late.bytes
		r.leaving += late.bytes
		late.giveWay()
	}
}

// late reports whether a body takes too long to come while another review waits.
func (p *place) late(next *place) bool {
	age := time.Since(p.since)
	if p.of == next.of {
		age /= times
	}
	age -= patience
	return age > 0 && (p.of.held > next.of.held+next.bytes || age > time.Duration(p.bytes)*time.Second/slowest)
}
