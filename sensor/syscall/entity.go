package syscall

import (
	"fmt"
	"net/netip"

	"github.com/kubeguardian/kubeguardian/alert"
)

// Entities returns whom and what the event involves, of a node with a name: the
// pod, container and image, on the node itself the session, and the other end of
// a connection that leaves the machine.
func (e *Event) Entities(node string) (out []alert.Entity) {
	add := func(kind alert.EntityKind, name string) { out = append(out, alert.Entity{Kind: kind, Name: name}) }
	switch c := e.Container; {
	case c == nil:
	case c.OnHost():
		if s := e.session(); s != nil {
			add(alert.Session, fmt.Sprintf("%s/%d@%d", node, s.PID, s.Start))
		}
	default:
		add(alert.Container, c.ID)
		if c.Pod != nil {
			add(alert.Pod, c.Pod.Namespace+"/"+c.Pod.Name)
		}
		if c.Repository != "" {
			add(alert.Image, c.image())
		}
	}
	if node != "" {
		add(alert.Node, node)
	}
	if a := e.peer(); a.IsValid() {
		add(alert.Address, a.String())
	}
	return out
}

// session returns the leader of the session that the process is in, nil if it is
// not known or that of init, which all of the node's own services may share.
func (e *Event) session() *Process {
	if e.Process == nil || e.Process.SID <= 1 {
		return nil
	}
	if l := e.Process.sessionLeader(); l != nil && l.PID == e.Process.SID {
		return l
	}
	return nil
}

// peer returns the other end of the connection that the event is about; the zero
// value if there is none, or if it is this machine.
func (e *Event) peer() netip.Addr {
	if e.FD == nil {
		return netip.Addr{}
	}
	far := e.FD.Server
	if e.FD.Serving {
		far = e.FD.Client
	}
	if a := far.Addr().Unmap(); a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() {
		return a
	}
	return netip.Addr{}
}
