// Package bus has the tests of what goes from agents to a server through the bus,
// with real processes.
package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/server"
	"github.com/kubeguardian/kubeguardian/store"
)

// TestMain is a server in the processes that the tests start.
func TestMain(m *testing.M) {
	file := os.Getenv("KUBEGUARDIAN_TEST_SERVER")
	if file == "" {
		os.Exit(m.Run())
	}
	if err := serve(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(file string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// An API server that shows nothing.
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api":
			fmt.Fprint(w, `{"kind":"APIVersions","versions":["v1"]}`)
		case "/apis":
			fmt.Fprint(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`)
		case "/api/v1":
			fmt.Fprint(w, `{"kind":"APIResourceList","groupVersion":"v1","resources":[]}`)
		default:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
		}
	}))
	defer api.Close()
	cluster := &rest.Config{Host: api.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	s, err := server.New(ctx, server.Options{Config: cfg, Cluster: cluster, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "test"})
	if err != nil {
		return err
	}
	err = s.Run(ctx)
	if stopErr := s.Stop(); err == nil {
		err = stopErr
	}
	return err
}

// A served is a server in a process of its own, that can be killed and started
// again.
type served struct {
	t    *testing.T
	dir  string
	file string
	addr string // of its bus
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// free returns an address on which nobody listens. Its port is none of those that
// the kernel gives to whoever asks for any, so that it stays free while a server is
// started again.
func free(t *testing.T) string {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 15_000+rand.IntN(15_000)))
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
		case err != nil:
			t.Fatal(err)
		default:
			defer ln.Close()
			return ln.Addr().String()
		}
	}
}

// token is that of a node.
func token(node string) string { return strings.Repeat(node, 20) }

func newServed(t *testing.T, nodes ...string) *served {
	t.Helper()
	s := &served{t: t, dir: t.TempDir(), addr: free(t)}
	var hosts strings.Builder
	for _, n := range nodes {
		fmt.Fprintln(&hosts, n, token(n))
	}
	s.file = s.write("config.yaml", fmt.Sprintf("cluster: test\ndataDir: %s\nweb: {listen: '127.0.0.1:0'}\nwebhook: {listen: '127.0.0.1:0'}\nadmission: {enabled: false}\ndetection: {heartbeat: 0s, cooldown: [{within: 0s}]}\nbus: {listen: %q, hostTokens: %q}\n",
		filepath.Join(s.dir, "data"), s.addr, s.write("hosts", hosts.String())))
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	return s
}

func (s *served) write(name, text string) string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *served) start() {
	s.t.Helper()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), "KUBEGUARDIAN_TEST_SERVER="+s.file)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// end ends the server in good order.
func (s *served) end() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server ended: %v", err)
	}
	s.cmd = nil
}

// stored returns how often each alert is in the store of the server.
func (s *served) stored() map[string]int {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), filepath.Join(s.dir, "data", "kubeguardian.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	out := map[string]int{}
	for seq := int64(0); ; {
		records, last, err := db.AlertsAfter(s.t.Context(), seq, alert.Query{Limit: 1000})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(records) == 0 {
			return out
		}
		for _, r := range records {
			out[r.ID]++
		}
		seq = last
	}
}

// A sender is the part of an agent that sends its alerts.
type sender struct {
	node string
	*bus.Publisher
	stop func()
}

func newSender(t *testing.T, addr, node, dir string) *sender {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token(node)), 0o600); err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(dir, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := bus.Endpoint{URL: "nats://" + addr, TokenFile: file}.ConnectAgent(node, log)
	if err != nil {
		t.Fatal(err)
	}
	s := &sender{node: node, Publisher: bus.NewPublisher(node, sp, log)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx, nc); err != nil {
			t.Error(err)
		}
	})
	s.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		nc.Close()
		if err := sp.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *sender) alert(i int) alert.Alert {
	text := fmt.Sprintf("%s/%d", s.node, i)
	return alert.Alert{
		ID: alert.NewID(event.Syscall, text, "Shell"), Time: time.Now(), Rule: "Shell", Priority: alert.Warning, Source: event.Syscall, Hostname: s.node,
		Output:       "12:00:00.000000000: Warning A shell was started in a container (command=sh -c id " + text + " parent=runc container=3f2a9c01d7be image=shop/web pod=web namespace=shop)",
		OutputFields: map[string]any{"proc.cmdline": "sh -c id " + text, "evt.time": time.Now().UnixNano(), "container.id": "3f2a9c01d7be", "k8s.pod.name": "web", "k8s.ns.name": "shop"},
		Tags:         []string{"container", "mitre_execution", "T1059"}, Tactics: []string{"execution"},
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web"},
	}
}

// send sends so many alerts at a rate and returns their ids, as the server knows
// them.
func (s *sender) send(t *testing.T, n, perSecond int) []string {
	ids := make([]string, 0, n)
	begin := time.Now()
	for i := range n {
		if ahead := time.Duration(i)*time.Second/time.Duration(perSecond) - time.Since(begin); ahead > 5*time.Millisecond {
			time.Sleep(ahead)
		}
		a := s.alert(i)
		if err := s.Publish(&a); err != nil {
			t.Error(err)
		}
		ids = append(ids, bus.ID(s.node, a))
	}
	return ids
}

// standstill is how long nothing may move before a test fails: how fast it moves
// is the machine's affair.
const standstill = time.Minute

// progress waits until so many are there of what have counts, and fails when there
// are no more for a while.
func progress(t *testing.T, what string, want int, have func() int) {
	t.Helper()
	last, moved := have(), time.Now()
	for last < want {
		time.Sleep(50 * time.Millisecond)
		switch n := have(); {
		case n != last:
			last, moved = n, time.Now()
		case time.Since(moved) > standstill:
			t.Fatalf("%s: %d of %d, and no more within %s", what, n, want, standstill)
		}
	}
}

// drained waits until the bus has all the alerts that were sent.
func (s *sender) drained(t *testing.T, sent int) {
	t.Helper()
	progress(t, "alerts of "+s.node+" on the bus", sent, func() int { return sent - int(s.Stats().Spool.Waiting) })
}

// await waits until the server has stored what the bus has.
func (s *served) await(want int) {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), filepath.Join(s.dir, "data", "kubeguardian.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	progress(s.t, "alerts stored", want, func() int {
		c, err := db.Counts(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return c.Alerts
	})
}

// TestKilledServer kills the server again and again while agents send alerts.
// None is lost, and none is there twice.
func TestKilledServer(t *testing.T) {
	const nodes, rate = 4, 1250
	each, kills := 5000, 5
	if testing.Short() {
		each, kills = 1000, 2
	}
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprint("node-", i))
	}
	s := newServed(t, names...)
	s.start()
	var sending sync.WaitGroup
	ids := make([][]string, nodes)
	senders := make([]*sender, nodes)
	begin := time.Now()
	for i, name := range names {
		senders[i] = newSender(t, s.addr, name, t.TempDir())
		sending.Go(func() { ids[i] = senders[i].send(t, each, rate) })
	}
	for k := range kills {
		progress(t, "alerts on the bus", (k+1)*nodes*each/(kills+1), func() (sent int) {
			for _, sd := range senders {
				sent += int(sd.Stats().Sent)
			}
			return sent
		})
		s.kill()
		s.start()
	}
	sending.Wait()
	for _, sd := range senders {
		sd.drained(t, each)
	}
	took := time.Since(begin)
	s.await(nodes * each)
	stored := s.stored()
	for i := range names {
		for _, id := range ids[i] {
			if stored[id] != 1 {
				t.Fatalf("an alert of %s is stored %d times", names[i], stored[id])
			}
			delete(stored, id)
		}
	}
	if len(stored) > 0 {
		t.Errorf("%d alerts are stored that nobody sent", len(stored))
	}
	s.end()
	var failed uint64
	for _, sd := range senders {
		failed += sd.Stats().Failed
	}
	t.Logf("%d alerts sent and stored over %d kills of the server, %.0f/s; sending was begun again %d times", nodes*each, kills, float64(nodes*each)/took.Seconds(), failed)
}

// TestSpoolOutlastsBoth has the agent end while the server is away.
func TestSpoolOutlastsBoth(t *testing.T) {
	s := newServed(t, "n1")
	dir := t.TempDir()
	first := newSender(t, s.addr, "n1", dir)
	ids := first.send(t, 500, 100_000)
	first.stop()
	second := newSender(t, s.addr, "n1", dir)
	s.start()
	second.drained(t, len(ids))
	s.await(len(ids))
	for _, id := range ids {
		if n := s.stored()[id]; n != 1 {
			t.Fatalf("an alert is stored %d times", n)
		}
	}
	s.end()
}
