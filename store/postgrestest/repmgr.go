package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Managed is the setting that servers need which repmgr is to manage.
const Managed = "shared_preload_libraries=repmgr"

// ErrNoManager says that repmgr is not installed.
var ErrNoManager = errors.New("no repmgr found: install it (Debian: repmgr)")

// A Manager is a running repmgr, which promotes a standby when its primary is
// gone.
type Manager struct {
	standby *Server
	cmd     *exec.Cmd
	log     *bytes.Buffer
}

// Manage registers a primary and its standby, both made with the setting
// [Managed], and starts repmgr beside the standby. Name is that of [Server.Standby].
func Manage(ctx context.Context, primary, standby *Server, name string) (*Manager, error) {
	if _, err := os.Stat(filepath.Join(primary.bin, "repmgrd")); err != nil {
		return nil, ErrNoManager
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := primary.Exec(ctx, "CREATE DATABASE repmgr"); err != nil {
		return nil, err
	}
	for i, s := range []*Server{primary, standby} {
		if err := os.WriteFile(s.managed(), []byte(s.managerSettings(i+1, []string{"primary", name}[i])), 0o644); err != nil {
			return nil, err
		}
	}
	if err := primary.run(ctx, "repmgr", "-f", primary.managed(), "primary", "register"); err != nil {
		return nil, err
	}
	if err := standby.awaitDatabase(ctx, "repmgr"); err != nil {
		return nil, err
	}
	if err := standby.run(ctx, "repmgr", "-f", standby.managed(), "standby", "register"); err != nil {
		return nil, err
	}
	m := &Manager{standby: standby, log: &bytes.Buffer{}}
	m.cmd = exec.Command(filepath.Join(standby.bin, "repmgrd"), "-f", standby.managed(), "--daemonize=false", "--pid-file", filepath.Join(standby.dir, "repmgrd.pid"))
	m.cmd.SysProcAttr, m.cmd.Dir = standby.owner, standby.dir
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start repmgr: %w", err)
	}
	return m, nil
}

func (s *Server) managed() string { return filepath.Join(s.dir, "repmgr.conf") }

// managerSettings has repmgr look each second, and take a primary to be gone that
// does not answer three times.
func (s *Server) managerSettings(id int, name string) string {
	return fmt.Sprintf(`node_id=%d
node_name='%s'
conninfo='host=127.0.0.1 port=%d user=kubeguardian password=%s dbname=repmgr connect_timeout=2'
data_directory='%s'
pg_bindir='%s'
failover='automatic'
promote_command='%[6]s/repmgr standby promote -f %[7]s'
follow_command='%[6]s/repmgr standby follow -f %[7]s -W --upstream-node-id=%%n'
reconnect_attempts=3
reconnect_interval=1
monitor_interval_secs=1
`, id, name, s.Port, Password, s.data(), s.bin, s.managed())
}

// awaitDatabase waits until a standby has a database.
func (s *Server) awaitDatabase(ctx context.Context, name string) error {
	for {
		conn, err := pgx.Connect(ctx, s.URL(name))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the standby has no database %s: %w", name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the manager, and returns what it said, for an error that comes of it.
func (m *Manager) Stop() (log string) {
	_ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL) // may have ended
	_ = m.cmd.Wait()                                      // it was killed
	return m.log.String()
}
