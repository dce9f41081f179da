package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/tuning"
)

const tuneUsage = `Usage: kubeguardian tune [FLAGS] [ALERTS…]

Reads the alerts of a day or so and proposes the narrowest exceptions that would
silence those that come often and are alike, as a rules file to load after the
rules. It says what each would silence, what it would not, and who decides what
the values are that it relies on.

ALERTS is a file of alerts as 'kubeguardian replay' prints them or the server's
/api/v1/alerts answers, or - for standard input. Without it, the alerts are those
that the events raise.

  --rules PATH      a rule file or folder in place of the built-in rules, or
                    builtin for these; may be given several times
  --events FILE     audit events, as replay reads them; they are run through the
                    rules with and without the exceptions
  --match first|all alerts of an event, as in replay (default first)
  --min N           how many alerts an exception silences at least (default 10)
  --across-actors   also exceptions that silence alerts of several users, of
                    those that anybody may be, or of controllers
  --output FILE     write the exceptions to a file
  --all             list all alerts that an exception silences, not only three

Exit codes: 0 done, also if there is nothing to propose, 2 it could not be done.

Example: see what yesterday's log would have raised without them:

  kubeguardian tune --events audit.log --output tuned.yaml
`

// Limits of what tune reads.
const (
	maxTuneAlerts = 500_000
	maxTuneBytes  = 2 << 30
)

func tune(ctx context.Context, args []string, std streams) error {
	t := tuner{std: std, opts: tuning.Options{Min: 10}}
	var paths []string
	var events, output string
	var all bool
	flags := newFlags("tune")
	flags.Func("rules", "", func(s string) error { paths = append(paths, s); return nil })
	flags.StringVar(&events, "events", "", "")
	flags.Func("match", "", choice(&all, "first", "all"))
	flags.IntVar(&t.opts.Min, "min", t.opts.Min, "")
	flags.BoolVar(&t.opts.Across, "across-actors", false, "")
	flags.StringVar(&output, "output", "", "")
	flags.BoolVar(&t.all, "all", false, "")
	files, err := parse(flags, args, tuneUsage, std.out)
	switch {
	case err != nil:
		return err
	case len(files) == 0 && events == "":
		return wrongUsage("tune", errors.New("tune: name files with alerts, - for standard input, or --events"))
	case t.opts.Min < 2:
		return wrongUsage("tune", errors.New("tune: --min is how many alerts are often, 2 or more"))
	}
	if t.opts.Rules, err = content.Read[rule.File](content.Rules(), paths...); err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	if all {
		t.mode = rule.All
	}
	return t.run(ctx, files, events, output)
}

// A tuner is one run of tune.
type tuner struct {
	std  streams
	opts tuning.Options
	mode rule.Mode
	all  bool // list all alerts
}

func (t *tuner) run(ctx context.Context, files []string, events, output string) error {
	base, results := rule.Options{}.Load(t.opts.Rules...)
	if base == nil {
		return rule.Mistakes(results)
	}
	alerts, err := t.read(ctx, files)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		if alerts, err = t.replay(ctx, events, base); err != nil {
			return err
		}
	}
	proposals, skipped, err := tuning.Propose(alerts, t.opts)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(t.std.err, "kubeguardian: note: %d alerts of %s are left out: it is no rule over the audit log among those given\n", skipped[name], report.Plain(fmt.Sprintf("%q", name)))
	}
	if err := t.print(proposals); err != nil {
		return err
	}
	file := tuning.YAML(proposals)
	if err := t.write(output, file); err != nil {
		return err
	}
	if events != "" && len(file) > 0 {
		return t.prove(ctx, events, base, file)
	}
	return nil
}

// read reads alerts of files.
func (t *tuner) read(ctx context.Context, files []string) (alerts []alert.Alert, err error) {
	for _, name := range files {
		in := untilDone(ctx, t.std.in)
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return nil, fmt.Errorf("read alerts: %w", err)
			}
			defer f.Close()
			in = f
		}
		limited := &io.LimitedReader{R: in, N: maxTuneBytes + 1}
		if alerts, err = readAlerts(limited, alerts); err != nil {
			return nil, fmt.Errorf("read alerts of %s: %w", name, err)
		}
		if limited.N == 0 {
			return nil, fmt.Errorf("read alerts of %s: over the limit of %d bytes", name, int64(maxTuneBytes))
		}
	}
	return alerts, nil
}

// readAlerts adds the alerts of a stream of JSON: alerts, or pages of them.
func readAlerts(in io.Reader, alerts []alert.Alert) ([]alert.Alert, error) {
	decoder, before := json.NewDecoder(in), len(alerts)
	decoder.UseNumber()
	for {
		var v struct {
			alert.Alert
			Items []alert.Alert `json:"items"`
		}
		switch err := decoder.Decode(&v); {
		case errors.Is(err, io.EOF) && len(alerts) == before:
			return nil, errors.New("no alert in it")
		case errors.Is(err, io.EOF):
			return alerts, nil
		case err != nil:
			return nil, fmt.Errorf("at byte %d: %w", decoder.InputOffset(), err)
		case v.Rule == "" && v.Items == nil:
			return nil, fmt.Errorf("before byte %d: this is no alert: it has no rule", decoder.InputOffset())
		case v.Rule != "":
			v.Items = append(v.Items, v.Alert)
		}
		if alerts = append(alerts, v.Items...); len(alerts) > maxTuneAlerts {
			return nil, fmt.Errorf("over the limit of %d alerts", maxTuneAlerts)
		}
	}
}

// replay returns the alerts that rules raise for events, each once.
func (t *tuner) replay(ctx context.Context, events string, rules *rule.Set) (alerts []alert.Alert, err error) {
	seen := map[string]bool{}
	err = t.each(ctx, events, func(e *event.Event, enrich *enrichment.Enricher) error {
		for _, a := range enrich.Attribute(e, rules.Match(e, t.mode)) {
			if !seen[a.ID] {
				seen[a.ID] = true
				alerts = append(alerts, a)
			}
		}
		if len(alerts) > maxTuneAlerts {
			return fmt.Errorf("over the limit of %d alerts", maxTuneAlerts)
		}
		return nil
	})
	return alerts, err
}

// each calls f for each event of a file, enriched.
func (t *tuner) each(ctx context.Context, file string, f func(*event.Event, *enrichment.Enricher) error) error {
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer in.Close()
	enrich := enrichment.New()
	stats, err := k8saudit.Decode(in, func(e *event.Event) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		enrich.Enrich(e)
		defer enrich.Release(e)
		return f(e, enrich)
	})
	switch {
	case err != nil:
		return fmt.Errorf("read events of %s: %w", file, err)
	case stats.Events == 0:
		return fmt.Errorf("read events of %s: no audit event in it", file)
	}
	if stats.Malformed > 0 {
		fmt.Fprintf(t.std.err, "kubeguardian: note: %s: %d events could not be read\n", file, stats.Malformed)
	}
	return nil
}

// write writes the exceptions to a file, or behind the text.
func (t *tuner) write(output string, file []byte) error {
	switch {
	case len(file) == 0:
		return nil
	case output == "":
		_, err := fmt.Fprintf(t.std.out, "\n%s", file)
		return err
	}
	if err := os.WriteFile(output, file, 0o644); err != nil {
		return fmt.Errorf("write exceptions: %w", err)
	}
	return nil
}

// prove runs the events through the rules with and without the exceptions.
func (t *tuner) prove(ctx context.Context, events string, base *rule.Set, file []byte) error {
	tuned, results := rule.Options{}.Load(append(slices.Clone(t.opts.Rules), rule.File{Name: "tuned.yaml", Data: file})...)
	if tuned == nil {
		return fmt.Errorf("load the proposed exceptions: %w", rule.Mistakes(results))
	}
	before, after := map[string]string{}, map[string]string{} // rules by id of the alert
	err := t.each(ctx, events, func(e *event.Event, _ *enrichment.Enricher) error {
		for set, raised := range map[*rule.Set]map[string]string{base: before, tuned: after} {
			for _, a := range set.Match(e, t.mode) {
				raised[a.ID] = a.Rule
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	remain, others := map[string]int{}, map[string]int{}
	for id, name := range after {
		if remain[name]++; before[id] == "" {
			others[name]++
		}
	}
	fmt.Fprintf(t.std.out, "\nthe events raise %d alerts without the exceptions and %d with them:\n", len(before), len(after))
	for _, name := range slices.Sorted(maps.Keys(remain)) {
		more := ""
		if n := others[name]; n > 0 {
			more = fmt.Sprintf(", %d of which come in place of a silenced one", n)
		}
		fmt.Fprintf(t.std.out, "%7d %s%s\n", remain[name], report.Plain(name), more)
	}
	return nil
}

func (t *tuner) print(proposals []tuning.Proposal) error {
	for _, p := range proposals {
		for _, line := range p.Lines(t.all) {
			if _, err := fmt.Fprintln(t.std.out, report.Plain(line)); err != nil {
				return err
			}
		}
	}
	return nil
}
