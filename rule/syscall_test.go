package rule_test

import (
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// syscallRules are written as rules for system calls usually are: macros over
// event types, lists of programs, addresses, paths and ancestors.
const syscallRules = `
- required_engine_version: 0.57.0
- required_plugin_versions:
    - name: container
      version: 0.4.0

- list: shells
  items: [ash, bash, dash, sh, zsh]
- list: installers
  items: [apt, apt-get, dpkg, rpm]
- list: trusted_tools
  items: [installers, tar]

- macro: started
  condition: (evt.type in (execve, execveat))
- macro: written
  condition: (evt.type in (open, openat, openat2) and evt.is_open_write=true and fd.typechar='f' and fd.num>=0)
- macro: connected_out
  condition: >
    (((evt.type = connect) or (evt.type in (sendto, sendmsg) and fd.l4proto != tcp and fd.connected = false and fd.name_changed = true))
    and (fd.typechar = 4 or fd.typechar = 6) and (fd.ip != "0.0.0.0" and fd.net != "127.0.0.0/8" and not fd.snet in ("10.0.0.0/8", "192.168.0.0/16"))
    and (evt.rawres >= 0 or evt.res = EINPROGRESS))
- macro: in_container
  condition: (container.id != host)
- macro: interactive
  condition: ((proc.aname=sshd and proc.name != sshd) or proc.name=systemd-logind or proc.tty != 0)
- macro: exceptions_by_users
  condition: (evt.num=0)
- macro: below_etc
  condition: (fd.directory=/etc or fd.name startswith /etc/)

- rule: Shell in a container
  desc: Somebody works in a container
  condition: started and in_container and proc.name in (shells) and proc.tty != 0 and not exceptions_by_users
  output: Shell (user=%user.name parents=%proc.pname %proc.aname[2] command=%proc.cmdline exe_flags=%evt.arg.flags %container.info)
  priority: NOTICE
  tags: [container, mitre_execution]

- rule: Write below etc
  desc: A program that is no installer writes there
  condition: written and below_etc and not proc.name in (trusted_tools) and not proc.aname[2] in (installers)
  output: "File written (file=%fd.name program=%proc.name)"
  priority: ERROR

- rule: Unexpected connection
  desc: A container connects to where it should not
  condition: connected_out and in_container and not fd.sport in (53, 443) and not fd.sip.name in (registry.example.com)
  output: "Connection (connection=%fd.name port=%fd.rport address=%fd.rip)"
  priority: WARNING

- rule: Set user id bit
  desc: The bit was set
  condition: evt.type in (chmod, fchmod, fchmodat) and (evt.arg.mode contains "S_ISUID" or evt.arg.mode contains "S_ISGID") and not container.mount.dest[/proc*] exists
  output: "%evt.arg.filename %evt.arg.mode %evt.args"
  priority: NOTICE

- rule: Old call
  desc: Data in a buffer
  condition: evt.type in (sendto, write) and evt.dir=< and evt.buffer bcontains cafe0001 and thread.cap_effective contains CAP_SYS_ADMIN and user.loginuid >= 1000
  output: "%evt.buffer"
  priority: DEBUG
  enabled: false
`

func TestSyscallRules(t *testing.T) {
	set, results := rule.Options{}.Load(rule.File{Name: "f.yaml", Data: []byte(syscallRules)})
	if set == nil {
		t.Fatal(results[0].Errors)
	}
	var codes []string
	for _, w := range set.Warnings() {
		codes = append(codes, w.Code)
	}
	if got := strings.Join(codes, " "); got != "LOAD_UNUSED_MACRO LOAD_DEPRECATED_ITEM LOAD_DEPRECATED_ITEM" {
		t.Errorf("warnings %v", set.Warnings())
	}
	connection := fields{
		"evt.type": event.Text("connect"), "fd.typechar": event.Text("4"), "fd.cip": addr("172.16.0.1"), "fd.sip": addr("203.0.113.9"),
		"fd.cnet": addr("172.16.0.1"), "fd.snet": addr("203.0.113.9"), "evt.rawres": event.Number(-115), "evt.res": event.Text("EINPROGRESS"),
		"fd.sport": event.Port(4444), "container.id": event.Text("3f2a9c01d7be"), "fd.rport": event.Port(4444), "fd.rip": addr("203.0.113.9"),
	}
	for _, tc := range []struct {
		record fields
		output string
	}{
		{fields{"evt.type": event.Text("execve"), "container.id": event.Text("3f2a9c01d7be"), "proc.name": event.Text("bash"), "proc.tty": event.Uint(34816), "user.name": event.Text("root"), "proc.pname": event.Text("runc"), "proc.cmdline": event.Text("bash -i"), "proc.aname[2]": event.Text("shim")},
			"Notice Shell (user=root parents=runc shim command=bash -i exe_flags=<NA> )"},
		{fields{"evt.type": event.Text("execve"), "container.id": event.Text("host"), "proc.name": event.Text("bash"), "proc.tty": event.Uint(34816)}, ""},
		{fields{"evt.type": event.Text("openat"), "evt.is_open_write": event.Bool(true), "fd.typechar": event.Text("f"), "fd.num": event.Number(3), "fd.name": event.Text("/etc/passwd"), "fd.directory": event.Text("/etc"), "proc.name": event.Text("vi")},
			"Error File written (file=/etc/passwd program=vi)"},
		{fields{"evt.type": event.Text("openat"), "evt.is_open_write": event.Bool(true), "fd.typechar": event.Text("f"), "fd.num": event.Number(3), "fd.name": event.Text("/etc/x/y"), "proc.name": event.Text("dpkg")}, ""},
		{connection, "Warning Connection (connection=<NA> port=4444 address=203.0.113.9)"},
		{fields{"evt.type": event.Text("fchmodat"), "evt.arg.mode": event.Text("S_ISUID|S_IXUSR"), "evt.arg.filename": event.Text("/bin/x")}, "Notice /bin/x S_ISUID|S_IXUSR <NA>"},
		{fields{"evt.type": event.Text("fchmodat"), "evt.arg.mode": event.Text("S_ISUID"), "container.mount.dest[/proc*]": event.Text("/host/proc")}, ""},
	} {
		e := newEvent(tc.record)
		e.Source = event.Syscall
		got := ""
		for _, a := range set.Match(e, rule.First) {
			_, got, _ = strings.Cut(a.Output, ": ")
		}
		if got != tc.output {
			t.Errorf("output %q, want %q", got, tc.output)
		}
		compare(t, set, e, syscallRules)
	}
}
