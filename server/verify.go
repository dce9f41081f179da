package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubeguardian/kubeguardian/action"
	"github.com/kubeguardian/kubeguardian/action/journal"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/store"
)

// actionsHead is the file of the data directory that has the head of the log of
// actions.
const actionsHead = "actions.head"

// databaseFile is that of the data directory, unless the configuration names
// another database.
const databaseFile = "kubeguardian.db"

// VerifyActions checks the log of actions in the database that a configuration
// names, against the head that the server keeps beside it and other anchors. The
// server may run meanwhile. An error is an [action.BrokenError], or why the log
// cannot be read.
func VerifyActions(ctx context.Context, cfg *config.Config, anchors ...action.Head) (_ action.Head, err error) {
	kept, err := journal.ReadHead(filepath.Join(cfg.DataDir, actionsHead)) // first: the log goes on meanwhile
	if err != nil {
		return kept, err
	}
	address := filepath.Join(cfg.DataDir, databaseFile)
	if file := cfg.Database.URLFile; file != "" {
		url, err := config.DatabaseURL(file)
		if err != nil {
			return kept, err
		}
		address = string(url)
	} else if _, err := os.Stat(address); err != nil { // opening would make one
		return kept, fmt.Errorf("open database: %w", err)
	}
	db, err := store.Open(ctx, address)
	if err != nil {
		return kept, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.VerifyActions(ctx, append(anchors, kept)...)
}
