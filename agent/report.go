package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/fleet"
	"github.com/kubeguardian/kubeguardian/bus/spool"
)

// Server says which server an agent reports to, and how. Without a URL it reports
// to none.
type Server struct {
	// URL is tls://host:port of the server's bus, or nats://host:port on a loopback
	// address.
	URL string `yaml:"url"`
	// CAFile has the authority of the server's certificate in PEM. Empty stands for
	// those of the system.
	CAFile string `yaml:"caFile"`
	// TokenFile has the token that says who the agent is: of its ServiceAccount, or
	// of its host. CredentialsFile is for a NATS cluster of one's own.
	TokenFile       string `yaml:"tokenFile"`
	CredentialsFile string `yaml:"credentialsFile"`
	// Node is the name of the node. Empty stands for $NODE_NAME, else for the name
	// of the host.
	Node string `yaml:"node"`
	// Dir is where alerts wait until the server has them. They take at most
	// SpoolMiB, then the oldest are dropped.
	Dir      string `yaml:"dir"`
	SpoolMiB int    `yaml:"spoolMiB"`
	// Interval is how often the agent says how it is.
	Interval time.Duration `yaml:"interval"`
}

func (s *Server) endpoint() bus.Endpoint {
	return bus.Endpoint{URL: s.URL, CAFile: s.CAFile, TokenFile: s.TokenFile, CredentialsFile: s.CredentialsFile}
}

// node returns the name of the node.
func (s *Server) node() (string, error) {
	name := s.Node
	if name == "" {
		name = os.Getenv("NODE_NAME")
	}
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("find the name of the host: %w", err)
		}
		name = host
	}
	return name, bus.CheckNode(name)
}

func (c *Config) checkServer() error {
	s := &c.Server
	if s.URL == "" {
		return nil
	}
	if err := s.endpoint().Check(); err != nil {
		return err
	}
	for _, file := range []struct{ key, name string }{{"caFile", s.CAFile}, {"tokenFile", s.TokenFile}, {"credentialsFile", s.CredentialsFile}} {
		if err := absolute(file.name, ""); err != nil {
			return fmt.Errorf("%s: %w", file.key, err)
		}
	}
	if err := absolute(s.Dir); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	if s.Node != "" {
		if err := bus.CheckNode(s.Node); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	if s.SpoolMiB < 1 || s.SpoolMiB > 1<<16 {
		return fmt.Errorf("spoolMiB: want 1 to 65536, have %d", s.SpoolMiB)
	}
	if s.Interval < time.Second || s.Interval > 10*time.Minute {
		return fmt.Errorf("interval: want 1s to 10m, have %s", s.Interval)
	}
	return nil
}

// A reporter tells the server what the agent finds, and how it is.
type reporter struct {
	agent     *Agent
	node      string
	spool     *spool.Spool
	publisher *bus.Publisher
	conn      *nats.Conn
	kernel    string
	lost      uint64 // alerts, that were told of
	say       rate.Sometimes
	rules     atomic.Pointer[pushed]
	changed   chan struct{} // sent to when the server should hear of something at once
}

// newReporter opens the spool, and the connection to the server, which may be
// away.
func (a *Agent) newReporter() (*reporter, error) {
	c := &a.o.Config.Server
	r := &reporter{agent: a, say: rate.Sometimes{Interval: 10 * time.Second}, kernel: kernelRelease(), changed: make(chan struct{}, 1)}
	if a.kept != nil {
		r.rules.Store(&pushed{hash: a.kept.hash})
	}
	var err error
	if r.node, err = c.node(); err != nil {
		return nil, err
	}
	if r.spool, err = spool.Open(filepath.Join(c.Dir, "spool"), int64(c.SpoolMiB)<<20); err != nil {
		return nil, err
	}
	a.onStop("spool", r.spool.Close)
	r.publisher = bus.NewPublisher(r.node, r.spool, a.o.Log)
	if r.conn, err = c.endpoint().ConnectAgent(r.node, a.o.Log); err != nil {
		return nil, err
	}
	a.onStop("connection to the server", func() error { r.conn.Close(); return nil })
	r.lost = lostAlerts(r.publisher.Stats())
	a.status.lost.n = r.lost
	return r, nil
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// deliver puts an alert into the spool. One that does not fit is lost, and told
// of: the agent goes on.
func (r *reporter) deliver(a *alert.Alert) {
	if err := r.publisher.Publish(a); err != nil { // the log may be on the disk that is full
		r.say.Do(func() { r.agent.o.Log.Error("an alert is lost", "rule", a.Rule, "error", err) })
	}
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) {
	var following sync.WaitGroup
	following.Go(func() {
		if err := r.publisher.Run(ctx, r.conn); err != nil {
			r.agent.o.Log.Error("alerts are not sent", "error", err)
		}
	})
	if r.agent.o.Config.takesRules() {
		following.Go(func() { r.followRules(ctx) })
	}
	interval := r.agent.o.Config.Server.Interval
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		r.beat(ctx, false)
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-r.changed:
		}
	}
	following.Wait()
	r.beat(context.WithoutCancel(ctx), true)
}

// news has the server hear at once how the agent is.
func (r *reporter) news() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// beatTimeout bounds how long the state of the agent may be under way.
const beatTimeout = 5 * time.Second

// beat tells the server how the agent is, and the log of alerts that were lost.
// That nothing arrives is what the server notices.
func (r *reporter) beat(ctx context.Context, stopped bool) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	s := r.state()
	s.Stopped = stopped
	if s.LostAlerts > r.lost {
		r.agent.o.Log.Error("alerts are lost: the spool or its disk is full, or it is damaged", "alerts", s.LostAlerts-r.lost)
		r.lost = s.LostAlerts
	}
	if err := bus.SendState(ctx, r.conn, s); err != nil {
		r.agent.o.Log.Debug("tell the server how the agent is", "error", err)
	}
}

func lostAlerts(s bus.PublishStats) uint64 {
	return s.Refused + s.Spool.Dropped + s.Spool.Refused + s.Spool.Damaged
}

// state is what the agent says of itself.
func (r *reporter) state() *fleet.State {
	a := r.agent
	h, used, stats := a.status.state(), measure(a.o.Config.Proc), r.publisher.Stats()
	s := &fleet.State{
		Node: r.node, Version: a.o.Version, Time: time.Now(), Started: a.status.started, Interval: a.o.Config.Server.Interval,
		Kernel: r.kernel, Runtime: h.Runtime, Rules: h.Rules, NotCovered: h.NotCovered, Missing: map[string]string{}, Drift: h.Drift,
		Events: a.pipeline.records.Load(), Dropped: h.Dropped, Dropping: h.Dropping, DroppedTypes: h.DroppedTypes, Alerts: a.pipeline.alerts.Load(),
		Waiting: stats.Spool.Waiting, LostAlerts: lostAlerts(stats), CPUSeconds: used.cpu.Seconds(), MemoryBytes: used.memory,
	}
	if rules := r.rules.Load(); rules != nil {
		s.RulesHash = rules.hash
		if rules.err != nil {
			s.RulesError = clip(rules.err.Error())
		}
	}
	for _, f := range h.Features {
		if f.Reason != "" {
			s.Missing[f.Name] = f.Reason
		}
	}
	s.Problems, s.Misses = sentences(h.Problems), sentences(h.misses)
	return s
}

func sentences(texts []string) (out []string) {
	for _, t := range texts {
		out = append(out, strings.ToUpper(t[:1])+t[1:]+".")
	}
	return out
}

// clip keeps the begin of a text that may have many lines.
func clip(text string) string {
	const most = 1000
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// lateAfter is how long alerts may wait for the server until what they tell counts
// as missed: as old as the last sign of life of an agent may be.
const lateAfter = 15 * time.Minute

// note says what keeps alerts from the server.
func (r *reporter) note(now time.Time, h *health) {
	stats := r.publisher.Stats()
	if stats.Err != nil && !errors.Is(stats.Err, context.Canceled) {
		text := fmt.Sprintf("%d alerts wait for the server: %v", stats.Spool.Waiting, stats.Err)
		h.Problems = append(h.Problems, text)
		if !stats.Since.IsZero() && now.Sub(stats.Since) > lateAfter {
			h.misses = append(h.misses, text)
		}
	}
	if n := lostAlerts(stats); r.agent.status.lost.recent(n, now) {
		h.miss("%d alerts were lost: the spool or its disk was full, or it was damaged", n)
	}
}

// write writes the metrics of what goes to the server.
func (r *reporter) write(w io.Writer) {
	stats := r.publisher.Stats()
	connected := 0.0
	if r.conn.IsConnected() {
		connected = 1
	}
	gauge(w, "connected", "1 if there is a connection to the server", connected)
	counter(w, "alerts_sent_total", "alerts that the server has", float64(stats.Sent))
	counter(w, "alerts_lost_total", "alerts that the spool or its disk had no room for, or that were damaged in it", float64(lostAlerts(stats)))
	counter(w, "sends_failed_total", "times that sending was begun again", float64(stats.Failed))
	gauge(w, "alerts_waiting", "alerts in the spool", float64(stats.Spool.Waiting))
	gauge(w, "spool_bytes", "size of the spool on disk", float64(stats.Spool.Bytes))
}
