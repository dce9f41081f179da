package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/hub"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/rule"
)

// A center is the server's end of the bus.
type center struct {
	t   *testing.T
	hub *hub.Hub
	js  jetstream.JetStream

	mu     sync.Mutex
	alerts []alert.Alert
	states []fleet.State
}

const hostToken = "0123456789abcdef"

func newCenter(t *testing.T, dir, listen string) *center {
	t.Helper()
	c := &center{t: t}
	log := slog.New(slog.DiscardHandler)
	var err error
	c.hub, err = hub.Start(hub.Options{Listen: listen, Dir: dir, Bytes: 64 << 20, Sync: time.Second, Log: log, Node: func(_ context.Context, token string) (string, error) {
		if token != hostToken {
			return "", errors.New("another token")
		}
		return "node-1", nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := c.hub.Connect()
	if err != nil {
		t.Fatal(err)
	}
	if c.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if err := bus.Prepare(t.Context(), c.js, bus.Bounds{AlertBytes: 64 << 20, StateAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = bus.NewConsumer(func(_ context.Context, batch []*bus.Message) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, m := range batch {
				c.alerts = append(c.alerts, m.Alert)
			}
			return nil
		}, log).Run(ctx, c.js)
	})
	running.Go(func() {
		_ = bus.FollowStates(ctx, c.js, func(s *fleet.State, _ time.Time) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.states = append(c.states, *s)
		}, func(subject string, err error) { t.Errorf("state in %s: %v", subject, err) })
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		nc.Close()
		c.hub.Stop()
	})
	return c
}

// await waits until what the center has is as wanted.
func (c *center) await(what string, is func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		done := is()
		c.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("no %s among alerts %+v, states %+v", what, c.alerts, c.states[max(len(c.states)-2, 0):])
		}
	}
}

func reporting(t *testing.T, url string) *Config {
	t.Helper()
	c := configOf(t, intrusionRules)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(hostToken), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Server = Server{URL: url, TokenFile: token, Node: "node-1", Dir: t.TempDir(), SpoolMiB: 1, Interval: time.Second}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return c
}

// report runs an agent over a recording until all of it was played and meanwhile
// returns.
func report(t *testing.T, c *Config, source *recording, meanwhile func(*Agent)) {
	t.Helper()
	a, err := New(Options{Config: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "1.2.3", Open: func([]string, rule.Needs, *Config) (Source, error) { return source, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-source.played
	if meanwhile != nil {
		meanwhile(a)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The server hears of what the agent finds, and how it is.
func TestReport(t *testing.T) {
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	source := intrusion(t)
	source.status.Counters, source.status.Dropped = map[string]uint64{"dropped": 7}, map[string]uint64{"openat": 7}
	source.status.Features = []Feature{{Name: "exec", Used: "tp_btf"}, {Name: "dns", Reason: "not supported"}, {Name: "enforce.lsm", Reason: "not permitted"}}
	report(t, reporting(t, "nats://"+c.hub.Addr().String()), source, func(a *Agent) {
		c.await("alerts", func() bool { return len(c.alerts) == 2 })
		c.await("state", func() bool { return len(c.states) > 0 && c.states[len(c.states)-1].Alerts == 2 })
	})
	for i, want := range []string{"Drift", "Shadow read"} {
		if a := c.alerts[i]; a.Rule != want || a.Hostname != "node-1" || a.Cluster != "" {
			t.Errorf("alert %d: %+v", i, a)
		}
	}
	if !slices.Contains(c.alerts[0].Tags, "drift") || slices.Contains(c.alerts[1].Tags, "drift") {
		t.Errorf("tags %q, %q", c.alerts[0].Tags, c.alerts[1].Tags)
	}
	c.await("farewell", func() bool { return c.states[len(c.states)-1].Stopped })
	s := c.states[len(c.states)-2]
	if !s.Dropping || s.Drift {
		t.Errorf("state %+v", s)
	}
	if s.Node != "node-1" || s.Version != "1.2.3" || s.Rules != 3 || s.Alerts != 2 || s.Events != 6 || s.Dropped != 7 || s.LostAlerts != 0 || s.Kernel == "" || s.MemoryBytes == 0 ||
		s.Missing["dns"] != "not supported" || len(s.NotCovered["Not seen"]) != 1 || !strings.Contains(strings.Join(s.Problems, "\n"), "7 events were dropped: 7 openat.") || s.DroppedTypes["openat"] != 7 {
		t.Errorf("state %+v", s)
	}
	if want := []string{"7 events were dropped: 7 openat.", "1 rules are not covered.", "The sensor lacks dns: not supported."}; !slices.Equal(s.Misses, want) || len(s.Problems) != 4 {
		t.Errorf("it misses %q of %q", s.Misses, s.Problems)
	}
}

// That there was no server is no problem once there is one, also if there is nothing
// to send; that alerts wait is more than that when they wait for long.
func TestNoServerForAWhile(t *testing.T) {
	probe := newCenter(t, t.TempDir(), "127.0.0.1:0")
	addr := probe.hub.Addr().String()
	probe.hub.Stop()
	late := func(problems []string) bool {
		return slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, "alerts wait for the server") })
	}
	report(t, reporting(t, "nats://"+addr), &recording{played: make(chan struct{})}, func(a *Agent) {
		waitFor(t, "a failure", func() (bool, int) { return late(a.status.state().Problems), 0 })
		if late(a.status.state().misses) {
			t.Error("it is late at once")
		}
		var h health
		since := a.reporter.publisher.Stats().Since
		if a.reporter.note(since.Add(lateAfter+time.Second), &h); !late(h.misses) || !late(h.Problems) {
			t.Errorf("after long: %+v", h)
		}
		c := newCenter(t, t.TempDir(), addr)
		c.await("state", func() bool { return len(c.states) > 0 && !late(c.states[len(c.states)-1].Problems) })
	})
}

// What an agent found while there was no server arrives later, even if the agent
// has ended meanwhile.
func TestReportLater(t *testing.T) {
	probe := newCenter(t, t.TempDir(), "127.0.0.1:0")
	addr := probe.hub.Addr().String()
	probe.hub.Stop()
	config := reporting(t, "nats://"+addr)
	report(t, config, intrusion(t), func(a *Agent) {
		if h := a.status.state(); h.Status != "degraded" || a.reporter.publisher.Stats().Spool.Waiting != 2 {
			t.Errorf("%+v, %+v", h, a.reporter.publisher.Stats())
		}
	})
	c := newCenter(t, t.TempDir(), addr)
	quiet := &recording{played: make(chan struct{})}
	report(t, config, quiet, func(*Agent) { c.await("alerts", func() bool { return len(c.alerts) == 2 }) })
}

// Rules of the server are put in force as they come. Bad ones are not, and the
// server hears why. The last good ones are there for a start without the server.
func TestRulesOfTheServer(t *testing.T) {
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	rules := func(text string) *bus.Rules {
		return &bus.Rules{Files: []bus.RuleFile{{Name: "pushed.yaml", Data: []byte(text)}}, Match: "all", Priority: "debug", Select: []bus.RuleSelection{{Rule: "Drift"}}}
	}
	give := func(r *bus.Rules) {
		if err := bus.SendRules(t.Context(), c.js, r); err != nil {
			t.Fatal(err)
		}
	}
	config := reporting(t, "nats://"+c.hub.Addr().String())
	config.Rules = nil
	good := rules(intrusionRules)
	report(t, config, &recording{played: make(chan struct{})}, func(a *Agent) {
		c.await("own rules", func() bool { return len(c.states) > 0 && c.states[0].RulesHash == "" && c.states[0].Rules > 50 })
		give(good)
		last := func() fleet.State { return c.states[len(c.states)-1] }
		c.await("rules in force", func() bool { return last().RulesHash == good.Hash() && last().Rules == 2 && last().RulesError == "" })
		give(rules("- rule: x\n  condition: nonsense\n"))
		c.await("refusal", func() bool {
			return last().RulesHash == good.Hash() && last().Rules == 2 && strings.Contains(last().RulesError, "pushed.yaml")
		})
	})
	c.await("farewell", func() bool { return c.states[len(c.states)-1].Stopped })
	addr := c.hub.Addr().String()
	c.hub.Stop()
	away := newCenter(t, t.TempDir(), addr)
	report(t, config, intrusion(t), func(*Agent) {
		away.await("alert", func() bool { return len(away.alerts) == 1 && away.alerts[0].Rule == "Shadow read" })
	})
	if err := os.WriteFile(config.keptRules(), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	report(t, config, &recording{played: make(chan struct{})}, func(a *Agent) {
		away.await("own rules", func() bool {
			s := away.states[len(away.states)-1]
			return s.RulesHash == "" && s.Rules > 50
		})
	})
}

// The server hears whether an agent would tell of programs that are not part of
// their image: only where all rules about these are in force and seen.
func TestReportsOfDrift(t *testing.T) {
	const (
		tagged = "- {rule: A, desc: x, condition: evt.type = execve and proc.is_exe_upper_layer = true, output: x, priority: WARNING, tags: [drift]}\n"
		memory = "- {rule: B, desc: x, condition: evt.type = execve and proc.is_exe_from_memfd = true, output: x, priority: NOTICE, tags: [drift]}\n"
		unseen = "- {rule: C, desc: x, condition: evt.type = read and proc.is_exe_upper_layer = true, output: x, priority: WARNING, tags: [drift]}\n"
		off    = "- {rule: D, desc: x, condition: evt.type = execve and proc.is_exe_upper_layer = true, output: x, priority: WARNING, tags: [drift], enabled: false}\n"
	)
	running := engine(t)
	for name, tt := range map[string]struct {
		rules, priority string
		dropped         uint64
		storage         string
		runtime         string
		want            bool
	}{
		"all in force":          {tagged + memory, "debug", 0, "overlay", running, true},
		"none":                  {intrusionRules, "debug", 0, "overlay", running, false},
		"one is not urgent":     {tagged + memory, "warning", 0, "overlay", running, false},
		"one is not covered":    {tagged + unseen, "debug", 0, "overlay", running, false},
		"one is off":            {tagged + off, "debug", 0, "overlay", running, false},
		"events were dropped":   {tagged, "debug", 1, "overlay", running, false},
		"one beside other ones": {intrusionRules + tagged, "debug", 0, "overlay", running, true},
		"storage of btrfs":      {tagged, "debug", 0, "btrfs", running, false},
		"nobody names pods":     {tagged, "debug", 0, "overlay", noRuntime, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCenter(t, t.TempDir(), "127.0.0.1:0")
			config := reporting(t, "nats://"+c.hub.Addr().String())
			config.Rules, config.Priority, config.Proc, config.CRI = []string{rulesFile(t, tt.rules)}, tt.priority, t.TempDir(), tt.runtime
			if err := os.Mkdir(filepath.Join(config.Proc, "1"), 0o755); err != nil {
				t.Fatal(err)
			}
			mount := fmt.Sprintf("731 29 0:60 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/a/rootfs rw,relatime shared:1 - %s overlay rw\n", tt.storage)
			if err := os.WriteFile(filepath.Join(config.Proc, "1", "mountinfo"), []byte(mount), 0o644); err != nil {
				t.Fatal(err)
			}
			source := intrusion(t)
			source.status.Counters = map[string]uint64{"dropped": tt.dropped}
			drift := false
			report(t, config, source, func(*Agent) {
				c.await("state", func() bool {
					if len(c.states) == 0 {
						return false
					}
					drift = c.states[0].Drift
					return true
				})
			})
			if drift != tt.want {
				t.Errorf("drift %v", drift)
			}
		})
	}
}

// An idle runtime has no containers.
type idle struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
}

func (idle) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "containerd"}, nil
}

func (idle) ListContainers(context.Context, *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return &cri.ListContainersResponse{}, nil
}

func (idle) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{}, nil
}

// engine runs an idle runtime and returns its socket.
func engine(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "cri.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, idle{})
	cri.RegisterImageServiceServer(server, idle{})
	go server.Serve(ln)
	t.Cleanup(server.Stop)
	return socket
}

// What is lost, or waits, on its way to the server may be about a program that is not
// part of its image.
func TestDriftThatDoesNotArrive(t *testing.T) {
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	config := reporting(t, "nats://"+c.hub.Addr().String())
	config.Rules = []string{rulesFile(t, "- {rule: A, desc: x, condition: evt.type = execve and proc.is_exe_upper_layer = true, output: x, priority: WARNING, tags: [drift]}\n")}
	config.CRI, config.Proc = engine(t), t.TempDir()
	if err := os.Mkdir(filepath.Join(config.Proc, "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := "731 29 0:60 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/a/rootfs rw,relatime shared:1 - overlay overlay rw\n"
	if err := os.WriteFile(filepath.Join(config.Proc, "1", "mountinfo"), []byte(mount), 0o644); err != nil {
		t.Fatal(err)
	}
	report(t, config, &recording{played: make(chan struct{})}, func(a *Agent) {
		if h := a.status.state(); !h.Drift {
			t.Errorf("at first: %+v", h)
		}
		a.reporter.deliver(&alert.Alert{ID: "large", Rule: "A", Output: strings.Repeat("x", bus.MaxMessage)})
		if h := a.status.state(); h.Drift || len(h.Problems) != 1 || !strings.Contains(h.Problems[0], "1 alerts were lost") {
			t.Errorf("an alert was lost: %+v", h)
		}
	})
}

// Only the roots of containers of the runtime say what these are on, all of them.
func TestOverlaid(t *testing.T) {
	const (
		root   = "731 29 0:60 / / rw,relatime - overlay overlay rw\n" // of a node that is a container
		etc    = "732 29 0:61 / /etc rw,relatime - overlay overlay rw\n"
		shm    = "733 29 0:62 / /run/containerd/io.containerd.grpc.v1.cri/sandboxes/a/shm rw,relatime - tmpfs shm rw\n"
		pod    = "734 29 0:63 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/a/rootfs rw,relatime shared:1 - overlay overlay rw\n"
		k3s    = "735 29 0:64 / /run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/b/rootfs rw,relatime - overlay overlay rw\n"
		zfs    = "736 29 0:65 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/c/rootfs rw,relatime shared:1 - zfs tank/snapshots/7 rw\n"
		fuse   = "737 29 0:66 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/d/rootfs rw,relatime shared:1 - fuse.fuse-overlayfs fuse-overlayfs rw\n"
		docker = "738 29 0:67 / /var/lib/docker/overlay2/e/merged rw,relatime shared:1 - overlay overlay rw\n"
		crio   = "739 29 0:68 / /var/lib/containers/storage/overlay/f/merged rw,relatime shared:1 - overlay overlay rw\n"
	)
	for name, tt := range map[string]struct {
		runtime, mounts string
		want            bool
	}{
		"a pod":                          {"containerd", root + shm + pod, true},
		"pods of k3s":                    {"containerd", pod + k3s, true},
		"CRI-O":                          {"cri-o", crio, true},
		"Docker":                         {"docker", docker, true},
		"a runtime that has not spoken":  {"", pod, true},
		"a node that is a container":     {"containerd", root + etc + shm, false},
		"one of two pods":                {"containerd", pod + zfs, false},
		"an overlay that is none":        {"containerd", pod + fuse, false},
		"another runtime beside its own": {"containerd", docker + crio + zfs, false},
		"another runtime alone":          {"cri-o", docker + pod, false},
		"nothing":                        {"containerd", "\n- \n1 2 3 4 /a -\n", false},
	} {
		proc := t.TempDir()
		if err := os.Mkdir(filepath.Join(proc, "1"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, "1", "mountinfo"), []byte(tt.mounts), 0o644); err != nil {
			t.Fatal(err)
		}
		if have := overlaid(proc, tt.runtime); have != tt.want {
			t.Errorf("%s: %v", name, have)
		}
	}
}

// That something was lost is a problem for an hour from the last time on.
func TestLosses(t *testing.T) {
	var l losses
	now := time.Unix(0, 0)
	for i, step := range []struct {
		passed time.Duration
		n      uint64
		want   bool
	}{{0, 0, false}, {time.Second, 2, true}, {59 * time.Minute, 2, true}, {2 * time.Minute, 2, false}, {0, 3, true}, {lately, 3, false}} {
		now = now.Add(step.passed)
		if got := l.recent(step.n, now); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// What was lost before the agent began was told of then, and is no problem of now.
func TestLossesBeforeTheStart(t *testing.T) {
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	config := reporting(t, "nats://"+c.hub.Addr().String())
	full, err := spool.Open(filepath.Join(config.Server.Dir, "spool"), spool.MinBytes)
	if err != nil {
		t.Fatal(err)
	}
	for full.Stats().Dropped == 0 {
		if err := full.Append(make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	report(t, config, &recording{played: make(chan struct{})}, func(a *Agent) {
		lost := func(p string) bool { return strings.Contains(p, "alerts were lost") }
		if h := a.status.state(); slices.ContainsFunc(h.Problems, lost) {
			t.Errorf("of an earlier run: %q", h.Problems)
		}
		a.reporter.deliver(&alert.Alert{Rule: "x", Output: strings.Repeat("x", bus.MaxMessage)})
		if h := a.status.state(); !slices.ContainsFunc(h.Problems, lost) {
			t.Errorf("of now: %q", h.Problems)
		}
	})
}

// Commands that enter containers are told whatever other rule matches.
func TestEntrance(t *testing.T) {
	c := newCenter(t, t.TempDir(), "127.0.0.1:0")
	config := reporting(t, "nats://"+c.hub.Addr().String())
	config.Rules = []string{rulesFile(t, intrusionRules+`
- rule: Command entered a container
  desc: x
  condition: evt.type = execve and proc.is_exe_upper_layer = true
  output: entered
  priority: INFORMATIONAL
  enabled: false
`)}
	report(t, config, intrusion(t), func(*Agent) {
		c.await("alerts", func() bool { return len(c.alerts) == 3 })
	})
	if c.alerts[0].Rule != "Drift" || c.alerts[1].Rule != "Command entered a container" || c.alerts[2].Rule != "Shadow read" {
		t.Errorf("%+v", c.alerts)
	}
}
