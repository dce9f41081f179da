package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

const rulesUsage = `Usage: kubeguardian rules validate [FLAGS] PATH…

Loads files or folders of detection rules, in order, as one set, and says of each
file whether it is valid, with Falco's codes. The path builtin stands for the
built-in rules, for files that build on them.

  --format text|json   as Falco prints it, or its JSON (default text)
  --verbose            in text: the place, the line and the message of each
                       mistake and warning

Exit codes: 0 valid (perhaps with warnings), 1 invalid, 2 a file cannot be read.

Example:

  kubeguardian rules validate --verbose my-rules.yaml
`

// rules is the command rules.
func rules(_ context.Context, args []string, std streams) error {
	var asJSON, verbose bool
	flags := newFlags("rules")
	flags.Func("format", "", choice(&asJSON, "text", "json"))
	flags.BoolVar(&verbose, "verbose", false, "")
	rest, err := parse(flags, args, rulesUsage, std.out)
	if err != nil {
		return err
	}
	switch {
	case len(rest) == 0 || rest[0] != "validate":
		return wrongUsage("rules", fmt.Errorf("rules: want validate, not %q", strings.Join(rest[:min(1, len(rest))], "")))
	case len(rest) == 1:
		return wrongUsage("rules", errors.New("rules validate: name files or folders with rules"))
	}
	files, err := content.Read[rule.File](content.Rules(), rest[1:]...)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	set, results := rule.Options{}.Load(files...)
	if err := printResults(std.out, results, asJSON, verbose); err != nil {
		return err
	}
	if set == nil {
		return exitCode(1)
	}
	return nil
}

func printResults(w io.Writer, results []rule.Result, asJSON, verbose bool) error {
	if asJSON {
		out := json.NewEncoder(w)
		out.SetEscapeHTML(false)
		return out.Encode(map[string]any{"falco_load_results": results})
	}
	for _, r := range results {
		text := r.String()
		if verbose {
			text = r.Verbose()
		}
		for line := range strings.Lines(text) {
			if _, err := fmt.Fprintln(w, report.Plain(strings.TrimSuffix(line, "\n"))); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadRules reads the rules that paths name, or the built-in ones, and prints
// what is suspect in them.
func loadRules(paths []string, opts rule.Options, std streams) (*rule.Set, error) {
	files, err := content.Read[rule.File](content.Rules(), paths...)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	set, results := opts.Load(files...)
	for _, r := range results {
		for _, w := range r.Warnings {
			fmt.Fprintf(std.err, "kubeguardian: note: %s\n", report.Plain(fmt.Sprintf("%s (%s)", w, w.Code)))
		}
	}
	if set == nil {
		return nil, rule.Mistakes(results)
	}
	return set, nil
}

const explainUsage = `Usage: kubeguardian explain RULE --event FILE [FLAGS]

Shows check by check why a rule matches an event, or does not: the value of each
field, where the check is written, and which checks decided. Lines begin with +
for what is true, - for what is false, and * for what decided.

  --event FILE    events of the rule's source, as 'kubeguardian replay' reads
                  them; - is standard input
  --rules PATH    a rule file or folder in place of the built-in rules, or
                  builtin for these; may be given several times

Exit codes: 0 explained, 2 there is no such rule or event.

Example:

  kubeguardian explain "Secrets listed" --event event.json
`

// explainRule is the command explain.
func explainRule(ctx context.Context, args []string, std streams) error {
	var paths []string
	var file string
	flags := newFlags("explain")
	flags.StringVar(&file, "event", "", "")
	flags.Func("rules", "", func(s string) error { paths = append(paths, s); return nil })
	names, err := parse(flags, args, explainUsage, std.out)
	switch {
	case err != nil:
		return err
	case len(names) != 1:
		return wrongUsage("explain", fmt.Errorf("explain: want the name of one rule, not %d", len(names)))
	case file == "":
		return wrongUsage("explain", errors.New("explain: --event is missing"))
	}
	set, err := loadRules(paths, rule.Options{}, std)
	if err != nil {
		return err
	}
	source, err := sourceOf(set, names[0])
	if err != nil {
		return err
	}
	x := explainer{set, names[0], std.out}
	read := x.audit
	if source == event.Syscall {
		read = x.calls
	}
	return withFile(ctx, file, std, func(in io.Reader) error { return read(ctx, file, in) })
}

func sourceOf(set *rule.Set, name string) (string, error) {
	for _, r := range set.Rules() {
		if r.Name == name {
			return r.Source, nil
		}
	}
	return "", fmt.Errorf("explain rule %q: there is no such rule%s", name, set.Hint(name))
}

// An explainer explains a rule by events.
type explainer struct {
	set  *rule.Set
	name string
	out  io.Writer
}

// calls explains the rule by system calls.
func (x explainer) calls(ctx context.Context, file string, in io.Reader) error {
	n, err := syscall.Read(file, in, func(e *event.Event) error {
		return errors.Join(ctx.Err(), explainEvent(x.set, x.name, e, x.out))
	})
	switch {
	case err != nil:
		return fmt.Errorf("explain rule %q: %w", x.name, err)
	case n == 0:
		return fmt.Errorf("read events of %s: no event in it", file)
	}
	return nil
}

// audit explains the rule by audit events.
func (x explainer) audit(ctx context.Context, file string, in io.Reader) error {
	enrich := enrichment.New()
	stats, err := k8saudit.Decode(in, func(e *event.Event) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		enrich.Enrich(e)
		return explainEvent(x.set, x.name, e, x.out)
	})
	switch {
	case err != nil:
		return fmt.Errorf("explain rule %q by events of %s: %w", x.name, file, err)
	case len(stats.Problems) > 0:
		return fmt.Errorf("read events of %s: %w", file, stats.Problems[0])
	case stats.Events == 0:
		return fmt.Errorf("read events of %s: no audit event in it", file)
	}
	return nil
}

func explainEvent(set *rule.Set, name string, e *event.Event, w io.Writer) error {
	x, ok := set.Explain(name, e)
	if !ok {
		return errors.New("there is no such rule" + set.Hint(name))
	}
	if _, err := fmt.Fprintf(w, "event of %s\n", e.Time.UTC().Format("2006-01-02T15:04:05.000000Z")); err != nil {
		return err
	}
	text := x.String()
	if first := set.Match(e, rule.First); x.Matches && len(first) > 0 && first[0].Rule != name {
		text += fmt.Sprintf("an earlier rule matches too, %q: unless all may alert, only that one does\n", first[0].Rule)
	}
	for line := range strings.Lines(text) {
		if _, err := fmt.Fprintln(w, report.Plain(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}
