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

// drops tells of events that were dropped. It is not safe for concurrent use.
type drops struct {
	agent *Agent
	told  map[string]uint64 // by type
}

// look tells of what was dropped since it was called last.
func (d *drops) look(now time.Time) {
	dropped := d.agent.source.Status().Dropped
	more := map[string]uint64{}
	for typ, n := range dropped {
		if n > d.told[typ] {
			more[typ] = n - d.told[typ]
		}
	}
	if len(more) == 0 {
		return
	}
	d.told = maps.Clone(dropped)
	types := byCount(more)
	d.agent.o.Log.Warn("events were dropped: what rules would have said of them is not known", "types", types)
	if d.agent.reporter == nil {
		text := "Events were dropped, and what rules would have said of them is not known: " + types
		d.agent.pipeline.emit(d.agent.internal(now, DropRule, alert.Error, text, map[string]any{"agent.dropped": types}))
	}
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
