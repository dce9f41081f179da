package main

import "testing"

func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 32 << 20: 400, 64 << 20: 200, 100 << 20: 120, 128 << 20: 100, 400 << 20: 30, 10 << 30: 30} {
		if have := garbagePercentFor(live); have != want {
			t.Errorf("%d MiB are kept: %d percent, want %d", live>>20, have, want)
		}
	}
}
