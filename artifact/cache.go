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
	"strings"
)

// A cache is a folder with content by its digest, as the layout of OCI has it.
// "" keeps nothing. What is in it is checked whenever it is read.
type cache string

// content returns the content with a digest: from the cache, or by fetch, whose
// answer is checked and kept. What is damaged in the cache is fetched anew.
func (c cache) content(digest string, most int64, fetch func() ([]byte, error)) ([]byte, error) {
	kept, damaged := c.read(digest, most)
	if kept != nil {
		return kept, nil
	}
	data, err := fetch()
	if err != nil {
		return nil, errors.Join(err, damaged)
	}
	if err := verify(digest, data); err != nil {
		return nil, err
	}
	return data, c.keep(digest, data)
}

func verify(digest string, data []byte) error {
	sum := sha256.Sum256(data)
	if have := "sha256:" + hex.EncodeToString(sum[:]); have != digest {
		return fmt.Errorf("%w: it has %s", errDamaged, have)
	}
	return nil
}

func (c cache) file(digest string) string {
	algorithm, sum, _ := strings.Cut(digest, ":")
	return filepath.Join(string(c), "blobs", algorithm, sum)
}

// read returns what is kept, or nil and what is wrong with it, if it is there.
func (c cache) read(digest string, most int64) ([]byte, error) {
	if c == "" {
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
func (c cache) keep(digest string, data []byte) error {
	if c == "" {
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

func replace(file string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
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
