package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A cache is a folder with content by its digest, as the layout of OCI has it.
// "" keeps nothing. What is in it is checked whenever it is read.
type cache struct {
	dir string

	mu   sync.Mutex
	used map[string]bool // digests that were read or written
}

// What a cache keeps beside what is used.
const (
	maxUnused    = 30 * 24 * time.Hour // since it was used last
	maxCached    = 256 << 20           // bytes, with what is used
	maxUnwritten = time.Hour           // of a file that was never completed
)

// content returns the content with a digest: from the cache, or by fetch, whose
// answer is checked and kept. What is damaged in the cache is fetched anew.
func (c *cache) content(digest string, most int64, fetch func() ([]byte, error)) ([]byte, error) {
	kept, damaged := c.read(digest, most)
	if kept != nil {
		c.use(digest)
		return kept, nil
	}
	data, err := fetch()
	if err != nil {
		return nil, errors.Join(err, damaged)
	}
	if err := verify(digest, data); err != nil {
		return nil, err
	}
	err = c.keep(digest, data)
	c.use(digest)
	return data, err
}

// use notes that content is used now. That its time cannot be set shortens how long
// it stays once it is not used any more, and nothing else.
func (c *cache) use(digest string) {
	if c.dir == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[digest] = true
	now := time.Now()
	_ = os.Chtimes(c.file(digest), now, now)
}

func verify(digest string, data []byte) error {
	sum := sha256.Sum256(data)
	if have := "sha256:" + hex.EncodeToString(sum[:]); have != digest {
		return fmt.Errorf("%w: it has %s", errDamaged, have)
	}
	return nil
}

func (c *cache) file(digest string) string {
	algorithm, sum, _ := strings.Cut(digest, ":")
	return filepath.Join(c.dir, "blobs", algorithm, sum)
}

// read returns what is kept, or nil and what is wrong with it, if it is there.
func (c *cache) read(digest string, most int64) ([]byte, error) {
	if c.dir == "" {
		return nil, nil
	}
	f, err := os.Open(c.file(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cache: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil {
		err = verify(digest, data)
	}
	if err != nil {
		return nil, fmt.Errorf("read cache: %s: %w", f.Name(), err)
	}
	return data, nil
}

// keep writes content, which appears when it is complete.
func (c *cache) keep(digest string, data []byte) error {
	if c.dir == "" {
		return nil
	}
	file := c.file(digest)
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = replace(file, data)
	}
	if err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return nil
}

// unwrittenPrefix begins the names of files that are not complete.
const unwrittenPrefix = ".new-"

func replace(file string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), unwrittenPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(data))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// A blob is a file of the cache.
type blob struct {
	file string
	size int64
	used time.Time // last
}

// prune removes what is not used: what is too old, and then the oldest until the
// rest is small enough.
func (c *cache) prune(now time.Time) (removed int, err error) {
	if c.dir == "" {
		return 0, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unused, total, err := c.unused()
	if err != nil {
		return 0, fmt.Errorf("prune cache: %w", err)
	}
	slices.SortFunc(unused, func(a, b blob) int { return a.used.Compare(b.used) })
	var errs []error
	for _, b := range unused {
		age := now.Sub(b.used)
		stays := age <= maxUnused && total <= maxCached
		if strings.HasPrefix(filepath.Base(b.file), unwrittenPrefix) {
			stays = age <= maxUnwritten
		}
		if stays {
			continue
		}
		if err := os.Remove(b.file); err != nil {
			errs = append(errs, fmt.Errorf("prune cache: %w", err))
			continue
		}
		total, removed = total-b.size, removed+1
	}
	return removed, errors.Join(errs...)
}

// unused returns the files of the cache that were not used, and the size of all.
func (c *cache) unused() (found []blob, total int64, err error) {
	folder := c.file("sha256:")
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // it has just gone, or is not ours
		}
		total += info.Size()
		if !c.used["sha256:"+e.Name()] {
			found = append(found, blob{filepath.Join(folder, e.Name()), info.Size(), info.ModTime()})
		}
	}
	return found, total, err
}
