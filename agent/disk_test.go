package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A tap is a source that shows a record when it is told to.
type tap struct {
	recording
	flow chan []byte
}

func (s *tap) Run(ctx context.Context, worker func() func(*record.Record)) error {
	handle := worker()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case data := <-s.flow:
			var rec record.Record
			if err := rec.Decode(data); err != nil {
				return err
			}
			handle(&rec)
		}
	}
}

// drifts shows n programs that are not of the image, each of which is an alert.
func (s *tap) drifts(t *testing.T, n int) {
	t.Helper()
	for range n {
		s.add(t, "execve", shellKey, 1, "cat", map[string]any{"exe": "cat", "args": "/etc/passwd\x00", "cgroups": groupOf, "flags": record.ExeUpper})
		s.flow <- s.records[len(s.records)-1]
	}
}

// A disk is a small file system.
type disk struct {
	t   *testing.T
	dir string
}

// newDisk mounts one. Where that is not allowed the test is skipped.
func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	d := &disk{t, t.TempDir()}
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fill takes all that is free, for another program.
func (d *disk) fill() (name string) {
	d.t.Helper()
	name = filepath.Join(d.dir, "other")
	f, err := os.Create(name)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for n := 0; ; n++ {
		if _, err = f.Write(page); errors.Is(err, syscall.ENOSPC) {
			return name
		}
		if err != nil || n > 1<<16 {
			d.t.Fatalf("the disk does not get full: %v", err)
		}
	}
}

// A life is a running agent.
type life struct {
	*Agent
	t   *testing.T
	end func() error
}

func alive(t *testing.T, c *Config, source Source) *life {
	t.Helper()
	a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler), Version: "1.2.3", Open: func([]string, rule.Needs, *Config) (Source, error) { return source, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return &life{a, t, func() error { cancel(); return <-ended }}
}

func (l *life) get(path string) string {
	l.t.Helper()
	res, err := http.Get("http://" + l.StatusAddr().String() + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(body)
}

// metric waits until a metric of the agent is as wanted, and returns it.
func (l *life) metric(name string, is func(int) bool) int {
	l.t.Helper()
	last, since := -1, time.Now()
	for ; ; time.Sleep(20 * time.Millisecond) {
		n := -1
		for line := range strings.Lines(l.get("/metrics")) {
			if _, err := fmt.Sscanf(line, "kubeguardian_agent_"+name+" %d\n", &n); err == nil {
				break
			}
		}
		switch {
		case is(n):
			return n
		case n != last:
			last, since = n, time.Now()
		case time.Since(since) > time.Minute:
			l.t.Fatalf("%s stays %d", name, n)
		}
	}
}

// settled waits until each of so many alerts is lost or waits for the server.
func (l *life) settled(total int) (lost, waiting int) {
	l.t.Helper()
	waiting = l.metric("alerts_waiting", func(n int) bool {
		lost = l.metric("alerts_lost_total", func(int) bool { return true })
		return n+lost == total
	})
	return lost, waiting
}

func equal(want int) func(int) bool { return func(n int) bool { return n == want } }

// TestFullDisk: while the server is away and the disk is full, the agent goes on,
// counts each alert that it cannot keep, and says so, also after a restart. The
// server gets all others, and, once that made room, those that come then.
func TestFullDisk(t *testing.T) {
	d := newDisk(t, "512k")
	probe := newCenter(t, t.TempDir(), "127.0.0.1:0")
	addr := probe.hub.Addr().String()
	probe.hub.Stop()
	config := reporting(t, "nats://"+addr)
	config.Server.Dir, config.Status = d.dir, "127.0.0.1:0"
	source := &tap{flow: make(chan []byte)}
	a := alive(t, config, source)
	const flood = 3000
	source.drifts(t, flood)
	lost, kept := a.settled(flood)
	if lost == 0 || kept < 100 {
		t.Fatalf("%d of %d alerts are kept, %d are lost", kept, flood, lost)
	}
	if health := a.get("/healthz"); !strings.Contains(health, fmt.Sprintf("%d alerts were lost: the spool or its disk was full", lost)) {
		t.Errorf("%d are lost, and the health is %s", lost, health)
	}

	// It starts on a disk on which there is nothing left, and loses all then.
	if err := a.end(); err != nil {
		t.Logf("at the end: %v", err) // the count cannot be kept
	}
	other := d.fill()
	source = &tap{flow: make(chan []byte), recording: recording{records: source.records}}
	a = alive(t, config, source)
	a.metric("alerts_waiting", equal(kept))
	source.drifts(t, 200)
	again, waiting := a.settled(flood + 200)
	if again == lost {
		t.Fatalf("none of 200 alerts is lost on a full disk, %d wait", waiting)
	}

	// There is room for what is counted, and the server is there.
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	kept = waiting
	c := newCenter(t, t.TempDir(), addr)
	a.metric("alerts_sent_total", equal(kept))
	c.await("loss", func() bool { return len(c.states) > 0 && c.states[len(c.states)-1].LostAlerts == uint64(again) })
	source.drifts(t, 300)
	a.metric("alerts_sent_total", equal(kept+300))
	c.await("all", func() bool { return len(c.alerts) == kept+300 })
	seen := map[string]bool{}
	for _, one := range c.alerts {
		if seen[one.ID] {
			t.Errorf("alert %s came twice", one.ID)
		}
		seen[one.ID] = true
	}
	if err := a.end(); err != nil {
		t.Error(err)
	}
}

// TestRulesOnFullDisk: rules of the server are in force, and said to be, also when
// they cannot be kept for a start without it.
func TestRulesOnFullDisk(t *testing.T) {
	d := newDisk(t, "512k")
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	config := reporting(t, "nats://"+c.hub.Addr().String())
	config.Rules, config.Server.Dir = nil, d.dir
	a := alive(t, config, &tap{flow: make(chan []byte)})
	d.fill()
	rules := &bus.Rules{Files: []bus.RuleFile{{Name: "pushed.yaml", Data: []byte(intrusionRules)}}, Match: "all", Priority: "debug"}
	if err := bus.SendRules(t.Context(), c.js, rules); err != nil {
		t.Fatal(err)
	}
	c.await("rules", func() bool {
		n := len(c.states)
		return n > 0 && c.states[n-1].RulesHash == rules.Hash() && c.states[n-1].RulesError == ""
	})
	if err := a.end(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(config.keptRules() + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("%q are left, %v", left, err)
	}
}
