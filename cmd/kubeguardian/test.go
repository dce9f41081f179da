package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/suite"
)

const testUsage = `Usage: kubeguardian test [FLAGS] PATH…

Runs suites of policies, tests of detection rules and labelled examples of
controls, and prints what does not come out as they say. PATH is a suite or a file
of tests, or a folder in which, at any depth,

  - a file is a suite: kind Suite of test.gatekeeper.sh/v1alpha1, as gator has it,
    or of kubeguardian.dev/v1alpha1, which has more words (docs/review.md). Its
    policies may be OCI artifacts by digest, as for 'kubeguardian review';
  - a file has tests of rules: kind RuleTest of kubeguardian.dev/v1alpha1
    (docs/rule-tests.md);
  - a folder with the id of a control, or with the name of its policy, holds
    examples: files or folders whose names begin with pass-, fail-, unknown- or
    na-, the state that the control must have for them.

  --now TIME           the time at which evidence is judged, as 2026-11-26T12:00:00Z
                       (default: now)
  --list               print what passes as well
` + registryUsage + `
Exit codes: 0 all passed, 1 some did not, 2 not all could be run.

Examples: run the suites of your policies, the tests of your rules, and all that
is built in:

  kubeguardian test ./policies
  kubeguardian test ./rules
  kubeguardian test --now 2026-11-26T12:00:00Z content
`

// runTests is the command test.
func runTests(ctx context.Context, args []string, std streams) error {
	now, list := time.Now().UTC(), false
	flags := newFlags("test")
	var registries registryFlags
	registries.add(flags)
	flags.BoolVar(&list, "list", false, "")
	flags.Func("now", "", func(s string) (err error) {
		now, err = time.Parse(time.RFC3339, s)
		return err
	})
	paths, err := parse(flags, args, testUsage, std.out)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return wrongUsage("test", errors.New("test: nothing to test: name suites, or folders with suites or examples"))
	}
	catalogue, set, err := builtIn()
	if err != nil {
		return err
	}
	artifacts, err := registries.artifacts()
	if err != nil {
		return err
	}
	runner := suite.Runner{Catalogue: catalogue, Policies: set, Now: now, Artifacts: artifacts}
	var total tally
	var errs []error
	for _, path := range paths {
		results, err := runner.Run(ctx, path)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, err)
		for _, r := range results {
			total.add(std.out, r, list)
		}
	}
	if _, err := fmt.Fprintf(std.out, "%d passed, %d failed\n", total.passed, total.failed); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if total.failed > 0 {
		return exitCode(1)
	}
	return nil
}

// A tally counts results.
type tally struct{ passed, failed int }

// add counts a result, and prints it if it failed or was skipped, or if all are
// listed.
func (t *tally) add(w io.Writer, r suite.Result, list bool) {
	name := strings.TrimSpace(r.Control + " " + r.Example)
	switch {
	case r.Skipped:
		fmt.Fprintf(w, "skip %s\n", name)
	case r.Err != nil:
		t.failed++
		fmt.Fprintf(w, "FAIL %s: %s\n", name, report.Plain(strings.ReplaceAll(r.Err.Error(), "\n", "; ")))
	default:
		t.passed++
		if list {
			fmt.Fprintf(w, "ok   %s\n", name)
		}
	}
}
