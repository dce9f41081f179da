package syscall_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// recorded returns the events of a file by their ids.
func recorded(t testing.TB, path string) map[string]*event.Event {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]*event.Event{}
	if _, err := syscall.Read(path, bytes.NewReader(data), func(e *event.Event) error { events[e.ID] = e; return nil }); err != nil {
		t.Fatal(err)
	}
	return events
}

// ref resolves a field as a rule writes it.
func ref(t testing.TB, text string) event.Ref {
	name, arg, has := strings.Cut(strings.TrimSuffix(text, "]"), "[")
	f, ok := event.Lookup(event.Syscall, name)
	if !ok {
		t.Fatalf("there is no field %s", name)
	}
	var key *string
	if has {
		key = &arg
	}
	r, err := event.Resolve(f, key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const na = "<NA>"

var fieldCases = []struct{ event, field, want string }{
	{"exec", "evt.type", "execve"},
	{"exec", "evt.type.is.execve", "1"},
	{"exec", "evt.type.is[open]", "0"},
	{"exec", "syscall.type", "execve"},
	{"exit", "syscall.type", na},
	{"exit", "evt.type", "procexit"},
	{"exec", "evt.category", "process"},
	{"open", "evt.category", "file"},
	{"write", "evt.category", "ipc"},
	{"read", "evt.category", "other"},
	{"connect", "evt.category", "net"},
	{"mmap", "evt.category", "memory"},
	{"bare", "evt.category", "other"},
	{"exec", "evt.cpu", "3"},
	{"bare", "evt.cpu", na},
	{"exec", "evt.dir", "<"},
	{"exec", "evt.num", "1"},
	{"open", "evt.num", "2"},
	{"exec", "evt.time.iso8601", "2026-01-01T10:00:05.000000007Z"},
	{"exec", "evt.time", time.Unix(0, 1767261605000000007).Format("15:04:05.000000000")},
	{"exec", "evt.time.s", time.Unix(1767261605, 0).Format("15:04:05")},
	{"exec", "evt.datetime", time.Unix(0, 1767261605000000007).Format("2006-01-02 15:04:05.000000000")},
	{"exec", "evt.datetime.s", time.Unix(1767261605, 0).Format("2006-01-02 15:04:05")},
	{"exec", "evt.rawtime", "1767261605000000007"},
	{"exec", "evt.rawtime.s", "1767261605"},
	{"exec", "evt.rawtime.ns", "7"},
	{"exec", "evt.source", "syscall"},
	{"exec", "evt.hostname", "node-1"},
	{"open", "evt.hostname", na},
	{"exec", "evt.deltatime", "1500000007"},
	{"exec", "evt.deltatime.s", "1"},
	{"exec", "evt.deltatime.ns", "500000007"},
	{"open", "evt.deltatime.ns", "999999993"},
	{"exec", "evt.around[1767261605000000000]", "1"},
	{"exec", "evt.around[1767261605500000007]", "500"},
	{"exec", "evt.around[x]", na},
	{"exec", "evt.latency", na}, {"exec", "evt.latency.s", na}, {"exec", "evt.latency.ns", na}, {"exec", "evt.latency.human", na},
	{"exec", "evt.wait_latency", na},

	{"open", "evt.arg.name", "/etc/passwd"},
	{"open", "evt.arg[2]", "/etc/passwd"},
	{"open", "evt.arg[name]", "/etc/passwd"},
	{"open", "evt.arg[7]", na},
	{"open", "evt.arg.path", na},
	{"open", "evt.arg.fd", "<f>/etc/passwd"},
	{"open", "evt.arg.dirfd", "AT_FDCWD"},
	{"open", "evt.arg.flags", "O_RDWR|O_CREAT|O_CLOEXEC|O_F_CREATED"},
	{"open", "evt.arg.mode", "0755"},
	{"open", "evt.rawarg.flags", "20487"},
	{"open", "evt.rawarg.name", "../etc/passwd"},
	{"open", "evt.rawarg[fd]", "5"},
	{"open", "evt.rawarg.dev", "2051"},
	{"open", "evt.rawarg.path", na},
	{"read", "evt.rawarg.data", "\xca\xfe"},
	{"connect", "evt.rawarg.tuple", "10.0.0.7:40112->203.0.113.9:443"},
	{"open", "evt.args", "fd=5(<f>/etc/passwd) dirfd=-100(AT_FDCWD) name=../etc/passwd(/etc/passwd) flags=20487(O_RDWR|O_CREAT|O_CLOEXEC|O_F_CREATED) mode=0755 dev=803 ino=99"},
	{"open failed", "evt.info", "fd=-2(ENOENT) dirfd=7(<d>/srv/www) name=a//b(/srv/www/a/b) flags=1(O_RDONLY) mode=0 dev=<NA> ino=<NA>"},
	{"exec", "evt.arg.flags", "EXE_WRITABLE|EXE_UPPER_LAYER"},
	{"exec", "evt.arg.args", "-s.http://x/y."},
	{"exec", "evt.arg.ptid", "bash"},
	{"exec", "evt.arg.filename", "/app/curl"},
	{"exec", "evt.rawarg.filename", "./curl"},
	{"exec", "evt.arg.uid", "app"},
	{"setuid", "evt.arg.uid", "<NA>"},
	{"setuid", "evt.args", "res=0 uid=4242(<NA>)"},
	{"exit", "evt.arg.sig", "SIGKILL"},
	{"exit", "evt.arg.ret", "EPERM"},
	{"rename", "evt.arg.oldpath", "/root/a"},
	{"rename", "evt.arg.newpath", "/b/d"},
	{"symlink", "evt.arg.target", "../../etc/shadow"},
	{"symlink", "evt.arg.linkpath", "/root/x"},
	{"connect", "evt.args", "res=-115(EINPROGRESS) tuple=10.0.0.7:40112->203.0.113.9:443 fd=4(<4t>10.0.0.7:40112->203.0.113.9:443) addr=203.0.113.9:443"},
	{"accept", "evt.arg.flags", "524288"},
	{"socket", "evt.arg.domain", "AF_PACKET"},
	{"socket", "evt.arg.type", na},
	{"poll", "evt.arg.fds", "3:41 4:f4"},
	{"write", "evt.buffer", "a\x01b"},
	{"read", "evt.buffer", "\xca\xfe"},
	{"open", "evt.buffer", na},
	{"write", "evt.buflen", "3"},
	{"open", "evt.buflen", na},
	{"write", "evt.arg.data", "a.b"},
	{"exec", "evt.res", "SUCCESS"},
	{"open failed", "evt.res", "ENOENT"},
	{"exit", "evt.res", na},
	{"connect", "evt.rawres", "-115"},
	{"open", "evt.rawres", "5"},
	{"exit", "evt.rawres", na},
	{"open failed", "evt.failed", "true"},
	{"open", "evt.failed", "false"},
	{"exit", "evt.failed", na},
	{"write", "evt.is_io", "true"}, {"read", "evt.is_io", "true"}, {"open", "evt.is_io", "false"},
	{"write", "evt.is_io_write", "true"}, {"read", "evt.is_io_write", "false"},
	{"write", "evt.is_io_read", "false"}, {"read", "evt.is_io_read", "true"},
	{"write", "evt.io_dir", "write"}, {"read", "evt.io_dir", "read"}, {"open", "evt.io_dir", na},
	{"poll", "evt.is_wait", "true"}, {"open", "evt.is_wait", "false"},
	{"write", "evt.is_syslog", "true"}, {"read", "evt.is_syslog", "false"},
	{"open", "evt.is_open_read", "true"}, {"open", "evt.is_open_write", "true"}, {"open", "evt.is_open_create", "true"}, {"open", "evt.is_open_exec", "true"},
	{"open failed", "evt.is_open_read", "true"}, {"open failed", "evt.is_open_write", "false"}, {"open failed", "evt.is_open_create", "false"}, {"open failed", "evt.is_open_exec", "false"},
	{"exec", "evt.is_open_write", "false"},
	{"exec", "evt.count", "1"}, {"exec", "evt.count.exit", "1"},
	{"exec", "evt.count.error", na}, {"open failed", "evt.count.error", "1"},
	{"open failed", "evt.count.error.file", "1"}, {"connect", "evt.count.error.file", na},
	{"open failed", "evt.count.error.net", na}, {"connect", "evt.count.error.net", "1"},
	{"mmap", "evt.count.error.memory", "1"}, {"open failed", "evt.count.error.memory", na},
	{"open failed", "evt.count.error.other", na}, {"mmap", "evt.count.error.other", na}, {"ptrace", "evt.count.error.other", "1"}, {"ptrace", "evt.arg.request", "PTRACE_ATTACH"}, {"ptrace", "evt.args", "res=-1(EPERM) addr=0 data=<NA> request=16(PTRACE_ATTACH) pid=1(init)"},
	{"rename", "evt.abspath", "/root/a"}, {"rename", "evt.abspath[dst]", "/b/d"}, {"unlink", "evt.abspath", "/root/x/y"}, {"symlink", "evt.abspath", "/root/x"},
	{"rename", "evt.abspath.src", "/root/a"}, {"rename", "evt.abspath.dst", "/b/d"}, {"unlink", "evt.abspath.src", na},
	{"unlink", "fs.path.name", "/root/x/y"}, {"unlink", "fs.path.nameraw", "x/./y"}, {"rename", "fs.path.name", na}, {"bare", "fs.path.name", na},
	{"rename", "fs.path.source", "/root/a"}, {"rename", "fs.path.sourceraw", "a"},
	{"rename", "fs.path.target", "/b/d"}, {"rename", "fs.path.targetraw", "c/../d"}, {"symlink", "fs.path.target", "/root/x"},

	{"open", "fd.num", "5"}, {"open failed", "fd.num", "-2"}, {"read", "fd.num", "3"}, {"bare", "fd.num", na},
	{"open", "fd.type", "file"}, {"open failed", "fd.type", "file"}, {"connect", "fd.type", "ipv4"}, {"accept", "fd.type", "ipv6"}, {"bare", "fd.type", na},
	{"open", "fd.typechar", "f"}, {"open failed", "fd.typechar", "f"}, {"accept", "fd.typechar", "6"},
	{"exec", "fd.types", "(pipe,file)"}, {"exec", "fd.types[3]", "(file)"}, {"exec", "fd.types[9]", na}, {"open", "fd.types", na},
	{"open", "fd.name", "/etc/passwd"}, {"open failed", "fd.name", "/srv/www/a/b"}, {"connect", "fd.name", "10.0.0.7:40112->203.0.113.9:443"}, {"bare", "fd.name", na},
	{"open", "fd.nameraw", "../etc/passwd"}, {"open failed", "fd.nameraw", "a/b"}, {"connect", "fd.nameraw", na},
	{"open", "fd.directory", "/etc"}, {"open failed", "fd.directory", "/srv/www/a"}, {"connect", "fd.directory", na},
	{"open", "fd.filename", "passwd"}, {"open failed", "fd.filename", "b"}, {"connect", "fd.filename", na},
	{"connect", "fd.containername", "3f2a9c01d7be:10.0.0.7:40112->203.0.113.9:443"}, {"open failed", "fd.containername", na},
	{"open", "fd.containerdirectory", "host:/etc"}, {"connect", "fd.containerdirectory", na},
	{"open", "fd.uid", "41055"}, {"bare", "fd.uid", na},
	{"open", "fd.dev", "803"}, {"open", "fd.dev.major", "8"}, {"open", "fd.dev.minor", "3"}, {"connect", "fd.dev", na}, {"open", "fd.ino", "99"}, {"connect", "fd.ino", na},
	{"open", "fd.is_upper_layer", "false"}, {"open", "fd.is_lower_layer", "true"}, {"bare", "fd.is_lower_layer", na},
	{"connect", "fd.l4proto", "tcp"}, {"open", "fd.l4proto", na},
	{"connect", "fd.sockfamily", "ip"}, {"write", "fd.sockfamily", "unix"}, {"open", "fd.sockfamily", na},
	{"connect", "fd.is_server", "false"}, {"accept", "fd.is_server", "true"},
	{"connect", "fd.connected", "true"}, {"open", "fd.connected", "false"}, {"connect", "fd.name_changed", "true"}, {"accept", "fd.name_changed", "false"},
	{"connect", "fd.cip", "10.0.0.7"}, {"connect", "fd.sip", "203.0.113.9"}, {"connect", "fd.lip", "10.0.0.7"}, {"connect", "fd.rip", "203.0.113.9"},
	{"accept", "fd.cip", "2001:db8::5"}, {"accept", "fd.sip", "2001:db8::1"}, {"accept", "fd.lip", "2001:db8::1"}, {"accept", "fd.rip", "2001:db8::5"}, {"open", "fd.cip", na},
	{"connect", "fd.cport", "40112"}, {"connect", "fd.sport", "443"}, {"connect", "fd.lport", "40112"}, {"accept", "fd.rport", "5000"}, {"open", "fd.sport", na},
	{"connect", "fd.cproto", "40112"}, {"connect", "fd.sproto", "https"}, {"accept", "fd.lproto", "http"}, {"connect", "fd.rproto", "https"},
	{"connect", "fd.cnet", "10.0.0.7"}, {"connect", "fd.snet", "203.0.113.9"}, {"accept", "fd.lnet", "2001:db8::1"}, {"accept", "fd.rnet", "2001:db8::5"},
	{"connect", "fd.cip.name", "web.shop"}, {"connect", "fd.sip.name", "evil.example.com"}, {"accept", "fd.lip.name", "s.example.com"}, {"accept", "fd.rip.name", "c.example.com"}, {"open", "fd.sip.name", na},
	{"connect", "fd.ip", na}, {"connect", "fd.net", na}, {"connect", "fd.port", na}, {"connect", "fd.proto", na},
	{"poll", "fdlist.nums", "3,4"}, {"poll", "fdlist.names", "10.0.0.1:1->10.0.0.2:2,/x"}, {"poll", "fdlist.cips", "10.0.0.1"}, {"poll", "fdlist.sips", "10.0.0.2"},
	{"poll", "fdlist.cports", "1"}, {"poll", "fdlist.sports", "2"}, {"open", "fdlist.nums", na},

	{"exec", "proc.name", "curl"}, {"open", "proc.name", "worker"}, {"bare", "proc.name", na},
	{"exec", "proc.cmdline", "curl -s http://x/y"}, {"open", "proc.cmdline", "worker"}, {"open failed", "proc.cmdline", na},
	{"exec", "proc.args", "-s http://x/y"}, {"exec", "proc.args[1]", "http://x/y"}, {"exec", "proc.args[2]", na}, {"open", "proc.args", ""}, {"open failed", "proc.args", na},
	{"exec", "proc.exe", "./curl"}, {"open failed", "proc.exe", na}, {"exec", "proc.exeline", "./curl -s http://x/y"},
	{"exec", "proc.exepath", "/usr/bin/curl"}, {"open", "proc.exepath", na},
	{"exec", "proc.cmdnargs", "2"}, {"exec", "proc.cmdlenargs", "12"}, {"open", "proc.cmdnargs", "0"}, {"open failed", "proc.cmdlenargs", na},
	{"exec", "proc.cwd", "/app/"}, {"connect", "proc.cwd", "/"}, {"accept", "proc.cwd", na},
	{"exec", "proc.env", "A=1 AB=2 EMPTY="}, {"exec", "proc.env[A]", "1"}, {"exec", "proc.env[EMPTY]", ""}, {"exec", "proc.env[NONE]", ""}, {"open", "proc.env[A]", na},
	{"exec", "proc.tty", "34816"}, {"open", "proc.tty", "0"},
	{"exec", "proc.pid", "4100"}, {"exec", "proc.vpid", "41"}, {"open", "proc.vpid", na}, {"exec", "proc.ppid", "4099"}, {"exec", "proc.pvpid", "40"}, {"open", "proc.ppid", na},
	{"exec", "proc.sid", "4099"}, {"open", "proc.sid", na}, {"exec", "proc.sid.exe", "-bash"}, {"exec", "proc.sid.exepath", "/usr/bin/bash"}, {"exec", "proc.sname", "bash"}, {"open", "proc.sname", na},
	{"exec", "proc.pgid", "4100"}, {"exec", "proc.pgid.name", "make"}, {"exec", "proc.pgid.exe", "make"}, {"exec", "proc.pgid.exepath", "/usr/bin/make"},
	{"exec", "proc.vpgid", "41"}, {"exec", "proc.vpgid.name", "make"}, {"exec", "proc.vpgid.exe", "make"}, {"exec", "proc.vpgid.exepath", "/usr/bin/make"}, {"open", "proc.vpgid.name", na},
	{"exec", "proc.is_sid_leader", "false"}, {"exec", "proc.is_pgid_leader", "true"}, {"exec", "proc.is_vpgid_leader", "true"}, {"open", "proc.is_vpgid_leader", na},
	{"exec", "proc.loginshellid", "4099"}, {"open", "proc.loginshellid", na},
	{"exec", "proc.duration", "3000000007"}, {"open", "proc.duration", na}, {"exec", "proc.ppid.duration", "5000000007"}, {"open", "proc.ppid.duration", na},
	{"exec", "proc.pid.ts", "1767261602000000000"}, {"exec", "proc.ppid.ts", "1767261600000000000"}, {"exec", "proc.pidns_init_start_ts", "1767261540000000000"},
	{"exec", "proc.pname", "bash"}, {"exec", "proc.pcmdline", "bash -i"}, {"exec", "proc.pexe", "-bash"}, {"exec", "proc.pexepath", "/usr/bin/bash"}, {"open", "proc.pname", na},
	{"exec", "proc.aname", "(bash,sshd)"}, {"exec", "proc.aname[0]", "curl"}, {"exec", "proc.aname[2]", "sshd"}, {"exec", "proc.aname[3]", na}, {"open", "proc.aname", na}, {"bare", "proc.aname[0]", na},
	{"exec", "proc.aexe", "(-bash,sshd)"}, {"exec", "proc.aexe[2]", "sshd"}, {"exec", "proc.aexepath", "(/usr/bin/bash,/usr/sbin/sshd)"}, {"exec", "proc.aexepath[1]", "/usr/bin/bash"},
	{"exec", "proc.acmdline", "(bash -i,sshd -D)"}, {"exec", "proc.acmdline[2]", "sshd -D"}, {"exec", "proc.apid", "(4099,4000)"}, {"exec", "proc.apid[1]", "4099"},
	{"exec", "proc.aargs[1]", "-i"}, {"exec", "proc.aargs[0]", "-s http://x/y"}, {"exec", "proc.aargs[5]", na},
	{"exec", "proc.aenv", "(SSH=1,LANG=C)"}, {"exec", "proc.aenv[2]", "LANG=C"}, {"exec", "proc.aenv[LANG]", "C"}, {"exec", "proc.aenv[NONE]", ""}, {"open", "proc.aenv[LANG]", na},
	{"exec", "proc.stdin.type", "pipe"}, {"exec", "proc.stdin.name", "pipe:[5]"}, {"exec", "proc.stdout.type", "file"}, {"exec", "proc.stdout.name", "/dev/pts/0"},
	{"exec", "proc.stderr.type", "ipv4"}, {"exec", "proc.stderr.name", "10.0.0.7:40112->203.0.113.9:443"}, {"open", "proc.stdin.type", na},
	{"exec", "proc.is_exe_writable", "true"}, {"exec", "proc.is_exe_upper_layer", "true"}, {"exec", "proc.is_exe_lower_layer", "false"}, {"exec", "proc.is_exe_from_memfd", "false"}, {"open", "proc.is_exe_upper_layer", na},
	{"exec", "proc.exe_ino", "77"}, {"exec", "proc.exe_ino.ctime", "1767261600000000000"}, {"exec", "proc.exe_ino.mtime", "1767261500000000000"},
	{"exec", "proc.exe_ino.ctime_duration_proc_start", "2000000000"}, {"exec", "proc.exe_ino.ctime_duration_pidns_start", "60000000000"}, {"open", "proc.exe_ino.ctime", na},
	{"exec", "proc.fdlimit", "1000"}, {"exec", "proc.fdopencount", "25"}, {"exec", "proc.fdusage", "2.5"}, {"open", "proc.fdlimit", na},
	{"exec", "proc.vmsize", "300"}, {"exec", "proc.vmrss", "200"}, {"exec", "proc.vmswap", "9"}, {"exec", "proc.nthreads", "4"}, {"exec", "proc.nchilds", "3"},
	{"exec", "proc.is_container_healthcheck", na}, {"exec", "proc.is_container_liveness_probe", na}, {"exec", "proc.is_container_readiness_probe", na},

	{"exec", "thread.tid", "4100"}, {"exec", "thread.vtid", "41"}, {"bare", "thread.tid", na}, {"exec", "thread.ismain", "true"}, {"open", "thread.ismain", "false"},
	{"exec", "thread.cap_permitted", "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH"}, {"exec", "thread.cap_effective", "CAP_DAC_OVERRIDE"}, {"exec", "thread.cap_inheritable", ""}, {"open", "thread.cap_effective", na},
	{"exec", "thread.cgroups", "cpuset=/kube/c1 =/unified/c1"}, {"exec", "thread.cgroup.cpuset", "/kube/c1"}, {"exec", "thread.cgroup[memory]", "/unified/c1"}, {"open", "thread.cgroup.cpuset", na},
	{"exec", "thread.cpu", "3.8"}, {"exec", "thread.cpu.user", "1.5"}, {"exec", "thread.cpu.system", "2.2"},
	{"exec", "thread.exectime", "500"}, {"exec", "thread.totexectime", "9000"}, {"exec", "thread.pfmajor", "1"}, {"exec", "thread.pfminor", "22"}, {"exec", "thread.vmsize", "300"}, {"exec", "thread.vmrss", "200"},

	{"exec", "user.uid", "1001"}, {"exec", "user.name", "app"}, {"open", "user.name", "root"}, {"open failed", "user.name", na}, {"exec", "user.homedir", "/home/app"}, {"exec", "user.shell", "/bin/sh"}, {"open", "user.shell", na},
	{"exec", "user.loginuid", "1000"}, {"connect", "user.loginuid", "-1"}, {"exec", "user.loginname", "ann"}, {"open", "user.loginname", na}, {"connect", "user.loginname", na},
	{"exec", "group.gid", "2001"}, {"exec", "group.name", "appgroup"}, {"open", "group.name", "root"}, {"open failed", "group.name", na},

	{"exec", "container.id", "3f2a9c01d7be"}, {"open", "container.id", "host"}, {"connect", "container.id", "3f2a9c01d7be"}, {"accept", "container.id", na},
	{"exec", "container.full_id", "3f2a9c01d7be5566778899aabbccddeeff00112233445566778899aabbccddee"}, {"connect", "container.full_id", na}, {"open", "container.full_id", ""},
	{"exec", "container.name", "web"}, {"open", "container.name", "host"}, {"connect", "container.name", na}, {"exec", "container.type", "containerd"}, {"open", "container.type", ""},
	{"exec", "container.image", "registry.example.com/shop/web:1.4"}, {"exec", "container.image.id", "sha256:11"}, {"exec", "container.image.repository", "registry.example.com/shop/web"}, {"open", "container.image.repository", ""}, {"connect", "container.image.repository", na},
	{"exec", "container.image.tag", "1.4"}, {"exec", "container.image.digest", "sha256:22"}, {"exec", "container.ip", "10.0.0.7"}, {"exec", "container.cni.json", `{"a":1}`},
	{"exec", "container.labels", "app:web, tier:front"}, {"exec", "container.label.app", "web"}, {"exec", "container.label[tier]", "front"}, {"exec", "container.label.none", na},
	{"exec", "container.privileged", "true"}, {"open", "container.privileged", na}, {"exec", "container.host_pid", "true"}, {"exec", "container.host_network", "false"}, {"exec", "container.host_ipc", "true"}, {"connect", "container.host_ipc", na},
	{"exec", "container.start_ts", "1767261540000000000"}, {"connect", "container.duration", "7000000000"}, {"open", "container.start_ts", na},
	{"exec", "container.mounts", "/var/run/docker.sock:/run/d.sock:ro:false:rprivate,/proc:/host/proc:rw:true:rslave"},
	{"exec", "container.mount[1]", "/proc:/host/proc:rw:true:rslave"}, {"exec", "container.mount[/var/run/docker.sock]", "/var/run/docker.sock:/run/d.sock:ro:false:rprivate"}, {"exec", "container.mount", na},
	{"exec", "container.mount.dest[/proc*]", "/host/proc"}, {"exec", "container.mount.dest[/var*sock]", "/run/d.sock"}, {"exec", "container.mount.dest[/root*]", na}, {"exec", "container.mount.dest[2]", na},
	{"exec", "container.mount.source[/host/proc]", "/proc"}, {"exec", "container.mount.mode[0]", "ro"}, {"exec", "container.mount.rdwr[/proc]", "true"}, {"exec", "container.mount.propagation[/proc]", "rslave"}, {"connect", "container.mount.dest[0]", na},
	{"exec", "container.healthcheck", na}, {"exec", "container.liveness_probe", na}, {"exec", "container.readiness_probe", na},

	{"exec", "k8s.ns.name", "shop"}, {"open", "k8s.ns.name", na}, {"exec", "k8s.pod.name", "web-0"}, {"exec", "k8s.pod.uid", "u-1"}, {"exec", "k8s.pod.id", "u-1"}, {"exec", "k8s.pod.sandbox_id", "aa11bb22cc33"}, {"exec", "k8s.pod.full_sandbox_id", "aa11bb22cc33dd44ee55"},
	{"exec", "k8s.pod.ip", "10.0.0.7"}, {"exec", "k8s.pod.cni.json", `{"b":2}`}, {"exec", "k8s.pod.labels", "app:web"}, {"exec", "k8s.pod.label.app", "web"}, {"exec", "k8s.pod.label[x]", na}, {"open", "k8s.pod.label[app]", na},
	{"exec", "k8s.ns.id", na}, {"exec", "k8s.ns.label[x]", na}, {"exec", "k8s.ns.labels", na},
	{"exec", "k8s.rc.id", na}, {"exec", "k8s.rc.label[x]", na}, {"exec", "k8s.rc.labels", na}, {"exec", "k8s.rc.name", na},
	{"exec", "k8s.svc.id", na}, {"exec", "k8s.svc.label[x]", na}, {"exec", "k8s.svc.labels", na}, {"exec", "k8s.svc.name", na},
	{"exec", "k8s.rs.id", na}, {"exec", "k8s.rs.label[x]", na}, {"exec", "k8s.rs.labels", na}, {"exec", "k8s.rs.name", na},
	{"exec", "k8s.deployment.id", na}, {"exec", "k8s.deployment.label[x]", na}, {"exec", "k8s.deployment.labels", na}, {"exec", "k8s.deployment.name", na},
}

// silent are the fields that no event has, as in Falco, or that conditions take
// apart.
var silent = []string{
	"evt.latency", "evt.latency.human", "evt.latency.ns", "evt.latency.s", "evt.wait_latency", "fd.ip", "fd.net", "fd.port", "fd.proto",
	"container.healthcheck", "container.liveness_probe", "container.readiness_probe", "proc.is_container_healthcheck",
	"proc.is_container_liveness_probe", "proc.is_container_readiness_probe", "k8s.ns.id", "k8s.ns.label", "k8s.ns.labels",
	"k8s.rc.id", "k8s.rc.label", "k8s.rc.labels", "k8s.rc.name", "k8s.svc.id", "k8s.svc.label", "k8s.svc.labels", "k8s.svc.name",
	"k8s.rs.id", "k8s.rs.label", "k8s.rs.labels", "k8s.rs.name", "k8s.deployment.id", "k8s.deployment.label", "k8s.deployment.labels", "k8s.deployment.name",
}

func TestFields(t *testing.T) {
	events := recorded(t, "testdata/events.jsonl")
	have, any := map[string]bool{}, map[string]bool{}
	for _, tc := range fieldCases {
		e := events[tc.event]
		if e == nil {
			t.Fatalf("there is no event %q", tc.event)
		}
		r := ref(t, tc.field)
		v := e.Value(r)
		if v.String() != tc.want || v.Missing() != (tc.want == na && tc.field != "evt.arg.uid") {
			t.Errorf("%s of %q is %q (missing: %v), want %q", tc.field, tc.event, v, v.Missing(), tc.want)
		}
		if list := r.Ancestors() && v.Type == event.TypeList; !v.Missing() && v.Type != r.Type && !list && r.Name != "evt.rawarg" {
			t.Errorf("%s is a %s, want a %s", tc.field, v.Type, r.Type)
		}
		byName := r
		byName.ID = 0
		if r.ID > 0 && r.Name == event.Fields(event.Syscall)[r.ID-1].Name {
			if w := e.Value(byName); w.String() != v.String() {
				t.Errorf("%s by its name is %q, want %q", tc.field, w, v)
			}
		}
		name := r.Name
		if r.ID > 0 {
			name = event.Fields(event.Syscall)[r.ID-1].Name
		}
		have[name], any[name] = true, any[name] || !v.Missing()
	}
	for _, f := range event.Fields(event.Syscall) {
		if !have[f.Name] {
			t.Errorf("field %s has no case", f.Name)
		}
		if any[f.Name] == slices.Contains(silent, f.Name) {
			t.Errorf("field %s has a value: %v", f.Name, any[f.Name])
		}
	}
}
