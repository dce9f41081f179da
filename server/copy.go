package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/store"
)

// CopyDatabase copies what the database in the data directory has into the one in
// PostgreSQL that a configuration names, which is new: all of it or nothing. No server
// may run. It returns how many rows each table has.
func CopyDatabase(ctx context.Context, cfg *config.Config) (rows map[string]int, err error) {
	if cfg.Database.URLFile == "" {
		return nil, errors.New("copy database: database.urlFile is not set: the copy goes to PostgreSQL, by its URL in that file")
	}
	url, err := config.DatabaseURL(cfg.Database.URLFile)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.DataDir, databaseFile)
	if _, err := os.Stat(file); err != nil { // opening would make one
		return nil, fmt.Errorf("copy database: %w", err)
	}
	unlock, err := lock(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	from, err := store.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := store.Open(ctx, string(url))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	return to.CopyFrom(ctx, from)
}
