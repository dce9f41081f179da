package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/database"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A Postgres is a PostgreSQL server on loopback, with TLS, that runs until it is
// stopped.
type Postgres struct {
	Port int
	dir  string // data, certificates, the socket, all of the server's own user
	cmd  *exec.Cmd
}

// ErrNoPostgres says that PostgreSQL is not installed.
var ErrNoPostgres = errors.New("no PostgreSQL found: install it (Debian: postgresql)")

// bin returns the folder of the newest PostgreSQL on this machine.
func bin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrNoPostgres
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

// StartPostgres makes an empty server below dir and starts it.
func StartPostgres(ctx context.Context, dir string, authority *identity.Authority) (*Postgres, error) {
	p := &Postgres{dir: filepath.Join(dir, "postgres")}
	initdb, err := bin()
	if err != nil {
		return nil, err
	}
	if err := authority.Issue(p.dir, "database", 24*time.Hour, "127.0.0.1", "localhost"); err != nil {
		return nil, err
	}
	owner, err := p.giveAway()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(p.dir, "data")
	// Over the socket, which only the server's user and root reach, no password.
	// #nosec G204 -- the server that is installed, with folders of our own
	init := exec.CommandContext(ctx, filepath.Join(initdb, "initdb"), "-D", data, "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256")
	init.SysProcAttr = owner
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	if p.Port, err = freePort(); err != nil {
		return nil, err
	}
	// #nosec G204 -- the server that is installed, with folders and a port of our own
	p.cmd = exec.Command(filepath.Join(initdb, "postgres"), "-D", data, "-k", p.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port),
		"-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(p.dir, identity.CertificateFile), "-c", "ssl_key_file="+filepath.Join(p.dir, identity.KeyFile),
		"-c", "max_connections=100", "-c", "logging_collector=on")
	p.cmd.SysProcAttr = owner
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.waitReady(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// giveAway makes the folder belong to the user that the server runs as: the
// own one, or postgres for root, as which PostgreSQL refuses to run. That user
// must be able to reach the folder.
func (p *Postgres) giveAway() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true} // an interrupt of the terminal is for us, who then stop it
	if os.Geteuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 31)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 31)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("user postgres: %w", err)
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for dir := filepath.Dir(p.dir); dir != "/" && strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil { // #nosec G302 -- to pass through, not to list
			return nil, err
		}
	}
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return attr, fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, root.Lchown(name, int(uid), int(gid))) // #nosec G115 -- both have 31 bits
	})
}

func (p *Postgres) admin(ctx context.Context, name string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=%s", p.dir, p.Port, name))
}

func (p *Postgres) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := p.admin(ctx, "postgres")
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Create makes a database with a role of the same name, which alone may
// connect to it, and returns how to.
func (p *Postgres) Create(ctx context.Context, name, dir string) (database.Config, error) {
	conn, err := p.admin(ctx, "postgres")
	if err != nil {
		return database.Config{}, err
	}
	defer conn.Close(ctx)
	password, id := rand.Text(), pgx.Identifier{name}.Sanitize()
	for _, statement := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", id, password),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", id, id),
		fmt.Sprintf("REVOKE CONNECT ON DATABASE %s FROM PUBLIC", id),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return database.Config{}, fmt.Errorf("create database %s: %w", name, err)
		}
	}
	c := database.Config{
		Host: "127.0.0.1", Port: p.Port, Name: name, User: name,
		PasswordFile: filepath.Join(dir, name+".password"),
		SSLMode:      "verify-full", RootCertFile: filepath.Join(p.dir, identity.AuthorityFile),
	}
	return c, os.WriteFile(c.PasswordFile, []byte(password), 0o600)
}

// Stop ends the server, as an administrator does who cannot wait for clients.
func (p *Postgres) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	return p.cmd.Wait()
}

// freePort returns a port of loopback that nobody uses at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
