// Package postgrestest runs real PostgreSQL servers for tests and measurements,
// on loopback, with data of their own.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
)

// ErrNone says that PostgreSQL is not installed.
var ErrNone = errors.New("no PostgreSQL found: install it (Debian: postgresql)")

// startTime is how long a server may take for anything.
const startTime = time.Minute

// Password is what the user of all databases logs in with.
const Password = "pass-w0rd-of-tests"

// A Server is a running PostgreSQL, a primary or a standby.
type Server struct {
	Port     int
	dir      string // all of it is of the user that the server runs as
	bin      string
	owner    *syscall.SysProcAttr
	settings []string
	cmd      *exec.Cmd
}

// Start makes an empty server below a folder, such as that of a test, and starts
// it with settings like fsync=off.
func Start(ctx context.Context, dir string, settings ...string) (*Server, error) {
	s, err := prepare(dir, settings)
	if err != nil {
		return nil, err
	}
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(Password), 0o644); err != nil {
		return nil, err
	}
	if err := s.run(ctx, "initdb", "-D", s.data(), "-U", "kubeguardian", "--pwfile="+password, "-E", "UTF8", "--no-locale", "--no-sync",
		"--auth-local=trust", "--auth-host=scram-sha-256"); err != nil {
		return nil, err
	}
	hba, err := os.OpenFile(filepath.Join(s.data(), "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = hba.WriteString("host replication kubeguardian 127.0.0.1/32 scram-sha-256\n")
	if err := errors.Join(err, hba.Close()); err != nil {
		return nil, err
	}
	return s, s.Run(ctx)
}

// Standby makes a server that follows s, under a name with which s may be told
// to wait for it, and starts it.
func (s *Server) Standby(ctx context.Context, dir, name string) (*Server, error) {
	standby, err := prepare(dir, s.settings)
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=kubeguardian password=%s application_name=%s", s.Port, Password, name)
	if err := standby.run(ctx, "pg_basebackup", "-D", standby.data(), "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync"); err != nil {
		return nil, err
	}
	return standby, standby.Run(ctx)
}

// prepare makes the folder of a server, which belongs to the user that it runs
// as: our own, or postgres for root, as which PostgreSQL refuses to run.
func prepare(dir string, settings []string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: filepath.Join(dir, "postgres"), bin: bin, settings: settings, owner: &syscall.SysProcAttr{Setpgid: true}}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if err := s.giveAway(); err != nil {
			return nil, err
		}
	}
	s.Port, err = freePort()
	return s, err
}

func (s *Server) giveAway() error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 31)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 31)
	if err := errors.Join(err1, err2, os.Chown(s.dir, int(uid), int(gid))); err != nil {
		return err
	}
	s.owner.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for dir := filepath.Dir(s.dir); dir != "/" && strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil { // to pass through, not to list
			return err
		}
	}
	return nil
}

// programs returns the folder of the newest PostgreSQL on this machine.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrNone
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.SysProcAttr, cmd.Dir = s.owner, s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

// Run starts a server that does not run, for the first time or again.
func (s *Server) Run(ctx context.Context) error {
	args := []string{"-D", s.data(), "-k", s.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.cmd.SysProcAttr, s.cmd.Dir = s.owner, s.dir
	log := &bytes.Buffer{}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			err = errors.Join(err, s.Kill())
			return fmt.Errorf("PostgreSQL does not answer: %w: %s", err, log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// PID returns the process of a server that runs, whose children are its sessions.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// URL returns the address of a database, with the password.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgresql://kubeguardian:%s@127.0.0.1:%d/%s", Password, s.Port, database)
}

// Exec runs statements in the database postgres.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Create makes an empty database and returns its URL.
func (s *Server) Create(ctx context.Context, name string) (string, error) {
	return s.URL(name), s.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
}

// Promote makes a standby a server that takes writes.
func (s *Server) Promote(ctx context.Context) error {
	return s.Exec(ctx, "SELECT pg_promote()")
}

// Kill ends the server and its sessions in an instant, as a machine does that
// loses its power.
func (s *Server) Kill() error {
	if s.cmd.ProcessState != nil {
		return nil // it has ended, and its id may be another's
	}
	err := s.Freeze() // so that it starts nothing more
	err = errors.Join(err, s.signal(syscall.SIGKILL))
	_ = s.cmd.Wait() // it was killed
	return err
}

// Freeze stops the server and its sessions: connections stay, are made and are never
// answered, until [Server.Thaw].
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// Thaw lets a server that was stopped go on.
func (s *Server) Thaw() error { return s.signal(syscall.SIGCONT) }

// signal sends a signal to the server, before its sessions if it is to start no
// more, and to these.
func (s *Server) signal(signal syscall.Signal) (err error) {
	pid := s.cmd.Process.Pid
	if signal == syscall.SIGSTOP {
		err = syscall.Kill(pid, signal)
	}
	sessions, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	for child := range strings.FieldsSeq(string(sessions)) {
		n, _ := strconv.Atoi(child) // numbers, says the kernel
		_ = syscall.Kill(n, signal) // may have ended
	}
	if signal != syscall.SIGSTOP {
		err = syscall.Kill(pid, signal)
	}
	return errors.Join(readErr, err)
}

// Stop ends the server without waiting for clients.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	return s.cmd.Wait()
}
