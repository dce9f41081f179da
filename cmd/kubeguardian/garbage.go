package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage there may be beside what the server keeps, the more of the two:
// in percent, since what the cluster is stays in memory, and what passes over it
// leave behind must not double that; and in bytes, without which a flood of alerts
// in a small cluster has the collector look through all that is kept many times a
// second.
const (
	servePercent = 30
	serveGarbage = 128 << 20
)

// garbageEvery is how often what is kept is measured: it grows slowly.
const garbageEvery = 5 * time.Second

// allowGarbage keeps the collector to these bounds until ctx ends.
func allowGarbage(ctx context.Context) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(garbageEvery)
	defer tick.Stop()
	for now := servePercent; ; {
		metrics.Read(live)
		if next := garbagePercentFor(live[0].Value.Uint64()); next != now {
			debug.SetGCPercent(next)
			now = next
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// garbagePercentFor returns the percentage for what is kept, in steps: to change it
// stops the program for an instant.
func garbagePercentFor(live uint64) int {
	const step, most = 10, 400
	percent := min(serveGarbage*100/max(live, 1), most)
	return max(servePercent, int(percent)/step*step)
}
