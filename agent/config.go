package agent

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/yamldoc"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// A Config is the whole configuration of the agent.
type Config struct {
	// Rules are files or folders with detection rules, and builtin for the
	// built-in ones. Without any the server says which there are, and the built-in
	// ones are meant where there is no server.
	Rules []string `yaml:"rules"`
	// Match says which rules raise an alert for an event: first, the first one
	// that matches, or all.
	Match string `yaml:"match"`
	// Priority leaves out rules that are less urgent.
	Priority string `yaml:"priority"`
	// Status is host:port of /healthz and /metrics, on a loopback address unless
	// StatusOpen is true. Empty is none.
	Status string `yaml:"status"`
	// StatusOpen shows the status to whoever reaches the address: there is no
	// login. It is for a pod with an address of its own.
	StatusOpen bool `yaml:"statusOpen"`
	// CRI is the socket of the container runtime. Empty looks at the usual
	// places, none is for a host without.
	CRI string `yaml:"cri"`
	// Root and Proc are the root and /proc of the host, as the agent sees them:
	// in a container of the host's process namespace /proc/1/root and /proc.
	Root string `yaml:"root"`
	Proc string `yaml:"proc"`
	// Environment keeps the environment of processes, for rules with proc.env.
	// It may hold secrets, which alerts then show.
	Environment bool `yaml:"environment"`
	// BufferSize is how many KiB of events wait in the kernel.
	BufferSize int `yaml:"bufferSize"`
	// CPUBudget is the share of one core that the agent may use before it leaves
	// rules out, the least urgent first; 0 is no bound.
	CPUBudget float64 `yaml:"cpuBudget"`
	// Enforce says what is done beside alerts, ZeroDrift what becomes of
	// executables that did not come with the image, in which containers. Protect
	// adds to what is never acted upon.
	Enforce   []enforce.Order `yaml:"enforce"`
	ZeroDrift []enforce.Drift `yaml:"zeroDrift"`
	Protect   enforce.Protect `yaml:"protect"`
	// Actions is a file to which each action is added, one line of JSON each.
	// Empty is none; the log tells of them, too.
	Actions string `yaml:"actions"`
	// Server is whom the agent reports to.
	Server Server `yaml:"server"`
}

// noRuntime is the value of [Config.CRI] for a host without container runtime.
const noRuntime = "none"

// DefaultConfig returns the configuration of an empty file.
func DefaultConfig() *Config {
	return &Config{Match: "first", Priority: "debug", Root: "/", Proc: "/proc", BufferSize: 8192,
		Server: Server{Dir: "/var/lib/kubeguardian-agent", SpoolMiB: 64, Interval: 10 * time.Second}}
}

// LoadConfig reads a file strictly. All that is wrong in it is told, with file
// and line.
func LoadConfig(name string) (*Config, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return ParseConfig(name, data)
}

// ParseConfig reads the content of a file of that name.
func ParseConfig(name string, data []byte) (*Config, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, len(data), maxConfig)
	}
	items, err := yamldoc.All[Config](name, data, 1)
	if err != nil {
		return nil, err
	}
	c := DefaultConfig()
	if len(items) == 0 {
		return c, nil
	}
	if err := yamldoc.One(name, data, c); err != nil {
		return nil, err
	}
	var errs []error
	for key, err := range c.problems() {
		errs = append(errs, fmt.Errorf("%s:%d: %s: %w", name, yamldoc.Line(items[0].Root, key), key, err))
	}
	return c, errors.Join(errs...)
}

// Check returns what is wrong in a configuration that did not come from a file
// alone.
func (c *Config) Check() error {
	var errs []error
	for key, err := range c.problems() {
		errs = append(errs, fmt.Errorf("%s: %w", key, err))
	}
	return errors.Join(errs...)
}

// problems yields the keys whose values are not of use, in their order.
func (c *Config) problems() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, check := range []struct {
			key string
			err error
		}{
			{"match", c.checkMatch()}, {"priority", c.checkPriority()}, {"status", c.checkStatus()},
			{"cri", absolute(c.CRI, "", noRuntime)}, {"root", absolute(c.Root)}, {"proc", absolute(c.Proc)}, {"bufferSize", c.checkBuffer()},
			{"cpuBudget", c.checkBudget()}, {"protect", c.Protect.Check()}, {"actions", absolute(c.Actions, "")}, {"server", c.checkServer()},
		} {
			if check.err != nil && !yield(check.key, check.err) {
				return
			}
		}
		for key, err := range enforce.Problems(c.Enforce) {
			if !yield("enforce"+key, err) {
				return
			}
		}
		for key, err := range enforce.DriftProblems(c.ZeroDrift) {
			if !yield("zeroDrift"+key, err) {
				return
			}
		}
	}
}

// enforces reports whether anything is to be done beside alerts.
func (c *Config) enforces() bool { return len(c.Enforce) > 0 || len(c.ZeroDrift) > 0 }

func (c *Config) checkMatch() error {
	if c.Match != "first" && c.Match != "all" {
		return fmt.Errorf("want first or all, have %q", c.Match)
	}
	return nil
}

func (c *Config) checkPriority() error {
	_, err := alert.ParsePriority(c.Priority)
	return err
}

func (c *Config) checkStatus() error {
	if c.Status == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Status)
	if err != nil {
		return fmt.Errorf("want host:port, have %q", c.Status)
	}
	if c.StatusOpen {
		return nil
	}
	if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		return fmt.Errorf("want a loopback address, have %q: what is shown there is for this host only", host)
	}
	return nil
}

func absolute(path string, other ...string) error {
	for _, o := range other {
		if path == o {
			return nil
		}
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("want an absolute path, have %q", path)
	}
	return nil
}

const (
	minBuffer = 64
	maxBuffer = 1 << 20
)

func (c *Config) checkBuffer() error {
	if c.BufferSize < minBuffer || c.BufferSize > maxBuffer {
		return fmt.Errorf("want %d to %d KiB, have %d", minBuffer, maxBuffer, c.BufferSize)
	}
	return nil
}

func (c *Config) checkBudget() error {
	if !(c.CPUBudget == 0 || c.CPUBudget >= minBudget && c.CPUBudget <= maxBudget) {
		return fmt.Errorf("want 0, or a share of a core from %g to %d, have %g", minBudget, maxBudget, c.CPUBudget)
	}
	return nil
}

const (
	minBudget = 0.01
	maxBudget = 64
)

// mode returns which rules raise an alert.
func (c *Config) mode() rule.Mode {
	if c.Match == "all" {
		return rule.All
	}
	return rule.First
}
