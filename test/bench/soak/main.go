// Command soak runs many short processes beside the agent and prints what memory
// the agent has at the begin, on the way and at the end, which shows whether it
// grows.
//
// Run it as root:  go run ./test/bench/soak -processes 200000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	processes := flags.Int("processes", 200_000, "`number` of short processes")
	steps := flags.Int("steps", 10, "`number` of measurements")
	if err := flags.Parse(args); err != nil {
		return err
	}
	a, err := start(ctx)
	if err != nil {
		return err
	}
	defer a.stop()
	fmt.Fprintf(out, "%10s %8s %10s %10s %8s\n", "processes", "RSS", "known", "dropped", "rate")
	began := time.Now()
	for i := range *steps + 1 {
		m, err := a.metrics(ctx)
		if err != nil {
			return err
		}
		done := *processes / *steps * i
		fmt.Fprintf(out, "%10d %5.1f MB %10.0f %10.0f %6.0f/s\n", done, m["resident_memory_bytes"]/1e6, m["processes"], m[`sensor_events_total{what="dropped"}`], float64(done)/time.Since(began).Seconds())
		if i == *steps {
			break
		}
		if err := short(ctx, *processes / *steps); err != nil {
			return err
		}
	}
	return nil
}

// short runs processes that each start a program and end.
func short(ctx context.Context, n int) error {
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done", n)
	if err := exec.CommandContext(ctx, "sh", "-c", script).Run(); err != nil {
		return fmt.Errorf("run short processes: %w", err)
	}
	return nil
}

// An agent is the agent as a process, with its built-in rules.
type agent struct {
	cmd  *exec.Cmd
	addr string
	dir  string
}

func start(ctx context.Context) (*agent, error) {
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return nil, err
	}
	a := &agent{dir: dir}
	program := filepath.Join(dir, "kubeguardian-agent")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/kubeguardian-agent").CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("build the agent: %w: %s", err, out), os.RemoveAll(dir))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	a.addr = ln.Addr().String()
	ln.Close()
	a.cmd = exec.CommandContext(ctx, program, "--standalone", "--status", a.addr)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the agent: %w", err), os.RemoveAll(dir))
	}
	for range 200 {
		if _, err = a.metrics(ctx); err == nil {
			return a, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.stop()
	return nil, fmt.Errorf("the agent does not answer: %w", err)
}

func (a *agent) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	_ = a.cmd.Wait()
	_ = os.RemoveAll(a.dir)
}

// metrics returns the agent's metrics, by name without their common prefix.
func (a *agent) metrics(ctx context.Context) (map[string]float64, error) {
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
