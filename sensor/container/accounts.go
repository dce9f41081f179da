package container

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Accounts are the users and groups of one file system. They are immutable; nil
// has none.
type Accounts struct {
	users  map[uint32]*syscall.User
	groups map[uint32]*syscall.Group
}

// User returns the user with a uid, without a name if there is none.
func (a *Accounts) User(uid uint32) *syscall.User {
	if a != nil && a.users[uid] != nil {
		return a.users[uid]
	}
	return &syscall.User{UID: uid}
}

// Group returns the group with a gid, without a name if there is none.
func (a *Accounts) Group(gid uint32) *syscall.Group {
	if a != nil && a.groups[gid] != nil {
		return a.groups[gid]
	}
	return &syscall.Group{GID: gid}
}

// Bounds of a file of users or groups. An image can hold any file by that name.
const (
	maxAccountFile = 256 << 10 // bytes
	maxAccounts    = 2000
	maxAccountText = 256 // bytes of one name or path
)

// ParseUsers reads the form of /etc/passwd, name:password:uid:gid:comment:home:shell.
// Of entries with the same uid the first counts, as for the C library; lines of
// another form and what is beyond the bounds are left out.
func ParseUsers(r io.Reader) map[uint32]*syscall.User {
	users := map[uint32]*syscall.User{}
	entries(r, 7, func(uid uint32, f []string) bool {
		if _, known := users[uid]; !known {
			users[uid] = &syscall.User{UID: uid, Name: strings.Clone(f[0]), Home: strings.Clone(f[5]), Shell: strings.Clone(f[6])}
		}
		return len(users) < maxAccounts
	})
	return users
}

// ParseGroupNames reads the form of /etc/group, name:password:gid:members, as
// [ParseUsers] reads its own.
func ParseGroupNames(r io.Reader) map[uint32]*syscall.Group {
	groups := map[uint32]*syscall.Group{}
	entries(r, 4, func(gid uint32, f []string) bool {
		if _, known := groups[gid]; !known {
			groups[gid] = &syscall.Group{GID: gid, Name: strings.Clone(f[0])}
		}
		return len(groups) < maxAccounts
	})
	return groups
}

// entries yields the lines with so many fields and a number in the third, until
// it is told to stop.
func entries(r io.Reader, n int, yield func(id uint32, fields []string) bool) {
	lines := bufio.NewScanner(io.LimitReader(r, maxAccountFile))
	lines.Buffer(nil, maxAccountFile+1)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != n || fields[0] == "" {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || tooLong(fields) {
			continue
		}
		if !yield(uint32(id), fields) {
			return
		}
	}
}

func tooLong(fields []string) bool {
	for _, i := range []int{0, 5, 6} {
		if i < len(fields) && len(fields[i]) > maxAccountText {
			return true
		}
	}
	return false
}
