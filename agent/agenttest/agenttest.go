// Package agenttest runs a real agent on this machine, for tests of other packages.
package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/sensor"
)

// An Agent runs, and keeps the alerts that it writes.
type Agent struct {
	*agent.Agent
	out  output
	stop func() error
}

// Start runs an agent until the test ends. Where its programs cannot be in the
// kernel the test is skipped, or fails if KUBEGUARDIAN_REQUIRE is all.
func Start(t testing.TB, c *agent.Config) *Agent {
	t.Helper()
	a := &Agent{}
	var err error
	a.Agent, err = agent.New(agent.Options{Config: c, Out: &a.out, Log: slog.New(slog.DiscardHandler), Open: agent.OpenSensor})
	if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrNotExist) || errors.Is(err, sensor.ErrNotSupported) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no programs in the kernel: %v", err)
		}
		t.Skipf("no programs in the kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	a.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { a.Stop(t) })
	return a
}

// Stop ends the agent: it has written all of its alerts when it returns.
func (a *Agent) Stop(t testing.TB) {
	t.Helper()
	if err := a.stop(); err != nil {
		t.Error(err)
	}
}

// A Told is an alert, and when the agent told it.
type Told struct {
	alert.Alert
	At time.Time
}

// Alerts returns those that were written and not forgotten.
func (a *Agent) Alerts() (all []alert.Alert) {
	for _, one := range a.Told() {
		all = append(all, one.Alert)
	}
	return all
}

// Told returns the same, with their times.
func (a *Agent) Told() []Told {
	a.out.mu.Lock()
	defer a.out.mu.Unlock()
	return slices.Clone(a.out.told)
}

// Forget forgets the alerts so far.
func (a *Agent) Forget() {
	a.out.mu.Lock()
	defer a.out.mu.Unlock()
	a.out.told = nil
}

type output struct {
	mu   sync.Mutex
	told []Told
}

// Write implements [io.Writer]. The agent writes one alert at a time.
func (o *output) Write(p []byte) (int, error) {
	one := Told{At: time.Now()}
	if err := json.Unmarshal(p, &one.Alert); err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, one)
	return len(p), nil
}
