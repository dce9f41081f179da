package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Users finds users and groups by their numbers: those of a container in its
// own files, which it reads through one of the container's processes, those of
// the host in the host's. It keeps what it has read and looks for changes of
// the files every few seconds. It is safe for concurrent use.
type Users struct {
	proc   string // /proc of the host
	host   string // its root
	maxAge time.Duration

	// A container can make its files hang, so reading runs beside the caller,
	// who waits this long and then does without; so many may hang.
	patience time.Duration
	reading  chan struct{}

	mu    sync.Mutex
	known map[string]*accountsOf // by the id of the container
}

// accountsOf is what is known of one container.
type accountsOf struct {
	accounts *Accounts
	pids     []int    // processes that ran in it, asked when others have ended
	stamp    [2]stamp // of both files
	checked  time.Time
	reading  bool
}

// A stamp changes with a file. The zero stamp is of a file that is not there.
type stamp struct {
	dev, ino    uint64
	size, mtime int64
}

const (
	accountsAge    = 5 * time.Second
	readAgain      = time.Millisecond // when no process could be asked
	readPatience   = 50 * time.Millisecond
	maxReading     = 8
	maxAsked       = 8    // processes of a container
	maxKnownTables = 1024 // containers
)

// NewUsers returns a lookup that sees processes in proc, as /proc, and the
// files of the host below root, as / or, from within a container, /proc/1/root.
func NewUsers(proc, root string) *Users {
	return &Users{
		proc: proc, host: root, maxAge: accountsAge,
		patience: readPatience, reading: make(chan struct{}, maxReading), known: map[string]*accountsOf{},
	}
}

// Of returns the users and groups of a container, or of the host, nil if they
// are not known, or not yet. The process pid, by its number on the host, is one
// of the container.
func (u *Users) Of(id ID, pid int) *Accounts {
	u.mu.Lock()
	of := u.known[id.Full]
	if of != nil && (of.reading || time.Since(of.checked) < u.maxAge) {
		defer u.mu.Unlock()
		u.note(of, pid)
		return of.accounts
	}
	select {
	case u.reading <- struct{}{}:
	default: // as many as may hang do
		defer u.mu.Unlock()
		if of == nil {
			return nil
		}
		return of.accounts
	}
	if of == nil {
		of = &accountsOf{}
		u.makeRoom()
		u.known[id.Full] = of
	}
	u.note(of, pid)
	of.reading = true
	old := *of
	old.pids = slices.Clone(of.pids)
	u.mu.Unlock()
	return u.refresh(id, of, old)
}

// note keeps processes of a container, for as long as none of them has shown its
// files: those that run, or else the latest. Most do not live long; one that does
// is enough.
func (u *Users) note(a *accountsOf, pid int) {
	if slices.Contains(a.pids, pid) || a.accounts != nil && len(a.pids) == maxAsked {
		return
	}
	if len(a.pids) == maxAsked {
		a.pids = slices.DeleteFunc(a.pids, u.ended)
	}
	if len(a.pids) == maxAsked {
		a.pids = slices.Delete(a.pids, 0, 1)
	}
	a.pids = append(a.pids, pid)
}

func (u *Users) ended(pid int) bool {
	_, err := os.Lstat(filepath.Join(u.proc, strconv.Itoa(pid)))
	return os.IsNotExist(err)
}

// refresh reads the files again if they have changed.
func (u *Users) refresh(id ID, of *accountsOf, old accountsOf) *Accounts {
	done := make(chan *Accounts, 1)
	go func() {
		next, running, err := u.ask(id, old)
		<-u.reading
		u.mu.Lock()
		defer u.mu.Unlock()
		noted := of.pids
		of.reading, of.pids, of.checked = false, running, time.Now()
		for _, pid := range noted[min(len(old.pids), len(noted)):] { // meanwhile
			u.note(of, pid)
		}
		if err != nil {
			of.checked = of.checked.Add(readAgain - u.maxAge)
		} else {
			of.accounts, of.stamp = next.accounts, next.stamp
		}
		done <- of.accounts
	}()
	select {
	case accounts := <-done:
		return accounts
	case <-time.After(u.patience):
		return old.accounts
	}
}

// ask reads through the first process that shows the files. It returns which of
// the processes still run too, this one first.
func (u *Users) ask(id ID, old accountsOf) (next accountsOf, running []int, err error) {
	for i, pid := range slices.Backward(old.pids) {
		if next, err = u.read(id, pid, old); err == nil {
			return next, append([]int{pid}, u.stillIn(id, old.pids[:i])...), nil
		}
	}
	return old, u.stillIn(id, old.pids), err
}

func (u *Users) stillIn(id ID, pids []int) []int {
	var still []int
	for _, pid := range pids {
		if u.runsIn(pid, id) {
			still = append(still, pid)
		}
	}
	return still
}

// makeRoom forgets the container that was checked longest ago when there are
// too many.
func (u *Users) makeRoom() {
	if len(u.known) < maxKnownTables {
		return
	}
	oldest, at := "", time.Now()
	for id, of := range u.known {
		if !of.reading && !of.checked.After(at) {
			oldest, at = id, of.checked
		}
	}
	delete(u.known, oldest)
}

// Forget drops what is known of a container that has ended.
func (u *Users) Forget(id ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.known, id.Full)
}

// read returns the accounts as they are now. An error means that the process
// cannot be asked any more.
func (u *Users) read(id ID, pid int, old accountsOf) (accountsOf, error) {
	dir := u.host
	if !id.Host() {
		dir = filepath.Join(u.proc, strconv.Itoa(pid), "root")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return old, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	defer root.Close()
	if !id.Host() && (!u.runsIn(pid, id) || u.seesHost(root)) {
		return old, fmt.Errorf("process %d does not show the files of container %s", pid, id.Short())
	}
	next := accountsOf{stamp: [2]stamp{stampOf(root, "etc/passwd"), stampOf(root, "etc/group")}}
	if old.accounts != nil && next.stamp == old.stamp {
		next.accounts = old.accounts
		return next, nil
	}
	next.accounts = &Accounts{}
	readFile(root, "etc/passwd", func(f *os.File) { next.accounts.users = ParseUsers(f) })
	readFile(root, "etc/group", func(f *os.File) { next.accounts.groups = ParseGroupNames(f) })
	return next, nil
}

// runsIn reports whether a process is still the one that the caller means, and
// not one that took its number.
func (u *Users) runsIn(pid int, id ID) bool {
	groups, err := os.ReadFile(filepath.Join(u.proc, strconv.Itoa(pid), "cgroup"))
	return err == nil && ParseGroups(string(groups)).Full == id.Full
}

// seesHost reports whether a root is that of the host, which a runtime's own
// first process of a container keeps for a moment.
func (u *Users) seesHost(root *os.Root) bool {
	own, err := root.Stat(".")
	if err != nil {
		return true
	}
	host, err := os.Stat(u.host)
	return err == nil && os.SameFile(own, host)
}

func stampOf(root *os.Root, name string) stamp {
	info, err := root.Stat(name)
	if err != nil {
		return stamp{}
	}
	sys := info.Sys().(*syscall.Stat_t)
	return stamp{uint64(sys.Dev), sys.Ino, sys.Size, info.ModTime().UnixNano()}
}

// readFile reads a regular file, and nothing that could make the reader wait. A
// link that leads out of the root is not followed.
func readFile(root *os.Root, name string, read func(*os.File)) {
	if info, err := root.Stat(name); err != nil || !info.Mode().IsRegular() {
		return
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		read(f)
	}
}
