package main

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCgroupOptions(t *testing.T) {
	for super, want := range map[string]string{
		"rw,memory": "memory", "rw,cpu,cpuacct": "cpu,cpuacct", "rw,xattr,name=systemd": "none,name=systemd",
		"rw,cpuset,clone_children": "cpuset", "rw,pids,release_agent=/sbin/agent": "pids",
	} {
		if got := cgroupOptions(super); got != want {
			t.Errorf("cgroupOptions(%s) = %s, want %s", super, got, want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	ours := netip.MustParsePrefix("10.96.0.0/16")
	for line, want := range map[string]bool{
		"default via 192.0.2.1 dev eth0":                            false,
		"0.0.0.0/0 via 192.0.2.1":                                   false,
		"192.0.2.0/24 dev eth0 proto kernel scope link":             false,
		"10.96.0.0/16 via 10.99.0.2 dev other":                      true,
		"10.0.0.0/8 dev vpn":                                        true,
		"10.96.7.7 dev vpn":                                         true,
		"blackhole 10.96.128.0/17":                                  true,
		"local 10.96.0.1 dev eth0 table local":                      true,
		"broadcast 10.97.255.255 dev eth0 table local proto kernel": false,
		"":        false,
		"nexthop": false,
	} {
		if got := overlaps(line, ours); got != want {
			t.Errorf("overlaps(%q) = %v", line, got)
		}
	}
}

func TestNodeCommandLines(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no command":   {[]string{"node"}, `error: no command for the node`},
		"unknown flag": {[]string{"node", "--pod=x", "sh"}, `flag provided but not defined: -pod`},
		"no node":      {[]string{"node", "--dir=/nowhere", "sh"}, `error: enter the node: none runs for the lab in /nowhere`},
		"inner":        {[]string{"sandbox-init", "/nowhere", "/nowhere"}, `error: make the sandbox: not the first process of a namespace`},
		"inner, alone": {[]string{"sandbox"}, `error: unknown command "sandbox"`},
	} {
		if got := finish(t, command(tt.args...)); got.code != 2 || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%s: exit code %d, %s, want 2, %s", name, got.code, got.stderr, tt.want)
		}
	}
}
