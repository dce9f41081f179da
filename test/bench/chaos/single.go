package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
)

// startSingle starts one server as it is by default, beside a cluster that never
// answers.
func (p *parts) startSingle(ctx context.Context) (err error) {
	if err := p.startSilentCluster(); err != nil {
		return err
	}
	if p.busAddr, err = freePort(); err != nil {
		return err
	}
	var tokens strings.Builder
	for i := range p.agents {
		fmt.Fprintln(&tokens, nodeName(i), tokenOf(nodeName(i)))
	}
	file := filepath.Join(p.dir, "host-tokens")
	if err := os.WriteFile(file, []byte(tokens.String()), 0o600); err != nil {
		return err
	}
	s, err := p.newServer("server", fmt.Sprintf("retention: {records: %d}\nbus: {listen: %q, hostTokens: %q}\n", p.settings.before, p.busAddr, file))
	if err != nil {
		return err
	}
	p.servers, p.url = []*replica{s}, filepath.Join(s.dir, "kubeguardian.db")
	p.onStop(s.kill)
	if err := p.fill(ctx, s.dir); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	p.onStop(p.closeDatabase)
	_, err = p.awaitSingle(ctx)
	return err
}

// fill makes the database of the server, with alerts that it has still to tell of.
func (p *parts) fill(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := p.openDatabase(ctx); err != nil {
		return err
	}
	p.before = map[string]string{}
	for i := 0; i < p.settings.before; {
		var batch []alert.Alert
		for ; i < p.settings.before && len(batch) < 500; i++ {
			group := fmt.Sprint("case-", i%p.groups)
			one := newAlert("before", i, group, p.priority())
			p.before[one.ID] = group
			batch = append(batch, one)
		}
		if _, err := p.db.AddAlerts(ctx, batch); err != nil {
			return err
		}
	}
	return p.closeDatabase()
}

// startSilentCluster listens as an API server that never answers does.
func (p *parts) startSilentCluster() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.onStop(ln.Close)
	p.kubeconfig = filepath.Join(p.dir, "kubeconfig")
	return os.WriteFile(p.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: silent
contexts: [{name: silent, context: {cluster: silent, user: nobody}}]
clusters: [{name: silent, cluster: {server: "http://%s"}}]
users: [{name: nobody, user: {}}]
`, ln.Addr()), 0o600)
}

// awaitSingle waits until the server answers, and looks into its database from then
// on.
func (p *parts) awaitSingle(ctx context.Context) (took time.Duration, err error) {
	s, began := p.servers[0], time.Now()
	err = progress(ctx, "the server does not start", func() (bool, uint64, error) { return s.answers("/healthz"), 0, nil })
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, s.tail())
	}
	return time.Since(began), p.openDatabase(ctx)
}

// killSingle kills the server again and again, each third time while it starts, and
// each third time just after that.
func (p *parts) killSingle(ctx context.Context) error {
	if !p.kill {
		return wait(ctx, time.Duration(p.times)*p.every)
	}
	chance := rand.New(rand.NewPCG(p.seed, 0))
	fmt.Printf("chances    are those of -seed %d\n", p.seed)
	starting := time.Second
	var after []string
	for i := range p.times {
		most := []time.Duration{p.every, starting, time.Second}[i%3]
		delay := time.Duration(chance.Int64N(int64(most)))
		after = append(after, delay.Round(time.Millisecond).String())
		if err := wait(ctx, delay); err != nil {
			return err
		}
		if err := p.killOnce(); err != nil {
			return err
		}
		if i%3 == 0 { // the next is to come while it starts
			continue
		}
		took, err := p.awaitSingle(ctx)
		if err != nil {
			return err
		}
		starting = took
	}
	if p.times%3 == 1 {
		if _, err := p.awaitSingle(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("killed     the server %d times, in turn while it worked, started, and had started, after %s; it starts in %s\n", p.times, strings.Join(after, ", "), starting.Round(time.Millisecond))
	return nil
}

// killOnce kills the server, while nobody else has its database open, and starts it
// again.
func (p *parts) killOnce() error {
	s := p.servers[0]
	return errors.Join(p.closeDatabase(), s.kill(), s.start())
}
