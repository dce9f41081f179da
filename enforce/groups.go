package enforce

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/kubeguardian/kubeguardian/sensor/container"
)

// Bounds of a look at the control groups of a node.
const (
	maxFolders = 65536
	maxMoves   = 20 // rounds, until no process is left that was begun meanwhile
)

// A cgroup is the control group of a container, or one below it.
type cgroup struct {
	number    uint64 // as records have it
	dir       string
	container string // id, in full
}

// cgroups lists the control groups of containers below a folder.
func cgroups(dir string) ([]cgroup, error) {
	var found []cgroup
	seen := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && name != dir:
			return nil // it went away
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		if seen++; seen > maxFolders {
			return fmt.Errorf("more than %d control groups", maxFolders)
		}
		id := container.ParsePath(strings.TrimPrefix(name, dir))
		if id.Host() {
			return nil
		}
		var st syscall.Stat_t
		if syscall.Stat(name, &st) == nil {
			found = append(found, cgroup{st.Ino, name, id.Full})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the control groups of containers: %w", err)
	}
	return found, nil
}

// top returns the outermost control group of a container among some, empty if
// there is none.
func top(all []cgroup, id string) string {
	best := ""
	for _, g := range all {
		if g.container == id && (best == "" || len(g.dir) < len(best)) {
			best = g.dir
		}
	}
	return best
}

// containerOf returns the container whose control group, among some, a process is
// in; empty if it is in none. The process may not see the path of its own.
func containerOf(all []cgroup, pid int) string {
	for _, g := range all {
		data, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err == nil && slices.Contains(strings.Fields(string(data)), strconv.Itoa(pid)) {
			return g.container
		}
	}
	return ""
}

// processes lists the processes of a control group and of those below it.
func processes(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		for word := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// groupPrefix begins the names of the groups that we make.
const groupPrefix = "kubeguardian-egress-"

// errNoUnified says that a node has control groups of version 1 alone.
var errNoUnified = errors.New("the node has no unified hierarchy of control groups, which blocking egress needs")

// A network is where the processes of a container are kept from the network.
type network struct {
	dir  string // of the unified hierarchy
	made bool   // by us, as the container has none there
}

// networkOf returns the control group of a container in the unified hierarchy.
// Where the runtime made none there, as with both versions on a node, it makes
// one and moves the container's processes there, which changes nothing else for
// them.
func networkOf(unified, proc, dir, id string) (network, error) {
	if unified == "" {
		return network{}, errNoUnified
	}
	if dir == "" {
		return network{}, errors.New("the control group of the container was not found")
	}
	if strings.HasPrefix(dir, unified+"/") {
		return network{dir: dir}, nil
	}
	pids, err := processes(dir)
	if err != nil || len(pids) == 0 {
		return network{}, errors.Join(errors.New("the container has no process"), err)
	}
	home, err := unifiedPath(proc, pids[0])
	if err != nil {
		return network{}, err
	}
	if found, ok := cutAt(home, id); ok {
		return network{dir: filepath.Join(unified, found)}, nil
	}
	n := network{dir: filepath.Join(unified, home, groupPrefix+id[:12]), made: true}
	if err := os.Mkdir(n.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return network{}, fmt.Errorf("make a control group for the container: %w", err)
	}
	if err := move(dir, n.dir); err != nil {
		return network{}, errors.Join(err, n.leave())
	}
	return n, nil
}

// unifiedPath returns the path of a process in the unified hierarchy.
func unifiedPath(proc string, pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", fmt.Errorf("find the control group of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return filepath.Clean("/" + strings.TrimSuffix(path, " (deleted)")), nil
		}
	}
	return "", errNoUnified
}

// cutAt cuts a path behind the component that names a container.
func cutAt(path, id string) (string, bool) {
	at := strings.Index(path, id)
	if at < 0 {
		return "", false
	}
	if end := strings.IndexByte(path[at:], '/'); end >= 0 {
		return path[:at+end], true
	}
	return path, true
}

// move moves the processes of one control group into another, also those that
// they begin meanwhile.
func move(from, to string) error {
	moved := map[int]bool{}
	for range maxMoves {
		pids, err := processes(from)
		if err != nil {
			return fmt.Errorf("list the processes of %s: %w", from, err)
		}
		more := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			moved[pid], more = true, true
			err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("move process %d to %s: %w", pid, to, err)
			}
		}
		if !more {
			return nil
		}
	}
	return fmt.Errorf("the processes of %s multiply faster than they can be moved", from)
}

// leave undoes what [networkOf] made.
func (n network) leave() error {
	if !n.made {
		return nil
	}
	if _, err := os.Stat(n.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := move(n.dir, filepath.Dir(n.dir)); err != nil {
		return err
	}
	if err := os.Remove(n.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the control group of a container: %w", err)
	}
	return nil
}

// leaveAll undoes what an agent left behind that was ended by force. Its blocks
// ended with it.
func leaveAll(unified string) error {
	if unified == "" {
		return nil
	}
	var errs []error
	seen := 0
	err := filepath.WalkDir(unified, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if seen++; seen > maxFolders {
			return fs.SkipAll
		}
		if strings.HasPrefix(d.Name(), groupPrefix) {
			errs = append(errs, network{name, true}.leave())
			return fs.SkipDir
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// keepRoots tells the kernel which roots containers have that began before it looked,
// by the oldest process of each: others may have changed theirs.
func (e *Enforcer) keepRoots(found []cgroup) {
	if e.o.Kernel == nil || len(e.o.Drift) == 0 {
		return
	}
	node, err := os.Stat(e.o.Root + "/")
	if err != nil {
		e.o.Log.Warn("the roots of containers are not looked at", "error", err)
		return
	}
	before := e.rooted
	e.rooted = map[uint64]bool{}
	for _, g := range found {
		if e.rooted[g.number] = before[g.number]; e.rooted[g.number] {
			continue
		}
		root := filepath.Join(e.o.Proc, strconv.Itoa(oldest(e.o.Proc, top(found, g.container))), "root")
		st, err := os.Stat(root + "/")
		if err != nil || os.SameFile(st, node) { // none yet, or the runtime, which has not changed its root yet
			continue
		}
		e.rooted[g.number] = true
		if err := e.o.Kernel.SetRoot(g.number, root); err != nil {
			e.o.Log.Warn("what is added to the image of a container is told by the root of each process", "container", g.container, "error", err)
		}
	}
}

// oldest returns which process of a control group, and of those below it, began
// first; 0 if there is none.
func oldest(proc, dir string) (pid int) {
	pids, _ := processes(dir)
	first := uint64(math.MaxUint64)
	for _, p := range pids {
		data, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(p), "stat"))
		if err != nil {
			continue // it has ended
		}
		if _, ticks, err := parseStat(string(data)); err == nil && ticks < first {
			first, pid = ticks, p
		}
	}
	return pid
}
