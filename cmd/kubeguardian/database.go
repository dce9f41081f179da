package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/server"
)

const databaseUsage = `Usage: kubeguardian database copy [--config FILE]

Copies all records of the database in the data directory, kubeguardian.db, into the
one in PostgreSQL that database.urlFile of the configuration names, for a server that
is to have several replicas. No server may run, and the database in PostgreSQL has to
be new. All of it is copied or nothing; the file stays as it is.

  --config FILE   the server's configuration (default /etc/kubeguardian/config.yaml)

Prints how many rows each table has. docs/database.md has the other steps.

Example:

  kubeguardian database copy --config config.yaml
`

// database is the command database.
func database(ctx context.Context, args []string, std streams) error {
	flags := newFlags("database")
	file := flags.String("config", defaultConfig, "")
	rest, err := parse(flags, args, databaseUsage, std.out)
	if err != nil {
		return err
	}
	if len(rest) != 1 || rest[0] != "copy" {
		return wrongUsage("database", errors.New("database: want copy"))
	}
	cfg, err := config.Load(*file)
	if err != nil {
		return err
	}
	rows, err := server.CopyDatabase(ctx, cfg)
	if err != nil {
		return err
	}
	var text strings.Builder
	sum := 0
	for _, table := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&text, "%9d %s\n", rows[table], table)
		sum += rows[table]
	}
	_, err = fmt.Fprintf(std.out, "%s%9d rows are copied\n", text.String(), sum)
	return err
}
