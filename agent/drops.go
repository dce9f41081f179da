package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// DropRule is the name of the rule that alerts have which say that events were
// dropped. Of an agent that reports to a server, that one says so.
const DropRule = "KubeGuardian internal: events dropped"

// tellAgain is how often at most alerts say that events go on to be dropped.
const tellAgain = 10 * time.Minute

// drops tells of events that were dropped. It is not safe for concurrent use.
type drops struct {
	agent           *Agent
	logged, alerted map[string]uint64 // by type
	last            time.Time         // when an alert told of them
}

// look tells of what was dropped since it was called last: the log each time, an
// alert in its time, or when nothing comes any more.
func (d *drops) look(now time.Time, end bool) {
	source := d.agent.source.Status()
	d.agent.status.noteLosses(now, source, &health{}) // so that it is known when that was
	if more := grown(d.logged, source.Dropped); len(more) > 0 {
		d.logged = maps.Clone(source.Dropped)
		d.agent.o.Log.Warn("events were dropped: what rules would have said of them is not known", "types", byCount(more))
	}
	more := grown(d.alerted, source.Dropped)
	if d.agent.reporter != nil || len(more) == 0 || now.Sub(d.last) < tellAgain && !end {
		return
	}
	d.alerted, d.last = maps.Clone(source.Dropped), now
	types := byCount(more)
	text := "Events were dropped, and what rules would have said of them is not known: " + types
	d.agent.pipeline.emit(d.agent.internal(now, DropRule, alert.Error, text, map[string]any{"agent.dropped": types}))
}

// grown returns by how much counts have grown, of those that have.
func grown(before, now map[string]uint64) map[string]uint64 {
	more := map[string]uint64{}
	for name, n := range now {
		if n > before[name] {
			more[name] = n - before[name]
		}
	}
	return more
}

// byCount lists what there is of each, the most first.
func byCount(counts map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", counts[name], name)
	}
	return strings.Join(names, ", ")
}
