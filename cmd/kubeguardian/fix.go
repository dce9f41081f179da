package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/fix"
	"github.com/kubeguardian/kubeguardian/report"
)

const fixUsage = `Usage: kubeguardian fix [FLAGS] PATH…

Changes manifests so that controls pass. Each change is made in the text of your
own files, where comments, order and indentation stay, and is proven before it
is offered: the control passes afterwards, nothing else gets worse, and the
documents read the same but for what was changed. Namespaces without network
policies get them as a new file beside their manifests, after a simulation: what
settings, entry points and webhooks declare stays possible.

Prints the changes as a unified diff, which patch -p1 and git apply take, then
what they are worth and what is left for you. PATH is a file, a folder, or - for
standard input, which is printed as changed.

  --write            change the files
  --undo FILE        save the diff as well; patch -R -p1 or git apply -R take the
                     changes back with it
  --control ID       only for this control; may be given several times
  --evidence PATH    what was seen elsewhere: a file or a folder of them; may be
                     given several times
  --exceptions PATH  accepted risks, which are left as they are: a file of
                     SecurityException objects or a folder of them; may be given
                     several times
  --dry-run server   ask the cluster of the kubeconfig whether it takes each
                     changed object; nothing is stored there
  --kubeconfig FILE  credentials for --dry-run (default: $KUBECONFIG, then
                     ~/.kube/config, then those of the pod this runs in)

Exit codes: 0 nothing to change, or all is written, 1 changes are offered and not
written, 2 it could not be done, or the cluster refuses a changed object.

Example: look at the changes to an application, then make them:

  kubeguardian fix ./deploy
  kubeguardian fix ./deploy --write --undo undo.diff
`

// fixOptions are the flags of fix.
type fixOptions struct {
	paths      []string
	controls   []string
	evidence   []string
	exceptions []string
	write      bool
	undo       string
	dryRun     bool
	kubeconfig string
}

func fixManifests(ctx context.Context, args []string, std streams) error {
	opts, err := fixFlags(args, std.out)
	if err != nil {
		return err
	}
	speakPlainly(std.err)
	in, err := opts.input(ctx, std)
	if err != nil {
		return err
	}
	plan, err := fix.Propose(ctx, in)
	if err != nil {
		return err
	}
	if err := opts.save(plan); err != nil {
		return err
	}
	if slices.Contains(opts.paths, "-") {
		return errors.Join(printFixed(plan, std), errors.Join(plan.Denied...))
	}
	if _, err := io.WriteString(std.out, plan.Diff()); err != nil {
		return err
	}
	var written []string
	if opts.write {
		if written, err = plan.Write(); err != nil {
			return err
		}
	}
	if err := explainPlan(std.out, plan, written); err != nil {
		return err
	}
	if len(plan.Denied) > 0 {
		return errors.Join(plan.Denied...) // its changes are neither written nor offered
	}
	if len(plan.Files) > len(written) {
		return exitCode(1)
	}
	return nil
}

func fixFlags(args []string, out io.Writer) (*fixOptions, error) {
	o := &fixOptions{}
	flags := newFlags("fix")
	flags.BoolVar(&o.write, "write", false, "")
	flags.StringVar(&o.undo, "undo", "", "")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "")
	flags.Func("control", "", appendTo(&o.controls))
	flags.Func("evidence", "", appendTo(&o.evidence))
	flags.Func("exceptions", "", appendTo(&o.exceptions))
	flags.Func("dry-run", "", func(s string) error {
		if o.dryRun = s == "server"; !o.dryRun {
			return errors.New("want server; without --write nothing is changed anyway")
		}
		return nil
	})
	var err error
	if o.paths, err = parse(flags, args, fixUsage, out); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, wrongUsage("fix", fmt.Errorf("fix: %w", err))
	}
	return o, nil
}

func (o *fixOptions) check() error {
	pipe := slices.Contains(o.paths, "-")
	switch {
	case slices.Contains(o.paths, ""), slices.Contains(o.evidence, ""), slices.Contains(o.exceptions, ""):
		return errors.New("a path is empty: is a variable not set?")
	case len(o.paths) == 0:
		return errors.New("nothing to fix: name files or folders, or - for standard input")
	case pipe && len(o.paths) > 1:
		return errors.New("standard input and files cannot be fixed together")
	case pipe && o.write:
		return errors.New("--write needs files: what comes from standard input is printed as changed")
	case o.kubeconfig != "" && !o.dryRun:
		return errors.New("--kubeconfig needs --dry-run=server")
	}
	return nil
}

// input gathers what the manifests are judged by. What an API server warns of
// while it is asked goes to stderr, once.
func (o *fixOptions) input(ctx context.Context, std streams) (fix.Input, error) {
	in := fix.Input{Paths: o.paths, Stdin: untilDone(ctx, std.in), Controls: o.controls}
	var err error
	if in.Catalogue, in.Policies, err = builtIn(); err != nil {
		return in, err
	}
	if len(o.evidence) > 0 {
		if in.Evidence, err = evidence.Load(ctx, o.evidence...); err != nil {
			return in, err
		}
	}
	for _, path := range o.exceptions {
		found, err := exceptionFiles(path)
		if err != nil {
			return in, err
		}
		in.Exceptions = append(in.Exceptions, found...)
	}
	if o.dryRun {
		config, err := restConfig(o.kubeconfig, "name another one by --kubeconfig, or leave --dry-run out")
		if err != nil {
			return in, err
		}
		config.WarningHandler = rest.NewWarningWriter(plainly(std.err), rest.WarningWriterOptions{Deduplicate: true})
		if in.DryRun, err = fix.ServerDryRun(config); err != nil {
			return in, err
		}
	}
	return in, nil
}

// save keeps the diff, which is what undoes the changes.
func (o *fixOptions) save(plan *fix.Plan) error {
	if o.undo == "" || len(plan.Files) == 0 {
		return nil
	}
	err := writeFile(o.undo, func(w io.Writer) error {
		_, err := io.WriteString(w, plan.Diff())
		return err
	})
	if err != nil {
		return fmt.Errorf("save the diff: %w", err)
	}
	return nil
}

// printFixed prints standard input as it is after the changes; what there is to
// say about them goes to stderr.
func printFixed(plan *fix.Plan, std streams) error {
	for _, f := range plan.Files {
		if _, err := std.out.Write(f.After); err != nil {
			return err
		}
	}
	if len(plan.Files) == 0 {
		if _, err := std.out.Write(plan.Stdin); err != nil {
			return err
		}
	}
	return explainPlan(std.err, plan, []string{"-"})
}

// explainPlan says what changes are worth, what is not offered and what is left
// to do.
func explainPlan(w io.Writer, plan *fix.Plan, written []string) error {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(report.Plain(fmt.Sprintf(format, args...)) + "\n") }
	for _, of := range byControl(plan.Changes) {
		line("fixed: %s (%d, first %s): %s", of[0].Control, len(of), where(of[0].Subject), cmp.Or(strings.Join(of[0].What, "; "), "met by the other changes"))
	}
	for _, n := range plan.Networks {
		line("simulated %s: %d declared connections, none is cut%s", n.Namespace, n.Flows, pairs(n.Before, n.After))
		for _, note := range n.Notes {
			line("  not declared here: %s", note)
		}
	}
	for _, f := range plan.Appeared {
		line("applies now: %s %s: %s%s", f.Control, where(*f.Subject), f.Message, f.Reason)
	}
	for _, r := range plan.Refused {
		line("not offered: %s %s: %s", r.Control, where(r.Subject), r.Reason)
	}
	for _, m := range plan.Manual {
		kind := "by hand"
		if m.Value {
			kind = "needs a value"
		}
		line("%s: %s (%d, first %s): %s", kind, m.Control, len(m.Subjects), where(m.Subjects[0]), m.Text)
	}
	if plan.Proven > 0 {
		line("the API server would take %d changed objects", plan.Proven)
	}
	line("score %s -> %s of 100; %s", points(plan.Before), points(plan.After), outcome(plan, written))
	_, err := io.WriteString(w, b.String())
	return err
}

// byControl groups changes, which are in the order of their controls.
func byControl(changes []fix.Change) (groups [][]fix.Change) {
	for i, c := range changes {
		if i == 0 || c.Control != changes[i-1].Control {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], c)
	}
	return groups
}

func pairs(before, after int) string {
	if before == 0 {
		return ""
	}
	return fmt.Sprintf("; pairs of workloads that can connect: %d -> %d", before, after)
}

func where(s finding.Subject) string {
	if s.Source == "" {
		return s.String()
	}
	return s.Source + " " + s.String()
}

func points(s control.Score) string {
	if s.Total == nil {
		return "no data"
	}
	return report.Points(*s.Total, 100)
}

func outcome(plan *fix.Plan, written []string) string {
	switch {
	case len(plan.Files) == 0:
		return "nothing to change"
	case len(written) > 0:
		return fmt.Sprintf("%d changes written", len(plan.Changes))
	}
	return fmt.Sprintf("%d changes offered: make them with --write", len(plan.Changes))
}
