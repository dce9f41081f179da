package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"

	"github.com/kubeguardian/kubeguardian/bus"
)

// A process can be killed and started again. What it writes goes to a file.
type process struct {
	name string
	args []string
	log  string

	mu  sync.Mutex
	cmd *exec.Cmd
}

func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = cmd
	return nil
}

// pid returns the number of the process, 0 while it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// kill ends the process in an instant. It may have been killed before.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
	if err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	return nil
}

// tail returns the end of what the process wrote.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// serveBus is a NATS server that keeps its streams in files, until ctx ends.
func serveBus(ctx context.Context, dir, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	server, err := natsd.NewServer(&natsd.Options{
		ServerName: "chaos", Host: host, Port: number, NoSigs: true, JetStream: true, StoreDir: dir, JetStreamMaxStore: 2 << 30,
		SyncInterval: time.Second, MaxPayload: bus.MaxMessage + 4096,
	})
	if err != nil {
		return err
	}
	server.ConfigureLogger()
	server.Start()
	<-ctx.Done()
	server.Shutdown()
	server.WaitForShutdown()
	return nil
}

// freePort returns an address that nobody listens on.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
