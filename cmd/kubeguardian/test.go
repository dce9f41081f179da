package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/suite"
)

const testUsage = `Usage: kubeguardian test [FLAGS] PATH…

Runs labelled examples of controls, and prints those that do not get the state of
their label. PATH is a folder in which, at any depth, a folder with the id of a
control, or with the name of its policy, holds examples: files or folders whose
names begin with pass-, fail-, unknown- or na-.

  --now TIME           the time at which evidence is judged, as 2026-11-26T12:00:00Z
                       (default: now)
  --list               print the examples that pass as well

Exit codes: 0 all passed, 1 some did not, 2 the examples could not be run.

Example: run the examples of the built-in controls:

  kubeguardian test --now 2026-11-26T12:00:00Z content
`

// runTests is the command test.
func runTests(ctx context.Context, args []string, std streams) error {
	now, list := time.Now().UTC(), false
	flags := newFlags("test")
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
		return wrongUsage("test", errors.New("test: nothing to test: name folders with examples"))
	}
	catalogue, set, err := builtIn()
	if err != nil {
		return err
	}
	runner := suite.Runner{Catalogue: catalogue, Policies: set, Now: now}
	passed, failed := 0, 0
	for _, path := range paths {
		results, err := runner.Run(ctx, path)
		if err != nil {
			return err
		}
		for _, r := range results {
			switch {
			case r.Err != nil:
				failed++
				fmt.Fprintf(std.out, "FAIL %s %s: %s\n", r.Control, r.Example, report.Plain(r.Err.Error()))
			case list:
				fmt.Fprintf(std.out, "ok   %s %s\n", r.Control, r.Example)
			}
			if r.Err == nil {
				passed++
			}
		}
	}
	if _, err := fmt.Fprintf(std.out, "%d passed, %d failed\n", passed, failed); err != nil {
		return err
	}
	if failed > 0 {
		return exitCode(1)
	}
	return nil
}
