package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A lingering source has read only a part when it is to end, and reads the rest then,
// as the sensor does.
type lingering struct {
	recording
	first int
}

func (l *lingering) Run(ctx context.Context, worker func() func(*record.Record)) error {
	begin := recording{records: l.records[:l.first], played: l.played}
	if err := begin.Run(ctx, worker); err != ctx.Err() {
		return err
	}
	time.Sleep(200 * time.Millisecond) // who ends with ctx has ended
	ended, cancel := context.WithCancel(ctx)
	cancel()
	rest := recording{records: l.records[l.first:], played: make(chan struct{})}
	return rest.Run(ended, worker)
}

// runToEnd runs an agent over the intrusion and a program that was added, and ends it
// after the first program.
func runToEnd(t *testing.T, o Options) {
	t.Helper()
	source := &lingering{*intrusion(t), 2}
	source.add(t, "execve", shellKey, 1, "miner", map[string]any{"exe": "miner", "cgroups": groupOf, "flags": record.ExeAdded})
	o.Log, o.Open = slog.New(slog.NewTextHandler(t.Output(), nil)), func([]string, rule.Needs, *Config) (Source, error) { return source, nil }
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-source.played
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestWaitsAtTheEnd: an alert that waits for what its container is when the agent
// ends is told, and what could not be done is noted, also where it is read of last.
func TestWaitsAtTheEnd(t *testing.T) {
	c := configOf(t, intrusionRules)
	c.Actions = filepath.Join(t.TempDir(), "actions")
	c.ZeroDrift = []enforce.Drift{{Namespaces: []string{"shop"}, Mode: enforce.Alert}}
	c.Enforce = []enforce.Order{{Rules: []string{"Shadow read"}, Action: enforce.BlockEgress}}
	var out bytes.Buffer
	runToEnd(t, Options{Config: c, Out: &out})
	var rules []string
	for line := range bytes.Lines(out.Bytes()) {
		var a alert.Alert
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, a.Rule)
	}
	slices.Sort(rules)
	if want := []string{"Drift", enforce.DriftRule, "Shadow read"}; !slices.Equal(rules, want) {
		t.Errorf("alerts %q, want %q", rules, want)
	}
	if all := actions(t, c.Actions); len(all) != 2 || all[0].Outcome != enforce.Waiting || all[1].Outcome != enforce.Refused || all[1].Reason != "the agent ended" {
		t.Errorf("actions %+v", all)
	}
}

// TestReportsOfTheEnd: the server has each alert when an agent has ended, and hears
// that it did last.
func TestReportsOfTheEnd(t *testing.T) {
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	config := reporting(t, "nats://"+c.hub.Addr().String())
	config.ZeroDrift = []enforce.Drift{{Namespaces: []string{"shop"}, Mode: enforce.Alert}}
	runToEnd(t, Options{Config: config})
	c.await("alerts", func() bool { return len(c.alerts) == 3 })
	c.await("farewell", func() bool { return c.states[len(c.states)-1].Stopped })
	if s := c.states[len(c.states)-1]; s.Alerts != 3 || s.Events != 7 || s.Waiting != 0 {
		t.Errorf("it said %+v", s)
	}
}
