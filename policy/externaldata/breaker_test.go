package externaldata

import (
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	var b breaker
	now := time.Now()
	step := func(what string, want bool) {
		t.Helper()
		if got := b.allow(now) == nil; got != want {
			t.Errorf("%s: allowed %v, want %v", what, got, want)
		}
	}
	b.note(true, now)
	b.note(true, now)
	b.note(false, now)
	for range patience {
		step("late, but not too often", true)
		b.note(true, now)
	}
	step("too often", false)
	now = now.Add(pause)
	step("one may try", true)
	step("the others may not", false)
	b.note(true, now)
	step("it was late again", false)
	now = now.Add(pause)
	step("one may try again", true)
	b.note(false, now)
	step("it answers", true)
}
