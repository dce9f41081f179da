// Package file appends messages to files of JSON lines, one file for each day,
// for whatever reads files: a SIEM's forwarder, or people without a network.
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/document"
)

// A Config says where files are.
type Config struct {
	// Folder has the files; it is created if it is not there.
	Folder string `yaml:"folder"`
	// Format is that of the lines; empty means falco.
	Format string `yaml:"format"`
	// Keep is how many days files are kept; 0 keeps all.
	Keep int `yaml:"keep"`
}

type destination struct {
	Config
	lines document.Writer
	o     notify.Options
	now   func() time.Time
}

// New returns the destination. It touches no file yet.
func New(c Config, o notify.Options) (notify.Destination, error) {
	if !filepath.IsAbs(c.Folder) {
		return nil, fmt.Errorf("folder: want the whole path, have %q", c.Folder)
	}
	if c.Keep < 0 || c.Keep > 3650 {
		return nil, fmt.Errorf("keep: want 0 to 3650 days, have %d", c.Keep)
	}
	lines, err := document.New(c.Format, o)
	if err != nil {
		return nil, err
	}
	return &destination{c, lines, o, time.Now}, nil
}

// Batch is [notify.Batcher].
func (d *destination) Batch() int { return 500 }

// Close is [notify.Destination].
func (d *destination) Close() error { return nil }

// Send appends a batch to the file of today. It is on the disk when Send
// returns nil. Where that fails, what was written of it is taken back, so that a
// batch which is sent again is there once.
func (d *destination) Send(_ context.Context, batch []notify.Notification) error {
	lines, err := d.lines.Lines(batch)
	if err != nil {
		return notify.Permanent(fmt.Errorf("%s: %w", d.o.Name, err))
	}
	if err := os.MkdirAll(d.Folder, 0o700); err != nil {
		return fmt.Errorf("%s: create folder: %w", d.o.Name, err)
	}
	today := d.now().UTC()
	name := filepath.Join(d.Folder, "kubeguardian-"+today.Format(time.DateOnly)+".jsonl")
	_, err = os.Stat(name)
	fresh := errors.Is(err, os.ErrNotExist)
	if err := appendTo(name, lines); err != nil {
		return fmt.Errorf("%s: %w", d.o.Name, err)
	}
	if fresh && d.Keep > 0 {
		if err := d.remove(today.AddDate(0, 0, -d.Keep)); err != nil {
			d.o.Logger().Warn("old files are not removed", "destination", d.o.Name, "error", err)
		}
	}
	return nil
}

func appendTo(name string, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := wholeLines(f)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, end)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write file: %w", err), f.Truncate(end))
	}
	return nil
}

// wholeLines returns where the last whole line ends. What comes after it was
// written when the program or the machine stopped, and is sent again.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("read file: %w", err)
	}
	buffer := make([]byte, 64<<10)
	for end := info.Size(); end > 0; {
		from := max(end-int64(len(buffer)), 0)
		n, err := f.ReadAt(buffer[:end-from], from)
		if err != nil {
			return 0, fmt.Errorf("read file: %w", err)
		}
		if at := strings.LastIndexByte(string(buffer[:n]), '\n'); at >= 0 {
			end = from + int64(at) + 1
			return end, f.Truncate(end)
		}
		end = from
	}
	return 0, f.Truncate(0)
}

var own = regexp.MustCompile(`^kubeguardian-(\d{4}-\d\d-\d\d)\.jsonl$`)

// remove removes the files of days before one.
func (d *destination) remove(before time.Time) error {
	entries, err := os.ReadDir(d.Folder)
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	for _, e := range entries {
		parts := own.FindStringSubmatch(e.Name())
		if parts == nil || parts[1] >= before.Format(time.DateOnly) {
			continue
		}
		if err := os.Remove(filepath.Join(d.Folder, e.Name())); err != nil {
			return fmt.Errorf("remove file: %w", err)
		}
	}
	return nil
}
