package ha

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A Local is a whole cluster on one machine: every node, and Pgpool-II, in a
// network namespace of its own, joined by a bridge. It needs root.
type Local struct {
	dir       string
	programs  string // the folder of pgnode and pgfront
	authority *identity.Authority
	databases map[string]string
	nodes     []Peer
	running   map[string]*exec.Cmd
	uid, gid  int
}

// The local network, and the names of what is made for it.
const (
	bridge   = "im-ha"
	network  = "10.213.7."
	poolHost = network + "20"
	pool     = "pool"
	port     = 5432
	poolPort = 9999

	statusPort = 8009
)

// startLimit is for three nodes to find each other.
const startLimit = 3 * time.Minute

// StartLocal starts three nodes and Pgpool-II, with databases of these names.
// The programs pgnode and pgfront are in a folder; both folders must be reachable
// by the user postgres.
func StartLocal(ctx context.Context, dir, programs string, databases ...string) (*Local, error) {
	authority, err := identity.NewAuthority()
	if err != nil {
		return nil, err
	}
	l := &Local{dir: dir, programs: programs, authority: authority, databases: map[string]string{}, running: map[string]*exec.Cmd{}}
	for id := 1; id <= 3; id++ {
		l.nodes = append(l.nodes, Peer{id, fmt.Sprintf("node%d", id), network + strconv.Itoa(10+id)})
	}
	if err := l.owner(); err != nil {
		return nil, err
	}
	if err := l.passwords(databases); err != nil {
		return nil, err
	}
	err = l.connect(ctx)
	for _, n := range l.nodes {
		err = errors.Join(err, l.Issue(n.Name), l.StartNode(n.Name))
	}
	err = errors.Join(err, l.Issue(pool), l.StartPool())
	if err == nil {
		starting, cancel := context.WithTimeout(ctx, startLimit)
		defer cancel()
		err = l.Healthy(starting)
	}
	if err != nil {
		return nil, errors.Join(err, l.Stop())
	}
	return l, nil
}

func (l *Local) owner() error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	l.uid, _ = strconv.Atoi(u.Uid) // numbers on every Unix
	l.gid, _ = strconv.Atoi(u.Gid)
	return nil
}

func (l *Local) passwords(databases []string) error {
	for _, name := range databases {
		file := filepath.Join(l.dir, name+".password")
		l.databases[name] = file
		if err := errors.Join(os.WriteFile(file, []byte(rand.Text()), 0o600), os.Chown(file, l.uid, l.gid)); err != nil {
			return err
		}
	}
	return nil
}

// Identity is the folder of the identity of a node, or of Pgpool-II.
func (l *Local) Identity(name string) string { return filepath.Join(l.dir, name+".identity") }

// Issue gives a node, or Pgpool-II, a new identity, also while it runs.
func (l *Local) Issue(name string) error {
	service, host := watcher, poolHost
	if name != pool {
		service, host = admin, l.Config(name).Host
	}
	if err := l.authority.Issue(l.Identity(name), service, 24*time.Hour, host); err != nil {
		return err
	}
	return l.giveAway(l.Identity(name))
}

// giveAway makes a folder, and what is in it, belong to the user postgres.
func (l *Local) giveAway(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, root.Lchown(name, l.uid, l.gid))
	})
}

// connect makes the bridge and the namespaces.
func (l *Local) connect(ctx context.Context) error {
	if err := run(ctx, "ip", "link", "add", bridge, "type", "bridge"); err != nil {
		return err
	}
	err := errors.Join(run(ctx, "ip", "addr", "add", network+"1/24", "dev", bridge), run(ctx, "ip", "link", "set", bridge, "up"))
	for _, n := range append(l.nodes, Peer{Name: pool, Host: poolHost}) {
		for _, args := range [][]string{
			{"netns", "add", namespace(n.Name)},
			{"link", "add", link(n.Name), "type", "veth", "peer", "name", "eth0", "netns", namespace(n.Name)},
			{"link", "set", link(n.Name), "master", bridge, "up"},
			{"-n", namespace(n.Name), "addr", "add", n.Host + "/24", "dev", "eth0"},
			{"-n", namespace(n.Name), "link", "set", "eth0", "up"},
			{"-n", namespace(n.Name), "link", "set", "lo", "up"},
		} {
			if err == nil {
				err = run(ctx, "ip", args...)
			}
		}
	}
	return err
}

func namespace(name string) string { return bridge + "-" + name }

func link(name string) string { return bridge + "-" + name }

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() // #nosec G204 -- always ip, with names and addresses of our own
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, tail(out))
	}
	return nil
}

// start starts a program in a namespace, as the user postgres.
func (l *Local) start(name, program string, args ...string) error {
	out, err := os.OpenFile(l.Log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	prefix := []string{"netns", "exec", namespace(name), "setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", filepath.Join(l.programs, program)}
	cmd := exec.Command("ip", append(prefix, args...)...) // #nosec G204 -- one of our two programs, with arguments of our own
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	l.running[name] = cmd
	return nil
}

// Log is the file that a node, or Pgpool-II, logs to.
func (l *Local) Log(name string) string { return filepath.Join(l.dir, name+".log") }

// Nodes lists the names of the nodes.
func (l *Local) Nodes() []string {
	var names []string
	for _, n := range l.nodes {
		names = append(names, n.Name)
	}
	return names
}

// Config returns the configuration of a node.
func (l *Local) Config(name string) Config {
	dir := filepath.Join(l.dir, name)
	c := Config{Port: port, StatusPort: statusPort, Dir: dir, RunDir: filepath.Join(dir, "run"), IdentityDir: l.Identity(name), Databases: l.databases}
	_ = c.Among(l.nodes, name) // all names are ours
	return c
}

// StartNode starts a node, for the first time or again.
func (l *Local) StartNode(name string) error {
	c := l.Config(name)
	if err := l.own(c.Dir); err != nil {
		return err
	}
	args := []string{"-name", name, "-listen", c.Host, "-dir", c.Dir, "-run-dir", c.RunDir}
	return l.start(name, "pgnode", append(args, l.arguments(c.IdentityDir)...)...)
}

// StartPool starts Pgpool-II, for the first time or again.
func (l *Local) StartPool() error {
	dir := filepath.Join(l.dir, pool)
	if err := l.own(dir); err != nil {
		return err
	}
	args := []string{"-listen", poolHost, "-port", strconv.Itoa(poolPort), "-run-dir", dir}
	return l.start(pool, "pgfront", append(args, l.arguments(l.Identity(pool))...)...)
}

// own makes a folder of the user postgres.
func (l *Local) own(dir string) error {
	return errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, l.uid, l.gid))
}

// arguments are those of both programs.
func (l *Local) arguments(identity string) []string {
	args := []string{"-nodes", writePeers(l.nodes), "-identity", identity, "-health", "127.0.0.1:8081"}
	for database, file := range l.databases {
		args = append(args, "-database", database+"="+file)
	}
	return args
}

// Kill ends a node, or Pgpool-II, with all that belongs to it, in an instant.
func (l *Local) Kill(name string) error {
	cmd := l.running[name]
	delete(l.running, name)
	for {
		out, err := exec.Command("ip", "netns", "pids", namespace(name)).Output() // #nosec G204 -- names of our own
		if err != nil {
			return fmt.Errorf("processes of %s: %w", name, err)
		}
		pids := strings.Fields(string(out))
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			n, _ := strconv.Atoi(pid)
			_ = syscall.Kill(n, syscall.SIGKILL) // has ended already, then
		}
	}
	_ = cmd.Wait() // it was killed
	return nil
}

// KillPool ends Pgpool-II.
func (l *Local) KillPool() error { return l.Kill(pool) }

// Cut takes a node off the network, or puts it back.
func (l *Local) Cut(ctx context.Context, name string, off bool) error {
	state := "up"
	if off {
		state = "down"
	}
	return run(ctx, "ip", "link", "set", link(name), state)
}

// Status asks a node about itself, past the network.
func (l *Local) Status(ctx context.Context, name string) Status { return Ask(ctx, l.Config(name)) }

// Primary returns the node that takes writes, once there is one.
func (l *Local) Primary(ctx context.Context) (string, error) {
	for {
		for _, name := range l.Nodes() {
			if l.running[name] != nil && l.Status(ctx, name).Primary {
				return name, nil
			}
		}
		if pause(ctx, 200*time.Millisecond); ctx.Err() != nil {
			return "", fmt.Errorf("no node is primary: %w", ctx.Err())
		}
	}
}

// Healthy waits until one node takes writes, the others follow it, and each
// knows all three.
func (l *Local) Healthy(ctx context.Context) error {
	for {
		standbys, known := 0, 0
		for _, name := range l.Nodes() {
			if s := l.Status(ctx, name); s.Streaming {
				standbys++
			}
			if l.knows(ctx, name) == len(l.nodes) {
				known++
			}
		}
		if standbys == len(l.nodes)-1 && known == len(l.nodes) {
			return nil
		}
		if pause(ctx, 200*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("%d nodes follow a primary, %d know the others: %w", standbys, known, ctx.Err())
		}
	}
}

// knows counts the nodes that repmgr on a node knows to work.
func (l *Local) knows(ctx context.Context, name string) (count int) {
	conn, err := pgx.Connect(ctx, l.Config(name).local(admin))
	if err != nil {
		return 0
	}
	defer conn.Close(ctx)
	_ = conn.QueryRow(ctx, "SELECT count(*) FROM repmgr.nodes WHERE active").Scan(&count) // none, before it has registered
	return count
}

// Create returns how to reach one of the databases, through Pgpool-II.
func (l *Local) Create(_ context.Context, name, _ string) (database.Config, error) {
	if l.databases[name] == "" {
		return database.Config{}, fmt.Errorf("the cluster was made without a database %s", name)
	}
	return database.Config{Host: poolHost, Port: poolPort, Name: name, User: name, PasswordFile: l.databases[name],
		SSLMode: "verify-full", RootCertFile: filepath.Join(l.Identity(pool), identity.AuthorityFile)}, nil
}

// Stop ends everything, and removes the namespaces and the bridge.
func (l *Local) Stop() error {
	var errs []error
	for name := range l.running {
		errs = append(errs, l.Kill(name))
	}
	ctx := context.Background()
	for _, name := range append(l.Nodes(), pool) {
		if exists("/sys/class/net/" + link(name)) { // a namespace with open connections goes later than it is deleted
			errs = append(errs, run(ctx, "ip", "link", "del", link(name)))
		}
		if exists("/run/netns/" + namespace(name)) {
			errs = append(errs, run(ctx, "ip", "netns", "del", namespace(name)))
		}
	}
	if exists("/sys/class/net/" + bridge) {
		errs = append(errs, run(ctx, "ip", "link", "del", bridge))
	}
	return errors.Join(errs...)
}
