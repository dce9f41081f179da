package sensor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// TestOpenFilter opens files in many ways for reading, and holds the kernel side
// to what the filter says of both their paths.
func TestOpenFilter(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, err := range []error{
		os.MkdirAll("watched/sub", 0o755), os.MkdirAll("other/sub", 0o755), os.WriteFile("watched/secret", nil, 0o644),
		os.WriteFile("other/plain", nil, 0o644), os.WriteFile("other/id_rsa", nil, 0o644),
		os.Symlink("watched/secret", "alias"), os.Symlink("../other/plain", "watched/alias"), os.Symlink("plain", "other/id_dsa"),
		os.Symlink("id_rsa", "other/key"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l := start(t, Config{Types: []string{"openat", "chdir"}}, mine)
	filters := Filters{Opens: OpenFilter{Reads: WatchedReads, Prefixes: []string{dir + "/watched/"}, Names: []string{"id_rsa", "id_dsa"}}}
	if err := l.SetFilters(filters); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("./", 40)
	for _, c := range []struct {
		path string
		pass bool
	}{
		{dir + "/watched/secret", true},
		{"watched/secret", true},
		{"./watched/secret", true},
		{"other/../watched/secret", true},
		{dir + "/alias", true},         // the kernel's path is watched
		{"alias", true},                //
		{dir + "/watched/alias", true}, // the given one is
		{"watched/alias", true},        //
		{"watched/missing", true},      // although there is nothing
		{dir + "/watched/missing", true},
		{"other/id_rsa", true},
		{dir + "/other/id_rsa", true},
		{"other/id_dsa", true}, // the given name
		{"other/key", true},    // the kernel's
		{"other/plain", false},
		{dir + "/other/plain", false},
		{"other/missing", false},
		{"/etc/hostname", false},
		{"/proc/self/status", false},
		{dir + "/watched", false}, // not below it
		{dir + "/watchedness", false},
		{"other/id_rsa.pub", false},
		{long + "other/plain", true}, // in doubt
		{"/etc/" + strings.Repeat("n", 120), false},
		{"/etc/" + strings.Repeat("n", 130), true}, // too long to be judged
		{"/" + strings.Repeat("long/", 20) + "id_rsa", true},
		{"/" + strings.Repeat("long/", 20) + "id_rsb", false},
		{"/etc/.hidden", false},
		{".x/.y./.../plain", true}, // in doubt, as "..." begins like ".."
		{".x/.y./z../plain", false},
		{"/etc/.", true},
		{"other/.", true},
		{"other/", false},
		{"//etc/hostname", true}, // in doubt
		{"/.hidden/../etc/hostname", true},
		{"other/a_rsa", false}, // ends like a watched name
		{"/etc/..", true},
		{"./" + "other/plain", true},
		{"/proc/../etc/hostname", true},
	} {
		if f, err := os.Open(c.path); err == nil {
			f.Close()
		}
		if passed := l.passes(c.path); passed != c.pass {
			t.Errorf("%s: passes %v, want %v", c.path, passed, c.pass)
		}
	}
	counters, err := l.Counters()
	if err != nil || counters.FilteredOpens == 0 {
		t.Errorf("%d opens filtered, want some (%v)", counters.FilteredOpens, err)
	}
	f, err := os.Create("other/written")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if !l.passes("other/written") {
		t.Error("an open for writing was dropped")
	}
}

// passes reports whether an open of the path came, by a mark that comes after.
func (l *live) passes(path string) bool {
	l.t.Helper()
	mark := filepath.Join("/", strings.ReplaceAll(path, "/", "-"))
	_ = syscall.Chdir(mark)
	l.wait("the mark", func(r *record.Record) bool { return r.Type.String() == "chdir" && text(l.t, r.Named("path")) == mark })
	for _, r := range l.all() {
		if r.Type.String() == "openat" && text(l.t, r.Named("name")) == path {
			return true
		}
	}
	return false
}

func TestFirstComponents(t *testing.T) {
	l := start(t, Config{Types: []string{"openat", "chdir"}}, mine)
	for _, c := range []struct {
		prefixes []string
		path     string
		pass     bool
	}{
		{[]string{"/etc/host"}, "/etc/hostname", true},
		{[]string{"/etc/host"}, "/etc/passwd", false},
		{[]string{"/et"}, "/etc/hostname", true}, // half a component
		{[]string{"/"}, "/etc/hostname", true},
		{[]string{"/a-component-of-many-bytes/x"}, "/etc/hostname", false},
		{[]string{"/a-component-of-many-bytes/x"}, "/a-component-of-many-bytes/x/y", true},
		{[]string{"/etc/" + strings.Repeat("x", 300)}, "/etc/" + strings.Repeat("x", 150), true}, // only the first 128 bytes count
		{nil, "/etc/passwd", false},
	} {
		if err := l.SetFilters(Filters{Opens: OpenFilter{Reads: WatchedReads, Prefixes: c.prefixes}}); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		l.kept = nil
		l.mu.Unlock()
		if f, err := os.Open(c.path); err == nil {
			f.Close()
		}
		if passed := l.passes(c.path); passed != c.pass {
			t.Errorf("%.40s with %.40s: passes %v, want %v", c.path, c.prefixes, passed, c.pass)
		}
	}
	if err := l.SetFilters(Filters{Opens: OpenFilter{Reads: NoReads, Prefixes: []string{"/"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile("/etc/host.conf"); err == nil && l.passes("/etc/host.conf") {
		t.Error("a read passes where none is wanted")
	}
}

func TestConnectFilter(t *testing.T) {
	l := start(t, Config{Types: []string{"connect", "chdir"}, Filters: Filters{Families: []uint16{syscall.AF_INET}}}, mine)
	unix, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(unix)
	inet, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(inet)
	_ = syscall.Connect(unix, &syscall.SockaddrUnix{Name: "/none/here"})
	_ = syscall.Connect(inet, &syscall.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
	l.wait("the wanted family", func(r *record.Record) bool {
		return r.Type.String() == "connect" && tuple(t, r).Family == syscall.AF_INET
	})
	for _, r := range l.all() {
		if r.Type.String() == "connect" && tuple(t, r).Family == syscall.AF_UNIX {
			t.Error("a connect of a family that is not wanted came")
		}
	}
	if c, err := l.Counters(); err != nil || c.FilteredConnects == 0 {
		t.Errorf("%d connects filtered, want some (%v)", c.FilteredConnects, err)
	}
}

func TestFiltersAreChecked(t *testing.T) {
	for name, f := range map[string]Filters{
		"relative":   {Opens: OpenFilter{Prefixes: []string{"etc"}}},
		"long name":  {Opens: OpenFilter{Names: []string{strings.Repeat("n", nameMax)}}},
		"empty name": {Opens: OpenFilter{Names: []string{""}}},
		"path":       {Opens: OpenFilter{Names: []string{"a/b"}}},
		"many":       {Opens: OpenFilter{Prefixes: make([]string, maxEntries+1)}},
		"family":     {Families: []uint16{64}},
		"reads":      {Opens: OpenFilter{Reads: NoReads + 1}},
	} {
		if _, err := New(Config{Filters: f}); err == nil || !strings.Contains(err.Error(), "filters:") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
