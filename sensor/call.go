package sensor

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// callTable says of each system call its numbers (amd64, arm64), those of 32-bit
// programs on the same machines (i386, arm), which is what they mean by other
// calls too, the program that makes its records, and for the program call_any where its parameters come
// from: r is the result, iN the argument N as 32 bits with a sign, lN as 64 bits,
// lowN its four lowest bits, highN the others, tN the text that it points to, pN
// the path, relative to the working directory or to the descriptor in the
// argument after @. FD names the argument that is a descriptor, or r.
const callTable = `
open 2 - 5 5 call_open
creat 85 - 8 8 call_open
openat 257 56 295 322 call_open
openat2 437 437 437 437 call_open
open_by_handle_at 304 265 342 371 call_open
execve 59 221 11 11 call_any failures res=r filename=p0
execveat 322 281 358 387 call_any failures res=r
connect 42 203 362,102 283 call_connect
accept 43 202 102 285 call_accept
accept4 288 242 364,102 366 call_accept
listen 50 201 363,102 284 call_any res=r fd=i0 backlog=i1 FD=0
sendto 44 206 369,102 290 call_transfer
sendmsg 46 211 370,102 296 call_transfer
recvfrom 45 207 371,102 292 call_transfer
recvmsg 47 212 372,102 297 call_transfer
socket 41 198 359,102 281 call_any fd=r domain=i0 type=low1 proto=i2 flags=high1 FD=r
bind 49 200 361,102 282 call_bind
shutdown 48 210 373,102 293 call_any res=r fd=i0 how=i1 FD=0
rename 82 - 38 38 call_any res=r oldpath=p0 newpath=p1
renameat 264 38 302 329 call_any res=r olddirfd=i0 oldpath=p1@0 newdirfd=i2 newpath=p3@2
renameat2 316 276 353 382 call_any res=r olddirfd=i0 oldpath=p1@0 newdirfd=i2 newpath=p3@2 flags=i4
unlink 87 - 10 10 call_any res=r path=p0
unlinkat 263 35 301 328 call_any res=r dirfd=i0 name=p1@0 flags=i2
rmdir 84 - 40 40 call_any res=r path=p0
mkdir 83 - 39 39 call_any res=r path=p0 mode=i1
mkdirat 258 34 296 323 call_any res=r dirfd=i0 path=p1@0 mode=i2
chmod 90 - 15 15 call_any res=r filename=p0 mode=i1
fchmod 91 52 94 94 call_any res=r fd=i0 mode=i1 FD=0
fchmodat 268 53 306 333 call_any res=r dirfd=i0 filename=p1@0 mode=i2
chown 92 - 182,212 182,212 call_any res=r path=p0 uid=i1 gid=i2
lchown 94 - 16,198 16,198 call_any res=r path=p0 uid=i1 gid=i2
fchown 93 55 95,207 95,207 call_any res=r fd=i0 uid=i1 gid=i2 FD=0
fchownat 260 54 298 325 call_any res=r dirfd=i0 pathname=p1@0 uid=i2 gid=i3 flags=i4
symlink 88 - 83 83 call_any res=r target=t0 linkpath=p1
symlinkat 266 36 304 331 call_any res=r target=t0 linkdirfd=i1 linkpath=p2@1
link 86 - 9 9 call_any res=r oldpath=p0 newpath=p1
linkat 265 37 303 330 call_any res=r olddir=i0 oldpath=p1@0 newdir=i2 newpath=p3@2 flags=i4
mknod 133 - 14 14 call_any res=r path=p0 mode=i1 dev=i2
mknodat 259 33 297 324 call_any res=r dirfd=i0 path=p1@0 mode=i2 dev=i3
chdir 80 49 12 12 call_any directory res=r path=t0
fchdir 81 50 133 133 call_any directory res=r fd=i0 FD=0
chroot 161 51 61 61 call_any res=r path=p0
ptrace 101 117 26 26 call_any res=r addr=l2 data=l3 request=i0 pid=i1
dup 32 23 41 41 call_any res=r oldfd=i0 FD=r
dup2 33 - 63 63 call_any res=r oldfd=i0 newfd=i1 FD=r
dup3 292 24 330 358 call_any res=r oldfd=i0 newfd=i1 flags=i2 FD=r
close 3 57 6 6 call_any res=r fd=i0
init_module 175 105 128 128 call_any res=r length=l1 uargs=t2
finit_module 313 273 350 379 call_any res=r fd=i0 uargs=t1 flags=i2 FD=0
delete_module 176 106 129 129 call_any res=r name=t0 flags=i1
setns 308 268 346 375 call_any res=r fd=i0 nstype=i1 FD=0
unshare 272 97 310 337 call_any res=r flags=i0
setuid 105 146 23,213 23,213 call_any res=r uid=i0
setgid 106 144 46,214 46,214 call_any res=r gid=i0
setreuid 113 145 70,203 70,203 call_any res=r ruid=i0 euid=i1
setregid 114 143 71,204 71,204 call_any res=r rgid=i0 egid=i1
setresuid 117 147 164,208 164,208 call_any res=r ruid=i0 euid=i1 suid=i2
setresgid 119 149 170,210 170,210 call_any res=r rgid=i0 egid=i1 sgid=i2
capset 126 91 185 185 call_capset
setsid 112 157 66 66 call_any res=r
setpgid 109 154 57 57 call_any res=r pid=i0 pgid=i1
bpf 321 280 357 386 call_any fd=r cmd=i0
userfaultfd 323 282 374 388 call_any res=r flags=i0
memfd_create 319 279 356 385 call_any fd=r name=t0 flags=i1
prctl 157 167 172 172 call_prctl
kill 62 129 37 37 call_any res=r pid=i0 sig=i1
tkill 200 130 238 238 call_any res=r tid=i0 sig=i1
tgkill 234 131 270 268 call_any res=r pid=i0 tid=i1 sig=i2
mount 165 40 21 21 call_any res=r dev=t0 dir=p1 type=t2 flags=l3
umount2 166 39 52,22 52 call_any res=r name=p0 flags=i1
pidfd_open 434 434 434 434 call_any fd=r pid=i0 flags=i1
pidfd_getfd 438 438 438 438 call_any fd=r pid_fd=i0 target_fd=i1 flags=i2 FD=r
splice 275 76 313 340 call_any res=r fd_in=i0 fd_out=i2 size=l4 flags=i5 FD=2
seccomp 317 277 354 383 call_any res=r op=i0 flags=i1
close_range 436 436 436 436 call_any res=r first=i0 last=i1 flags=i2
access 21 - 33 33 call_any res=r name=p0 mode=i1
io_uring_setup 425 425 425 425 call_any res=r entries=i0
process_vm_readv 310 270 347 376 call_any res=r pid=i0
process_vm_writev 311 271 348 377 call_any res=r pid=i0
pivot_root 155 41 217 218 call_any
fsopen 430 430 430 430 call_any
fsmount 432 432 432 432 call_any
move_mount 429 429 429 429 call_any
open_tree 428 428 428 428 call_any
mount_setattr 442 442 442 442 call_any
kexec_load 246 104 283 347 call_any
kexec_file_load 320 294 - 401 call_any
perf_event_open 298 241 336 364 call_any
add_key 248 217 286 309 call_any
request_key 249 218 287 310 call_any
name_to_handle_at 303 264 341 370 call_any
fanotify_init 300 262 338 367 call_any
setfsuid 122 151 138,215 138,215 call_any
setfsgid 123 152 139,216 139,216 call_any
personality 135 92 136 136 call_any
acct 163 89 51 51 call_any
reboot 169 142 88 88 call_any
sethostname 170 161 74 74 call_any
fchmodat2 452 452 452 452 call_any
`

// As in bpf/call.h.
const (
	fromResult = iota
	fromInt
	fromLong
	fromLowBits
	fromHighBits
	fromText
	fromPath
)

const (
	noArgument    = 255
	resultFD      = 6
	onlyFailures  = 1
	withDirectory = 2
)

// A call is one system call that records are made of.
type call struct {
	kind    record.Type
	number  uint32
	foreign []uint32 // its numbers in 32-bit programs
	program string
	spec    kernelCall
}

// newCalls returns the calls of an architecture: a call that it does not have is
// left out.
func newCalls(arch string) ([]call, error) {
	column := map[string]int{"amd64": 1, "arm64": 2}[arch]
	if column == 0 {
		return nil, fmt.Errorf("system calls of %s: %w", arch, ErrNotSupported)
	}
	var calls []call
	for line := range strings.Lines(callTable) {
		words := strings.Fields(line)
		if len(words) == 0 || words[column] == "-" {
			continue
		}
		numbers, err := callNumbers(words[column])
		if err != nil {
			return nil, fmt.Errorf("number of %s: %w", words[0], err)
		}
		foreign, err := callNumbers(words[column+2])
		if err != nil {
			return nil, fmt.Errorf("number of %s in 32-bit programs: %w", words[0], err)
		}
		kind, ok := record.TypeOf(words[0])
		if !ok {
			return nil, fmt.Errorf("%s is no type of record", words[0])
		}
		c := call{kind: kind, number: numbers[0], foreign: foreign, program: words[5], spec: kernelCall{Type: uint16(kind), Fd: noArgument}}
		if err := c.describe(words[6:]); err != nil {
			return nil, fmt.Errorf("description of %s: %w", words[0], err)
		}
		calls = append(calls, c)
	}
	return calls, nil
}

// maxCalls is where the numbers of calls end, as in bpf/call.h.
const maxCalls = 512

// callNumbers reads numbers with commas between them; a dash is for none.
func callNumbers(text string) (numbers []uint32, err error) {
	if text == "-" {
		return nil, nil
	}
	for number := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, err
		}
		if n >= maxCalls {
			return nil, fmt.Errorf("%d is %d at least", n, maxCalls)
		}
		numbers = append(numbers, uint32(n))
	}
	return numbers, nil
}

func (c *call) describe(words []string) error {
	for _, word := range words {
		name, source, ok := strings.Cut(word, "=")
		switch {
		case word == "failures":
			c.spec.Flags |= onlyFailures
		case word == "directory":
			c.spec.Flags |= withDirectory
		case ok && name == "FD" && source == "r":
			c.spec.Fd = resultFD
		case ok && name == "FD":
			n, err := strconv.ParseUint(source, 10, 3)
			if err != nil {
				return err
			}
			c.spec.Fd = uint8(n)
		case ok:
			if err := c.value(name, source); err != nil {
				return fmt.Errorf("%s: %w", word, err)
			}
		default:
			return fmt.Errorf("%q is unknown", word)
		}
	}
	return nil
}

// sources are tried in order: low1 is not an l.
var sources = []struct {
	prefix string
	source uint8
}{{"low", fromLowBits}, {"high", fromHighBits}, {"i", fromInt}, {"l", fromLong}, {"t", fromText}, {"p", fromPath}}

func (c *call) value(name, source string) error {
	at := c.kind.Index(name)
	if at < 0 || int(c.spec.Count) == len(c.spec.Values) {
		return fmt.Errorf("%s has no such parameter, or there are too many", c.kind)
	}
	v := &c.spec.Values[c.spec.Count]
	c.spec.Count++
	v.Tag, v.Dirfd = uint8(at), noArgument
	if source == "r" {
		return nil
	}
	i := slices.IndexFunc(sources, func(s struct {
		prefix string
		source uint8
	}) bool {
		return strings.HasPrefix(source, s.prefix)
	})
	if i < 0 {
		return fmt.Errorf("no source %q", source)
	}
	v.Source = sources[i].source
	argument, dirfd, relative := strings.Cut(source[len(sources[i].prefix):], "@")
	n, err := strconv.ParseUint(argument, 10, 3)
	if err != nil {
		return err
	}
	v.Argument = uint8(n)
	if relative {
		n, err := strconv.ParseUint(dirfd, 10, 3)
		if err != nil {
			return err
		}
		v.Dirfd = uint8(n)
	}
	return nil
}

// numberOf returns the number of a call on this machine, -1 if it has none.
func numberOf(name string) int32 {
	column := map[string]int{"amd64": 1, "arm64": 2}[runtime.GOARCH]
	for line := range strings.Lines(processCalls) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == name && words[column] != "-" {
			n, err := strconv.ParseInt(words[column], 10, 16)
			if err == nil {
				return int32(n)
			}
		}
	}
	return -1
}

// processCalls are those that the programs about processes tell apart.
const processCalls = `
clone 56 220
clone3 435 435
fork 57 -
vfork 58 -
execveat 322 281
`
