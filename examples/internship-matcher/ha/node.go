package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A Node is one member of the cluster.
type Node struct {
	Config
	own   *identity.Identity
	peers observer
	log   *slog.Logger
	turn  sync.Mutex // of promotions
	began time.Time  // when this node began to look for a primary
	short int        // how often PostgreSQL ended soon, one time after the other
}

// A standby that cannot follow, since its data has gone another way, ends as
// soon as it is started. After a few times it is rewound as an old primary is.
const (
	soon     = 10 * time.Second
	mostSoon = 3
)

// Run keeps the node a member of the cluster, until the context ends.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	log = log.With("node", c.Name)
	own, err := identity.Open(c.IdentityDir, log)
	if err != nil {
		return err
	}
	n := &Node{Config: c, own: own, peers: newObserver(own, c.StatusPort, c.Peers), log: log}
	if err := errors.Join(os.MkdirAll(c.Dir, 0o700), os.MkdirAll(c.RunDir, 0o700)); err != nil {
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
	health, err := serveHealth(c.Health, n.ready, log)
	if err != nil {
		return err
	}
	defer health.Close()
	door, err := n.servePromote()
	if err != nil {
		return err
	}
	defer door.Close()
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
	others := n.peers.look(ctx)
	primary := others.primary
	empty := !n.hasData()
	standby := exists(filepath.Join(n.data(), "standby.signal"))
	switch {
	case primary != nil && empty:
		return true, n.clone(ctx, *primary)
	case primary != nil && (!standby || n.short >= mostSoon):
		n.short = 0
		return true, n.rewind(ctx, *primary)
	case primary != nil:
		return true, n.follow(n.data(), *primary)
	case empty && n.ID == 1 && n.first(others):
		return true, n.create(ctx)
	case empty:
		return false, nil
	case standby:
		return true, nil // reads may be served, and repmgr finds a primary
	}
	// It was the primary when it went down.
	if time.Since(n.began) < grace || !n.most(others) {
		return false, nil
	}
	n.log.Warn("nobody else took over: primary again", "seen", len(others.nodes))
	return true, nil
}

// first reports whether there is no cluster yet: all nodes say so. The first one
// makes it.
func (n *Node) first(others view) bool {
	return len(others.nodes) == len(n.Peers) && !slices.ContainsFunc(others.nodes, func(s Status) bool { return s.Data })
}

// most reports whether this node and those that it sees are most of them.
func (n *Node) most(others view) bool { return 2*(len(others.nodes)+1) > len(n.Peers)+1 }

// create makes a new cluster, beside the place where it is to be: half of one is
// none.
func (n *Node) create(ctx context.Context) error {
	n.log.Info("making a new cluster")
	fresh := n.data() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := n.command(ctx, "initdb", "-D", fresh, "-U", admin, "-E", "UTF8", "--no-locale", "--data-checksums"); err != nil {
		return err
	}
	// Commits wait for nobody yet, and nobody but this node can connect.
	server := n.server(fresh, "-c", "synchronous_standby_names=", "-c", "listen_addresses=")
	if err := server.Start(); err != nil {
		return err
	}
	err := n.fill(ctx)
	if err := errors.Join(err, server.Process.Signal(syscall.SIGINT), server.Wait()); err != nil {
		return err
	}
	return os.Rename(fresh, n.data())
}

// fill makes the roles and databases of a new cluster.
func (n *Node) fill(ctx context.Context) error {
	conn, err := n.connect(ctx, "postgres", time.Minute)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	statements := []string{"CREATE DATABASE " + admin, "CREATE ROLE " + watcher + " LOGIN", "GRANT pg_monitor TO " + watcher}
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
	data, err := os.ReadFile(file) // #nosec G304 -- the operator says where the password is
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

// clone copies a primary, beside the place where the copy is to be.
func (n *Node) clone(ctx context.Context, primary Peer) error {
	n.log.Info("copying the primary", "primary", primary.Name)
	fresh := n.data() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := n.command(ctx, "pg_basebackup", "-D", fresh, "-d", n.conninfo(primary.Host, "postgres"), "-c", "fast", "-X", "stream"); err != nil {
		return err
	}
	if err := n.follow(fresh, primary); err != nil {
		return err
	}
	return os.Rename(fresh, n.data())
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
		return n.follow(n.data(), primary)
	}
	if s, unknown := n.peers.ask(ctx, primary); unknown != nil || !s.Primary || ctx.Err() != nil {
		return err
	}
	n.log.Error("the data cannot be rewound; it is kept as data.old", "error", err)
	old := n.data() + ".old"
	if err := errors.Join(os.RemoveAll(old), os.Rename(n.data(), old)); err != nil {
		return err
	}
	return n.clone(ctx, primary)
}

// follow makes a data folder one of a standby of a primary.
func (n *Node) follow(data string, primary Peer) error {
	root, err := os.OpenRoot(data)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.WriteFile("standby.signal", nil, 0o600); err != nil {
		return err
	}
	const settings = "postgresql.auto.conf" // repmgr changes it there when it follows another one
	text, err := root.ReadFile(settings)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "primary_conninfo") {
			lines = append(lines, line)
		}
	}
	lines = append(lines, fmt.Sprintf("primary_conninfo = '%s'\n", n.conninfo(primary.Host, "postgres")))
	return root.WriteFile(settings, []byte(strings.Join(lines, "")), 0o600)
}

// run runs PostgreSQL and repmgrd until one ends, the node has to be fenced, or
// the context ends.
func (n *Node) run(ctx context.Context) error {
	// Of a server that was killed; a live one is in another process namespace or our own child.
	if err := os.Remove(filepath.Join(n.data(), "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	server := n.server(n.data())
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go n.manage(ctx)

	var alone, lost watch
	svid, _ := n.own.GetX509SVID() // never fails
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return n.end(server, ended, syscall.SIGINT)
		case <-time.After(500 * time.Millisecond):
		}
		if now, _ := n.own.GetX509SVID(); now != svid {
			svid = now
			_ = server.Process.Signal(syscall.SIGHUP) // has ended already, then
		}
		if reason := n.misplaced(ctx, server, &alone, &lost); reason != "" {
			n.log.Error("stopping PostgreSQL", "reason", reason)
			return n.end(server, ended, syscall.SIGQUIT)
		}
	}
}

// server returns PostgreSQL with the data in a folder, ready to start.
func (n *Node) server(data string, settings ...string) *exec.Cmd {
	// #nosec G204 -- the program that the operator installed, with settings of our own
	cmd := exec.Command(filepath.Join(n.BinDir, "postgres"), append([]string{"-D", data, "-c", "config_file=" + n.postgresConf()}, settings...)...)
	cmd.Env, cmd.Stderr = n.environment(), os.Stderr
	return cmd
}

func (n *Node) end(server *exec.Cmd, ended <-chan error, how os.Signal) error {
	_ = server.Process.Signal(how) // has ended already, then
	return <-ended
}

// A watch remembers since when something lasts, and whether it has been acted
// upon.
type watch struct {
	since time.Time
	acted bool
}

// lasts returns for how long it lasts that is seen at a moment.
func (w *watch) lasts(is bool, now time.Time) time.Duration {
	if !is {
		*w = watch{}
		return 0
	}
	if w.since.IsZero() {
		w.since = now
	}
	return time.Since(w.since)
}

// misplaced says why PostgreSQL must not go on in its role, if it must not. A
// standby that follows nobody is shown the primary first; without one it is
// promoted, if repmgr has not seen to that.
func (n *Node) misplaced(ctx context.Context, server *exec.Cmd, alone, lost *watch) string {
	now := time.Now()
	s := Ask(ctx, n.Config)
	if !s.Up || s.Streaming {
		alone.lasts(false, now)
		lost.lasts(false, now)
		return ""
	}
	others := n.peers.look(ctx)
	if !s.Primary {
		if lost.lasts(others.primary == nil, now) > standInAfter && !lost.acted {
			lost.acted = true
			go n.standIn(ctx)
		}
		return n.lead(server, others.primary, alone, now)
	}
	lasts := alone.lasts(!n.most(others), now)
	switch {
	case others.primary != nil && others.timeline >= s.Timeline:
		return others.primary.Name + " was promoted"
	case lasts > fenceAfter/2: // the rest is for looking, once before and once after
		return "no other node answers"
	}
	return ""
}

// lead lets a standby follow the primary that there is, at first while it runs.
func (n *Node) lead(server *exec.Cmd, primary *Peer, w *watch, now time.Time) string {
	switch lasts := w.lasts(primary != nil, now); {
	case lasts > restartAfter:
		return "it follows nobody, although " + primary.Name + " is primary"
	case lasts > followAfter && !w.acted:
		w.acted = true
		n.log.Warn("following a new primary", "primary", primary.Name)
		if err := n.follow(n.data(), *primary); err != nil {
			n.log.Error("cannot follow", "error", err)
		}
		_ = server.Process.Signal(syscall.SIGHUP) // has ended already, then
	}
	return ""
}

// manage registers the node with repmgr and runs its daemon, which promotes
// this node or lets it follow another one.
func (n *Node) manage(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		if err := n.register(ctx); err != nil {
			n.log.Info("not registered yet", "error", err)
			continue
		}
		pid := filepath.Join(n.RunDir, "repmgrd.pid")
		_ = os.Remove(pid) // of one that was killed
		daemon := n.program(ctx, "repmgrd", "-f", n.repmgrConf(), "--daemonize=false", "--pid-file", pid)
		daemon.Stdout, daemon.Stderr = os.Stderr, os.Stderr
		err := daemon.Run()
		if ctx.Err() == nil {
			n.log.Warn("repmgrd ended", "error", err)
		}
	}
}

// register makes the node known in its role. One that is known already needs no
// primary for that: there may be none just now, and repmgrd is to choose one.
func (n *Node) register(ctx context.Context) error {
	s := Ask(ctx, n.Config)
	role := "standby"
	switch {
	case !s.Up:
		return errors.New("PostgreSQL does not answer")
	case s.Primary:
		role = "primary"
	}
	if n.registered(ctx, role) {
		return nil
	}
	if err := n.repmgr(ctx, role, "register", "--force"); err != nil {
		return err
	}
	if !n.registered(ctx, role) {
		return errors.New("the registration has not come back from the primary")
	}
	return nil
}

// registered reports whether the node's own copy of repmgr's list has it.
func (n *Node) registered(ctx context.Context, role string) (known bool) {
	conn, err := n.connect(ctx, admin, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close(ctx)
	const query = `SELECT EXISTS (SELECT FROM repmgr.nodes n WHERE node_id = $1 AND type = $2 AND active AND conninfo = $3
		AND (type = 'primary' OR upstream_node_id = (SELECT node_id FROM repmgr.nodes WHERE type = 'primary' AND active)))`
	_ = conn.QueryRow(ctx, query, n.ID, role, n.conninfo(n.Host, admin)).Scan(&known) // not, before there is a list
	return known
}

func (n *Node) repmgr(ctx context.Context, args ...string) error {
	return n.wait(ctx, "repmgr", append([]string{"-f", n.repmgrConf()}, args...)...)
}

// command runs a program of PostgreSQL.
func (n *Node) command(ctx context.Context, name string, args ...string) error {
	return n.wait(ctx, filepath.Join(n.BinDir, name), args...)
}

func (n *Node) wait(ctx context.Context, path string, args ...string) error {
	out, err := n.program(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, tail(out))
	}
	return nil
}

// program returns a program that ends with the context.
func (n *Node) program(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...) // #nosec G204 -- a program of PostgreSQL or repmgr, with arguments of our own
	cmd.Dir, cmd.Env = n.RunDir, n.environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
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
