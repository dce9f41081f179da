package sensor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

var fileTypes = []string{
	"open", "openat", "openat2", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat",
	"chmod", "fchmod", "fchmodat", "symlink", "symlinkat", "link", "linkat", "mknod", "mknodat", "chown", "fchown", "fchownat",
	"chdir", "fchdir", "dup", "dup3", "close", "memfd_create",
}

// parameters returns what a record says, as name=value words in order.
func parameters(r *record.Record) string {
	var words []string
	for i, p := range r.Type.Params() {
		v := r.Param(i)
		switch n, ok := v.Int(); {
		case v.Missing():
		case p.Kind == record.Int && ok:
			words = append(words, fmt.Sprintf("%s=%d", p.Name, n))
		default:
			b, _ := v.Bytes()
			words = append(words, fmt.Sprintf("%s=%s", p.Name, b))
		}
	}
	for _, x := range []struct {
		name string
		tag  record.Tag
	}{{"path", record.Path}, {"base", record.Base}, {"base2", record.SecondBase}} {
		if b, ok := r.Extra(x.tag).Text(); ok {
			words = append(words, fmt.Sprintf("%s:%s", x.name, b))
		}
	}
	if f, ok := r.Extra(record.FD).File(); ok {
		words = append(words, fmt.Sprintf("fd:%c%s", f.Kind, f.Name))
	}
	return strings.Join(words, " ")
}

// raw makes a system call with a path by its number, as Go's own library calls
// others than the names say.
func raw(nr uintptr, args ...any) error {
	var a [6]uintptr
	for i, arg := range args {
		switch arg := arg.(type) {
		case int:
			a[i] = uintptr(arg)
		case string:
			p, err := syscall.BytePtrFromString(arg)
			if err != nil {
				return err
			}
			a[i] = uintptr(unsafe.Pointer(p))
		}
	}
	_, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	return nil
}

func TestFileCalls(t *testing.T) {
	dir := t.TempDir()
	l := start(t, Config{Types: fileTypes}, mine)
	base, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(base)
	t.Chdir(dir)
	f, err := os.Create("held")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())

	const atCwd = -100
	for _, c := range []struct {
		name string
		call func() error
		want string // $D is the folder
	}{
		{"mkdirat", func() error { return syscall.Mkdirat(base, "sub", 0o750) }, "res=0 dirfd=$B path=sub mode=488 base:$D"},
		{"mknodat", func() error { return syscall.Mknodat(atCwd, "fifo", syscall.S_IFIFO|0o600, 0) }, "res=0 dirfd=-100 path=fifo mode=4480 dev=0 base:$D"},
		{"symlinkat", func() error { return raw(syscall.SYS_SYMLINKAT, "/etc/shadow", base, "soft") }, "res=0 target=/etc/shadow linkdirfd=$B linkpath=soft base:$D"},
		{"linkat", func() error { return raw(syscall.SYS_LINKAT, atCwd, "held", base, "hard", 0) }, "res=0 olddir=-100 oldpath=held newdir=$B newpath=hard flags=0 base:$D base2:$D"},
		{"renameat", func() error { return syscall.Renameat(base, "hard", atCwd, dir+"/moved") }, "res=0 olddirfd=$B oldpath=hard newdirfd=-100 newpath=$D/moved base:$D"},
		{"fchmodat", func() error { return raw(syscall.SYS_FCHMODAT, atCwd, "moved", 0o4755) }, "res=0 dirfd=-100 filename=moved mode=2541 base:$D"},
		{"fchmod", func() error { return syscall.Fchmod(fd, 0o640) }, "res=0 fd=$F mode=416 fd:f$D/held"},
		{"fchown", func() error { return syscall.Fchown(fd, 0, 0) }, "res=0 fd=$F uid=0 gid=0 fd:f$D/held"},
		{"fchownat", func() error { return syscall.Fchownat(atCwd, dir+"/moved", 0, -1, 0) }, "res=0 dirfd=-100 pathname=$D/moved uid=0 gid=-1 flags=0"},
		{"unlinkat", func() error { return syscall.Unlinkat(base, "moved") }, "res=0 dirfd=$B name=moved flags=0 base:$D"},
		{"unlinkat", func() error { _ = syscall.Unlinkat(base, "gone"); return nil }, "res=-2 dirfd=$B name=gone flags=0 base:$D"},
		{"chdir", func() error { return syscall.Chdir("sub") }, "res=0 path=sub path:$D/sub"},
		{"fchdir", func() error { return syscall.Fchdir(base) }, "res=0 fd=$B path:$D fd:d$D"},
		{"dup3", func() error { return syscall.Dup3(fd, 777, syscall.O_CLOEXEC) }, "res=777 oldfd=$F newfd=777 flags=524288 fd:f$D/held"},
		{"close", func() error { return syscall.Close(777) }, "res=0 fd=777"},
	} {
		want := strings.NewReplacer("$D", dir, "$B", fmt.Sprint(base), "$F", fmt.Sprint(fd)).Replace(c.want)
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		l.wait(c.name+" "+want, func(r *record.Record) bool { return r.Type.String() == c.name && parameters(r) == want })
	}
}

func TestOpens(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "a", "file")
	l := start(t, Config{Types: fileTypes}, mine)
	t.Chdir(dir)
	for _, err := range []error{os.Mkdir("a", 0o755), os.Symlink("a", "link")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func(r *record.Record) int64 {
		n, ok := r.Extra(record.FileState).Int()
		if !ok {
			return -1
		}
		return n
	}
	for _, c := range []struct {
		open  string
		flags int
		want  string // name, path, base
		state int64
		fails bool
	}{
		{"a/file", os.O_CREATE | os.O_WRONLY, "name=a/file path:" + real + " base:" + dir, record.Created, false},
		{real, os.O_RDWR, "name=" + real + " path:" + real, 0, false},
		{"link/../a//file", os.O_RDONLY, "name=link/../a//file path:" + real + " base:" + dir, 0, false},
		{dir + "/link/file", os.O_RDONLY, "name=" + dir + "/link/file path:" + real, 0, false},
		{"missing", os.O_RDONLY, "name=missing base:" + dir, -1, true},
	} {
		f, err := os.OpenFile(c.open, c.flags, 0o600)
		if (err != nil) != c.fails {
			t.Fatalf("open %s: %v", c.open, err)
		}
		if err == nil {
			f.Close()
		}
		r := l.wait("open of "+c.open, func(r *record.Record) bool {
			return r.Type.String() == "openat" && text(t, r.Named("name")) == c.open && (r.Result < 0) == c.fails
		})
		for want := range strings.FieldsSeq(c.want) {
			if got := parameters(r); !strings.Contains(got+" ", want+" ") {
				t.Errorf("open of %s: %s, want %s", c.open, got, want)
			}
		}
		if got := state(r); got != c.state {
			t.Errorf("open of %s: state %d, want %d", c.open, got, c.state)
		}
	}
}

// TestInode holds device and inode against what stat says.
func TestInode(t *testing.T) {
	l := start(t, Config{Types: fileTypes}, mine)
	f, err := os.Create(filepath.Join(t.TempDir(), "inode"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	r := l.wait("the open", func(r *record.Record) bool { return text(t, r.Named("name")) == f.Name() })
	ino, _ := r.Named("ino").Uint()
	dev, _ := r.Named("dev").Uint()
	if ino != st.Ino || dev != st.Dev {
		t.Errorf("device %d inode %d, want %d and %d", dev, ino, st.Dev, st.Ino)
	}
}

// TestLongPath holds that a path of many components and bytes comes complete.
func TestLongPath(t *testing.T) {
	l := start(t, Config{Types: fileTypes}, mine)
	dir := filepath.Join(t.TempDir(), strings.Repeat(strings.Repeat("d", 200)+"/", 15), strings.Repeat("x/", 40))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := dir + "/deep"
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := l.wait("the open", func(r *record.Record) bool { return text(t, r.Named("name")) == name })
	if got := text(t, r.Extra(record.Path)); got != name || r.Extra(record.Path).Truncated() {
		t.Errorf("path of %d bytes, want %d", len(got), len(name))
	}
	// Deeper than the kernel side follows: the end of it, marked as cut.
	deep := filepath.Join(dir, strings.Repeat("y/", 90))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(deep+"/end", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = l.wait("the deep open", func(r *record.Record) bool { return text(t, r.Named("name")) == deep+"/end" })
	if got := r.Extra(record.Path); !got.Truncated() || !strings.HasSuffix(text(t, got), "/y/y/end") {
		t.Errorf("path %q, truncated %v; want the end of it", text(t, got), got.Truncated())
	}
}
