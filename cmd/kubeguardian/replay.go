package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/k8saudit"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

const replayUsage = `Usage: kubeguardian replay [FLAGS] EVENTS…

Runs recorded events through detection rules and prints each alert as one line of
JSON, with Falco's keys. EVENTS is a file as kube-apiserver writes it with
--audit-log-path (one JSON event on a line; event lists and arrays are read too),
one that a cloud exports, also packed by gzip, or - for standard input. A request
has at most one alert of a rule, as in the server. With --source syscall it is a
file of system calls, one JSON event on a line (docs/rules.md).

  --source SOURCE      of the events: k8s_audit or syscall (default k8s_audit)
  --rules PATH         a rule file or folder in place of the built-in rules, or
                       builtin for these; may be given several times
  --compat falco|fixed fields as Falco has them, defects included, or as their
                       names promise (default falco)
  --match first|all    alerts of an event: of the first rule that matches, as
                       the server does, or of all (default first)
  --priority LEVEL     leave out rules that are less urgent, as warning leaves out
                       notice (default debug: none)

What is suspect in a rule file is a note on standard error, with Falco's code.

Exit codes: 0 no alert, 1 alerts, 2 the replay could not be done.

Example: try a rule of your own on yesterday's log:

  kubeguardian replay --rules my-rules.yaml audit.log
`

func replay(ctx context.Context, args []string, std streams) error {
	var paths []string
	var all bool
	var compat k8saudit.Compat
	flags := newFlags("replay")
	flags.Func("compat", "", func(s string) (err error) { compat, err = k8saudit.ParseCompat(s); return err })
	flags.Func("rules", "", func(s string) error { paths = append(paths, s); return nil })
	flags.Func("match", "", choice(&all, "first", "all"))
	var calls bool
	flags.Func("source", "", choice(&calls, event.K8sAudit, event.Syscall))
	var opts rule.Options
	flags.Func("priority", "", func(s string) error {
		p, err := alert.ParsePriority(s)
		opts.Minimum = &p
		return err
	})
	events, err := parse(flags, args, replayUsage, std.out)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return wrongUsage("replay", errors.New("replay: name files with events, or - for standard input"))
	}
	r := replayer{mode: rule.First, enrich: enrichment.New(), compat: compat, out: json.NewEncoder(std.out), raised: map[string]bool{}}
	r.out.SetEscapeHTML(false)
	if all {
		r.mode = rule.All
	}
	if r.rules, err = loadRules(paths, opts, std); err != nil {
		return err
	}
	read := r.audit
	if calls {
		read = r.calls
	}
	for _, name := range events {
		if err := withFile(ctx, name, std, func(in io.Reader) error { return read(ctx, name, in, std) }); err != nil {
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
	compat k8saudit.Compat
	out    *json.Encoder
	raised map[string]bool // ids of alerts
}

// withFile calls read with an open file, or with standard input.
func withFile(ctx context.Context, name string, std streams, read func(io.Reader) error) error {
	if name == "-" {
		return read(untilDone(ctx, std.in))
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer f.Close()
	return read(f)
}

// calls replays system calls.
func (r *replayer) calls(ctx context.Context, name string, in io.Reader, _ streams) error {
	n, err := syscall.Read(name, in, func(e *event.Event) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.print(r.rules.Match(e, r.mode))
	})
	switch {
	case err != nil:
		return fmt.Errorf("read events: %w", err)
	case n == 0:
		return fmt.Errorf("read events of %s: no event in it", name)
	}
	return nil
}

// audit replays audit events.
func (r *replayer) audit(ctx context.Context, name string, in io.Reader, std streams) error {
	stats, err := r.compat.Decode(in, func(e *event.Event) error {
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
	if n := stats.Faults.Bodies; n > 0 {
		fmt.Fprintf(std.err, "kubeguardian: note: %s: the API server left the bodies of %d events out, as they were too large for its audit log\n", name, n)
	}
	if n := stats.Faults.Foreign; n > 0 {
		fmt.Fprintf(std.err, "kubeguardian: note: %s: %d records are of other logs\n", name, n)
	}
	if stats.Events == 0 {
		return fmt.Errorf("read events of %s: no audit event in it", name)
	}
	return nil
}

func (r *replayer) match(e *event.Event) error {
	r.enrich.Enrich(e)
	defer r.enrich.Release(e)
	return r.print(r.enrich.Attribute(e, r.rules.Match(e, r.mode)))
}

func (r *replayer) print(alerts []alert.Alert) error {
	for _, a := range alerts {
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
