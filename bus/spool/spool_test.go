package spool

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func open(t testing.TB, dir string, bytes int64) *Spool {
	t.Helper()
	s, err := Open(dir, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t testing.TB, s *Spool, records ...string) {
	t.Helper()
	for _, r := range records {
		if err := s.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
}

// rest reads all records that wait, and the number of the last one.
func rest(t testing.TB, s *Spool) (records []string, last uint64) {
	t.Helper()
	for {
		n, data, ok, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return records, last
		}
		if n <= last {
			t.Fatalf("record %d after %d", n, last)
		}
		records, last = append(records, string(data)), n
	}
}

func shut(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func numbered(from, to int, size int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("%0*d", size, i))
	}
	return out
}

func TestOrderAndDelivery(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	want := numbered(0, 2000, 100) // several segments
	add(t, s, want...)
	got, last := rest(t, s)
	if !slices.Equal(got, want) || last != 2000 {
		t.Fatalf("%d records up to %d", len(got), last)
	}
	s.Delivered(700)
	s.Rewind()
	if got, _ = rest(t, s); !slices.Equal(got, want[700:]) {
		t.Fatalf("%d records after 700 were delivered", len(got))
	}
	shut(t, s)

	s = open(t, dir, 0)
	if st := s.Stats(); st.Waiting != 1300 || st.Dropped+st.Damaged+st.Torn != 0 {
		t.Errorf("after a restart: %+v", st)
	}
	if got, _ = rest(t, s); !slices.Equal(got, want[700:]) {
		t.Fatalf("%d records after a restart", len(got))
	}
	add(t, s, "new")
	if got, last = rest(t, s); !slices.Equal(got, []string{"new"}) || last != 2001 {
		t.Fatalf("%q, %d", got, last)
	}
	s.Delivered(last)
	shut(t, s)
	s = open(t, dir, 0)
	defer shut(t, s)
	if got, _ = rest(t, s); got != nil {
		t.Errorf("%d records, and all are delivered", len(got))
	}
	add(t, s, "newer")
	if got, last = rest(t, s); last != 2002 {
		t.Errorf("%q has number %d", got, last)
	}
}

// The oldest records give way, and are counted.
func TestBound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, MinBytes)
	add(t, s, numbered(0, 20_000, 100)...)
	st := s.Stats()
	if st.Bytes > MinBytes || st.Dropped == 0 || st.Dropped+st.Waiting != 20_000 {
		t.Fatalf("%+v", st)
	}
	shut(t, s)
	s = open(t, dir, MinBytes)
	defer shut(t, s)
	if again := s.Stats(); again != st {
		t.Errorf("after a restart %+v, before %+v", again, st)
	}
	if got, last := rest(t, s); !slices.Equal(got, numbered(int(st.Dropped), 20_000, 100)) || last != 20_000 {
		t.Errorf("%d records up to %d", len(got), last)
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	defer shut(t, s)
	if err := s.Append(make([]byte, MaxRecord+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	large := make([]byte, MaxRecord)
	if err := s.Append(large); err != nil {
		t.Fatal(err)
	}
	if got, _ := rest(t, s); len(got) != 1 || got[0] != string(large) {
		t.Errorf("%d records", len(got))
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	defer shut(t, s)
	if _, err := Open(dir, 0); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
}

// What a crash leaves of a segment is read up to where it is whole.
func TestTornEnd(t *testing.T) {
	for cut := range 60 {
		dir := t.TempDir()
		s := open(t, dir, 0)
		add(t, s, "first", "second", "third")
		shut(t, s)
		name := filepath.Join(dir, "0000000000000001.seg")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		end := max(len(data)-cut, 0)
		if err := os.WriteFile(name, data[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, 0)
		got, _ := rest(t, s)
		if want := []string{"first", "second", "third"}; len(got) > 3 || !slices.Equal(got, want[:len(got)]) || cut == 0 && len(got) != 3 || cut > 0 && len(got) == 3 {
			t.Errorf("%d bytes less: %q", cut, got)
		}
		add(t, s, "fourth")
		if got, _ = rest(t, s); !slices.Equal(got, []string{"fourth"}) {
			t.Errorf("%d bytes less, and one more: %q", cut, got)
		}
		shut(t, s)
	}
}

// A record that has changed on disk costs what is behind it in its segment, and
// is counted.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, MinBytes)
	defer shut(t, s)
	add(t, s, numbered(0, 3000, 100)...)
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	f, err := os.OpenFile(names[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 20_000); err != nil {
		t.Fatal(err)
	}
	got, last := rest(t, s)
	if st := s.Stats(); last != 3000 || st.Damaged == 0 || uint64(len(got))+st.Damaged != 3000 {
		t.Errorf("%d records up to %d, %+v", len(got), last, st)
	}
}

// TestKilled kills a process that adds records. What it said to have added is
// there, in order, once.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("SPOOL_CHILD"); dir != "" {
		s := open(t, dir, 64<<20)
		for i := range 10_000_000 {
			add(t, s, fmt.Sprint(i))
			fmt.Println("added", i)
		}
	}
	dir := t.TempDir()
	next := 0
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
		cmd.Env = append(os.Environ(), "SPOOL_CHILD="+dir)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+rand.IntN(200)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		said := strings.Count(out.String(), "added ")
		s := open(t, dir, 64<<20)
		got, last := rest(t, s)
		if len(got) < said || !slices.Equal(got, numbered(0, len(got), 1)) || len(got) > 0 && int(last) != next+len(got) {
			t.Fatalf("%d records up to %d, %d were added", len(got), last, said)
		}
		t.Logf("%d records, %+v", len(got), s.Stats())
		next += len(got)
		s.Delivered(uint64(next))
		shut(t, s)
	}
}

// FuzzOpen opens whatever is on disk. It gives only records that carry their
// checksum, and goes on.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir, 0)
	add(f, s, "one", "two", "")
	shut(f, s)
	good, err := os.ReadFile(filepath.Join(dir, "0000000000000001.seg"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte(`{"Delivered":1}`))
	f.Add(good[:len(good)-1], []byte(`{"Delivered":18446744073709551615}`))
	f.Add([]byte(magic+"\xff\xff\xff\xff1234"), []byte(`{`))
	f.Fuzz(func(t *testing.T, segment, state []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"0000000000000001.seg": segment, "00000000000000ff.seg": segment, stateFile: state} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		rest(t, s)
		add(t, s, "added")
		if got, _ := rest(t, s); !slices.Equal(got, []string{"added"}) {
			t.Errorf("read %q", got)
		}
		shut(t, s)
		s = open(t, dir, 0)
		if got, _ := rest(t, s); len(got) == 0 || got[len(got)-1] != "added" {
			t.Errorf("after a restart %q", got)
		}
		shut(t, s)
	})
}
