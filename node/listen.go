package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/kubeguardian/kubeguardian/evidence"
)

const (
	listening    = 0x0A // the state of a socket in /proc/net/tcp
	maxListeners = 1000
)

// listeners notes the TCP ports that are listened on, and by whom: in the
// network of the first process, which is the node's.
func (c *collector) listeners(ctx context.Context) {
	fs, err := procfs.NewFS(filepath.Join(c.root, "proc/1"))
	if err != nil {
		fs, err = procfs.NewFS(filepath.Join(c.root, "proc"))
	}
	if err != nil {
		c.gap(evidence.PartListeners, "/proc", err)
		return
	}
	addresses := map[string]uint64{} // to inode
	//lint:ignore SA1019 netlink, its successor, does not read the tree of another root
	tcp, err := fs.NetTCP()
	if err != nil {
		c.gap(evidence.PartListeners, "/proc/net/tcp", err)
	}
	//lint:ignore SA1019 as above
	tcp6, err := fs.NetTCP6()
	if err != nil && !missing(err) {
		c.gap(evidence.PartListeners, "/proc/net/tcp6", err)
	}
	for _, socket := range slices.Concat(tcp, tcp6) {
		if socket.St == listening {
			addresses[net.JoinHostPort(socket.LocalAddr.String(), fmt.Sprint(socket.LocalPort))] = socket.Inode
		}
	}
	owners := c.socketOwners(ctx)
	for address, inode := range addresses {
		c.record.Listeners = append(c.record.Listeners, evidence.Listener{Address: address, Process: owners[inode]})
	}
	slices.SortFunc(c.record.Listeners, func(a, b evidence.Listener) int { return cmp.Compare(a.Address, b.Address) })
	if more := len(c.record.Listeners) - maxListeners; more > 0 {
		c.record.Listeners = c.record.Listeners[:maxListeners]
		c.gap(evidence.PartListeners, "", fmt.Errorf("%d more", more))
	}
	if slices.ContainsFunc(c.record.Listeners, func(l evidence.Listener) bool { return l.Process == "" }) {
		c.gap(evidence.PartListeners, "", errors.New("of some ports the process is not seen"))
	}
}

// socketOwners returns the names of processes by the inode of their sockets, as
// far as they may be seen.
func (c *collector) socketOwners(ctx context.Context) map[uint64]string {
	out := map[uint64]string{}
	fs, err := procfs.NewFS(filepath.Join(c.root, "proc"))
	if err != nil {
		return out
	}
	all, err := fs.AllProcs()
	if err != nil {
		return out
	}
	for _, p := range all[:min(len(all), maxProcesses)] {
		if ctx.Err() != nil {
			return out
		}
		targets, err := p.FileDescriptorTargets()
		if err != nil {
			continue
		}
		name, err := p.Comm()
		if err != nil {
			continue
		}
		for _, target := range targets {
			number, ok := strings.CutPrefix(target, "socket:[")
			if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); ok && err == nil {
				out[inode] = name
			}
		}
	}
	return out
}
