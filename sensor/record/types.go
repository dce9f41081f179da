package record

import (
	"slices"
	"strings"
)

// A Type is the type of an event. Its numbers are part of the format: a new
// type is added at the end.
type Type uint16

// table holds the types, each with its parameters as event/syscalls.txt lists
// them: those of a type that it only names are none. The number of a type is its
// place, from 1.
const table = `
open fd:fd name:fspath flags:flags32 mode:uint32 dev:uint32 ino:uint64
openat fd:fd dirfd:fd name:fsrelpath flags:flags32 mode:uint32 dev:uint32 ino:uint64
openat2 fd:fd dirfd:fd name:fsrelpath flags:flags32 mode:uint32 resolve:flags32 dev:uint32 ino:uint64
creat fd:fd name:fspath mode:uint32 dev:uint32 ino:uint64 creat_flags:flags16
open_by_handle_at fd:fd mountfd:fd flags:flags32 path:fspath dev:uint32 ino:uint64
execve res:errno exe:charbuf args:bytebuf tid:pid pid:pid ptid:pid cwd:charbuf fdlimit:uint64 pgft_maj:uint64 pgft_min:uint64 vm_size:uint32 vm_rss:uint32 vm_swap:uint32 comm:charbuf cgroups:bytebuf env:bytebuf tty:uint32 vpgid:pid loginuid:uid flags:flags32 cap_inheritable:uint64 cap_permitted:uint64 cap_effective:uint64 exe_ino:uint64 exe_ino_ctime:abstime exe_ino_mtime:abstime uid:uid trusted_exepath:fspath pgid:pid gid:gid filename:fspath
execveat res:errno exe:charbuf args:bytebuf tid:pid pid:pid ptid:pid cwd:charbuf fdlimit:uint64 pgft_maj:uint64 pgft_min:uint64 vm_size:uint32 vm_rss:uint32 vm_swap:uint32 comm:charbuf cgroups:bytebuf env:bytebuf tty:uint32 vpgid:pid loginuid:uid flags:flags32 cap_inheritable:uint64 cap_permitted:uint64 cap_effective:uint64 exe_ino:uint64 exe_ino_ctime:abstime exe_ino_mtime:abstime uid:uid trusted_exepath:fspath pgid:pid gid:gid
clone res:pid exe:charbuf args:bytebuf tid:pid pid:pid ptid:pid cwd:charbuf fdlimit:int64 pgft_maj:uint64 pgft_min:uint64 vm_size:uint32 vm_rss:uint32 vm_swap:uint32 comm:charbuf cgroups:bytebuf flags:flags32 uid:uint32 gid:uint32 vtid:pid vpid:pid pidns_init_start_ts:uint64
clone3 res:pid exe:charbuf args:bytebuf tid:pid pid:pid ptid:pid cwd:charbuf fdlimit:int64 pgft_maj:uint64 pgft_min:uint64 vm_size:uint32 vm_rss:uint32 vm_swap:uint32 comm:charbuf cgroups:bytebuf flags:flags32 uid:uint32 gid:uint32 vtid:pid vpid:pid pidns_init_start_ts:uint64
fork res:pid exe:charbuf args:bytebuf tid:pid pid:pid ptid:pid cwd:charbuf fdlimit:int64 pgft_maj:uint64 pgft_min:uint64 vm_size:uint32 vm_rss:uint32 vm_swap:uint32 comm:charbuf cgroups:bytebuf flags:flags32 uid:uint32 gid:uint32 vtid:pid vpid:pid pidns_init_start_ts:uint64
vfork res:pid exe:charbuf args:bytebuf tid:pid pid:pid ptid:pid cwd:charbuf fdlimit:int64 pgft_maj:uint64 pgft_min:uint64 vm_size:uint32 vm_rss:uint32 vm_swap:uint32 comm:charbuf cgroups:bytebuf flags:flags32 uid:uint32 gid:uint32 vtid:pid vpid:pid pidns_init_start_ts:uint64
procexit status:errno ret:errno sig:sigtype core:uint8 reaper_tid:pid
connect res:errno tuple:socktuple fd:fd addr:sockaddr
accept fd:fd tuple:socktuple queuepct:uint8 queuelen:uint32 queuemax:uint32
accept4 fd:fd tuple:socktuple queuepct:uint8 queuelen:uint32 queuemax:uint32 flags:int32
listen res:errno fd:fd backlog:int32
sendto res:errno data:bytebuf fd:fd size:uint32 tuple:socktuple
sendmsg res:errno data:bytebuf fd:fd size:uint32 tuple:socktuple
recvfrom res:errno data:bytebuf tuple:socktuple fd:fd size:uint32
recvmsg res:errno size:uint32 data:bytebuf tuple:socktuple msgcontrol:bytebuf fd:fd
socket fd:fd domain:enumflags32 type:uint32 proto:uint32 flags:flags32
bind res:errno addr:sockaddr fd:fd
shutdown res:errno fd:fd how:enumflags8
rename res:errno oldpath:fspath newpath:fspath
renameat res:errno olddirfd:fd oldpath:fsrelpath newdirfd:fd newpath:fsrelpath
renameat2 res:errno olddirfd:fd oldpath:fsrelpath newdirfd:fd newpath:fsrelpath flags:flags32
unlink res:errno path:fspath
unlinkat res:errno dirfd:fd name:fsrelpath flags:flags32
rmdir res:errno path:fspath
mkdir res:errno path:fspath mode:uint32
mkdirat res:errno dirfd:fd path:fsrelpath mode:uint32
chmod res:errno filename:fspath mode:mode
fchmod res:errno fd:fd mode:mode
fchmodat res:errno dirfd:fd filename:fsrelpath mode:mode
chown res:errno path:fspath uid:uint32 gid:uint32
lchown res:errno path:fspath uid:uint32 gid:uint32
fchown res:errno fd:fd uid:uint32 gid:uint32
fchownat res:errno dirfd:fd pathname:fsrelpath uid:uint32 gid:uint32 flags:flags32
symlink res:errno target:charbuf linkpath:fspath
symlinkat res:errno target:charbuf linkdirfd:fd linkpath:fsrelpath
link res:errno oldpath:fspath newpath:fspath
linkat res:errno olddir:fd oldpath:fsrelpath newdir:fd newpath:fsrelpath flags:flags32
mknod res:errno path:fspath mode:mode dev:uint32
mknodat res:errno dirfd:fd path:fsrelpath mode:mode dev:uint32
chdir res:errno path:charbuf
fchdir res:errno fd:fd
chroot res:errno path:fspath
ptrace res:errno addr:dyn data:dyn request:enumflags16 pid:pid
dup res:fd oldfd:fd
dup2 res:fd oldfd:fd newfd:fd
dup3 res:fd oldfd:fd newfd:fd flags:flags32
close res:errno fd:fd
init_module res:errno img:bytebuf length:uint64 uargs:charbuf
finit_module res:errno fd:fd uargs:charbuf flags:flags32
delete_module res:errno name:charbuf flags:flags32
setns res:errno fd:fd nstype:flags32
unshare res:errno flags:flags32
setuid res:errno uid:uid
setgid res:errno gid:gid
setreuid res:errno ruid:uid euid:uid
setregid res:errno rgid:uid egid:uid
setresuid res:errno ruid:uid euid:uid suid:uid
setresgid res:errno rgid:gid egid:gid sgid:gid
capset res:errno cap_inheritable:uint64 cap_permitted:uint64 cap_effective:uint64
setsid res:pid
setpgid res:errno pid:pid pgid:pid
bpf fd:fd cmd:enumflags32
userfaultfd res:errno flags:flags32
memfd_create fd:fd name:charbuf flags:flags32
prctl res:errno option:enumflags32 arg2_str:charbuf arg2_int:int64
kill res:errno pid:pid sig:sigtype
tkill res:errno tid:pid sig:sigtype
tgkill res:errno pid:pid tid:pid sig:sigtype
mount res:errno dev:charbuf dir:fspath type:charbuf flags:flags32
umount2 res:errno name:fspath flags:flags32
pidfd_open fd:fd pid:pid flags:flags32
pidfd_getfd fd:fd pid_fd:fd target_fd:fd flags:uint32
splice res:errno fd_in:fd fd_out:fd size:uint64 flags:flags32
seccomp res:errno op:uint64 flags:uint64
close_range res:errno first:uint32 last:uint32 flags:flags32
access res:errno name:fspath mode:flags32
io_uring_setup res:errno entries:uint32 sq_entries:uint32 cq_entries:uint32 flags:flags32 sq_thread_cpu:uint32 sq_thread_idle:uint32 features:flags32
process_vm_readv res:int64 pid:pid data:bytebuf
process_vm_writev res:int64 pid:pid data:bytebuf
pivot_root
fsopen
fsmount
move_mount
open_tree
mount_setattr
kexec_load
kexec_file_load
perf_event_open
add_key
request_key
name_to_handle_at
fanotify_init
setfsuid
setfsgid
personality
acct
reboot
sethostname
fchmodat2
`

// A Kind says how the bytes of a value are read.
type Kind uint8

const (
	Int        Kind = iota // 8 bytes: [Value.Int]
	Text                   // [Value.Text]
	Bytes                  // [Value.Bytes]; of args, env and cgroups, [Value.Strings]
	Socket                 // [Value.Tuple]
	SockAddr               // [Value.Address]
	Descriptor             // [Value.File]
)

// A Param is one parameter of a type.
type Param struct {
	Name string
	Type string // as in event/syscalls.txt, such as fsrelpath
	Kind Kind
}

type spec struct {
	name   string
	params []Param
}

// specs is by number; the first is no type.
var specs = newSpecs()

func newSpecs() []spec {
	all := []spec{{}}
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		s := spec{name: words[0]}
		for _, word := range words[1:] {
			name, typ, _ := strings.Cut(word, ":")
			s.params = append(s.params, Param{name, typ, kindOf(typ)})
		}
		all = append(all, s)
	}
	return all
}

func kindOf(typ string) Kind {
	switch typ {
	case "charbuf", "fspath", "fsrelpath":
		return Text
	case "bytebuf":
		return Bytes
	case "socktuple":
		return Socket
	case "sockaddr":
		return SockAddr
	}
	return Int
}

// Types lists the types that records can have, by number.
func Types() []Type {
	types := make([]Type, 0, len(specs)-1)
	for i := range specs[1:] {
		types = append(types, Type(i+1))
	}
	return types
}

// TypeOf returns the type of a name, such as "openat"; false if records of that
// type do not exist.
func TypeOf(name string) (Type, bool) {
	i := slices.IndexFunc(specs, func(s spec) bool { return s.name == name })
	return Type(max(i, 0)), i > 0
}

// Valid reports whether t is a type.
func (t Type) Valid() bool { return t > 0 && int(t) < len(specs) }

// String returns the name of a type, as Falco rules write it.
func (t Type) String() string {
	if !t.Valid() {
		return "unknown"
	}
	return specs[t].name
}

// Params returns the parameters of a type, in order. It must not be changed.
func (t Type) Params() []Param {
	if !t.Valid() {
		return nil
	}
	return specs[t].params
}

// Index returns the position of a parameter, -1 if the type has none of that
// name.
func (t Type) Index(name string) int {
	return slices.IndexFunc(t.Params(), func(p Param) bool { return p.Name == name })
}
