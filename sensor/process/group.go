package process

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A group is a control group: of a container, or of the host.
type group struct {
	id        container.ID
	container *syscall.Container
	used      uint64 // time since boot
}

// maxGroups is how many control groups are known. Sweeps drop those that were
// not used for long.
const (
	maxGroups = 8192
	groupAge  = 10 * 60 * 1_000_000_000
	maxProc   = 64 << 10 // bytes of a file of /proc
)

// groupOf returns the control group of a record's process. Records that begin a
// process or a program have the path; otherwise /proc has it.
func (t *Table) groupOf(r *record.Record, paths record.Value) *group {
	g := t.groups[r.Cgroup]
	if g == nil {
		g = t.findGroup(r, paths)
	}
	g.used = r.Time
	return g
}

func (t *Table) findGroup(r *record.Record, paths record.Value) *group {
	id, known := pathsID(paths)
	if !known {
		if id, known = t.procID(r.Process.TGID); !known {
			return &group{} // asked again with the next event
		}
	}
	g := t.newGroup(id, t.clock.Wall(r.Process.Start))
	if len(t.groups) < maxGroups {
		t.groups[r.Cgroup] = g
	}
	return g
}

// newGroup returns a group with what is written down of its container. That is
// asked for once: it was there before the first process of the container.
func (t *Table) newGroup(id container.ID, started syscall.Instant) *group {
	g := &group{id: id, container: syscall.Host()}
	if !id.Host() {
		g.container = &syscall.Container{ID: id.Full, Started: started}
		g.container.Type = id.Runtime
		if id.PodUID != "" {
			g.container.Pod = &syscall.Pod{UID: id.PodUID}
		}
		if details := t.announced(id.Full); details != nil {
			g.container.Details = *details
		}
	}
	return g
}

// pathsID returns the identity that the parameter cgroups shows.
func pathsID(paths record.Value) (container.ID, bool) {
	for path := range paths.Strings() {
		_, name, _ := strings.Cut(string(path), "=")
		if id := container.ParsePath(name); !id.Host() {
			return id, true
		}
	}
	return container.ID{}, !paths.Missing()
}

// procID returns the identity that /proc shows of a process.
func (t *Table) procID(pid uint32) (container.ID, bool) {
	groups, err := readProc(filepath.Join(t.proc, strconv.Itoa(int(pid)), "cgroup"))
	if err != nil {
		return container.ID{}, false
	}
	return container.ParseGroups(groups), true
}

// currentContainer returns the container with what the runtime has told of it by now.
func (t *Table) currentContainer(g *group) *syscall.Container {
	c := g.container
	if c == nil || c.Known {
		return c
	}
	details := t.containers(c.ID)
	if details == nil {
		t.stats.late.Add(1)
		return c
	}
	told := *c
	told.Known, told.Details = true, *details
	g.container = &told
	return g.container
}

// sweepGroups forgets groups that nothing happened in for long.
func (t *Table) sweepGroups(now uint64) {
	for inode, g := range t.groups {
		if g.used+groupAge < now {
			delete(t.groups, inode)
			if t.users != nil && !g.id.Host() {
				t.users.Forget(g.id)
			}
		}
	}
}

func readProc(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n := 0
	for {
		m, err := f.Read(buf[n:])
		n += m
		if m == 0 || err != nil || n >= maxProc {
			return string(buf[:n]), nil
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}
