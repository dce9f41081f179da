package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// A hinted error says what the user can do.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// wrongUsage points to the usage text of a command, or with "" of the program.
func wrongUsage(command string, err error) error {
	return hinted{err, "see: " + strings.Join(strings.Fields("kubeguardian "+command+" --help"), " ")}
}

// newFlags returns a flag set that prints nothing by itself.
func newFlags(command string) *flag.FlagSet {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

// parse reads flags and arguments in any order; after "--" all are arguments.
// When help is asked for, it prints text and returns [flag.ErrHelp].
func parse(flags *flag.FlagSet, args []string, text string, out io.Writer) (arguments []string, err error) {
	for {
		err := flags.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			if _, err := io.WriteString(out, text); err != nil {
				return nil, err
			}
			return nil, flag.ErrHelp
		}
		if err != nil {
			return nil, wrongUsage(flags.Name(), fmt.Errorf("%s: %w", flags.Name(), err))
		}
		rest := flags.Args()
		if len(rest) == 0 {
			return arguments, nil
		}
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			return append(arguments, rest...), nil
		}
		arguments, args = append(arguments, rest[0]), rest[1:]
	}
}
