package process

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// TestMemoryOfProcesses bounds what a process takes that has begun, runs a
// program with a command line of its own, and has ended.
func TestMemoryOfProcesses(t *testing.T) {
	const processes, running, ended = 20_000, 1200, 1000 // bytes of each
	table := alone(t, Options{Ended: processes})
	reader := table.Reader()
	shell := life{key: record.Key{TGID: 1, Start: nanosPerTick}, comm: "bash", cgroup: 9}
	reader.Read(execOf(t, shell, second1, "bash"))
	before := heap()
	for i := range uint32(processes) {
		l := life{key: record.Key{TGID: 2 + i, Start: second1}, parent: shell.key, comm: "bash", cgroup: 9}
		reader.Read(l.make(t, "clone", second1, map[string]any{"exe": "bash", "args": ""}))
		l.comm = "tool"
		r := execOf(t, l, second1, "/usr/bin/tool", "--input", fmt.Sprintf("/var/lib/tool/%d.json", i), "--verbose")
		for tag, name := range map[record.Tag]string{record.Stdin: "/dev/null", record.Stdout: "/var/log/tool.log", record.Stderr: "/var/log/tool.log"} {
			extra(t, r, tag, record.File{Kind: 'f', Inode: 8, Name: []byte(name)}.Value())
		}
		if err := r.SetParam(r.Type.Index("vm_size"), record.IntValue(1<<20)); err != nil {
			t.Fatal(err)
		}
		reader.Read(r)
	}
	each := (heap() - before) / processes
	t.Logf("%d bytes for one that runs", each)
	if each > running {
		t.Errorf("a process that runs takes %d bytes, want %d at most", each, running)
	}
	for i := range uint32(processes) {
		l := life{key: record.Key{TGID: 2 + i, Start: second1}, parent: shell.key, comm: "tool", cgroup: 9}
		reader.Read(l.make(t, "procexit", second1, nil))
	}
	each = (heap() - before) / processes
	t.Logf("%d bytes for one that has ended", each)
	if s := table.Stats(); s.Known != processes+1 || s.Running != 1 {
		t.Fatalf("stats %+v", s)
	}
	if each > ended {
		t.Errorf("a process that has ended takes %d bytes, want %d at most", each, ended)
	}
	runtime.KeepAlive(reader)
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestEndedProcesses: only the last ones stay known, however many end at once.
func TestEndedProcesses(t *testing.T) {
	table := alone(t, Options{Ended: 10, Grace: time.Hour})
	reader := table.Reader()
	for i := range uint32(100) {
		l := life{key: record.Key{TGID: i + 2, Start: second1}, comm: "sh"}
		reader.Read(execOf(t, l, second1, "sh"))
		reader.Read(l.make(t, "procexit", second1, nil))
	}
	if s := table.Stats(); s.Known != 10 || s.Running != 0 || s.Evicted != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestLeadersKeepNoAncestors: in a line of processes that each start the next
// and end, and now and then lead a group and a session of their own, what the
// last one keeps known does not grow with the line.
func TestLeadersKeepNoAncestors(t *testing.T) {
	table := alone(t, Options{Grace: time.Second})
	reader := table.Reader()
	lives := make([]*record.Record, 5000) // their begins
	var now uint64
	end := func(n int) {
		r := *lives[n]
		r.Type, r.Time = typeOf(t, "procexit"), now
		reader.Read(&r)
	}
	var last *syscall.Process
	for i := range lives {
		now = second1 + uint64(i)*nanosPerTick
		l := life{key: record.Key{TGID: 2 + uint32(i), Start: now}, parent: record.Key{TGID: 1, Start: nanosPerTick}, comm: "sh"}
		if i > 0 {
			l.parent = lives[i-1].Process
		}
		lives[i] = l.make(t, "clone", now, map[string]any{"exe": "sh", "args": ""})
		lives[i].SID, lives[i].PGID = 2+uint32(i-i%100), 2+uint32(i-i%100)
		last = reader.Read(lives[i]).Process
		if i > 0 && i%100 != 1 {
			end(i - 1)
		}
		if i%100 == 99 { // the leader runs until its group is complete
			end(i - 99)
		}
	}
	seen := map[*syscall.Process]bool{}
	for next := []*syscall.Process{last}; len(next) > 0; {
		p := next[0]
		next = next[1:]
		for _, h := range []*syscall.Handle{p.Parent, p.Session, p.Leader} {
			if q := h.Process(); q != nil && !seen[q] {
				seen[q] = true
				next = append(next, q)
			}
		}
	}
	if len(seen) > 2*maxDepth || len(seen) < 100 {
		t.Errorf("%d processes are kept by the last one of 5000", len(seen))
	}
}

func TestRecentIsBounded(t *testing.T) {
	made := 0
	r := newRecent(func(s string) string { made++; return s })
	same := r.of([]byte("name"))
	if again := r.of([]byte("name")); again != same || made != 1 {
		t.Errorf("%q, made %d times", again, made)
	}
	long := []byte(strings.Repeat("x", recentMax+1))
	for range 2 {
		if have := r.of(long); have != string(long) {
			t.Errorf("%q", have)
		}
	}
	if made != 3 {
		t.Errorf("a long one is kept: made %d times", made)
	}
	for i := range 10 * recentSlots {
		if text := fmt.Sprint(i); r.of([]byte(text)) != text {
			t.Fatalf("not %s", text)
		}
	}
}
