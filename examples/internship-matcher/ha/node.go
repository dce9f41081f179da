package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Node is one member of the cluster.
type Node struct {
	Config
	log   *slog.Logger
	began time.Time // when this node began to look for a primary
	short int       // how often PostgreSQL ended soon, one time after the other
}

// A standby that cannot follow, since its data has gone another way, ends as
// soon as it is started. After a few times it is rewound as an old primary is.
const (
	soon     = 10 * time.Second
	mostSoon = 3
)

// Run keeps the node a member of the cluster, until the context ends.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	n := &Node{Config: c, log: log.With("node", c.Name)}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	if err := n.write(); err != nil {
		return err
	}
	status, err := n.serveStatus()
	if err != nil {
		return err
	}
	defer status.Close()
	n.began = time.Now()
	for ctx.Err() == nil {
		ready, err := n.prepare(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			n.log.Error("cannot join the cluster yet", "error", err)
		case ready:
			start := time.Now()
			if err := n.run(ctx); err != nil && ctx.Err() == nil {
				n.log.Error("PostgreSQL ended", "error", err)
			}
			if n.began = time.Now(); n.began.Sub(start) < soon {
				n.short++
			} else {
				n.short = 0
			}
		}
		pause(ctx, time.Second)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// prepare makes the data folder fit for a start, in the role that the node has
// now. It returns false while that is to be waited for.
func (n *Node) prepare(ctx context.Context) (ready bool, err error) {
	primary, seen := n.look(ctx)
	empty := !exists(filepath.Join(n.data(), "PG_VERSION"))
	standby := exists(filepath.Join(n.data(), "standby.signal"))
	switch {
	case primary != nil && empty:
		return true, n.clone(ctx, *primary)
	case primary != nil && (!standby || n.short >= mostSoon):
		n.short = 0
		return true, n.rewind(ctx, *primary)
	case primary != nil:
		return true, n.follow(*primary)
	case empty && n.ID == 1:
		return true, n.create(ctx)
	case empty:
		return false, nil // node 1 makes the cluster
	case standby:
		return true, nil // reads may be served, and repmgr finds a primary
	}
	// It was the primary when it went down.
	if time.Since(n.began) < grace || 2*(seen+1) <= len(n.Peers)+1 {
		return false, nil
	}
	n.log.Warn("nobody else took over: primary again", "seen", seen)
	return true, nil
}

// look asks the other supervisors. It returns a peer that is primary, if any,
// and how many answered.
func (n *Node) look(ctx context.Context) (primary *Peer, seen int) {
	for _, p := range n.Peers {
		s, err := n.ask(ctx, p)
		if err != nil {
			continue
		}
		seen++
		if s.Primary {
			primary = &p
		}
	}
	return primary, seen
}

// create makes a new cluster.
func (n *Node) create(ctx context.Context) error {
	n.log.Info("making a new cluster")
	if err := n.command(ctx, "initdb", "-D", n.data(), "-U", admin, "-E", "UTF8", "--no-locale", "--data-checksums"); err != nil {
		return errors.Join(err, os.RemoveAll(n.data()))
	}
	if err := os.WriteFile(filepath.Join(n.data(), "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return err
	}
	// Commits wait for nobody yet, and nobody but this node can connect.
	server := n.server("-c", "synchronous_standby_names=", "-c", "listen_addresses=")
	if err := server.Start(); err != nil {
		return err
	}
	err := n.fill(ctx)
	return errors.Join(err, server.Process.Signal(syscall.SIGINT), server.Wait())
}

// fill makes the roles and databases of a new cluster.
func (n *Node) fill(ctx context.Context) error {
	conn, err := n.connect(ctx, "postgres", time.Minute)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	own, err := quoted(n.PasswordFile)
	if err != nil {
		return err
	}
	statements := []string{"ALTER ROLE " + admin + " PASSWORD " + own, "CREATE DATABASE " + admin}
	for name, file := range n.Databases {
		password, err := quoted(file)
		if err != nil {
			return err
		}
		id := pgx.Identifier{name}.Sanitize()
		statements = append(statements, "CREATE ROLE "+id+" LOGIN PASSWORD "+password, "CREATE DATABASE "+id+" OWNER "+id, "REVOKE CONNECT ON DATABASE "+id+" FROM PUBLIC")
	}
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			verb, _, _ := strings.Cut(s, " PASSWORD") // never the password
			return fmt.Errorf("%s: %w", verb, err)
		}
	}
	return nil
}

// quoted reads a password as a literal of SQL.
func quoted(file string) (string, error) {
	data, err := os.ReadFile(file)
	return "'" + strings.ReplaceAll(strings.TrimSpace(string(data)), "'", "''") + "'", err
}

// connect connects over the socket, as soon as the server answers.
func (n *Node) connect(ctx context.Context, database string, within time.Duration) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, n.local(database))
		if err == nil {
			return conn, nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return nil, err
		}
	}
}

// clone copies a primary.
func (n *Node) clone(ctx context.Context, primary Peer) error {
	n.log.Info("copying the primary", "primary", primary.Name)
	err := n.command(ctx, "pg_basebackup", "-D", n.data(), "-d", n.conninfo(primary.Host, "postgres"), "-c", "fast", "-X", "stream")
	if err != nil {
		return errors.Join(err, os.RemoveAll(n.data()))
	}
	return n.follow(primary)
}

// rewind turns an old primary into a standby: what it wrote and nobody else
// has, and no client saw, is undone. When that cannot be, the primary is copied,
// and the old data kept beside.
func (n *Node) rewind(ctx context.Context, primary Peer) error {
	n.log.Info("coming back as a standby", "primary", primary.Name)
	// Until its next checkpoint a promoted server looks like the one that it was,
	// and there seems to be nothing to undo.
	if err := n.command(ctx, "psql", "-X", "-d", n.conninfo(primary.Host, "postgres"), "-c", "CHECKPOINT"); err != nil {
		return err
	}
	err := n.command(ctx, "pg_rewind", "-D", n.data(), "--config-file", n.postgresConf(), "--source-server", n.conninfo(primary.Host, "postgres"))
	if err == nil {
		return n.follow(primary)
	}
	if s, unknown := n.ask(ctx, primary); unknown != nil || !s.Primary || ctx.Err() != nil {
		return err
	}
	n.log.Error("the data cannot be rewound; it is kept as data.old", "error", err)
	old := n.data() + ".old"
	if err := errors.Join(os.RemoveAll(old), os.Rename(n.data(), old)); err != nil {
		return err
	}
	return n.clone(ctx, primary)
}

// follow makes the data folder one of a standby of a primary.
func (n *Node) follow(primary Peer) error {
	if err := os.WriteFile(filepath.Join(n.data(), "standby.signal"), nil, 0o600); err != nil {
		return err
	}
	path := filepath.Join(n.data(), "postgresql.auto.conf") // repmgr changes it there when it follows another one
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "primary_conninfo") {
			lines = append(lines, line)
		}
	}
	lines = append(lines, fmt.Sprintf("primary_conninfo = '%s'\n", n.conninfo(primary.Host, "postgres")))
	return os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600)
}

// run runs PostgreSQL and repmgrd until one ends, the node has to be fenced, or
// the context ends.
func (n *Node) run(ctx context.Context) error {
	os.Remove(filepath.Join(n.data(), "postmaster.pid")) // of a server that was killed; a live one is in another process namespace or our own child
	server := n.server()
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go n.manage(ctx)

	var w watch
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return n.end(server, ended, syscall.SIGINT)
		case <-time.After(time.Second):
		}
		if reason := n.misplaced(ctx, &w); reason != "" {
			n.log.Error("stopping PostgreSQL", "reason", reason)
			return n.end(server, ended, syscall.SIGQUIT)
		}
	}
}

// server returns PostgreSQL, ready to start.
func (n *Node) server(settings ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(n.BinDir, "postgres"), append([]string{"-D", n.data(), "-c", "config_file=" + n.postgresConf()}, settings...)...)
	cmd.Env, cmd.Stderr = n.environment(), os.Stderr
	return cmd
}

func (n *Node) end(server *exec.Cmd, ended <-chan error, how os.Signal) error {
	_ = server.Process.Signal(how) // has ended already, then
	return <-ended
}

// A watch remembers since when a node is without what its role needs: a primary
// without company, a standby without a primary to follow.
type watch struct{ since time.Time }

// longer reports whether something has lasted for so long.
func (w *watch) longer(lasts bool, than time.Duration) bool {
	if !lasts {
		w.since = time.Time{}
		return false
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	return time.Since(w.since) > than
}

// misplaced says why PostgreSQL must not go on in its role, if it must not.
func (n *Node) misplaced(ctx context.Context, w *watch) string {
	s := n.status(ctx)
	if !s.Up || s.Streaming {
		w.longer(false, 0)
		return ""
	}
	primary, seen := n.look(ctx)
	switch {
	case s.Primary && primary != nil:
		return primary.Name + " is primary"
	case s.Primary:
		majority := 2*(seen+1) > len(n.Peers)+1
		if w.longer(!majority, fenceAfter-2*time.Second) { // looking takes up to two more
			return "no other node answers"
		}
	case w.longer(primary != nil, followAfter):
		return "it follows nobody, although " + primary.Name + " is primary"
	}
	return ""
}

// manage registers the node with repmgr and runs its daemon, which promotes
// this node or lets it follow another one.
func (n *Node) manage(ctx context.Context) {
	for ctx.Err() == nil {
		if err := n.register(ctx); err != nil {
			n.log.Debug("not registered yet", "error", err)
			pause(ctx, time.Second)
			continue
		}
		os.Remove(filepath.Join(n.Dir, "repmgrd.pid"))
		err := n.wait(ctx, "repmgrd", "-f", n.repmgrConf(), "--daemonize=false", "--pid-file", filepath.Join(n.Dir, "repmgrd.pid"))
		if ctx.Err() == nil {
			n.log.Warn("repmgrd ended", "error", err)
		}
		pause(ctx, time.Second)
	}
}

func (n *Node) register(ctx context.Context) error {
	s := n.status(ctx)
	switch {
	case !s.Up:
		return errors.New("PostgreSQL does not answer")
	case s.Primary:
		return n.repmgr(ctx, "primary", "register", "--force")
	}
	return n.repmgr(ctx, "standby", "register", "--force")
}

func (n *Node) repmgr(ctx context.Context, args ...string) error {
	return n.wait(ctx, "repmgr", append([]string{"-f", n.repmgrConf()}, args...)...)
}

// command runs a program of PostgreSQL.
func (n *Node) command(ctx context.Context, name string, args ...string) error {
	return n.wait(ctx, filepath.Join(n.BinDir, name), args...)
}

func (n *Node) wait(ctx context.Context, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = n.Dir, n.environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, tail(out))
	}
	return nil
}

// tail returns the end of what a program printed.
func tail(out []byte) string {
	const most = 2000
	return strings.TrimSpace(string(out[max(0, len(out)-most):]))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
