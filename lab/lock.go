package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// errLocked says that another lab command holds the lock.
var errLocked = errors.New("in use by another lab command")

// lockDir takes the lock of an existing directory without waiting. The lock
// ends when the returned file is closed or the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	for {
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, errLocked)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if sameFile(f, dir) {
			return f, nil
		}
		// The holder before us removed the directory: ours is an orphan.
		f.Close()
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
