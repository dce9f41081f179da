// Command lab runs a real Kubernetes on this machine, for tests and for the
// demo: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, built
// from source, on loopback, without root; and, for root, a node with real pods.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

const usage = `Usage: lab COMMAND [flags]

Commands:
  up          start the control plane, and with --node a node; return when ready
  run         the same in the foreground; Ctrl-C ends and removes it
  down        end the lab and remove all of its state
  status      say what runs; exit code 1 when the lab is not up
  kubeconfig  print the path of a user's kubeconfig: --user admin or developer
  node        run a command on the node: lab node ctr images ls
  build       build the programs into the cache, and start nothing

Example:
  eval "$(lab up)" && kubectl get namespaces && lab down

'lab COMMAND -h' lists the flags of a command.
`

// errUsage says that the message was printed already.
var errUsage = errors.New("usage")

// errNotUp makes status exit with code 1.
var errNotUp = errors.New("the lab is not up")

func main() {
	// The kernel ends the programs of `lab run` when the thread that started
	// them ends: the main thread lives exactly as long as the process.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code: 0 done, 1 not up,
// 2 could not do it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = withHint(fmt.Errorf("interrupted; nothing is left running"), "")
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errNotUp):
		return 1
	case !errors.Is(err, errUsage):
		report(stderr, err)
	}
	return 2
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errUsage
	}
	commands := map[string]func(context.Context, []string, io.Writer, io.Writer) error{
		"up":         upCommand,
		"run":        runCommand,
		"down":       downCommand,
		"status":     statusCommand,
		"kubeconfig": kubeconfigCommand,
		"node":       nodeCommand,
		"build":      buildCommand,
	}
	if command, ok := commands[args[0]]; ok {
		return command(ctx, args[1:], stdout, stderr)
	}
	switch args[0] {
	case "sandbox", "sandbox-init": // of this program's own, with its arguments
		if len(args) != 3 {
			break
		}
		if args[0] == "sandbox" {
			return makeSandbox(args[1], args[2])
		}
		return sandboxInit(args[1], args[2])
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	}
	return withHint(fmt.Errorf("unknown command %q", args[0]), "lab help lists the commands")
}

// parse reads the flags of a command, which takes no other arguments.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer) error {
	flags.SetOutput(stderr)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	case flags.NArg() > 0:
		return withHint(fmt.Errorf("unexpected argument %q", flags.Arg(0)), "lab "+flags.Name()+" -h lists the flags")
	}
	return nil
}

// dirFlag adds --dir and returns where the value will be.
func dirFlag(flags *flag.FlagSet) *string {
	return flags.String("dir", "", "`directory` of the lab's state (default "+defaultDir()+")")
}

// defaultDir is the one lab of a user who names no other.
func defaultDir() string {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "kubeguardian", "lab")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("kubeguardian-lab-%d", os.Getuid()))
	}
	return filepath.Join(home, ".local", "state", "kubeguardian", "lab")
}

func upFlags(name string, args []string, stderr io.Writer) (*lab, options, error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	dir := dirFlag(flags)
	var opts options
	flags.StringVar(&opts.Binaries, "binaries", os.Getenv("KUBEBUILDER_ASSETS"), "`directory` of ready programs; empty: build them once into the cache")
	flags.IntVar(&opts.Port, "port", 0, "`port` of the API server on 127.0.0.1; 0: a free one")
	flags.StringVar(&opts.WebhookKubeconfig, "webhook-kubeconfig", "", "kubeconfig `file` of an audit webhook; its user also authenticates the API server to admission webhooks")
	flags.StringVar(&opts.AuditPolicy, "audit-policy", "", "audit policy `file` (default: one that logs every change with its bodies)")
	flags.BoolVar(&opts.Node, "node", false, "a node too, on which pods run; needs root")
	if err := parse(flags, args, stderr); err != nil {
		return nil, opts, err
	}
	if opts.Port < 0 || opts.Port > 65535 {
		return nil, opts, fmt.Errorf("--port %d: want 0 to 65535", opts.Port)
	}
	if err := opts.resolve(); err != nil {
		return nil, opts, err
	}
	return newLab(*dir, stderr), opts, nil
}

func upCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	l, opts, err := upFlags("up", args, stderr)
	if err != nil {
		return err
	}
	return l.up(ctx, opts, stdout)
}

func runCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	l, opts, err := upFlags("run", args, stderr)
	if err != nil {
		return err
	}
	return l.run(ctx, opts, stdout)
}

func downCommand(_ context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	dir := dirFlag(flags)
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	return newLab(*dir, stderr).down()
}

func statusCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	dir := dirFlag(flags)
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	return newLab(*dir, stderr).status(ctx, stdout)
}

func kubeconfigCommand(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("kubeconfig", flag.ContinueOnError)
	dir := dirFlag(flags)
	user := flags.String("user", "admin", "`name`: admin or developer")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *user != "admin" && *user != "developer" {
		return fmt.Errorf("--user %q: want admin or developer", *user)
	}
	path := newLab(*dir, stderr).path(*user + ".kubeconfig")
	if _, err := os.Stat(path); err != nil {
		return withHint(fmt.Errorf("find kubeconfig: %w", err), "start the lab first: lab up")
	}
	fmt.Fprintln(stdout, path)
	return nil
}

func nodeCommand(_ context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	dir := dirFlag(flags)
	flags.SetOutput(stderr)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	case flags.NArg() == 0:
		return withHint(errors.New("no command for the node"), "for example: lab node ctr images ls")
	}
	return newLab(*dir, stderr).enter(flags.Args())
}

func buildCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	node := flags.Bool("node", false, "the programs of a node too")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	sets := []func(source, cache string, progress io.Writer) builder{controlPlaneBuilder}
	if *node {
		sets = append(sets, nodeBuilder)
	}
	dir, err := cached(ctx, stderr, sets...)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, dir)
	return nil
}

// A hinted error also says what the user can do, and may show the end of a log.
type hinted struct {
	error
	log, hint string
}

func (e hinted) Unwrap() error { return e.error }

func withHint(err error, hint string) error { return hinted{error: err, hint: hint} }

// report prints an error, then the end of the log and the hint that it carries.
func report(w io.Writer, err error) {
	fmt.Fprintln(w, "lab: error:", err)
	var h hinted
	if !errors.As(err, &h) {
		return
	}
	if h.log != "" {
		fmt.Fprint(w, h.log)
	}
	if h.hint != "" {
		fmt.Fprintln(w, "lab: hint:", h.hint)
	}
}
