// Package lineage draws the tree of processes that alerts of the kernel tell of.
package lineage

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kubeguardian/kubeguardian/alert"
)

// A Process is a node of the tree of processes that the alerts of the kernel
// tell.
type Process struct {
	Name     string // of the process; of a root, where it runs
	Command  string
	PID      string
	User     string
	Foreign  bool // its file did not come with the image
	Alerts   []Alert
	Children []*Process
}

// An Alert is one that a process raised.
type Alert struct {
	ID, Rule string
	Priority alert.Priority
}

func (p *Process) child(key string, match func(*Process) bool) *Process {
	for _, c := range p.Children {
		if c.Name == key && match(c) {
			return c
		}
	}
	c := &Process{Name: key}
	p.Children = append(p.Children, c)
	return c
}

// maxAncestors is how far back a tree goes; the fields of Falco end there too.
const maxAncestors = 12

// Add adds the process of an alert to the tree, below its ancestors, which are
// below where it runs: the node, or the container.
func (p *Process) Add(a *alert.Alert) {
	field := func(name string) string {
		if v := a.OutputFields[name]; v != nil && v != "<NA>" {
			return fmt.Sprint(v)
		}
		return ""
	}
	where := "node " + a.Hostname
	if id := field("container.id"); id != "" && id != "host" {
		where = "container " + cmp.Or(field("container.name"), id)
		if pod := field("k8s.pod.name"); pod != "" {
			where = "pod " + field("k8s.ns.name") + "/" + pod + ", " + where
		}
	}
	any := func(*Process) bool { return true }
	at := p.child(where, any)
	var names []string
	for n := 1; n <= maxAncestors; n++ {
		name := field(fmt.Sprintf("proc.aname[%d]", n))
		if n == 1 {
			name = cmp.Or(name, field("proc.pname"))
		}
		if name != "" {
			names = append(names, name)
		}
	}
	for _, name := range slices.Backward(names) {
		at = at.child(name, any)
	}
	pid, command := field("proc.pid"), cmp.Or(field("proc.cmdline"), field("proc.exepath"))
	name := cmp.Or(field("proc.name"), command, "unknown process")
	at = at.child(name, func(c *Process) bool { return c.PID == "" || c.PID == pid })
	at.PID, at.Command, at.User = pid, cmp.Or(command, at.Command), cmp.Or(field("user.name"), at.User)
	at.Foreign = at.Foreign || field("proc.is_exe_upper_layer") == "true"
	at.Alerts = append(at.Alerts, Alert{a.ID, a.Rule, a.Priority})
}
