package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// beatRules are about events that the agent makes to try the sensor, among others.
const beatRules = `
- rule: Any of these
  desc: What the agent does itself is nobody's business
  condition: evt.type in (openat, connect, prctl) and proc.pid = %d
  output: "%%evt.type of the agent"
  priority: NOTICE
`

// beatsOf are the types of beats under these rules and those of processes.
var beatsOf = []string{"capset", "connect", "execve", "fchdir", "openat", "prctl"}

// beatTimes has an agent beat n times, and waits each time for all beats but those
// that are to be missing.
func beatTimes(t *testing.T, a *Agent, n int, missing ...string) {
	t.Helper()
	for range n {
		begun := time.Now()
		a.heart.beat(a.source.(beater))
		waitFor(t, "the agent's own events", func() (bool, int) {
			a.heart.mu.Lock()
			defer a.heart.mu.Unlock()
			waiting := 0
			for typ, p := range a.heart.types {
				if p.last.Before(begun) && !slices.Contains(missing, typ) {
					waiting++
				}
			}
			return waiting == 0, -waiting
		})
	}
}

func healthOf(t *testing.T, a *Agent) (h health, metrics string) {
	t.Helper()
	base := "http://" + a.StatusAddr().String()
	if err := json.Unmarshal([]byte(get(t, base+"/healthz")), &h); err != nil {
		t.Fatal(err)
	}
	return h, get(t, base+"/metrics")
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// kernelFDs returns the descriptors of this process that /proc says a thing of,
// with the number that follows another.
func kernelFDs(t *testing.T, says, number string) map[int]int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]int{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(data), says) {
			continue
		}
		var fd, n int
		fmt.Sscan(filepath.Base(file), &fd)
		if _, after, ok := strings.Cut(string(data), number+":\t"); ok {
			fmt.Sscan(after, &n)
			found[fd] = n
		}
	}
	return found
}

// removeCall takes a call out of the sensor's table, as root can do anywhere.
func removeCall(t *testing.T, number uint32) {
	t.Helper()
	removed := 0
	for _, id := range kernelFDs(t, fmt.Sprintf("map_type:\t%d\n", ebpf.ProgramArray), "map_id") {
		table, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Delete(number); err == nil {
			removed++
		} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatal(err)
		}
		table.Close()
	}
	if removed == 0 {
		t.Fatal("no table of the sensor has the call")
	}
}

// detach takes the sensor's programs of a name off the kernel, by its own
// descriptors, as a debugger can.
func detach(t *testing.T, name string) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	detached := 0
	for fd, id := range kernelFDs(t, "link_type:", "prog_id") {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			t.Fatal(err)
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		if info.Name != name {
			continue
		}
		if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		detached++
	}
	if detached == 0 {
		t.Fatalf("program %s is not attached", name)
	}
}

// TestLiveSilence: an agent whose programs do not run any more says so, of these and
// no others, and takes it back; one that works says nothing, and its own events are
// no alerts.
func TestLiveSilence(t *testing.T) {
	c := configOf(t, fmt.Sprintf(beatRules, os.Getpid()))
	c.Status = "127.0.0.1:0"
	l, a := watchMachineAt(t, c, nil)

	beatTimes(t, a, 2*beatsMissed)
	h, metrics := healthOf(t, a)
	if slices.ContainsFunc(h.Problems, func(p string) bool { return strings.Contains(p, "silent") }) {
		t.Errorf("a sensor that works: %q", h.Problems)
	}
	for _, typ := range beatsOf {
		if _, ok := h.Heartbeats[typ]; !ok || !strings.Contains(metrics, fmt.Sprintf("kubeguardian_agent_sensor_heartbeat_seconds{type=%q} ", typ)) {
			t.Errorf("nothing is said of %s: %v\n%s", typ, h.Heartbeats, metrics)
		}
	}
	if len(h.Heartbeats) != len(beatsOf) {
		t.Errorf("heartbeats %v: want %v alone", h.Heartbeats, beatsOf)
	}
	busy := func(a alert.Alert) bool { return a.Rule == DropRule } // the machine may be
	if alerts := slices.DeleteFunc(l.alerts(), busy); len(alerts) != 0 {
		t.Errorf("alerts of a sensor that works: %+v", alerts)
	}

	removeCall(t, unix.SYS_CONNECT)
	beatTimes(t, a, beatsMissed+2, "connect")
	l.want(l.wait(SilenceRule, "of connect no event arrives"), map[string]any{"agent.silent": "connect"})
	if h, _ := healthOf(t, a); h.Status != "degraded" || !slices.ContainsFunc(h.Problems, func(p string) bool {
		return strings.Contains(p, "the sensor is silent") && strings.Contains(p, ": connect since ") && !strings.Contains(p, "openat")
	}) {
		t.Errorf("a call is gone: %+v", h)
	}

	if err := a.use(a.ruling.Load()); err != nil { // which puts the call back
		t.Fatal(err)
	}
	beatTimes(t, a, 2)
	l.wait(SilenceRule, "no longer silent")
	if h, _ := healthOf(t, a); slices.ContainsFunc(h.Problems, func(p string) bool { return strings.Contains(p, "silent") }) {
		t.Errorf("the call is back: %q", h.Problems)
	}

	detach(t, "call_exit")
	beatTimes(t, a, beatsMissed+2, beatsOf...)
	l.want(l.wait(SilenceRule, "of "+strings.Join(beatsOf, ", ")), map[string]any{"agent.silent": strings.Join(beatsOf, ", ")})
}

// A drowned kernel drops what it shows of some types, and nothing of these arrives;
// of the others the beats do.
type drowned struct {
	recording
	heart       *heart
	drops, made []string
}

func (d *drowned) Beat() []string {
	for _, typ := range d.drops {
		d.status.Dropped[typ]++
	}
	return d.made
}

// arrive has the last beat of a type arrive.
func (d *drowned) arrive(t *testing.T, typ string) {
	t.Helper()
	kind, ok := record.TypeOf(typ)
	if !ok {
		t.Fatalf("no type %s", typ)
	}
	d.heart.heard(&record.Record{Header: record.Header{Type: kind, HasResult: true, Result: -1}})
}

// TestBeatsDropped: a beat that was dropped was made, so its type is not silent as
// long as others arrive. Where none does, nobody reads, and drops do not excuse that;
// nor is what is silent no longer so because something is dropped.
func TestBeatsDropped(t *testing.T) {
	source := &drowned{recording: recording{status: SourceStatus{Dropped: map[string]uint64{}}}, made: []string{"capset", "execve"}}
	a := &Agent{o: Options{Log: slog.New(slog.DiscardHandler)}, source: source, pipeline: &pipeline{out: newOutput(io.Discard, nil)}}
	a.heart = &heart{agent: a, types: map[string]*pulse{}}
	source.heart = a.heart
	for _, step := range []struct {
		name           string
		drops, arrives []string
		silent         string
		alerts         uint64 // until then
	}{
		{"all arrive", nil, []string{"capset", "execve"}, "", 0},
		{"one is dropped", []string{"execve"}, []string{"capset"}, "", 0},
		{"nobody reads", []string{"capset", "execve"}, nil, "capset, execve", 1},
		{"neither seen nor dropped", nil, nil, "capset, execve", 1},
		{"dropped again", []string{"capset", "execve"}, nil, "capset, execve", 1},
		{"one arrives, one is dropped", []string{"execve"}, []string{"capset"}, "execve", 2},
		{"all arrive again", nil, []string{"capset", "execve"}, "", 3},
		{"one is not shown", nil, []string{"execve"}, "capset", 4},
	} {
		source.drops = step.drops
		for range 3 * beatsMissed {
			a.heart.beat(source)
			for _, typ := range step.arrives {
				source.arrive(t, typ)
			}
		}
		a.heart.beat(source)
		_, problem := a.heart.state()
		var silent []string
		for _, typ := range source.made {
			if strings.Contains(problem, typ+" since ") {
				silent = append(silent, typ)
			}
		}
		if have := strings.Join(silent, ", "); have != step.silent || a.pipeline.alerts.Load() != step.alerts {
			t.Errorf("%s: silent %q, %d alerts, want %q and %d", step.name, have, a.pipeline.alerts.Load(), step.silent, step.alerts)
		}
		for _, typ := range step.arrives {
			source.arrive(t, typ)
		}
	}
}
