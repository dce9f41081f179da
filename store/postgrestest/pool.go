package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoPool says that Pgpool-II is not installed.
var ErrNoPool = errors.New("no Pgpool-II found: install it (Debian: pgpool2)")

// A Pool is a running Pgpool-II before a primary and its standbys. It balances
// reads, and promotes nobody.
type Pool struct {
	Port int
	dir  string
	cmd  *exec.Cmd
}

// StartPool starts Pgpool-II before servers, the primary first.
func StartPool(ctx context.Context, dir string, servers ...*Server) (*Pool, error) {
	if _, err := exec.LookPath("pgpool"); err != nil {
		return nil, ErrNoPool
	}
	s, err := prepare(dir, nil) // a folder that the servers' user owns
	if err != nil {
		return nil, err
	}
	p := &Pool{Port: s.Port, dir: s.dir}
	for name, text := range map[string]string{
		"pgpool.conf":   p.settings(servers),
		"pool_hba.conf": "host all all 127.0.0.1/32 scram-sha-256\n",
		"pcp.conf":      "",
		"pool_passwd":   "kubeguardian:TEXT" + Password + "\n",
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	p.cmd = exec.Command("pgpool", "-n", "-D", "-f", filepath.Join(p.dir, "pgpool.conf"), "-a", filepath.Join(p.dir, "pool_hba.conf"), "-F", filepath.Join(p.dir, "pcp.conf"))
	p.cmd.SysProcAttr, p.cmd.Dir = s.owner, p.dir
	log := &bytes.Buffer{}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Pgpool-II: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.URL("postgres"))
		if err == nil {
			return p, conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			err = errors.Join(err, p.Stop())
			return nil, fmt.Errorf("Pgpool-II does not answer: %w: %s", err, log)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *Pool) settings(servers []*Server) string {
	var b strings.Builder
	set := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%s = '%s'\n", key, fmt.Sprintf(format, args...))
	}
	set("backend_clustering_mode", "streaming_replication")
	set("listen_addresses", "127.0.0.1")
	set("port", "%d", p.Port)
	for _, key := range []string{"socket_dir", "pcp_socket_dir", "logdir"} {
		set(key, "%s", p.dir)
	}
	set("pcp_listen_addresses", "")
	set("pid_file_name", "%s", filepath.Join(p.dir, "pgpool.pid"))
	set("enable_pool_hba", "on")
	set("pool_passwd", "%s", filepath.Join(p.dir, "pool_passwd"))
	set("num_init_children", "40")
	set("connection_cache", "off") // a pooled connection to an old primary would outlive it
	set("memqcache_total_size", "1MB")
	set("memqcache_max_num_cache", "1000")
	set("load_balance_mode", "on")
	set("failover_on_backend_error", "off")
	set("search_primary_node_timeout", "60")
	for _, check := range []string{"sr_check", "health_check"} {
		set(check+"_period", "1")
		set(check+"_user", "kubeguardian")
		set(check+"_database", "postgres")
	}
	set("health_check_timeout", "3")
	set("health_check_max_retries", "1")
	set("health_check_retry_delay", "1")
	for i, s := range servers {
		set(fmt.Sprintf("backend_hostname%d", i), "127.0.0.1")
		set(fmt.Sprintf("backend_port%d", i), "%d", s.Port)
		set(fmt.Sprintf("backend_flag%d", i), "ALLOW_TO_FAILOVER")
		set(fmt.Sprintf("backend_weight%d", i), "%d", i) // reads that may go anywhere go to a standby
	}
	return b.String()
}

// PID returns the process of the pool, whose children are its sessions.
func (p *Pool) PID() int { return p.cmd.Process.Pid }

// URL returns the address of a database through the pool.
func (p *Pool) URL(database string) string { return (&Server{Port: p.Port}).URL(database) }

// Stop ends the pool with all its processes.
func (p *Pool) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // may have ended
	ended := make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // as it was told
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	<-ended
	return nil
}
