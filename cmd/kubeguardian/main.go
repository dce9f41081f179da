// Command kubeguardian judges Kubernetes manifests and clusters, and guards a
// cluster: see the usage text.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/playground"
	"github.com/kubeguardian/kubeguardian/report"
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are the standard input and outputs. A reader of out that goes away
// ends the program by SIGPIPE, as is usual in a pipeline.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// A command is one verb of the program. Its error becomes lines on stderr and
// exit code 2, but for an [exitCode].
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, std streams) error
}

func commands() []command {
	return []command{
		{"scan", "judge manifests or a cluster and print the score", scan},
		{"review", "judge objects by admission policies", reviewObjects},
		{"test", "run suites of policies, tests of rules and examples of controls", runTests},
		{"fix", "change manifests so that controls pass, with proof", fixManifests},
		{"policy", "export policies as native ones, push them to a registry", policies},
		{"replay", "run recorded audit events through detection rules", replay},
		{"explain", "show check by check why a rule matches an event or does not", explainRule},
		{"tune", "propose exceptions for rules that alert on what is normal", tune},
		{"rules", "validate files of detection rules", rules},
		{"actions", "verify the log of what people did", actions},
		{"serve", "guard a cluster: admission, audit log, score, page", serve},
		{"database", "copy records from a file into PostgreSQL", database},
		{"setup", "print what the cluster needs before serve", setup},
		{"uninstall", "remove the webhook registration from the cluster", uninstall},
		{"version", "print the version of the program and its controls", printVersion},
	}
}

// An exitCode ends the program without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func run(ctx context.Context, args []string, std streams) int {
	err := dispatch(ctx, args, std)
	if code := exitCode(0); errors.As(err, &code) {
		return int(code)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0 // the command has printed its usage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	explain(std.err, err, map[string]bool{})
	return 2
}

func dispatch(ctx context.Context, args []string, std streams) error {
	if len(args) == 0 {
		return wrongUsage("", errors.New("no command given"))
	}
	switch {
	case args[0] == "help" && len(args) > 1 && args[1] != "help":
		return dispatch(ctx, append(slices.Clone(args[1:]), "--help"), std)
	case slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]):
		return usage(std.out)
	case args[0] == "-version" || args[0] == "--version":
		return printVersion(ctx, args[1:], std)
	case args[0] == playground.ProcessName: // the server's, not for people
		return playground.Process(ctx, std.in, std.out)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], std)
		}
	}
	return wrongUsage("", fmt.Errorf("unknown command %q", args[0]))
}

func usage(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Usage: kubeguardian COMMAND [FLAGS] [ARGUMENTS]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.summary)
	}
	b.WriteString("\nExample: score the manifests of an application:\n  kubeguardian scan ./deploy\n\nkubeguardian COMMAND --help shows the flags of a command.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

const versionUsage = `Usage: kubeguardian version

Prints the version of the program, of its controls and of Go, and the platform.
`

func printVersion(_ context.Context, args []string, std streams) error {
	rest, err := parse(newFlags("version"), args, versionUsage, std.out)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return wrongUsage("version", fmt.Errorf("version takes no arguments, not %q", rest[0]))
	}
	catalogue, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		return fmt.Errorf("load built-in controls: %w", err)
	}
	_, err = fmt.Fprintf(std.out, "kubeguardian %s (controls %s, %s %s/%s)\n",
		built(), catalogue.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// explain prints an error, or each of several, and the hint of each, once.
func explain(w io.Writer, err error, given map[string]bool) {
	if all := joined(err); all != nil {
		for _, e := range all {
			explain(w, e, given)
		}
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "kubeguardian: error: %s\n", report.Plain(strings.TrimSuffix(line, "\n")))
	}
	if h := (interface{ Hint() string })(nil); errors.As(err, &h) && !given[h.Hint()] {
		given[h.Hint()] = true
		fmt.Fprintf(w, "kubeguardian: hint: %s\n", report.Plain(h.Hint()))
	}
}

// joined returns the errors that [errors.Join] made err of, or nil.
func joined(err error) []error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var text []string
	for _, e := range many.Unwrap() {
		text = append(text, e.Error())
	}
	if strings.Join(text, "\n") != err.Error() {
		return nil
	}
	return many.Unwrap()
}
