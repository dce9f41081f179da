package container

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	unix "syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A host is a folder that looks like the root of a host and its /proc.
type host struct{ root, proc string }

func newHost(t *testing.T) host {
	h := host{t.TempDir(), t.TempDir()}
	h.write(t, h.root, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
	h.write(t, h.root, "etc/group", "root:x:0:\nstaff:x:50:ann,ben\n")
	return h
}

func (h host) write(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// process adds a process of a container and returns the root that it sees.
func (h host) process(t *testing.T, pid int, id ID) string {
	root := t.TempDir()
	h.write(t, h.proc, strconv.Itoa(pid)+"/cgroup", "0::/docker/"+id.Full+"\n")
	if err := os.Symlink(root, filepath.Join(h.proc, strconv.Itoa(pid), "root")); err != nil {
		t.Fatal(err)
	}
	return root
}

// users is a lookup that looks again at once and waits as long as it takes.
func (h host) users() *Users {
	u := NewUsers(h.proc, h.root)
	u.maxAge, u.patience = 0, time.Minute
	return u
}

var containerA = ID{Full: idA, Runtime: Docker}

func TestUsersOfHostAndContainer(t *testing.T) {
	h := newHost(t)
	root := h.process(t, 42, containerA)
	h.write(t, root, "etc/passwd", "app:x:0:0::/srv:/bin/sh\nwww:x:33:33:www:/var/www:/usr/sbin/nologin\n")
	h.write(t, root, "etc/group", "app:x:0:\n")
	u := h.users()
	if user := *u.Of(ID{}, 1).User(0); user != (syscall.User{Name: "root", Home: "/root", Shell: "/bin/bash"}) {
		t.Errorf("host: %+v", user)
	}
	if group := *u.Of(ID{}, 1).Group(50); group != (syscall.Group{GID: 50, Name: "staff"}) {
		t.Errorf("host: %+v", group)
	}
	of := u.Of(containerA, 42)
	if user := *of.User(0); user != (syscall.User{Name: "app", Home: "/srv", Shell: "/bin/sh"}) {
		t.Errorf("container: %+v", user)
	}
	if user := *of.User(1000); user != (syscall.User{UID: 1000}) {
		t.Errorf("user that is not in the file: %+v", user)
	}
	if name := of.Group(0).Name; name != "app" {
		t.Errorf("container: group %q", name)
	}
	if name := of.Group(50).Name; name != "" {
		t.Errorf("the container has the host's group %q", name)
	}
}

func TestUsersSeeChanges(t *testing.T) {
	h := newHost(t)
	root := h.process(t, 42, containerA)
	u := h.users()
	if name := u.Of(containerA, 42).User(7).Name; name != "" {
		t.Fatalf("user %q of no file", name)
	}
	for i, name := range []string{"ann", "ben"} { // the second one is another file by the same name
		h.write(t, root, "etc/new", name+":x:7:7:::\n")
		if err := os.Rename(filepath.Join(root, "etc/new"), filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		if have := u.Of(containerA, 42).User(7).Name; have != name {
			t.Errorf("change %d: have %q, want %q", i+1, have, name)
		}
	}
	// The next process reads for the one that has ended, which does not undo
	// what is known.
	if err := os.RemoveAll(filepath.Join(h.proc, "42")); err != nil {
		t.Fatal(err)
	}
	if name := u.Of(containerA, 42).User(7).Name; name != "ben" {
		t.Errorf("after the end: %q", name)
	}
	// A process that ended before it could be asked is no loss as long as
	// another one runs.
	again := h.process(t, 43, containerA)
	h.write(t, again, "etc/passwd", "cyd:x:7:7:::\n")
	time.Sleep(2 * readAgain)
	u.Of(containerA, 43)
	if name := u.Of(containerA, 44).User(7).Name; name != "cyd" {
		t.Errorf("through another process: %q", name)
	}
	u.Forget(containerA)
	if u.Of(containerA, 42) != nil {
		t.Error("known after it was forgotten")
	}
}

func TestUsersAreReadOnceInAWhile(t *testing.T) {
	h := newHost(t)
	root := h.process(t, 42, containerA)
	h.write(t, root, "etc/passwd", "ann:x:7:7:::\n")
	u := h.users()
	u.maxAge = time.Hour
	first := u.Of(containerA, 42)
	h.write(t, root, "etc/passwd", "somebody:x:7:7:::\n")
	if again := u.Of(containerA, 42); again != first {
		t.Error("read twice")
	}
}

// TestUsersRefuse holds the lookup to the files of the container that is asked
// for: what a container puts in their place leads nowhere and holds up nobody.
func TestUsersRefuse(t *testing.T) {
	tests := []struct {
		name string
		put  func(t *testing.T, h host, root, passwd string) error
	}{
		{"link to a file of the host", func(t *testing.T, h host, root, passwd string) error {
			return os.Symlink(filepath.Join(h.root, "etc/passwd"), passwd)
		}},
		{"link upwards", func(t *testing.T, h host, root, passwd string) error {
			rel, err := filepath.Rel(filepath.Dir(passwd), filepath.Join(h.root, "etc/passwd"))
			if err != nil {
				return err
			}
			return os.Symlink(rel, passwd)
		}},
		{"pipe without writer", func(t *testing.T, h host, root, passwd string) error { return unix.Mkfifo(passwd, 0o644) }},
		{"folder", func(t *testing.T, h host, root, passwd string) error { return os.Mkdir(passwd, 0o755) }},
		{"process of another container", func(t *testing.T, h host, root, passwd string) error {
			h.write(t, h.proc, "42/cgroup", "0::/docker/"+idB+"\n")
			return os.WriteFile(passwd, []byte("root:x:0:0:::\n"), 0o644)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			root := h.process(t, 42, containerA)
			if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tt.put(t, h, root, filepath.Join(root, "etc/passwd")); err != nil {
				t.Fatal(err)
			}
			if name := h.users().Of(containerA, 42).User(0).Name; name != "" {
				t.Errorf("user %q", name)
			}
		})
	}
}

// TestUsersOfAContainerThatBegins: as long as its first process still has the
// root of the host, the host's users are not taken for its own.
func TestUsersOfAContainerThatBegins(t *testing.T) {
	h := newHost(t)
	h.write(t, h.proc, "42/cgroup", "0::/docker/"+idA+"\n")
	if err := os.Symlink(h.root, filepath.Join(h.proc, "42/root")); err != nil {
		t.Fatal(err)
	}
	if name := h.users().Of(containerA, 42).User(0).Name; name != "" {
		t.Errorf("user %q", name)
	}
}

// TestUsersOfAContainerOfShortProcesses: one process lives, and many that end come
// with the next events before it can be asked.
func TestUsersOfAContainerOfShortProcesses(t *testing.T) {
	h := newHost(t)
	u := h.users()
	u.Of(containerA, 41) // has ended: nothing is read for a moment
	h.write(t, h.process(t, 42, containerA), "etc/passwd", "ann:x:7:7:::\n")
	u.mu.Lock()
	for pid := 42; pid < 42+3*maxAsked; pid++ {
		u.note(u.known[containerA.Full], pid)
	}
	u.mu.Unlock()
	time.Sleep(2 * readAgain)
	if name := u.Of(containerA, 99).User(7).Name; name != "ann" {
		t.Errorf("have %q", name)
	}
}

func TestUsersFollowLinksWithin(t *testing.T) {
	h := newHost(t)
	root := h.process(t, 42, containerA)
	h.write(t, root, "store/passwd", "ann:x:7:7:::\n")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../store/passwd", filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if name := h.users().Of(containerA, 42).User(7).Name; name != "ann" {
		t.Errorf("have %q", name)
	}
}

// TestUsersOfManyContainers holds the table to its bound.
func TestUsersOfManyContainers(t *testing.T) {
	u := newHost(t).users()
	u.maxAge = time.Hour
	for i := range maxKnownTables + 100 {
		u.Of(ID{Full: fmt.Sprintf("%064x", i)}, 1)
	}
	if n := len(u.known); n > maxKnownTables {
		t.Errorf("%d containers are known", n)
	}
}

func TestParseUsers(t *testing.T) {
	long := strings.Repeat("x", maxAccountText+1)
	have := ParseUsers(strings.NewReader(strings.Join([]string{
		"root:x:0:0:root:/root:/bin/sh", "toor:x:0:0::/:/bin/csh", "", "# comment", "odd", "ann:x:-1:1:::", "ben:x:4294967296:1:::",
		":x:3:3:::", "all:x:4294967295:1:::", long + ":x:9:9:::", "six:x:8:8::", "end:x:10:10::/h:/s",
	}, "\n")))
	want := map[uint32]*syscall.User{0: {Name: "root", Home: "/root", Shell: "/bin/sh"}, 4294967295: {UID: 4294967295, Name: "all"}, 10: {UID: 10, Name: "end", Home: "/h", Shell: "/s"}}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
}

func FuzzParseUsers(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n")
	f.Add("a:b:1:c\n:::::::\n")
	f.Fuzz(func(t *testing.T, text string) {
		users, groups := ParseUsers(strings.NewReader(text)), ParseGroupNames(strings.NewReader(text))
		if len(users) > maxAccounts || len(groups) > maxAccounts {
			t.Fatalf("%d users, %d groups", len(users), len(groups))
		}
		for _, u := range users {
			if u.Name == "" || len(u.Name)+len(u.Home)+len(u.Shell) > 3*maxAccountText || strings.ContainsAny(u.Name+u.Home+u.Shell, "\n:") {
				t.Errorf("user %+v", u)
			}
		}
	})
}
