// Package agentrun runs the agent as a process of its own, as on a node, for
// programs that measure it.
package agentrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Build makes the agent of this module in a folder, without what the released one
// does not have either, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "kubeguardian-agent")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/kubeguardian/kubeguardian/cmd/kubeguardian-agent")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent: %w: %s", err, out)
	}
	return program, nil
}

// An Agent runs with its built-in rules, and prints alerts to nobody.
type Agent struct {
	cmd  *exec.Cmd
	addr string
	log  bytes.Buffer
}

// patience is how long an agent may take to begin to read events, and to end.
const patience = time.Minute

// Start starts the agent, and returns once it reads events. It ends with ctx, or
// when Stop is called.
func Start(ctx context.Context, program string) (*Agent, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	a := &Agent{addr: ln.Addr().String()}
	ln.Close()
	a.cmd = exec.CommandContext(ctx, program, "--standalone", "--status", a.addr)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.cmd.Stderr = &a.log
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(50 * time.Millisecond) {
		if err := Processes(ctx, 1, 0, nil); err != nil { // so that there are events
			return nil, errors.Join(err, a.Stop())
		}
		if m, err := a.Metrics(ctx); err == nil && m["processes"] > 0 && m["events_total"] > 0 {
			return a, nil
		}
	}
	err = a.Stop()
	return nil, errors.Join(fmt.Errorf("the agent does not read events within %s: %s", patience, a.log.String()), err)
}

// Stop ends the agent.
func (a *Agent) Stop() error {
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the agent: %w", err)
	}
	kill := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() })
	defer kill.Stop()
	if err := a.cmd.Wait(); err != nil {
		return fmt.Errorf("the agent: %w: %s", err, a.log.String())
	}
	return nil
}

// Metrics returns the agent's metrics, by name without their common prefix.
func (a *Agent) Metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "kubeguardian_agent_")), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			all[name] = n
		}
	}
	return all, nil
}

// Dropped is the name of the metric of events that the kernel had no room for.
const Dropped = `sensor_events_total{what="dropped"}`

// Processes starts n processes that each run a small program and end, at most
// rate in a second, or as fast as they go if it is 0. It calls each, if that is
// not nil, with the id of every one after its end.
func Processes(ctx context.Context, n, rate int, each func(pid int)) error {
	begin := time.Now()
	for i := range n {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rate > 0 {
			time.Sleep(time.Duration(i)*time.Second/time.Duration(rate) - time.Since(begin))
		}
		pid, err := syscall.ForkExec("/bin/true", []string{"true", strconv.Itoa(i)}, nil)
		if err != nil {
			return fmt.Errorf("start a short process: %w", err)
		}
		var status syscall.WaitStatus
		for {
			if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("wait for a short process: %w", err)
		}
		if status.ExitStatus() != 0 {
			return fmt.Errorf("run a short process: status %d", status.ExitStatus())
		}
		if each != nil {
			each(pid)
		}
	}
	return nil
}
