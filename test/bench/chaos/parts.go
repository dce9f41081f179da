package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

const (
	namespace = "kubeguardian"
	lease     = "kubeguardian-leader"
	standby   = "standby" // what its primary knows it by
)

// parts are all that runs besides the agents.
type parts struct {
	settings
	client            kubernetes.Interface
	busAddr           string
	bus               *process
	servers           []*server
	primary, follower *postgrestest.Server
	manager           *postgrestest.Manager
	pooler            *postgrestest.Pool
	url               string // of the database
	db                *store.Store
	receiver          *receiver
	stops             []func() error
}

// A server is a replica of KubeGuardian's.
type server struct {
	process
	dir, web string
}

// start starts all, and returns when a replica leads. What it
// returns is to be stopped after an error, too.
func start(ctx context.Context, s settings) (*parts, error) {
	p := &parts{settings: s}
	for _, step := range []func(context.Context) error{p.reachCluster, p.startDatabase, p.startBus, p.startReceiver, p.startServers} {
		if err := step(ctx); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *parts) onStop(f func() error) { p.stops = append(p.stops, f) }

func (p *parts) stop() error {
	var errs []error
	for i := len(p.stops) - 1; i >= 0; i-- {
		errs = append(errs, p.stops[i]())
	}
	return errors.Join(errs...)
}

func (p *parts) reachCluster(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	if p.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	_, err = p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", namespace, err)
	}
	return nil
}

// startDatabase starts a primary and a standby that each commit waits for, what
// promotes the standby, and what leads to either.
func (p *parts) startDatabase(ctx context.Context) (err error) {
	if p.primary, err = postgrestest.Start(ctx, filepath.Join(p.dir, "primary"), postgrestest.Managed, "shared_buffers=256MB", "max_wal_size=1GB", "max_connections=150"); err != nil {
		return err
	}
	p.onStop(func() error { _ = p.primary.Kill(); return nil }) // it was, or has no more use
	if p.follower, err = p.primary.Standby(ctx, filepath.Join(p.dir, "standby"), standby); err != nil {
		return err
	}
	p.onStop(p.follower.Kill)
	if p.manager, err = postgrestest.Manage(ctx, p.primary, p.follower, standby); err != nil {
		return err
	}
	p.onStop(func() error { return os.WriteFile(filepath.Join(p.dir, "repmgr.log"), []byte(p.manager.Stop()), 0o600) })
	err = p.primary.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '"+standby+"'", "SELECT pg_reload_conf()", "CREATE DATABASE kubeguardian")
	if err != nil {
		return err
	}
	p.url = fmt.Sprintf("postgresql://kubeguardian:%s@127.0.0.1:%d,127.0.0.1:%d/kubeguardian?target_session_attrs=read-write", postgrestest.Password, p.primary.Port, p.follower.Port)
	if p.pool {
		if p.pooler, err = postgrestest.StartPool(ctx, filepath.Join(p.dir, "pool"), p.primary, p.follower); err != nil {
			return err
		}
		p.onStop(p.pooler.Stop)
		p.url = p.pooler.URL("kubeguardian")
	}
	if p.db, err = store.Open(ctx, p.url); err != nil {
		return err
	}
	p.onStop(p.db.Close)
	return nil
}

func (p *parts) startBus(context.Context) (err error) {
	if p.busAddr, err = freePort(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p.bus = &process{name: "the bus", args: []string{self, "-bus", filepath.Join(p.dir, "bus"), "-listen", p.busAddr}, log: filepath.Join(p.dir, "bus.log")}
	p.onStop(p.bus.kill)
	return p.bus.start()
}

func (p *parts) busURL() string { return "nats://" + p.busAddr }

func (p *parts) startReceiver(context.Context) (err error) {
	if p.receiver, err = startReceiver(); err != nil {
		return err
	}
	p.onStop(p.receiver.server.Close)
	return nil
}

func (p *parts) startServers(ctx context.Context) error {
	for i := range 2 {
		s, err := p.newServer(i)
		if err != nil {
			return err
		}
		p.servers = append(p.servers, s)
		p.onStop(s.kill)
		if err := s.start(); err != nil {
			return err
		}
	}
	err := progress(ctx, "no replica leads", func() (bool, uint64, error) {
		ready := uint64(0)
		for _, s := range p.servers {
			if s.ready() {
				ready++
			}
		}
		_, err := p.leader(ctx)
		return err == nil && ready == 2, ready, err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.servers[0].tail())
	}
	return nil
}

func (p *parts) newServer(i int) (*server, error) {
	s := &server{dir: filepath.Join(p.dir, fmt.Sprint("server-", i))}
	var webhook string
	var err error
	if s.web, err = freePort(); err == nil {
		webhook, err = freePort()
	}
	if err != nil {
		return nil, err
	}
	url, config := filepath.Join(p.dir, "database-url"), s.dir+".yaml"
	text := fmt.Sprintf(`cluster: chaos
dataDir: %q
kubeconfig: %q
web: {listen: %q}
webhook: {listen: %q}
admission: {enabled: false}
detection: {heartbeat: 0s, cooldown: [{within: 0s}]}
database: {urlFile: %q}
bus: {maxMiB: 1024, external: {url: %q}}
notify:
  destinations:
  - {name: hook, type: webhook, minBackoff: 100ms, maxBackoff: 1s, config: {url: %q, http: {allowAddresses: [127.0.0.1]}}}
  routes:
  - {to: [hook], of: alerts, groupBy: [case], groupWait: 1s, groupWindow: 5s}
  - {to: [hook]}
`, s.dir, p.kubeconfig, s.web, webhook, url, p.busURL(), p.receiver.url)
	if err := errors.Join(os.WriteFile(url, []byte(p.url), 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		return nil, err
	}
	s.name, s.args, s.log = fmt.Sprint("server ", i), []string{p.server, "serve", "--config", config}, s.dir+".log"
	return s, nil
}

func (s *server) ready() bool {
	resp, err := http.Get("http://" + s.web + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// leader returns the replica that holds the Lease.
func (p *parts) leader(ctx context.Context) (*server, error) {
	l, err := p.client.CoordinationV1().Leases(namespace).Get(ctx, lease, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, s := range p.servers {
		name, err := os.ReadFile(filepath.Join(s.dir, "replica"))
		if err != nil {
			return nil, err
		}
		if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == strings.TrimSpace(string(name)) {
			return s, nil
		}
	}
	return nil, errors.New("no replica leads")
}

// kills kills one part after the other, and starts again what nothing else takes
// the place of.
func (p *parts) kills(ctx context.Context, began time.Time) (faults []fault, err error) {
	if !p.kill {
		return nil, nil
	}
	for i, kill := range []func(context.Context) (fault, error){p.killLeader, p.killBus, p.killPrimary} {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Until(began.Add(time.Duration(i+1) * p.every))):
		}
		f, err := kill(ctx)
		if err != nil {
			return nil, fmt.Errorf("kill %s: %w", f.name, err)
		}
		faults = append(faults, f)
	}
	return faults, nil
}

func (p *parts) killLeader(ctx context.Context) (fault, error) {
	f := fault{name: "the server that leads"}
	s, err := p.leader(ctx)
	if err != nil {
		return f, err
	}
	f.at = time.Now()
	if err := s.kill(); err != nil {
		return f, err
	}
	err = progress(ctx, "no other replica leads", func() (bool, uint64, error) {
		now, err := p.leader(ctx)
		return err == nil && now != s, 0, err
	})
	f.note = fmt.Sprintf("; the other replica led after %s", time.Since(f.at).Round(sampleEvery))
	return f, errors.Join(err, s.start())
}

func (p *parts) killBus(ctx context.Context) (fault, error) {
	f := fault{name: "the bus", at: time.Now()}
	return f, p.replace(ctx, p.bus)
}

func (p *parts) replace(ctx context.Context, one *process) error {
	if err := one.kill(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(p.away):
		return one.start()
	}
}

func (p *parts) killPrimary(context.Context) (fault, error) {
	return fault{name: "PostgreSQL's primary", at: time.Now()}, p.primary.Kill()
}

// settle waits until all that was raised is stored, joined and told of.
func (p *parts) settle(ctx context.Context, w *watcher, raised int) error {
	err := progress(ctx, "no more alerts are stored", func() (bool, uint64, error) {
		c, err := p.db.Counts(ctx)
		return err == nil && c.Alerts >= raised, uint64(c.Alerts), err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.servers[0].tail())
	}
	w.mu.Lock()
	behind := time.Now()
	w.mu.Unlock()
	err = progress(ctx, "no more messages are made", func() (bool, uint64, error) {
		last, err := p.db.LastAlert(ctx)
		if err != nil {
			return false, 0, err
		}
		notified, _, _, err := p.db.Notified(ctx)
		return err == nil && notified == last, uint64(notified), err
	})
	if err != nil {
		return err
	}
	fmt.Printf("messages   were made of all %s after the last alert was stored\n", time.Since(behind).Round(100*time.Millisecond))
	return progress(ctx, "no more messages are delivered", func() (bool, uint64, error) {
		standings, err := p.db.Standings(ctx)
		return err == nil && standings["hook"].Waiting == 0, p.receiver.taken(), err
	})
}

// compare holds what is stored, and what was told, against what was raised in some
// time, and stored until it ended.
func (p *parts) compare(ctx context.Context, raised map[string]string, began, ended time.Time, took time.Duration) error {
	stored := map[string]int{}
	for seq := int64(0); ; {
		records, last, err := p.db.AlertsAfter(ctx, seq, alert.Query{Limit: 1000})
		if err != nil {
			return err
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			stored[r.ID]++
		}
		seq = last
	}
	lost, twice, foreign := 0, 0, 0
	for id, n := range stored {
		if _, ours := raised[id]; !ours {
			foreign++
		}
		twice += n - 1
	}
	for id := range raised {
		if stored[id] == 0 {
			lost++
		}
	}
	fmt.Printf("stored     %d alerts, %.0f each second; the last %s after it was raised\n", len(stored), float64(len(stored))/ended.Sub(began).Seconds(), max(0, ended.Sub(began)-took).Round(100*time.Millisecond))
	fmt.Printf("lost       %d; stored twice %d, that nobody raised %d\n", lost, twice, foreign)
	err := p.receiver.compare(raised)
	if lost+twice+foreign > 0 {
		err = errors.Join(fmt.Errorf("%d alerts were raised and %d are stored", len(raised), len(stored)), err)
	}
	return err
}

// A consumer of processor time is a process of a part.
type consumer struct {
	part     string
	pid      int
	sessions bool // its children belong to it
}

// consumers returns all processes that run.
func (p *parts) consumers() []consumer {
	out := []consumer{{part: "agents and receiver", pid: os.Getpid()}, {"primary", p.primary.PID(), true}, {"standby", p.follower.PID(), true}}
	if p.pooler != nil {
		out = append(out, consumer{"Pgpool-II", p.pooler.PID(), true})
	}
	for _, one := range []*process{p.bus, &p.servers[0].process, &p.servers[1].process} {
		if pid := one.pid(); pid != 0 {
			out = append(out, consumer{part: one.name, pid: pid})
		}
	}
	return out
}
