package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

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
	servers           []*replica
	primary, follower *postgrestest.Server
	manager           *postgrestest.Manager
	pooler            *postgrestest.Pool
	url               string // of the database
	receiver          *receiver
	before            map[string]string // groups of alerts that are stored before the others, by their ids
	stops             []func() error

	mu sync.Mutex // of what follows
	db *store.Store
}

// A replica is a server of KubeGuardian's.
type replica struct {
	process
	dir, web string
}

// start starts all, and returns when a replica leads. What it
// returns is to be stopped after an error, too.
func start(ctx context.Context, s settings) (*parts, error) {
	p := &parts{settings: s}
	steps := []func(context.Context) error{p.reachCluster, p.startDatabase, p.startBus, p.startReceiver, p.startServers}
	if s.single {
		steps = []func(context.Context) error{p.startReceiver, p.startSingle}
	}
	for _, step := range steps {
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

// startDatabase starts a primary, and, unless that is to be away, a standby that each
// commit waits for, what promotes the standby, and what leads to either.
func (p *parts) startDatabase(ctx context.Context) (err error) {
	if p.primary, err = postgrestest.Start(ctx, filepath.Join(p.dir, "primary"), postgrestest.Managed, "shared_buffers=256MB", "max_wal_size=1GB", "max_connections=150"); err != nil {
		return err
	}
	p.onStop(func() error { _ = p.primary.Kill(); return nil }) // it was, or has no more use
	if p.outage == 0 {
		err = p.startStandby(ctx)
	} else if p.url, err = p.primary.Create(ctx, "kubeguardian"); err == nil {
		p.onStop(p.closeDatabase)
		err = p.openDatabase(ctx)
	}
	return err
}

// startStandby starts what takes over from the primary.
func (p *parts) startStandby(ctx context.Context) (err error) {
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
	p.onStop(p.closeDatabase)
	return p.openDatabase(ctx)
}

// openDatabase connects this program to the database.
func (p *parts) openDatabase(ctx context.Context) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.db, err = store.Open(ctx, p.url)
	return err
}

func (p *parts) closeDatabase() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.db != nil {
		err = p.db.Close()
		p.db = nil
	}
	return err
}

// lastAlert returns the number of the last alert that is stored.
func (p *parts) lastAlert(ctx context.Context) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.db == nil {
		return 0, errors.New("the database is not open")
	}
	return p.db.LastAlert(ctx)
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
	url := filepath.Join(p.dir, "database-url")
	if err := os.WriteFile(url, []byte(p.url), 0o600); err != nil {
		return err
	}
	for i := range 2 {
		s, err := p.newServer(fmt.Sprint("server ", i), fmt.Sprintf("database: {urlFile: %q}\nbus: {maxMiB: 1024, external: {url: %q}}\n", url, p.busURL()))
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

// newServer returns a server that is not started, with more configuration.
func (p *parts) newServer(name, more string) (*replica, error) {
	s := &replica{dir: filepath.Join(p.dir, strings.ReplaceAll(name, " ", "-"))}
	var webhook string
	var err error
	if s.web, err = freePort(); err == nil {
		webhook, err = freePort()
	}
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`cluster: chaos
dataDir: %q
kubeconfig: %q
web: {listen: %q}
webhook: {listen: %q}
admission: {enabled: false}
detection: {heartbeat: 0s, cooldown: [{within: 0s}]}
notify:
  destinations:
  - {name: hook, type: webhook, minBackoff: 100ms, maxBackoff: 1s, config: {url: %q, http: {allowAddresses: [127.0.0.1]}}}
  routes:
  - {to: [hook], of: alerts, groupBy: [case], groupWait: 1s, groupWindow: 5s}
  - {to: [hook]}
`, s.dir, p.kubeconfig, s.web, webhook, p.receiver.url)
	config := s.dir + ".yaml"
	if err := os.WriteFile(config, []byte(text+more), 0o600); err != nil {
		return nil, err
	}
	s.name, s.args, s.log = name, []string{p.server, "serve", "--config", config}, s.dir+".log"
	return s, nil
}

func (s *replica) ready() bool { return s.answers("/readyz") }

// answers reports whether the server says yes.
func (s *replica) answers(path string) bool {
	resp, err := http.Get("http://" + s.web + path)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// leader returns the replica that holds the Lease.
func (p *parts) leader(ctx context.Context) (*replica, error) {
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
func (p *parts) kills(ctx context.Context) (faults []fault, err error) {
	if p.single {
		return nil, p.killSingle(ctx)
	}
	began, list := time.Now(), []func(context.Context) (fault, error){p.killLeader, p.killBus, p.killPrimary}
	if p.outage > 0 {
		list = []func(context.Context) (fault, error){p.stopPrimary}
	}
	if !p.kill {
		return nil, wait(ctx, time.Duration(len(list))*p.every)
	}
	for i, kill := range list {
		if err := wait(ctx, time.Until(began.Add(time.Duration(i+1)*p.every))); err != nil {
			return nil, err
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
	if err := wait(ctx, p.away); err != nil {
		return err
	}
	return one.start()
}

func (p *parts) killPrimary(context.Context) (fault, error) {
	return fault{name: "PostgreSQL's primary", at: time.Now()}, p.primary.Kill()
}

// A consumer of processor time is a process of a part.
type consumer struct {
	part     string
	pid      int
	sessions bool // its children belong to it
}

// consumers returns all processes that run.
func (p *parts) consumers() []consumer {
	out := []consumer{{part: "agents and receiver", pid: os.Getpid()}}
	if p.primary != nil {
		out = append(out, consumer{"primary", p.primary.PID(), true})
	}
	if p.follower != nil {
		out = append(out, consumer{"standby", p.follower.PID(), true})
	}
	if p.pooler != nil {
		out = append(out, consumer{"Pgpool-II", p.pooler.PID(), true})
	}
	list := []*process{}
	if p.bus != nil {
		list = append(list, p.bus)
	}
	for _, s := range p.servers {
		list = append(list, &s.process)
	}
	for _, one := range list {
		if pid := one.pid(); pid != 0 {
			out = append(out, consumer{part: one.name, pid: pid})
		}
	}
	return out
}
