package node

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// EtcdData says whether only etcd can read its data.
func (v *View) EtcdData() []finding.Verdict {
	return v.nodes(true, func(m *member, out *verdict) {
		files := out.files(m, "no etcd data", evidence.FileEtcdData)
		out.modes(files, 0o700)
		p := m.programs[etcd]
		for _, f := range files {
			switch {
			case p == nil && f.UID == 0, p == nil && strings.HasPrefix(f.Owner, "etcd:"):
			case p == nil || p.UID == nil:
				out.unknown("which user etcd runs as is not seen, to compare with the owner of %s", f.Path)
			case *p.UID != f.UID:
				out.fail("%s belongs to %s, and etcd runs as user %d", f.Path, owner(f), *p.UID)
			}
		}
	})
}

// ControlPlaneFiles says whether only root can read and change what starts the
// control plane, and its credentials.
func (v *View) ControlPlaneFiles() []finding.Verdict {
	return v.nodes(true, func(m *member, out *verdict) {
		files := out.files(m, "no control plane", evidence.FileManifest, evidence.FilePlaneKubeconfig)
		out.modes(files, 0o600)
		out.rooted(files)
	})
}

// Keys says whether only root can read the control plane's private keys and
// change its certificates.
func (v *View) Keys() []finding.Verdict {
	return v.nodes(true, func(m *member, out *verdict) {
		files := out.files(m, "no folder of keys", evidence.FilePKIFolder, evidence.FilePrivateKey, evidence.FileCertificate)
		out.rooted(files)
		for _, f := range files {
			switch f.Role {
			case evidence.FilePrivateKey:
				out.modes([]evidence.NodeFile{f}, 0o600)
			case evidence.FileCertificate:
				out.modes([]evidence.NodeFile{f}, 0o644)
			}
		}
	})
}

// NetworkFiles says whether only root can read and change the configuration of
// the pod network.
func (v *View) NetworkFiles() []finding.Verdict {
	return v.nodes(false, func(m *member, out *verdict) {
		files := out.files(m, "no CNI configuration", evidence.FileCNI)
		out.modes(files, 0o600)
		out.rooted(files)
	})
}

// KubeletFiles says whether only root can change how the kubelet starts and
// whom it trusts, and read its credentials and configuration.
func (v *View) KubeletFiles() []finding.Verdict {
	return v.nodes(false, func(m *member, out *verdict) {
		secret := out.files(m, "no files of a kubelet", evidence.FileKubeletConfig, evidence.FileKubeletKubeconfig, evidence.FileKubeProxyKubeconfig)
		public := out.files(m, "", evidence.FileKubeletService, evidence.FileKubeletCA)
		out.modes(secret, 0o600)
		out.modes(public, 0o644)
		out.rooted(slices.Concat(secret, public))
	})
}

// files returns the files of some roles and notes what could not be looked at.
func (v *verdict) files(m *member, absent string, roles ...evidence.FileRole) []evidence.NodeFile {
	files := m.record.FilesOf(roles...)
	if gap := m.gap(evidence.PartFiles); gap != "" {
		v.unknown("files are not seen: %s", gap)
	}
	if len(files) == 0 && absent != "" {
		v.absent = append(v.absent, absent)
	}
	for _, f := range files {
		v.see("%s %s %s", f.Path, f.Mode, owner(f))
	}
	return files
}

// owner names user and group, with their numbers where they have no name.
func owner(f evidence.NodeFile) string {
	user, group, _ := strings.Cut(f.Owner, ":")
	if user == "" {
		user = strconv.Itoa(f.UID)
	}
	if group == "" {
		group = strconv.Itoa(f.GID)
	}
	return user + ":" + group
}

// modes fails for files that are open to more than a mode allows.
func (v *verdict) modes(files []evidence.NodeFile, allowed uint64) {
	for _, f := range files {
		mode, err := strconv.ParseUint(f.Mode, 8, 32)
		switch {
		case err != nil:
			v.unknown("mode %q of %s is none", f.Mode, f.Path)
		case mode&^allowed != 0:
			v.fail("%s has mode %s, at most %04o is wanted", f.Path, f.Mode, allowed)
		}
	}
}

func (v *verdict) rooted(files []evidence.NodeFile) {
	for _, f := range files {
		if f.UID != 0 || f.GID != 0 {
			v.fail("%s belongs to %s, not to root:root", f.Path, owner(f))
		}
	}
}

// freshLists is how old package lists may be to show that nothing is pending.
const freshLists = 7 * 24 * time.Hour

// Patched says whether all security updates are installed and in effect.
func (v *View) Patched() []finding.Verdict {
	return v.nodes(false, func(m *member, out *verdict) {
		u := m.record.Updates
		if gap := m.gap(evidence.PartUpdates); gap != "" {
			out.unknown("pending updates are not seen: %s", gap)
		}
		if u == nil {
			if len(out.unseen) == 0 {
				out.unknown("the record says nothing of updates")
			}
			return
		}
		out.see("%s, package lists of %s", u.Manager, u.Lists.Format(time.DateOnly))
		if n := len(u.Security); n > 0 {
			out.fail("%s not installed: %s", count(n, "security update is", "security updates are"), list(u.Security))
		}
		if u.Restart != "" {
			out.fail("%s: a restart is needed to take effect", u.Restart)
		}
		if age := m.record.SeenAt.Sub(u.Lists); age > freshLists {
			out.unknown("the package lists are %d days old: run apt-get update", int(age.Hours()/24))
		}
	})
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// appliances are systems made to run containers: they replace themselves as a
// whole.
var appliances = []string{"bottlerocket", "cos", "flatcar", "rhcos", "talos"}

// Hardened says whether people get onto nodes with keys only, never as root,
// and updates get there by themselves.
func (v *View) Hardened() []finding.Verdict { return v.nodes(false, hardened) }

func hardened(m *member, out *verdict) {
	r := m.record
	if gap := m.gap(evidence.PartSSH); gap != "" {
		out.unknown("the SSH server's configuration is not seen: %s", gap)
	}
	if s := r.SSH; s != nil {
		out.see("%s: PermitRootLogin %s", s.Source, s.PermitRootLogin)
		if s.Password || s.KeyboardInteractive {
			out.fail("SSH takes passwords")
		}
		if s.PermitRootLogin != "no" {
			out.fail("root may log in by SSH (PermitRootLogin %s)", s.PermitRootLogin)
		}
		for _, match := range s.Matches {
			out.fail("SSH opens a door for some: %s", match)
		}
	} else {
		out.see("no SSH server")
	}
	switch gap := m.gap(evidence.PartAutomatic); {
	case slices.Contains(appliances, r.OS.ID), r.OS.ID == "fedora" && r.OS.Variant == "coreos":
		out.see("%s replaces itself", r.OS.ID)
	case r.AutomaticUpdates != "":
		out.see("updates by %s", r.AutomaticUpdates)
	case gap != "":
		out.unknown("automatic updates are not seen: %s", gap)
	default:
		out.fail("security updates are not installed by themselves")
	}
}
