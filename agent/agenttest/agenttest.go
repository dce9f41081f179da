// Package agenttest runs a real agent on this machine, for tests of other packages.
package agenttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

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

// Alerts returns those that were written and not forgotten.
func (a *Agent) Alerts() (all []alert.Alert) {
	for line := range strings.Lines(a.out.text()) {
		var one alert.Alert
		if json.Unmarshal([]byte(line), &one) == nil { // the last line may be on its way
			all = append(all, one)
		}
	}
	return all
}

// Forget forgets the alerts so far.
func (a *Agent) Forget() {
	a.out.mu.Lock()
	defer a.out.mu.Unlock()
	a.out.b.Reset()
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
