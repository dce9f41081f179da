package alert

import "time"

// Repeats are alerts that were counted in place of being kept.
type Repeats struct {
	Count int       `json:"count"`
	First time.Time `json:"first"` // of the earliest event
	Last  time.Time `json:"last"`  // of the latest one
}

// With returns the repeats of both; either may be nil.
func (r *Repeats) With(more *Repeats) *Repeats {
	if r == nil || more == nil {
		if r == nil {
			return more
		}
		return r
	}
	sum := Repeats{r.Count + more.Count, r.First, r.Last}
	if more.First.Before(sum.First) {
		sum.First = more.First
	}
	if more.Last.After(sum.Last) {
		sum.Last = more.Last
	}
	return &sum
}

// A Group says which alerts are repeats of one another. The zero value is that
// of an alert that repeats none.
type Group struct {
	Key    []byte        // alerts with the same one say the same
	Within time.Duration // of the alert that is kept, before or after it; 0: nothing is a repeat

	// Limit is how many alerts of the rule are kept within that time, 0 for any
	// number. Those beyond it are repeats of one more, whatever they say; Rest is
	// the key of these.
	Limit int
	Rest  []byte
}
