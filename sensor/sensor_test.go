package sensor

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// callNumber returns the number of a call on this machine.
func callNumber(t *testing.T, name string) uintptr {
	t.Helper()
	calls, err := newCalls(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if c.kind.String() == name {
			return uintptr(c.number)
		}
	}
	t.Fatalf("no call %s", name)
	return 0
}

// TestCountersAreExact makes more events than a small buffer holds, from several
// threads, at more than 100,000 each second, with a reader that is too slow.
func TestCountersAreExact(t *testing.T) {
	const threads, each = 4, 150_000
	over := make(chan struct{}) // the flood is
	l := start(t, Config{Types: []string{"personality"}, BufferSize: 64 << 10, Partitions: 1}, func(r *record.Record) bool {
		<-over
		return false
	})
	nr := callNumber(t, "personality")
	begin := time.Now()
	var flood sync.WaitGroup
	for range threads {
		flood.Go(func() {
			for range each {
				_, _, _ = syscall.RawSyscall(nr, 0xffffffff, 0, 0) // asks, changes nothing
			}
		})
	}
	flood.Wait()
	rate := float64(threads*each) / time.Since(begin).Seconds()
	close(over)
	var c Count
	for range 500 {
		counters, err := l.Counters()
		if err != nil {
			t.Fatal(err)
		}
		if c = counters.Types["personality"]; counters.Malformed != 0 || counters.Missed != 0 {
			t.Fatalf("counters %+v", counters)
		}
		if c.Seen+c.Dropped == c.Made {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%.0f events/s: %+v", rate, c)
	if c.Made != threads*each || c.Seen+c.Dropped != c.Made || c.Dropped == 0 || c.Seen == 0 {
		t.Errorf("%+v, want %d made, all of them seen or dropped", c, threads*each)
	}
}

// TestGapsAreSeen holds that numbers of records count those that were dropped.
func TestGapsAreSeen(t *testing.T) {
	l := start(t, Config{Types: []string{"personality", "chdir"}, Partitions: 1}, mine)
	for range 100 {
		_, _, _ = syscall.RawSyscall(callNumber(t, "personality"), 0xffffffff, 0, 0)
	}
	_ = syscall.Chdir(".")
	l.wait("chdir", is("chdir"))
	last := map[uint32]uint64{}
	for _, r := range l.all() {
		if n := last[r.CPU]; n != 0 && r.Sequence <= n {
			t.Errorf("number %d after %d on CPU %d", r.Sequence, n, r.CPU)
		}
		last[r.CPU] = r.Sequence
	}
}

// TestEndReadsWhatWaits: what happened before a sensor is told to end is not left
// in its buffers.
func TestEndReadsWhatWaits(t *testing.T) {
	s := load(t, Config{Types: []string{"personality"}, Partitions: 1, Flush: time.Second})
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	began, seen := make(chan struct{}), 0
	ended := make(chan error)
	go func() {
		ended <- s.Run(ctx, func(_ int, r *record.Record) {
			if !mine(r) {
				return
			}
			if seen++; seen == 1 {
				close(began)
			}
		})
	}()
	ask := func() { _, _, _ = syscall.RawSyscall(callNumber(t, "personality"), 0xffffffff, 0, 0) } // changes nothing
	ask()
	<-began // it waits again, for a second
	const more = 20
	for range more {
		ask()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if seen < 1+more {
		t.Errorf("%d calls were read of %d", seen, 1+more)
	}
}

func TestUnknownTypesAreReported(t *testing.T) {
	l := start(t, Config{Types: []string{"chdir", "read", "nonsense"}}, mine)
	missing := l.Missing()
	if len(missing) != 2 || missing["read"] == nil || missing["nonsense"] == nil {
		t.Errorf("missing %v, want read and nonsense", missing)
	}
	if text := missing["read"].Error(); text != "types: no program of the sensor shows nonsense, read" {
		t.Error(text)
	}
	names := []string{}
	for _, f := range l.Features() {
		names = append(names, f.Name+" "+f.Using)
	}
	if !slices.Equal(names, []string{"call.any tp_btf", "types "}) {
		t.Errorf("features %q", names)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"partitions": {Partitions: 3}, "many partitions": {Partitions: 128}, "negative": {Partitions: -1},
		"buffer": {BufferSize: 100_000}, "small buffer": {BufferSize: 4096}, "lifecycle": {LifecycleSize: 3 << 20},
		"watermark": {Watermark: -1}, "flush": {Flush: time.Microsecond},
	} {
		if s, err := New(c); err == nil {
			s.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

func TestCallTables(t *testing.T) {
	made := map[string]bool{"clone": true, "clone3": true, "fork": true, "vfork": true, "procexit": true}
	for _, arch := range []string{"amd64", "arm64"} {
		calls, err := newCalls(arch)
		if err != nil {
			t.Fatal(err)
		}
		numbers := map[uint32]string{}
		for _, c := range calls {
			if other := numbers[c.number]; other != "" {
				t.Errorf("%s: %s and %s are both call %d", arch, other, c.kind, c.number)
			}
			if len(c.foreign) == 0 && c.kind.String() != "kexec_file_load" {
				t.Errorf("%s: %s has no number in 32-bit programs", arch, c.kind)
			}
			numbers[c.number] = c.kind.String()
			made[c.kind.String()] = true
		}
	}
	for _, typ := range record.Types() {
		if !made[typ.String()] {
			t.Errorf("nothing makes records of %s", typ)
		}
	}
	if _, err := newCalls("riscv64"); err == nil {
		t.Error("an architecture without calls was taken")
	}
}

func TestCallNumbersAreChecked(t *testing.T) {
	for _, bad := range []string{"", "x", "1,", "-1", "512", "1 2"} {
		if n, err := callNumbers(bad); err == nil {
			t.Errorf("%q was taken, as %d", bad, n)
		}
	}
}

func TestCallDescriptions(t *testing.T) {
	mkdirat, _ := record.TypeOf("mkdirat")
	for _, bad := range []string{"colour", "res=x1", "nothing=r", "res=i9", "path=p1@9", "path=p", "FD=9"} {
		c := call{kind: mkdirat}
		if err := c.describe([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestTypesAreThoseOfRecords holds the numbers of the C side against package
// record, by the types that the compiler left in the object.
func TestTypesAreThoseOfRecords(t *testing.T) {
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	var types *btf.Enum
	if err := spec.Types.TypeByName("event_type", &types); err != nil {
		t.Fatal(err)
	}
	if got, want := len(types.Values)-2, len(record.Types()); got != want {
		t.Errorf("%d types, want %d", got, want)
	}
	for _, v := range types.Values[1 : len(types.Values)-1] {
		if name := record.Type(v.Value).String(); "event_"+name != v.Name {
			t.Errorf("%s is %d, which is %s", v.Name, v.Value, name)
		}
	}
	var header *btf.Struct
	if err := spec.Types.TypeByName("header", &header); err != nil {
		t.Fatal(err)
	}
	if header.Size != record.HeaderSize {
		t.Errorf("header of %d bytes, want %d", header.Size, record.HeaderSize)
	}
}

// clang is the version that the objects here are made with; others make other
// bytes of the same programs.
const clang = "clang version 14.0.6"

// TestObjectsAreThoseOfTheSource compiles the C side anew.
func TestObjectsAreThoseOfTheSource(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the kernel side")
	}
	version, err := exec.Command("clang", "--version").Output()
	if err != nil || !strings.Contains(string(version), clang) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("needs %s: %.40s (%v)", clang, version, err)
		}
		t.Skipf("needs %s: %.40s (%v)", clang, version, err)
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "github.com/cilium/ebpf/cmd/bpf2go", "-go-package", "sensor", "-target", "amd64,arm64",
		"-output-dir", dir, "-cflags", "-mcpu=v3 -Wall -Werror", "kernel", "bpf/sensor.c")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v: %s", err, out)
	}
	for _, name := range []string{"kernel_x86_bpfel.o", "kernel_x86_bpfel.go", "kernel_arm64_bpfel.o", "kernel_arm64_bpfel.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what bpf/ compiles to: run go generate ./sensor", name)
		}
	}
}

func TestOwnHierarchy(t *testing.T) {
	const v1 = "12:pids:/a\n4:cpu,memory:/b\n0::/\n"
	for controller, want := range map[string]bool{"memory": true, "pids": true, "mem": false, "": false} {
		if got := ownHierarchy(v1, controller); got != want && controller != "" {
			t.Errorf("%s: %v, want %v", controller, got, want)
		}
	}
	if ownHierarchy("0::/user.slice\n", "memory") {
		t.Error("the unified hierarchy is taken for one of its own")
	}
}

// TestCloseLeavesNothing holds that no descriptor, and so no program, map or
// link, outlives a sensor.
func TestCloseLeavesNothing(t *testing.T) {
	config := Config{Types: append([]string{"openat", "connect", "chdir"}, processTypes...), Enforce: true}
	load(t, config).Close() // what the runtime opens once is open now
	before := descriptors(t)
	s := load(t, config)
	if during := descriptors(t); during <= before {
		t.Errorf("%d descriptors with a sensor, %d without", during, before)
	}
	s.Close()
	s.Close()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
