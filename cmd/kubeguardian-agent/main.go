// Command kubeguardian-agent guards a Linux host: see the usage text.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/kubeguardian/kubeguardian/agent"
)

// version is set by the linker; see [built].
var version string

// built returns the version: what the linker was told, or else what Go noted of
// the commit that the program was built from.
func built() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case version != "":
		return version
	case ok && info.Main.Version != "" && info.Main.Version != "(devel)":
		return info.Main.Version
	}
	return "unknown"
}

const usage = `Usage: kubeguardian-agent --config FILE [FLAGS]
       kubeguardian-agent --standalone [FLAGS]

Watches the system calls of this host and of its containers by eBPF, runs them
through detection rules, and sends the alerts to the server that the
configuration names. It needs root and a kernel with BTF.

  --standalone     print each alert on standard output instead, as one line of
                   JSON with Falco's keys
  --rules PATH     a rule file or folder in place of the built-in rules, or
                   builtin for these; may be given several times
  --match first|all  alerts of an event: of the first rule that matches, or of
                   all (default first)
  --priority LEVEL leave out rules that are less urgent, as warning leaves out
                   notice (default debug: none)
  --status ADDR    serve /healthz and /metrics at this loopback address
  --record FILE    write the events that rules are asked about, one line of JSON
                   each; they hold command lines and paths
  --config FILE    a configuration file; flags count more
  --version        print the version

What the agent cannot see here, and why, is logged on standard error.

Exit codes: 0 it was told to end, 2 it could not do its work.

Example: watch this host with a rule of your own besides the built-in ones:

  kubeguardian-agent --standalone --rules builtin --rules my-rules.yaml
`

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once, but not what some programs, such as
	// timeout, send twice.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		explain(os.Stderr, err)
		os.Exit(2)
	}
}

// gcPercent is GOGC unless the environment says otherwise: the agent allocates
// little once it runs, and memory on each node is dearer than a little more work.
const gcPercent = 50

// explain prints an error and its hint.
func explain(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "kubeguardian-agent: error: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if h := (interface{ Hint() string })(nil); errors.As(err, &h) {
		fmt.Fprintf(w, "kubeguardian-agent: hint: %s\n", h.Hint())
	}
}

// A hinted error says what the user can do.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string { return h.hint }

func wrongUsage(err error) error { return hinted{err, "see: kubeguardian-agent --help"} }

// A command is what the flags say.
type command struct {
	standalone, version bool
	record              string
	config              *agent.Config
}

// parse reads the flags. Those that are given count more than the file.
func parse(args []string, out io.Writer) (*command, error) {
	c := &command{}
	var file string
	var set []func()
	flags := flag.NewFlagSet("kubeguardian-agent", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&c.standalone, "standalone", false, "")
	flags.BoolVar(&c.version, "version", false, "")
	flags.StringVar(&file, "config", "", "")
	flags.StringVar(&c.record, "record", "", "")
	var rules []string
	flags.Func("rules", "", func(s string) error { rules = append(rules, s); return nil })
	text := func(name string, into func(*agent.Config) *string) {
		flags.Func(name, "", func(s string) error {
			set = append(set, func() { *into(c.config) = s })
			return nil
		})
	}
	text("match", func(c *agent.Config) *string { return &c.Match })
	text("priority", func(c *agent.Config) *string { return &c.Priority })
	text("status", func(c *agent.Config) *string { return &c.Status })
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		if _, err := io.WriteString(out, usage); err != nil {
			return nil, err
		}
		return nil, err
	case err != nil:
		return nil, wrongUsage(err)
	case flags.NArg() > 0:
		return nil, wrongUsage(fmt.Errorf("%q is no flag, and there are no arguments", flags.Arg(0)))
	}
	c.config = agent.DefaultConfig()
	if file != "" {
		loaded, err := agent.LoadConfig(file)
		if err != nil {
			return nil, err
		}
		c.config = loaded
	}
	for _, f := range set {
		f()
	}
	if len(rules) > 0 {
		c.config.Rules = rules
	}
	return c, c.config.Check()
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stdout)
	switch {
	case err != nil:
		return err
	case c.version:
		_, err := fmt.Fprintf(stdout, "kubeguardian-agent %s (%s %s/%s)\n", built(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	case !c.standalone && c.config.Server.URL == "":
		return wrongUsage(errors.New("there is no server to report to: give --standalone, or --config with server.url"))
	}
	opts := agent.Options{Config: c.config, Log: slog.New(slog.NewTextHandler(stderr, nil)), Open: agent.OpenSensor, Version: built()}
	if c.standalone {
		opts.Out = stdout
	}
	if c.record == "" {
		return watch(ctx, opts)
	}
	f, err := os.OpenFile(c.record, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	opts.Record = f
	return errors.Join(watch(ctx, opts), f.Close())
}

func watch(ctx context.Context, opts agent.Options) error {
	a, err := agent.New(opts)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
