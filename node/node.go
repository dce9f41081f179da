// Package node collects what a node shows of itself: what Kubernetes runs there
// and how, the modes of its files, its firewall, SSH server and updates.
//
// It reads /proc, files and netlink, and runs no command. Whatever cannot be
// read, for want of permission or because it is not understood, is named in the
// record's gaps. Of a configuration only what is known to hold no secret is
// taken.
package node

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
)

// limit is how long a collection may take; what it does not reach is a gap.
const limit = time.Minute

// Options are how to collect.
type Options struct {
	Root string    // where the node's files are; "" is "/"
	Tool string    // who collects, for the record
	Now  time.Time // the zero value is the current time
}

// A collector fills one record.
type collector struct {
	tree
	live   bool // the root is that of the running system
	record *evidence.NodeRecord
	ssh    bool              // an SSH server runs
	places map[string]string // of programs: the root of their files
}

// Collect reads a node. The error is for a root without /proc, a node without a
// name, and ctx.
func Collect(ctx context.Context, opts Options) (*evidence.NodeRecord, error) {
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	root := filepath.Clean("/" + opts.Root)
	c := &collector{
		tree: tree{root}, live: root == "/",
		record: &evidence.NodeRecord{
			APIVersion: evidence.NodeVersion, Kind: evidence.NodeKind, Tool: opts.Tool, SeenAt: opts.Now.UTC().Truncate(time.Second),
		},
		places: map[string]string{},
	}
	if _, err := c.stat("/proc"); err != nil {
		return nil, errors.New("read node: " + root + " has no /proc")
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, step := range []struct {
		part evidence.Part
		run  func(context.Context)
	}{
		{evidence.PartIdentity, c.identity},
		{evidence.PartSysctls, c.sysctls},
		{evidence.PartPrograms, c.programs},
		{evidence.PartFiles, c.files},
		{evidence.PartListeners, c.listeners},
		{evidence.PartFirewall, c.firewall},
		{evidence.PartSSH, c.sshServer},
		{evidence.PartUpdates, c.updates},
		{evidence.PartAutomatic, c.automatic},
	} {
		step.run(within)
		if within.Err() != nil {
			c.gap(step.part, "", errors.New("time ran out"))
		}
	}
	c.name()
	if c.record.Name == "" {
		return nil, errors.New("read node: it has no host name")
	}
	return c.record, ctx.Err()
}

// gap names what could not be read.
func (c *collector) gap(part evidence.Part, path string, err error) {
	c.record.Gaps = append(c.record.Gaps, evidence.NodeGap{Part: part, Path: path, Reason: reason(err)})
}

// reason is an error without the path, which the gap has.
func reason(err error) string {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	return err.Error()
}

// line returns the first line of a small file, or "".
func (c *collector) line(name string) string {
	data, err := c.read(name)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}

func (c *collector) identity(context.Context) {
	r := c.record
	r.Hostname = cmp.Or(c.line("/etc/hostname"), c.line("/proc/sys/kernel/hostname"))
	if c.live {
		r.Hostname = cmp.Or(c.line("/proc/sys/kernel/hostname"), r.Hostname)
	}
	r.MachineID = c.line("/etc/machine-id")
	r.Machine = c.line("/proc/sys/kernel/arch")
	r.Kernel = c.line("/proc/sys/kernel/osrelease")
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		data, err := c.read(name)
		if err == nil {
			r.OS = osRelease(data)
			return
		}
		if name != "/etc/os-release" || !errors.Is(err, fs.ErrNotExist) {
			c.gap(evidence.PartIdentity, name, err)
		}
	}
}

// name is the node's name in the API: that of the kubelet's certificate, which
// the API server knows it by, else the one it is told, else the host's.
func (c *collector) name() {
	name := c.record.Hostname
	if kubelet := c.record.Program("kubelet"); kubelet != nil {
		name = cmp.Or(kubelet.Flags.Value("hostname-override"), name)
	}
	name = cmp.Or(c.certificateName("/var/lib/kubelet/pki/kubelet-client-current.pem"), name)
	c.record.Name = strings.ToLower(name)
}

// certificateName returns the node that a client certificate is for, or "". The
// key that may stand in the same file is not looked at.
func (c *collector) certificateName(file string) string {
	data, err := c.read(file)
	if err != nil {
		return ""
	}
	cert := firstCertificate(data)
	if cert == nil {
		return ""
	}
	name, ok := strings.CutPrefix(cert.Subject.CommonName, "system:node:")
	if !ok {
		return ""
	}
	return name
}

func firstCertificate(data []byte) *x509.Certificate {
	for len(data) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		return cert
	}
	return nil
}

// wantedSysctls decide how easily a process or a packet gets where it should
// not.
var wantedSysctls = strings.Fields(`
	fs.protected_hardlinks fs.protected_symlinks fs.suid_dumpable
	kernel.dmesg_restrict kernel.kptr_restrict kernel.panic kernel.panic_on_oops
	kernel.randomize_va_space kernel.unprivileged_bpf_disabled kernel.unprivileged_userns_clone
	kernel.yama.ptrace_scope
	net.ipv4.conf.all.accept_redirects net.ipv4.conf.all.route_localnet net.ipv4.conf.all.rp_filter
	net.ipv4.conf.all.send_redirects net.ipv4.ip_forward net.ipv6.conf.all.forwarding
	user.max_user_namespaces vm.overcommit_memory`)

// sysctls leaves out those that the kernel does not have.
func (c *collector) sysctls(context.Context) {
	c.record.Sysctls = map[string]string{}
	for _, key := range wantedSysctls {
		name := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		data, err := c.read(name)
		switch {
		case err == nil:
			c.record.Sysctls[key] = strings.Join(strings.Fields(string(data)), " ")
		case !errors.Is(err, fs.ErrNotExist):
			c.gap(evidence.PartSysctls, key, err)
		}
	}
}
