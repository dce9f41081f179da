package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// SilenceRule is the name of the rule that alerts have which say that the sensor
// does not show what it should, or does again.
const SilenceRule = "KubeGuardian internal: sensor silent"

const (
	beatInterval = 10 * time.Second
	beatsMissed  = 3 // in a row, after which the sensor is silent
)

// A beater is a [Source] that can have the kernel show harmless events of this
// process, and tells which types it did that for.
type beater interface{ Beat() []string }

// A pulse is what is known of the beats of one type.
type pulse struct {
	last    time.Time // when one arrived, at first when they began
	waiting bool      // the one that was made last has not arrived
	missed  int       // how many in a row have not before the next was made
	dropped uint64    // events of the type, until then
}

func (p *pulse) silent() bool { return p.missed > beatsMissed }

// A heart sees whether what happens on the node still arrives: it makes events of
// its own, and looks for their records where those of others are read. It is safe
// for concurrent use.
type heart struct {
	agent *Agent
	mu    sync.Mutex
	types map[string]*pulse
	told  []string // types that are known to be silent
}

// run beats until ctx ends.
func (h *heart) run(ctx context.Context, source beater) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		h.beat(source)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// beat makes one event of each type, after it has told of those that are missing.
func (h *heart) beat(source beater) {
	now, dropped := time.Now(), h.agent.source.Status().Dropped
	h.tell(now, dropped)
	made := source.Beat()
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.types, func(typ string, _ *pulse) bool { return !slices.Contains(made, typ) })
	h.told = slices.DeleteFunc(slices.Clone(h.told), func(typ string) bool { return !slices.Contains(made, typ) }) // no rule is about it any more
	for _, typ := range made {
		p := h.types[typ]
		if p == nil {
			p = &pulse{last: now, dropped: dropped[typ]}
			h.types[typ] = p
		}
		p.waiting = !p.last.After(now) // it may have arrived already
	}
}

// heard takes a record of this process.
func (h *heart) heard(r *record.Record) {
	if !sensor.IsBeat(r) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.types[r.Type.String()]; p != nil {
		p.last, p.waiting, p.missed = time.Now(), false, 0
	}
}

// tell says in the log, to the server and by an alert which types have become
// silent, or have ceased to be.
func (h *heart) tell(now time.Time, dropped map[string]uint64) {
	silent, changed := h.look(dropped)
	if !changed {
		return
	}
	a, priority, level := h.agent, alert.Critical, slog.LevelError
	text := fmt.Sprintf("The sensor is silent: of %s no event arrives, not even those that the agent makes to try it; somebody may have detached it, or nobody reads its buffer", strings.Join(silent, ", "))
	if len(silent) == 0 {
		priority, level, text = alert.Notice, slog.LevelWarn, "The sensor is no longer silent: the events that the agent makes to try it arrive again"
	}
	a.o.Log.Log(context.Background(), level, text)
	if a.reporter != nil {
		a.reporter.news()
	}
	a.pipeline.emit(a.internal(now, SilenceRule, priority, text, map[string]any{"agent.silent": strings.Join(silent, ", ")}))
}

// look returns the types that are silent, and whether these are others than when it
// was called last. A beat may have been dropped where events of its type were, and
// does not count as missed then, unless no beat arrives at all: what is not read
// drops everything. Only a beat that arrives ends a silence.
func (h *heart) look(dropped map[string]uint64) (silent []string, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	read := false
	for _, p := range h.types {
		read = read || !p.waiting
	}
	for typ, p := range h.types {
		if p.waiting && !(read && dropped[typ] > p.dropped) {
			p.missed++
		}
		p.dropped = dropped[typ]
	}
	silent = h.silent()
	changed = !slices.Equal(silent, h.told)
	h.told = silent
	return silent, changed
}

// silent lists the types that are silent; mu is held.
func (h *heart) silent() (types []string) {
	for _, typ := range slices.Sorted(maps.Keys(h.types)) {
		if h.types[typ].silent() {
			types = append(types, typ)
		}
	}
	return types
}

// state returns for how many seconds no beat has arrived, by type, and what is
// wrong about that.
func (h *heart) state() (seconds map[string]float64, problem string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seconds = map[string]float64{}
	for typ, p := range h.types {
		seconds[typ] = time.Since(p.last).Seconds()
	}
	silent := h.silent()
	if len(silent) == 0 {
		return seconds, ""
	}
	for i, typ := range silent {
		silent[i] += " since " + h.types[typ].last.UTC().Format(time.RFC3339)
	}
	return seconds, "the sensor is silent: of these no event arrives, not even those that the agent makes to try it: " + strings.Join(silent, ", ")
}
