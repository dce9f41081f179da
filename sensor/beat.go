package sensor

import (
	"golang.org/x/sys/unix"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// A beat is a call that fails whatever it is asked, if its first argument is
// beatMark: a descriptor, an option or an address that nothing has. The others are
// 0, but for the third, which is 1: so openat asks to write, which no filter leaves
// out.
const beatMark = -0x6b67

// beats are the calls that [Sensor.Beat] makes, each with the parameter of its
// record that holds the mark; without one it is told by its failure alone.
// Of call_any these stand for the others; execve goes through the buffer of
// processes.
var beats = map[string]string{
	"execve": "", "fchdir": "fd", "setns": "fd", "listen": "fd", "ptrace": "request", "openat": "dirfd", "capset": "", "prctl": "option",
	"connect": "fd", "bind": "fd", "accept": "", "accept4": "", "sendto": "fd", "sendmsg": "fd", "recvfrom": "fd", "recvmsg": "fd",
}

// Beat makes a harmless call of each type that is wanted now and that there is one
// of, and returns these types. Each is to come back as a record of this process,
// which [IsBeat] knows, or be counted as dropped: otherwise the kernel does not
// show what it should. What has no call of this kind is not asked: begin, programs
// and end of processes, whose buffer a failing execve goes through.
func (s *Sensor) Beat() []string {
	s.types.Lock()
	defer s.types.Unlock()
	var made []string
	for _, c := range s.calls {
		name := c.kind.String()
		if _, ok := beats[name]; !ok || !s.wanted[c.kind] {
			continue
		}
		mark := int64(beatMark)
		_, _, _ = unix.RawSyscall6(uintptr(c.number), uintptr(mark), 0, 1, 0, 0, 0)
		made = append(made, name)
	}
	return made
}

// IsBeat reports whether a record of this process is of a call of [Sensor.Beat].
func IsBeat(r *record.Record) bool {
	param, ok := beats[r.Type.String()]
	if !ok || !r.HasResult || r.Result >= 0 {
		return false
	}
	n, _ := r.Named(param).Int()
	return param == "" || n == beatMark
}
