package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A PoolConfig says how Pgpool-II leads clients to the primary.
type PoolConfig struct {
	Listen      string // address; "*" for all
	Port        int
	Health      string // address for probes, HTTP without TLS
	RunDir      string // for sockets and generated configuration, passwords included
	IdentityDir string // certificate of pool for the host that clients ask for, its key, and whom to trust
	Nodes       []Peer
	NodePort    int               // of PostgreSQL
	StatusPort  int               // of the supervisors
	Databases   map[string]string // names, which are also those of the roles, and password files
}

// lostAfter is how long Pgpool-II may fail to lead to a primary that is there.
const lostAfter = 4 * time.Second

// RunPool runs Pgpool-II until the context ends. Pgpool-II that finds no node
// when it starts never takes one back, and at times it stays with a node that is
// no longer primary: so it is started when there is a primary, and again when it
// does not lead there, or when a certificate or password is another one.
func RunPool(ctx context.Context, c PoolConfig, log *slog.Logger) error {
	own, err := identity.Open(c.IdentityDir, log)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.RunDir, 0o700); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		listener, err := c.listen(n)
		if err != nil {
			return err
		}
		f := &forwarder{own, n.Host, net.JoinHostPort(n.Host, fmt.Sprint(c.NodePort)), log}
		go f.serve(ctx, listener)
	}
	p := &front{c, own, newObserver(own, c.StatusPort, c.Nodes), log}
	health, err := serveHealth(c.Health, p.leads, log)
	if err != nil {
		return err
	}
	defer health.Close()
	for ctx.Err() == nil {
		if p.nodes.look(ctx).primary != nil {
			if err := p.run(ctx); err != nil && ctx.Err() == nil {
				log.Error("Pgpool-II ended", "error", err)
			}
		}
		pause(ctx, 200*time.Millisecond)
	}
	return nil
}

// socket is the folder of the socket that leads to a node.
func (c PoolConfig) socket(n Peer) string { return filepath.Join(c.RunDir, n.Name) }

// listen opens the socket that leads to a node.
func (c PoolConfig) listen(n Peer) (net.Listener, error) {
	path := filepath.Join(c.socket(n), fmt.Sprintf(".s.PGSQL.%d", c.NodePort))
	if err := os.MkdirAll(c.socket(n), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

// A front is a running Pgpool-II.
type front struct {
	PoolConfig
	own   *identity.Identity
	nodes observer
	log   *slog.Logger
}

// run runs Pgpool-II until it ends, has to be started again, or the context ends.
func (p *front) run(ctx context.Context) error {
	passwords, err := p.passwords()
	if err != nil {
		return err
	}
	if err := p.write(passwords); err != nil {
		return err
	}
	// #nosec G204 -- files of our own
	cmd := exec.Command("pgpool", "-n", "-D", "-f", p.file("pgpool.conf"), "-a", p.file("pool_hba.conf"), "-F", p.file("pcp.conf"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	svid, _ := p.own.GetX509SVID() // never fails
	var lost watch
	for {
		select {
		case err := <-ended:
			return errors.Join(err, kill(cmd))
		case <-ctx.Done():
			return end(cmd, ended)
		case <-time.After(500 * time.Millisecond):
		}
		now := time.Now()
		if lost.lasts(p.nodes.look(ctx).primary != nil && p.leads(ctx) != nil, now) > lostAfter {
			p.log.Warn("Pgpool-II does not lead to the primary: starting it again")
			return end(cmd, ended)
		}
		current, err := p.passwords()
		if renewed, _ := p.own.GetX509SVID(); renewed != svid || err == nil && current != passwords {
			p.log.Info("other certificates or passwords: starting Pgpool-II again")
			return end(cmd, ended)
		}
	}
}

// end ends Pgpool-II with all its processes: at once, but so that it gives back
// its shared memory, if it still can.
func end(cmd *exec.Cmd, ended chan error) error {
	_ = cmd.Process.Signal(syscall.SIGQUIT) // has ended already, then
	select {
	case <-ended:
	case <-time.After(2 * time.Second):
	}
	return kill(cmd)
}

// kill kills what is left of a process group.
func kill(leader *exec.Cmd) error {
	if err := syscall.Kill(-leader.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// leads connects through Pgpool-II and says what is wrong, unless it comes to a
// node that takes writes.
func (p *front) leads(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", p.RunDir, p.Port, watcher))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()", pgx.QueryExecModeSimpleProtocol).Scan(&standby); err != nil {
		return err
	}
	if standby {
		return errors.New("it leads to a standby")
	}
	return nil
}

func (p *front) file(name string) string { return filepath.Join(p.RunDir, name) }

// write writes its configuration.
func (p *front) write(passwords string) error {
	for name, text := range map[string]string{
		"pgpool.conf":   p.text(),
		"pool_hba.conf": "local postgres " + watcher + " trust\nhostssl all all all scram-sha-256\n",
		"pcp.conf":      "",
		"pool_passwd":   passwords,
	} {
		if err := os.WriteFile(p.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// What an earlier one knew about the nodes, and that it ran.
	for _, name := range []string{"pgpool_status", "pgpool.pid"} {
		if err := os.Remove(p.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// text returns its settings. It sends everything to the primary, because an
// application wants to read what it has just written. It promotes nobody: repmgr
// does.
func (p *front) text() string {
	var conf strings.Builder
	set := func(key, format string, args ...any) {
		fmt.Fprintf(&conf, "%s = '%s'\n", key, strings.ReplaceAll(fmt.Sprintf(format, args...), "'", "''"))
	}
	set("backend_clustering_mode", "streaming_replication")
	set("listen_addresses", "%s", p.Listen)
	set("port", "%d", p.Port)
	set("socket_dir", "%s", p.RunDir)
	set("pcp_listen_addresses", "")
	set("pcp_socket_dir", "%s", p.RunDir)
	set("logdir", "%s", p.RunDir)
	set("pid_file_name", "%s", p.file("pgpool.pid"))
	set("enable_pool_hba", "on")
	set("pool_passwd", "%s", p.file("pool_passwd"))
	set("ssl", "on")
	set("ssl_cert", "%s", filepath.Join(p.IdentityDir, identity.CertificateFile))
	set("ssl_key", "%s", filepath.Join(p.IdentityDir, identity.KeyFile))
	set("num_init_children", "64")
	set("connection_cache", "off") // a pooled connection to an old primary would outlive it
	set("memory_cache_enabled", "off")
	set("enable_shared_relcache", "off")
	set("memqcache_total_size", "1MB") // else the cache, also when it is off, takes 130 MB
	set("memqcache_max_num_cache", "1000")
	set("load_balance_mode", "off")
	set("failover_on_backend_error", "off")
	set("failover_command", "")
	set("follow_primary_command", "")
	set("auto_failback", "on")
	set("auto_failback_interval", "1")
	// Longer than any promotion takes: without a primary it would lead clients to a
	// standby until the next node comes or goes. Meanwhile it takes no node back.
	set("search_primary_node_timeout", "120")
	for _, check := range []string{"sr_check", "health_check"} {
		set(check+"_period", "1")
		set(check+"_user", watcher)
		set(check+"_database", "postgres")
	}
	set("health_check_timeout", "3")
	set("health_check_max_retries", "1")
	set("health_check_retry_delay", "1")
	for i, n := range p.Nodes {
		set(fmt.Sprintf("backend_hostname%d", i), "%s", p.socket(n))
		set(fmt.Sprintf("backend_port%d", i), "%d", p.NodePort)
		set(fmt.Sprintf("backend_application_name%d", i), "%s", n.Name)
		set(fmt.Sprintf("backend_flag%d", i), "ALLOW_TO_FAILOVER")
	}
	return conf.String()
}

// passwords lists the passwords by which Pgpool-II knows clients, and logs in
// for them.
func (c PoolConfig) passwords() (string, error) {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.Databases)) {
		password, err := os.ReadFile(c.Databases[name])
		if err != nil {
			return "", fmt.Errorf("password of %s: %w", name, err)
		}
		fmt.Fprintf(&text, "%s:TEXT%s\n", name, strings.TrimSpace(string(password)))
	}
	return text.String(), nil
}
