package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	unix "syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/sensor/container"
)

// A status serves /healthz and /metrics.
type status struct {
	agent    *Agent
	started  time.Time
	listener net.Listener
	server   *http.Server

	dropped, missed, malformed, lost losses // of events, of programs in the kernel that did not run, of records, of alerts

	kills, denials gap
}

// lately is for how long it is a problem that something was lost.
const lately = time.Hour

// losses knows when a count of what is lost has risen last.
type losses struct {
	mu   sync.Mutex
	n    uint64
	last time.Time // zero: never
}

// recent takes the count as of now, and reports whether it has risen lately.
func (l *losses) recent(n uint64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > l.n {
		l.n, l.last = n, now
	}
	return !l.last.IsZero() && now.Sub(l.last) < lately
}

func newStatus(a *Agent) *status { return &status{agent: a, started: time.Now()} }

func (s *status) listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("serve the status: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /metrics", s.metrics)
	s.listener, s.server = ln, &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14}
	go s.server.Serve(ln)
	return nil
}

func (s *status) addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

func (s *status) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.server.Shutdown(ctx)
}

// A health is the answer of /healthz.
type health struct {
	Status    string    `json:"status"` // ok, or degraded
	Rules     int       `json:"rules"`
	Processes int       `json:"processes"`
	Dropped   uint64    `json:"dropped"`
	Dropping  bool      `json:"dropping"` // some of them within the last hour
	Drift     bool      `json:"drift"`    // it tells of programs that are not part of their image
	Features  []Feature `json:"features"`

	DroppedTypes map[string]uint64   `json:"dropped_types,omitempty"`
	Heartbeats   map[string]float64  `json:"heartbeat_seconds,omitempty"` // since an event came that the agent made itself, by type
	NotCovered   map[string][]string `json:"not_covered"`                 // types of events, by rule
	Enforced     map[string]string   `json:"enforced,omitempty"`          // kernel or agent, by rule that kills
	Runtime      string              `json:"runtime,omitempty"`
	Problems     []string            `json:"problems"`

	misses []string // those of Problems by which events are not seen, or alerts of them not told in time
}

// miss adds a problem by which events are not seen, or alerts of them not told.
func (h *health) miss(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	h.Problems, h.misses = append(h.Problems, text), append(h.misses, text)
}

func (s *status) state() health {
	a := s.agent
	source := a.source.Status()
	h := health{
		Status: "ok", Rules: a.ruling.Load().count, Processes: a.table.Stats().Known,
		Dropped: source.Counters["dropped"], DroppedTypes: source.Dropped, Features: source.Features, NotCovered: a.notCovered(), Problems: []string{},
	}
	if a.runtime != nil {
		h.Runtime = a.runtime.Name()
	}
	s.noteLosses(time.Now(), source, &h)
	s.noteBeats(&h)
	// Events that are not seen, rules that are left out, containers without names and
	// alerts on their way may be about a program that is not part of its image.
	blind := len(h.Problems) > 0 || a.runtime == nil
	if len(h.NotCovered) > 0 {
		h.miss("%d rules are not covered", len(h.NotCovered))
	}
	for _, f := range h.Features {
		switch {
		case f.Used != "":
		case strings.HasPrefix(f.Name, "enforce."):
			h.Problems = append(h.Problems, fmt.Sprintf("the sensor lacks %s: %s", f.Name, f.Reason))
		default:
			h.miss("the sensor lacks %s: %s", f.Name, f.Reason)
		}
	}
	if a.shedder != nil {
		if left, _, _ := a.shedder.state(); len(left) > 0 {
			blind = true
			h.miss("%d rules are left out, as the agent would use more than %g of a core: %s", len(left), a.o.Config.CPUBudget, strings.Join(left, ", "))
		}
	}
	if a.enforcer != nil {
		s.noteEnforcement(source, &h)
	}
	if a.runtime != nil {
		if _, err := a.runtime.Stats(); err != nil {
			blind = true
			h.Problems = append(h.Problems, err.Error())
		}
	}
	if a.reporter != nil {
		before := len(h.Problems)
		a.reporter.note(time.Now(), &h)
		blind = blind || len(h.Problems) > before
	}
	h.Drift = !blind && a.ruling.Load().tellsDrift(h.NotCovered) && overlaid(a.o.Config.Proc, h.Runtime)
	if len(h.Problems) > 0 {
		h.Status = "degraded"
	}
	return h
}

// noteLosses says what the sensor has lost lately.
func (s *status) noteLosses(now time.Time, source SourceStatus, h *health) {
	if n := source.Counters["dropped"]; s.dropped.recent(n, now) {
		h.Dropping = true
		h.miss("%d events were dropped: %s", n, byCount(source.Dropped))
	}
	if n := source.Counters["missed"]; s.missed.recent(n, now) {
		h.miss("%d times the kernel did not run a program of the sensor", n)
	}
	if n := source.Counters["malformed"]; s.malformed.recent(n, now) {
		h.miss("%d records of the sensor could not be read", n)
	}
}

// noteBeats says when the events that the agent makes itself came last, and which do
// not come any more.
func (s *status) noteBeats(h *health) {
	var problem string
	if h.Heartbeats, problem = s.agent.heart.state(); problem != "" {
		h.miss("%s", problem)
	}
}

// internal returns an alert about the agent itself.
func (a *Agent) internal(now time.Time, rule string, p alert.Priority, text string, fields map[string]any) alert.Alert {
	fields["evt.time"] = now.UnixNano()
	return alert.Alert{
		ID: alert.NewID(event.Syscall, a.pipeline.boot+strconv.FormatInt(now.UnixNano(), 36), rule), Time: now, Rule: rule, Priority: p, Source: event.Syscall,
		Output: now.Format("15:04:05.000000000") + ": " + p.String() + " " + text, OutputFields: fields, Hostname: a.pipeline.hostname, Tags: []string{"kubeguardian_internal"},
	}
}

// containerRoots are where runtimes mount the roots of containers, by their names.
var containerRoots = map[string]*regexp.Regexp{
	container.Containerd: regexp.MustCompile(`/io\.containerd\.runtime\.v\d\.task/k8s\.io/[^/]+/rootfs$`),
	container.CRIO:       regexp.MustCompile(`/containers/storage/overlay/[^/]+/merged$`),
	container.Docker:     regexp.MustCompile(`/docker/(overlay2/[^/]+/merged|rootfs/overlayfs/[^/]+)$`),
}

// overlaid reports whether the containers that a runtime has mounted, any where its
// name is not known, are all on overlays: on other storage, what was added to an
// image is not told from what is of it.
func overlaid(proc, runtime string) bool {
	mounts, _ := os.ReadFile(proc + "/1/mountinfo")
	found := false
	for line := range strings.Lines(string(mounts)) {
		where, kind, _ := strings.Cut(line, " - ")
		f := strings.Fields(where)
		if len(f) < 5 || !isRoot(runtime, f[4]) {
			continue
		}
		if found = strings.HasPrefix(kind, "overlay "); !found {
			return false
		}
	}
	return found
}

func isRoot(runtime, path string) bool {
	for name, where := range containerRoots {
		if (runtime == "" || runtime == name) && where.MatchString(path) {
			return true
		}
	}
	return false
}

// health answers 200 as long as the agent runs; what it cannot do is in the
// body.
func (s *status) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(s.state())
}

func (s *status) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	var b strings.Builder
	s.write(&b)
	_, _ = io.WriteString(w, b.String())
}

// write writes all metrics in the text format of Prometheus.
func (s *status) write(w io.Writer) {
	a := s.agent
	table, p := a.table.Stats(), a.pipeline
	counter(w, "events_total", "records of the kernel that were read", float64(p.records.Load()))
	counter(w, "events_matched_total", "events that rules were asked about", float64(p.matched.Load()))
	counter(w, "alerts_total", "alerts", float64(p.alerts.Load()))
	source := a.source.Status()
	head(w, "sensor_events_total", "counter", "what became of events in the kernel and its buffers")
	for _, name := range slices.Sorted(maps.Keys(source.Counters)) {
		sample(w, "sensor_events_total", "what", name, float64(source.Counters[name]))
	}
	head(w, "sensor_dropped_events_total", "counter", "events that were dropped, by type")
	for _, typ := range slices.Sorted(maps.Keys(source.Dropped)) {
		sample(w, "sensor_dropped_events_total", "type", typ, float64(source.Dropped[typ]))
	}
	seconds, _ := a.heart.state()
	head(w, "sensor_heartbeat_seconds", "gauge", "time since an event arrived that the agent makes to try the sensor, by type")
	for _, typ := range slices.Sorted(maps.Keys(seconds)) {
		sample(w, "sensor_heartbeat_seconds", "type", typ, seconds[typ])
	}
	head(w, "sensor_feature", "gauge", "1 if the sensor has a feature of the kernel")
	for _, f := range source.Features {
		has := 0.0
		if f.Used != "" {
			has = 1
		}
		sample(w, "sensor_feature", "feature", f.Name, has)
	}
	gauge(w, "rules", "rules that can raise an alert", float64(a.ruling.Load().count))
	gauge(w, "rules_not_covered", "rules that wait for events which the sensor does not show", float64(len(a.notCovered())))
	gauge(w, "processes", "processes that are known", float64(table.Known))
	gauge(w, "control_groups", "control groups that are known", float64(table.Groups))
	counter(w, "processes_evicted_total", "processes that were dropped early, as there were too many", float64(table.Evicted))
	counter(w, "processes_unknown_total", "processes whose begin was not seen", float64(table.Unknown))
	counter(w, "processes_read_total", "of these, those that /proc told of", float64(table.Read))
	counter(w, "process_exits_lost_total", "ends of processes that were noticed by other means than their record", float64(table.LostExit))
	counter(w, "container_late_total", "events of containers that the runtime had not told of yet", float64(table.Late))
	if a.runtime != nil {
		stats, _ := a.runtime.Stats()
		gauge(w, "containers", "containers that are known", float64(stats.Containers))
		counter(w, "runtime_failures_total", "calls of the container runtime that failed", float64(stats.Failed))
		counter(w, "runtime_overflow_total", "containers that could not be asked for, as there were too many", float64(stats.Overflow))
	}
	if a.shedder != nil {
		left, times, used := a.shedder.state()
		gauge(w, "rules_left_out", "rules that are left out to stay within the budget", float64(len(left)))
		counter(w, "budget_exceeded_total", "how often rules had to be left out", float64(times))
		gauge(w, "cpu_share", "share of a core that the agent uses", used)
	}
	if a.enforcer != nil {
		writeEnforcement(w, a.enforcer.Status())
	}
	if a.reporter != nil {
		a.reporter.write(w)
	}
	used := measure(a.o.Config.Proc)
	counter(w, "cpu_seconds_total", "processor time of the agent", used.cpu.Seconds())
	gauge(w, "resident_memory_bytes", "memory of the agent", float64(used.memory))
	gauge(w, "start_time_seconds", "when the agent began, in seconds since 1970", float64(s.started.UnixMilli())/1000)
}

func writeEnforcement(w io.Writer, s enforce.Status) {
	head(w, "enforcement_actions_total", "counter", "what was done beside alerts, or not")
	for _, k := range slices.SortedFunc(maps.Keys(s.Counts), func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) }) {
		fmt.Fprintf(w, "%senforcement_actions_total{action=%q,outcome=%q} %d\n", prefix, k[0], k[1], s.Counts[k])
	}
	gauge(w, "enforcement_guards", "guards in the kernel", float64(s.Guards))
	gauge(w, "enforcement_blocked", "containers that are kept from the network", float64(len(s.Blocked)))
}

const prefix = "kubeguardian_agent_"

func head(w io.Writer, name, kind, help string) {
	fmt.Fprintf(w, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, kind)
}

func counter(w io.Writer, name, help string, v float64) { single(w, name, "counter", help, v) }

func gauge(w io.Writer, name, help string, v float64) { single(w, name, "gauge", help, v) }

func single(w io.Writer, name, kind, help string, v float64) {
	head(w, name, kind, help)
	fmt.Fprintf(w, "%s%s %s\n", prefix, name, number(v))
}

func sample(w io.Writer, name, label, value string, v float64) {
	fmt.Fprintf(w, "%s%s{%s=%q} %s\n", prefix, name, label, value, number(v))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// A usage is what the agent itself uses.
type usage struct {
	cpu    time.Duration
	memory uint64 // bytes
}

func measure(proc string) usage {
	var u usage
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	data, err := os.ReadFile(proc + "/self/statm")
	if f := strings.Fields(string(data)); err == nil && len(f) > 1 {
		pages, _ := strconv.ParseUint(f[1], 10, 64)
		u.memory = pages * uint64(os.Getpagesize())
	}
	return u
}
