package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A recording is a source that plays records as a kernel wrote them, in one
// buffer, and then waits.
type recording struct {
	records [][]byte
	status  SourceStatus
	played  chan struct{}
	closed  bool
}

func (r *recording) Run(ctx context.Context, worker func() func(*record.Record)) error {
	handle := worker()
	for _, data := range r.records {
		var rec record.Record
		if err := rec.Decode(data); err != nil {
			return err
		}
		handle(&rec)
		clear(data) // as a ring buffer does
	}
	close(r.played)
	<-ctx.Done()
	return ctx.Err()
}

func (r *recording) Status() SourceStatus { return r.status }

func (r *recording) Close() error {
	r.closed = true
	return nil
}

// A narrowed is a recording that notes what is asked of it.
type narrowed struct {
	recording
	types []string
}

func (n *narrowed) open([]string, rule.Needs, *Config) (Source, error) { return n, nil }

func (n *narrowed) Narrow(types []string, _ rule.Needs) error {
	n.types = types
	return nil
}

func (n *narrowed) has(typ string) bool { return slices.Contains(n.types, typ) }

const (
	shellKey = 5000
	start    = 3_000_000_000
	groupOf  = "=/kubepods/pod6f2b9b3e-0f8e-4d7c-9f5d-1c2d3e4f5a6b/3f2a9c01d7be4455aa66bb77cc88dd99ee00ff112233445566778899aabbccdd\x00"
)

func (r *recording) add(t *testing.T, typ string, pid, parent uint32, comm string, values map[string]any) {
	t.Helper()
	kind, ok := record.TypeOf(typ)
	if !ok {
		t.Fatalf("no type %s", typ)
	}
	rec := record.Record{Header: record.Header{
		Type: kind, Time: start + uint64(len(r.records)), Sequence: uint64(len(r.records) + 1), HasResult: true,
		Process: record.Key{TGID: pid, Start: start + uint64(pid)*1e7}, TID: pid, VPID: pid, VTID: pid,
		Parent: record.Key{TGID: parent, Start: start + uint64(parent)*1e7}, LoginUID: 1<<32 - 1, Cgroup: 1 << 40,
	}}
	copy(rec.Comm[:], comm)
	for name, value := range values {
		v := record.Value{}
		switch value := value.(type) {
		case int:
			v = record.IntValue(int64(value))
		case string:
			v = record.BytesValue([]byte(value))
		}
		if err := rec.SetParam(kind.Index(name), v); err != nil {
			t.Fatal(err)
		}
	}
	data, err := rec.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.records = append(r.records, data)
}

// change changes the last record.
func (r *recording) change(t *testing.T, how func(*record.Record)) {
	t.Helper()
	last := &r.records[len(r.records)-1]
	var rec record.Record
	if err := rec.Decode(slices.Clone(*last)); err != nil {
		t.Fatal(err)
	}
	how(&rec)
	data, err := rec.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	*last = data
}

// intrusion is a recording of a shell that downloads and reads what it must not.
func intrusion(t *testing.T) *recording {
	r := &recording{played: make(chan struct{})}
	r.add(t, "execve", shellKey, 1, "sh", map[string]any{"exe": "sh", "args": "-i\x00", "cgroups": groupOf, "cwd": "/srv", "flags": record.ExeLower})
	r.add(t, "clone", shellKey+1, shellKey, "sh", map[string]any{"exe": "sh", "args": "-i\x00", "cgroups": groupOf})
	r.add(t, "execve", shellKey+1, shellKey, "cat", map[string]any{"exe": "cat", "args": "/etc/shadow\x00", "cgroups": groupOf, "flags": record.ExeUpper})
	r.add(t, "openat", shellKey+1, shellKey, "cat", map[string]any{"fd": 3, "name": "/etc/hosts", "flags": 0})
	r.add(t, "openat", shellKey+1, shellKey, "cat", map[string]any{"fd": 3, "name": "/etc/shadow", "flags": 0})
	r.add(t, "procexit", shellKey+1, shellKey, "cat", nil)
	return r
}

const intrusionRules = `
- rule: Shadow read
  desc: Passwords are read
  condition: evt.type in (open, openat) and fd.name = /etc/shadow and container.id != host
  output: "shadow (command=%proc.cmdline parent=%proc.pcmdline container=%container.id)"
  priority: WARNING
  tags: [mitre_credential_access]
- rule: Drift
  desc: A program that is not of the image
  condition: evt.type = execve and proc.is_exe_upper_layer = true
  output: "drift %proc.exe"
  priority: NOTICE
- rule: Not seen
  desc: No sensor of ours shows reads
  condition: evt.type = read and fd.name = /etc/shadow
  output: x
  priority: NOTICE
`

func rulesFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func configOf(t *testing.T, rules string) *Config {
	c := DefaultConfig()
	c.Rules, c.CRI = []string{rulesFile(t, rules)}, noRuntime
	return c
}

// watch runs an agent over a recording until all of it was played.
func watch(t *testing.T, c *Config, source *recording, meanwhile func(*Agent)) (alerts []alert.Alert, log string) {
	t.Helper()
	var out, logged bytes.Buffer
	a, err := New(Options{
		Config: c, Out: &out, Log: slog.New(slog.NewTextHandler(&logged, nil)),
		Open: func(types []string, _ rule.Needs, _ *Config) (Source, error) {
			if !slices.Contains(types, "execve") || !slices.Contains(types, "procexit") || slices.Contains(types, "connect") {
				t.Errorf("types %v", types)
			}
			return source, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	<-source.played
	if meanwhile != nil {
		meanwhile(a)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if !source.closed {
		t.Error("the source was left open")
	}
	for line := range strings.Lines(out.String()) {
		var one alert.Alert
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		alerts = append(alerts, one)
	}
	return alerts, logged.String()
}

// TestDriftTag: a program in the upper layer counts as one that is not part of its
// image in a container alone, and not if the node itself runs it there.
func TestDriftTag(t *testing.T) {
	source := &recording{played: make(chan struct{})}
	values := func(group string) map[string]any {
		return map[string]any{"exe": "cat", "cgroups": group, "flags": record.ExeUpper}
	}
	source.add(t, "execve", shellKey, 1, "in-container", values(groupOf))
	source.add(t, "execve", shellKey+1, 1, "on-host", values("=/system.slice/x.service\x00"))
	source.change(t, func(r *record.Record) { r.Cgroup = 7 })
	source.add(t, "execve", shellKey+2, 1, "of-node", values(groupOf))
	source.change(t, func(r *record.Record) { r.OfNode = true })
	alerts, _ := watch(t, configOf(t, strings.Replace(intrusionRules, "drift %proc.exe", "drift %proc.name", 1)), source, nil)
	if len(alerts) != 3 {
		t.Fatalf("alerts %+v", alerts)
	}
	for _, a := range alerts {
		if want, have := strings.Contains(a.Output, "in-container"), slices.Contains(a.Tags, alert.DriftTag); have != want {
			t.Errorf("%s: tagged %v", a.Output, have)
		}
	}
}

func TestAlerts(t *testing.T) {
	alerts, log := watch(t, configOf(t, intrusionRules), intrusion(t), nil)
	var have []string
	for _, a := range alerts {
		_, message, _ := strings.Cut(a.Output, ": ")
		have = append(have, a.Rule+": "+message)
	}
	want := []string{
		"Drift: Notice drift cat",
		"Shadow read: Warning shadow (command=cat /etc/shadow parent=sh -i container=3f2a9c01d7be)",
	}
	if strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("have:\n%s", strings.Join(have, "\n"))
	}
	if a := alerts[1]; a.Source != "syscall" || a.ID == alerts[0].ID || a.Hostname == "" || a.Tactics[0] != "credential-access" || a.OutputFields["proc.cmdline"] != "cat /etc/shadow" {
		t.Errorf("alert %+v", a)
	}
	if !strings.Contains(log, `msg="a rule is not covered" rule="Not seen" events=read`) || !strings.Contains(log, "msg=stopped events=6 alerts=2 dropped=0") {
		t.Errorf("log:\n%s", log)
	}
}

// TestDriftIsTagged: whichever rule raises an alert about the start of a program that did
// not come with the image, wherever that program is.
func TestDriftIsTagged(t *testing.T) {
	source := &recording{played: make(chan struct{})}
	programs := []struct {
		name          string
		flags, result int
		drift         bool
	}{
		{"image", record.ExeLower, 0, false},
		{"layer", record.ExeUpper | record.ExeWritable, 0, true},
		{"memory", record.ExeMemFD, 0, true},
		{"volume", record.ExeAdded, 0, true},
		{"tmpfs", record.ExeOnTmpFS | record.ExeAdded, 0, true},
		{"tmpfs of a root that is no overlay", record.ExeOnTmpFS, 0, false}, // of which nobody can tell
		{"refused", record.ExeAdded, -13, false},
	}
	for i, p := range programs {
		source.add(t, "execve", shellKey+uint32(i), 1, p.name, map[string]any{"exe": "x", "flags": p.flags, "cgroups": groupOf})
		source.change(t, func(r *record.Record) { r.Result = int64(p.result) })
	}
	alerts, _ := watch(t, configOf(t, "- {rule: A, desc: x, condition: evt.type = execve, output: x, priority: NOTICE}\n- {rule: B, desc: x, condition: evt.type = procexit, output: x, priority: NOTICE}\n"), source, nil)
	if len(alerts) != len(programs) {
		t.Fatalf("%d alerts", len(alerts))
	}
	for i, p := range programs {
		if have := slices.Contains(alerts[i].Tags, alert.DriftTag); have != p.drift {
			t.Errorf("%s: tags %q", p.name, alerts[i].Tags)
		}
	}
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRecord: recorded events raise the alerts that they raised when they came.
func TestRecord(t *testing.T) {
	var recorded bytes.Buffer
	c := configOf(t, intrusionRules)
	a, err := New(Options{
		Config: c, Out: io.Discard, Log: slog.New(slog.DiscardHandler), Record: &recorded,
		Open: func([]string, rule.Needs, *Config) (Source, error) { return intrusion(t), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	<-a.source.(*recording).played
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	var have []string
	n, err := syscall.Read("recorded.jsonl", &recorded, func(e *event.Event) error {
		for _, one := range a.ruling.Load().set.Match(e, rule.First) {
			_, message, _ := strings.Cut(one.Output, ": ")
			have = append(have, message)
		}
		return nil
	})
	if err != nil || n != 4 {
		t.Errorf("%d events, %v", n, err)
	}
	want := []string{"Notice drift cat", "Warning shadow (command=cat /etc/shadow parent=sh -i container=3f2a9c01d7be)"}
	if !slices.Equal(have, want) {
		t.Errorf("have %q", have)
	}
}

// TestLessUrgentRules are left out together with what only they need.
func TestLessUrgentRules(t *testing.T) {
	c := configOf(t, intrusionRules)
	c.Priority = "warning"
	alerts, _ := watch(t, c, intrusion(t), nil)
	if len(alerts) != 1 || alerts[0].Rule != "Shadow read" {
		t.Errorf("alerts %+v", alerts)
	}
}

func TestStatus(t *testing.T) {
	c := configOf(t, intrusionRules)
	c.Status = "127.0.0.1:0"
	source := intrusion(t)
	source.status = SourceStatus{
		Features: []Feature{{Name: "exec", Used: "tp_btf"}, {Name: "enforce.lsm", Reason: "not permitted"}},
		Counters: map[string]uint64{"dropped": 7, "seen": 100, "missed": 3},
		Dropped:  map[string]uint64{"connect": 2, "openat": 5},
	}
	_, log := watch(t, c, source, func(a *Agent) {
		get := func(path string) string {
			res, err := http.Get("http://" + a.StatusAddr().String() + path)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s, %v", path, res.Status, err)
			}
			return string(body)
		}
		metrics := get("/metrics")
		for line := range strings.Lines(metrics) {
			name, metric := strings.CutPrefix(line, "# TYPE kubeguardian_agent_")
			if name, _, _ = strings.Cut(name, " "); metric && !strings.Contains(readText(t, "../docs/agent.md"), "`"+name) {
				t.Errorf("docs/agent.md does not list %s", name)
			}
		}
		for _, want := range []string{
			"kubeguardian_agent_events_total 6\n", "kubeguardian_agent_alerts_total 2\n", `kubeguardian_agent_sensor_events_total{what="dropped"} 7` + "\n",
			`kubeguardian_agent_sensor_dropped_events_total{type="openat"} 5` + "\n",
			`kubeguardian_agent_sensor_feature{feature="enforce.lsm"} 0` + "\n", "kubeguardian_agent_rules_not_covered 1\n", "# TYPE kubeguardian_agent_resident_memory_bytes gauge\n",
		} {
			if !strings.Contains(metrics, want) {
				t.Errorf("no %q in:\n%s", want, metrics)
			}
		}
		var h struct {
			Status     string
			Rules      int
			Dropped    uint64
			Dropping   bool
			Drift      bool
			NotCovered map[string][]string `json:"not_covered"`
			Problems   []string
		}
		if err := json.Unmarshal([]byte(get("/healthz")), &h); err != nil {
			t.Fatal(err)
		}
		if !h.Dropping || h.Drift {
			t.Errorf("health %+v", h)
		}
		if h.Status != "degraded" || h.Rules != 3 || h.Dropped != 7 || len(h.Problems) != 4 || h.Problems[0] != "7 events were dropped: 5 openat, 2 connect" || h.NotCovered["Not seen"][0] != "read" {
			t.Errorf("health %+v", h)
		}
	})
	if !strings.Contains(log, "feature=enforce.lsm") {
		t.Errorf("log:\n%s", log)
	}
}

// TestDrops: an agent that reports to nobody tells of events that were dropped by
// an alert, at once and every ten minutes, of each once, and of the rest at its end.
func TestDrops(t *testing.T) {
	source := intrusion(t)
	source.status.Dropped = map[string]uint64{"connect": 2, "openat": 5}
	alerts, log := watch(t, configOf(t, intrusionRules), source, nil)
	if len(alerts) != 3 || alerts[2].Rule != DropRule || alerts[2].Hostname == "" || !strings.HasSuffix(alerts[2].Output, "is not known: 5 openat, 2 connect") {
		t.Errorf("alerts %+v", alerts)
	}
	if !strings.Contains(log, `types="5 openat, 2 connect"`) {
		t.Errorf("log:\n%s", log)
	}
	var out, logged bytes.Buffer
	source.status.Counters = map[string]uint64{}
	a := &Agent{o: Options{Log: slog.New(slog.NewTextHandler(&logged, nil))}, source: source, pipeline: &pipeline{out: newOutput(&out, nil)}}
	a.status = newStatus(a)
	d, begun := drops{agent: a}, time.Unix(1000, 0)
	for _, step := range []struct {
		after time.Duration
		n     uint64
		end   bool
		want  string
	}{
		{0, 5, false, "5 openat, 2 connect"},
		{time.Second, 7, false, ""},
		{2 * time.Second, 8, false, ""},
		{tellAgain, 8, false, "3 openat"},
		{tellAgain + time.Second, 8, true, ""},
		{tellAgain + time.Minute, 12, true, "4 openat"},
	} {
		source.status.Dropped["openat"], source.status.Counters["dropped"] = step.n, step.n+2
		out.Reset()
		d.look(begun.Add(step.after), step.end)
		if _, have, _ := strings.Cut(strings.TrimSuffix(outputOf(t, out.String()), "\n"), "is not known: "); have != step.want {
			t.Errorf("after %s: %q, want %q", step.after, have, step.want)
		}
	}
	if n := strings.Count(logged.String(), "events were dropped"); n != 4 {
		t.Errorf("%d times in the log:\n%s", n, logged.String())
	}
	now := begun.Add(tellAgain + time.Minute + lately)
	var h health
	if a.status.noteLosses(now, source.status, &h); h.Dropping || len(h.Problems) != 0 { // nobody has asked before
		t.Errorf("dropped long ago: %+v", h)
	}
}

// outputOf returns the text of an alert, empty if there is none.
func outputOf(t *testing.T, line string) string {
	t.Helper()
	if line == "" {
		return ""
	}
	var a alert.Alert
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		t.Fatal(err)
	}
	return a.Output
}

func TestNewFails(t *testing.T) {
	refused := errors.New("operation not permitted")
	tests := []struct {
		name  string
		rules string
		open  Opener
		want  string
	}{
		{"sensor", intrusionRules, func([]string, rule.Needs, *Config) (Source, error) { return nil, refused }, "start the sensor: operation not permitted"},
		{"no rule for system calls", "- rule: a\n  desc: x\n  condition: ka.verb=get\n  output: x\n  priority: error\n  source: k8s_audit\n", nil, "none of them is enabled and of source syscall"},
		{"mistake in a rule", "- rule: a\n  desc: x\n  condition: proc.nam=a\n  output: x\n  priority: error\n", nil, "proc.nam"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(Options{Config: configOf(t, tt.rules), Out: io.Discard, Log: slog.New(slog.DiscardHandler), Open: tt.open})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("have %v, want %q", err, tt.want)
			}
		})
	}
}

// TestOutputThatFails: an agent that nobody can hear ends, and says so.
func TestOutputThatFails(t *testing.T) {
	source := intrusion(t)
	a, err := New(Options{
		Config: configOf(t, intrusionRules), Out: failing{}, Log: slog.New(slog.DiscardHandler),
		Open: func([]string, rule.Needs, *Config) (Source, error) { return source, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := a.Run(ctx); err == nil || !strings.Contains(err.Error(), "print alert: disk is full") {
		t.Errorf("have %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

// TestConfigFixtures: a comment "# error: TEXT" promises an error for its line.
func TestConfigFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("fixtures %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			n := 0
			for line := range strings.Lines(string(data)) {
				n++
				if _, text, ok := strings.Cut(strings.TrimSpace(line), "# error: "); ok {
					want = append(want, fmt.Sprintf("%s:%d: %s", file, n, text))
				}
			}
			if bad := strings.HasSuffix(file, ".bad.yaml"); bad != (want != nil) {
				t.Fatal("a bad fixture announces its errors, a good one has none")
			}
			have := ""
			if _, err := LoadConfig(file); err != nil {
				have = err.Error()
			}
			if have != strings.Join(want, "\n") {
				t.Errorf("have:\n%s\nwant:\n%s", have, strings.Join(want, "\n"))
			}
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	for _, data := range []string{"", "---\n", "# nothing\n"} {
		c, err := ParseConfig("a.yaml", []byte(data))
		if err != nil || fmt.Sprint(*c) != fmt.Sprint(*DefaultConfig()) || c.Check() != nil {
			t.Errorf("%q: %+v, %v", data, c, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("match: all\nstatus: 127.0.0.1:9100\n"))
	f.Add([]byte("bufferSize: [1]\n"))
	f.Add([]byte("cpuBudget: .nan\nenforce: [{rules: [a], action: kill, for: 1s}]\nzeroDrift: [{mode: kill, except: [/a]}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseConfig("a.yaml", data); err == nil && c.Check() != nil {
			t.Errorf("accepted %q: %v", data, c.Check())
		}
	})
}

// TestDocumentedConfig: the documentation shows each key with its default.
func TestDocumentedConfig(t *testing.T) {
	_, rest, _ := strings.Cut(readText(t, "../docs/agent.md"), "```yaml agent\n")
	block, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no configuration in docs/agent.md")
	}
	c, err := ParseConfig("docs/agent.md", []byte(block))
	if err != nil || fmt.Sprint(*c) != fmt.Sprint(*DefaultConfig()) {
		t.Errorf("have %+v, %v", c, err)
	}
	for i, other := range strings.Split(rest, "```yaml agent\n")[1:] {
		text, _, _ := strings.Cut(other, "```")
		if _, err := ParseConfig(fmt.Sprintf("docs/agent.md, example %d", i+2), []byte(text)); err != nil {
			t.Error(err)
		}
	}
	for f := range reflect.TypeFor[Config]().Fields() {
		if key := f.Tag.Get("yaml"); !strings.Contains(block, "\n"+key+":") && !strings.HasPrefix(block, key+":") {
			t.Errorf("docs/agent.md does not show %s", key)
		}
	}
}
