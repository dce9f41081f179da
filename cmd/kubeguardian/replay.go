package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/rule"
)

const replayUsage = `Usage: kubeguardian replay [FLAGS] EVENTS…

Runs recorded audit events through detection rules and prints each alert as one
line of JSON, with Falco's keys. EVENTS is a file as kube-apiserver writes it
with --audit-log-path (one JSON event on a line; event lists and arrays are read
too), or - for standard input. A request has at most one alert of a rule, as in
the server.

  --rules PATH         a rule file or folder in place of the built-in rules, or
                       builtin for these; may be given several times
  --match first|all    alerts of an event: of the first rule that matches, as
                       the server does, or of all (default first)

Exit codes: 0 no alert, 1 alerts, 2 the replay could not be done.

Example: try a rule of your own on yesterday's log:

  kubeguardian replay --rules my-rules.yaml audit.log
`

func replay(ctx context.Context, args []string, std streams) error {
	var paths []string
	var all bool
	flags := newFlags("replay")
	flags.Func("rules", "", func(s string) error { paths = append(paths, s); return nil })
	flags.Func("match", "", choice(&all, "first", "all"))
	events, err := parse(flags, args, replayUsage, std.out)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return wrongUsage("replay", errors.New("replay: name files with events, or - for standard input"))
	}
	files, err := content.Read[rule.File](content.Rules(), paths...)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	r := replayer{mode: rule.First, enrich: enrichment.New(), out: json.NewEncoder(std.out), raised: map[string]bool{}}
	r.out.SetEscapeHTML(false)
	if all {
		r.mode = rule.All
	}
	if r.rules, err = rule.Load(files...); err != nil {
		return err
	}
	for _, name := range events {
		if err := r.file(ctx, name, std); err != nil {
			return err
		}
	}
	if len(r.raised) > 0 {
		return exitCode(1)
	}
	return nil
}

// A replayer prints the alerts of events.
type replayer struct {
	rules  *rule.Set
	enrich *enrichment.Enricher
	mode   rule.Mode
	out    *json.Encoder
	raised map[string]bool // ids of alerts
}

func (r *replayer) file(ctx context.Context, name string, std streams) error {
	in := untilDone(ctx, std.in)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		defer f.Close()
		in = f
	}
	stats, err := k8saudit.Decode(in, func(e *event.Event) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.match(e)
	})
	if err != nil {
		return fmt.Errorf("read events of %s: %w", name, err)
	}
	for _, problem := range stats.Problems {
		fmt.Fprintf(std.err, "kubeguardian: note: %s: %s\n", name, report.Plain(fmt.Sprint(problem)))
	}
	if more := stats.Malformed - len(stats.Problems); more > 0 {
		fmt.Fprintf(std.err, "kubeguardian: note: %s: and %d more\n", name, more)
	}
	if stats.Events == 0 {
		return fmt.Errorf("read events of %s: no audit event in it", name)
	}
	return nil
}

func (r *replayer) match(e *event.Event) error {
	r.enrich.Enrich(e)
	for _, a := range r.enrich.Attribute(e, r.rules.Match(e, r.mode)) {
		if r.raised[a.ID] {
			continue
		}
		r.raised[a.ID] = true
		if err := r.out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}
