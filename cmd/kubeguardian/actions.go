package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/report"
	"github.com/kubeguardian/kubeguardian/server"
)

const actionsUsage = `Usage: kubeguardian actions verify [FLAGS] [EXPORT…]

Verifies the log of actions: that no entry was changed, removed, put in between or
moved since it was written. The log is that of the database that the server's
configuration names, also while it runs, or the one in exports of the API
(/api/v1/export/actions or pages of /api/v1/actions; - is standard input), which
needs neither server nor database.

  --config FILE    the server's configuration (default /etc/kubeguardian/config.yaml)
  --head SEQ:HASH  an entry that was seen before, as the server's log has it: the
                   log must still have it; may be given several times

Prints how many entries there are and the head, or the first entry that is not what
it was. Exit codes: 0 whole, 1 broken, 2 the log cannot be read.

Example:

  kubeguardian actions verify --head 12:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 actions.json
`

// actions is the command actions.
func actions(ctx context.Context, args []string, std streams) error {
	var anchors []action.Head
	flags := newFlags("actions")
	file := flags.String("config", defaultConfig, "")
	flags.Func("head", "", func(text string) error {
		head, err := action.ParseHead(text)
		anchors = append(anchors, head)
		return err
	})
	rest, err := parse(flags, args, actionsUsage, std.out)
	if err != nil {
		return err
	}
	if len(rest) == 0 || rest[0] != "verify" {
		return wrongUsage("actions", errors.New("actions: want verify"))
	}
	var head action.Head
	if exports := rest[1:]; len(exports) > 0 {
		head, err = verifyExports(ctx, exports, anchors, std.in)
	} else {
		var cfg *config.Config
		if cfg, err = config.Load(*file); err != nil {
			return badConfig(err)
		}
		head, err = server.VerifyActions(ctx, cfg, anchors...)
	}
	if broken := (*action.BrokenError)(nil); errors.As(err, &broken) {
		if _, err := fmt.Fprintf(std.out, "The log of actions is not what it was: %s\n", report.Plain(broken.Error())); err != nil {
			return err
		}
		return exitCode(1)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "The log of actions is whole: %d entries, head %s\n", head.Seq, head)
	return err
}

// verifyExports verifies the log that files have together.
func verifyExports(ctx context.Context, files []string, anchors []action.Head, stdin io.Reader) (action.Head, error) {
	var entries []action.Entry
	for _, name := range files {
		read, err := readExport(ctx, name, stdin)
		if err != nil {
			return action.Head{}, err
		}
		entries = append(entries, read...)
	}
	action.Sort(entries)
	chain := action.NewChain(anchors...)
	for _, e := range entries {
		if err := chain.Add(e); err != nil {
			return chain.Head(), err
		}
	}
	return chain.Head(), chain.End()
}

func readExport(ctx context.Context, name string, stdin io.Reader) ([]action.Entry, error) {
	if name == "-" {
		return action.ReadExport(untilDone(ctx, stdin))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := action.ReadExport(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return entries, nil
}
