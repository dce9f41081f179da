// Package process knows the processes of a node and turns what the kernel says
// of an event into what rules see: with the process, its ancestors, its
// container, and the descriptor that the event is about.
//
// A process is known by its id and its start, never by its id alone. What is
// known of it comes from its own records (fork, execve, exit) and, for those that
// ran before, from /proc. A process stays known for a while after its end, and
// to its descendants as long as they run.
package process

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Options are what a [Table] works with. The zero value of a field is its
// default.
type Options struct {
	Proc       string                           // /proc of the node, by default /proc
	Users      *container.Users                 // finds users and groups; without it they have no names
	Containers func(id string) *syscall.Details // what a runtime says of a container, nil if it is not known yet
	Announced  func(id string) *syscall.Details // what is written down of a container before it starts, nil if nothing is
	Clock      *Clock                           // by default a new one
	Env        bool                             // the environment of processes is kept
	Max        int                              // processes that are known, by default 65536
	Grace      time.Duration                    // how long a process stays known after its end, by default 10 s
	Ended      int                              // processes that stay known after their end, the last ones; by default 4096
}

const (
	defaultMax   = 1 << 16
	defaultGrace = 10 * time.Second
	defaultEnded = 4096
)

// A Table has the processes of a node. It is safe for concurrent use; the
// records of one process come one after the other.
type Table struct {
	proc       string
	users      *container.Users
	containers func(string) *syscall.Details
	announced  func(string) *syscall.Details
	clock      *Clock
	env        bool
	max        int
	grace      uint64
	maxEnded   int

	// What processes have in common is kept once.
	texts   *recent[string]
	paths   *recent[[]syscall.Cgroup]
	streams [3]*recent[*syscall.FD] // by number

	mu      sync.Mutex
	known   map[key]*entry
	current map[uint32]*entry // by id, those that run
	ended   []*entry          // in the order of their ends
	groups  map[uint64]*group // by the inode of a control group
	roles   map[uint64]role   // of sockets, by inode
	reads   int               // of /proc that may be done, see [Table.lookUp]
	readsAt time.Time

	stats counters
}

// A key tells processes from one another. The start is in hundredths of a
// second since boot, as /proc has it; no id is used twice that fast.
type key struct {
	pid   uint32
	ticks uint64
}

func keyOf(k record.Key) key { return key{k.TGID, k.Ticks()} }

// An entry is one process.
type entry struct {
	key
	handle  *syscall.Handle
	filled  bool   // more is known than that it exists
	over    bool   // it has ended
	end     uint64 // when, in nanoseconds since boot
	depth   int    // ancestors that are known
	version int    // how often its value was replaced
}

// Stats count what happened to a [Table].
type Stats struct {
	Known    int    // processes, those included that have ended a while ago
	Running  int    // processes
	Groups   int    // control groups
	Evicted  uint64 // processes that were dropped early, as there were too many
	Unknown  uint64 // processes of which the records so far were lost
	Read     uint64 // of these, those that /proc was asked for
	LostExit uint64 // processes whose end was noticed by other means than their record
	Cut      uint64 // lines of ancestors that became too long
	Late     uint64 // events of a container that the runtime had not told of yet
}

type counters struct {
	evicted, unknown, read, lostExit, cut, late atomic.Uint64
}

// New returns a table without processes.
func New(o Options) *Table {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Clock == nil {
		o.Clock = NewClock()
	}
	if o.Containers == nil {
		o.Containers = func(string) *syscall.Details { return nil }
	}
	if o.Announced == nil {
		o.Announced = func(string) *syscall.Details { return nil }
	}
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Ended <= 0 {
		o.Ended = defaultEnded
	}
	return &Table{
		proc: o.Proc, users: o.Users, containers: o.Containers, announced: o.Announced, clock: o.Clock, env: o.Env, max: o.Max, grace: uint64(o.Grace), maxEnded: o.Ended,
		texts: newRecent(func(s string) string { return s }), paths: newRecent(cgroups),
		streams: [3]*recent[*syscall.FD]{newRecent(streamOf(0)), newRecent(streamOf(1)), newRecent(streamOf(2))},
		known:   map[key]*entry{}, current: map[uint32]*entry{}, groups: map[uint64]*group{}, roles: map[uint64]role{},
	}
}

// Stats returns the counts so far.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Known: len(t.known), Running: len(t.current), Groups: len(t.groups),
		Evicted: t.stats.evicted.Load(), Unknown: t.stats.unknown.Load(), Read: t.stats.read.Load(),
		LostExit: t.stats.lostExit.Load(), Cut: t.stats.cut.Load(), Late: t.stats.late.Load(),
	}
}

// Process returns what is known of the process that has an id now, nil if it is
// not known.
func (t *Table) Process(pid uint32) *syscall.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID(pid).Process()
}

func (t *Table) byID(pid uint32) *syscall.Handle {
	if e := t.current[pid]; e != nil {
		return e.handle
	}
	return nil
}

// entryOf returns the entry of a process, a new one if need be.
func (t *Table) entryOf(k record.Key) *entry {
	id := keyOf(k)
	if e := t.known[id]; e != nil {
		return e
	}
	t.makeRoom()
	p := &syscall.Process{Key: syscall.Key{PID: int32(k.TGID), Start: k.Start}, PGID: -1, VPGID: -1, SID: -1, Started: t.clock.Wall(k.Start)}
	p.Files = t.files(p.Key)
	e := &entry{key: id, handle: syscall.NewHandle(p.Ready())}
	t.known[id] = e
	if before := t.current[id.pid]; before == nil || before.ticks <= id.ticks {
		if before != nil {
			t.stats.lostExit.Add(1)
			t.finish(before, k.Start)
		}
		t.current[id.pid] = e
	} else {
		t.finish(e, before.ticks*nanosPerTick)
	}
	return e
}

const nanosPerTick = 10_000_000

// finish notes the end of a process. What is known of it is forgotten later, but
// at once what nobody asks of one that is an ancestor at most: its leaders too,
// which would keep their own ancestors known for as long as it has descendants.
func (t *Table) finish(e *entry, at uint64) {
	if e.over {
		return
	}
	e.over, e.end = true, at
	t.ended = append(t.ended, e)
	if t.current[e.pid] == e {
		delete(t.current, e.pid)
	}
	last := *e.handle.Process()
	last.Session, last.Leader, last.Files, last.Usage, last.Streams = nil, nil, nil, nil, [3]*syscall.FD{}
	e.version++
	e.handle.Publish(last.Ready())
	for len(t.ended) > t.maxEnded {
		t.forget()
	}
}

// forget drops the process that ended first.
func (t *Table) forget() {
	delete(t.known, t.ended[0].key)
	t.ended[0] = nil
	t.ended = t.ended[1:]
}

// expire forgets processes that ended long enough before a time since boot.
func (t *Table) expire(now uint64) {
	for len(t.ended) > 0 && t.ended[0].end+t.grace < now {
		t.forget()
	}
}

// makeRoom drops the process that ended first when there are too many; if all
// of them run, any.
func (t *Table) makeRoom() {
	if len(t.known) < t.max {
		return
	}
	t.stats.evicted.Add(1)
	if len(t.ended) > 0 {
		t.forget()
		return
	}
	for id, e := range t.known {
		delete(t.known, id)
		if t.current[id.pid] == e {
			delete(t.current, id.pid)
		}
		return
	}
}

// Longest line of ancestors that is kept, and what it is cut to. Processes that
// each start one more and end would make a line without end.
const (
	maxDepth = 512
	cutDepth = 256
)

// adopt returns the handle of a parent, and the depth of its child. Of a line
// that is too long the far end is let go.
func (t *Table) adopt(parent *entry) (*syscall.Handle, int) {
	if parent.depth >= maxDepth && t.cut(parent) {
		parent.depth = cutDepth
	}
	return parent.handle, parent.depth + 1
}

// cut ends a line of ancestors at one that has ended, not too close. Those that
// run are as many as they are.
func (t *Table) cut(from *entry) bool {
	h := from.handle
	for n := 0; h != nil; n++ {
		p := h.Process()
		e := t.known[key{uint32(p.PID), p.Start / nanosPerTick}]
		if n >= cutDepth && p.Parent != nil && (e == nil || e.over) {
			last := *p
			last.Parent = nil
			h.Publish(last.Ready())
			t.stats.cut.Add(1)
			return true
		}
		h = p.Parent
	}
	return false
}

// Sweep compares the table with /proc, for ends whose records were lost, and
// forgets what has been over for long enough. It is called now and then.
func (t *Table) Sweep() error {
	pids, err := processIDs(t.proc)
	if err != nil {
		return err
	}
	now := t.clock.Boot()
	runs := make(map[uint32]bool, len(pids))
	for _, pid := range pids {
		runs[pid] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid, e := range t.current {
		// One that began after the list was made is not in it.
		if !runs[pid] && e.ticks*nanosPerTick+uint64(sweepAge) < now {
			t.stats.lostExit.Add(1)
			t.finish(e, now)
		}
	}
	t.expire(now)
	t.sweepGroups(now)
	return nil
}

const sweepAge = 5 * time.Second
