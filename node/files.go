package node

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/kubeguardian/kubeguardian/evidence"
)

// maxDepth bounds how deep the folder of keys is walked.
const maxDepth = 4

// owners are the names of users and groups by number.
type owners struct{ users, groups map[int]string }

// files notes mode and owner of the files that a control asks about.
func (c *collector) files(context.Context) {
	names := owners{c.accounts("/etc/passwd"), c.accounts("/etc/group")}
	note := func(role evidence.FileRole, paths ...string) {
		for _, p := range paths {
			if p != "" {
				c.file(names, role, p)
			}
		}
	}
	in := func(role evidence.FileRole, folder string, patterns ...string) {
		paths, err := c.glob(folder, patterns...)
		if err != nil {
			c.gap(evidence.PartFiles, folder, err)
		}
		note(role, paths...)
	}
	for _, folder := range manifestFolders {
		in(evidence.FileManifest, folder, "*.yaml", "*.yml", "*.json")
	}
	for _, name := range []string{"admin", "super-admin", "controller-manager", "scheduler"} {
		note(evidence.FilePlaneKubeconfig, "/etc/kubernetes/"+name+".conf")
	}
	for _, program := range []string{"kube-controller-manager", "kube-scheduler"} {
		note(evidence.FilePlaneKubeconfig, c.value(program, "kubeconfig", "clientConnection.kubeconfig"))
	}
	c.keys(names, "/etc/kubernetes/pki", 0)
	for _, flag := range []string{"trusted-ca-file", "peer-trusted-ca-file"} {
		note(evidence.FileCertificate, c.value("etcd", flag, ""))
	}
	note(evidence.FileCertificate, c.value("kube-apiserver", "client-ca-file", ""))
	if c.record.Program("etcd") != nil {
		note(evidence.FileEtcdData, c.value("etcd", "data-dir", ""))
	} else {
		note(evidence.FileEtcdData, "/var/lib/etcd")
	}
	in(evidence.FileCNI, "/etc/cni/net.d", "*.conf", "*.conflist", "*.json", "*kubeconfig")
	for _, folder := range []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		note(evidence.FileKubeletService, folder+"/kubelet.service")
		in(evidence.FileKubeletService, folder+"/kubelet.service.d", "*.conf")
	}
	note(evidence.FileKubeletConfig, "/var/lib/kubelet/config.yaml", c.value("kubelet", "config", ""))
	note(evidence.FileKubeletKubeconfig, "/etc/kubernetes/kubelet.conf", c.value("kubelet", "kubeconfig", ""))
	note(evidence.FileKubeletCA, c.value("kubelet", "client-ca-file", "authentication.x509.clientCAFile"))
	if proxy := c.record.Program("kube-proxy"); proxy != nil && c.place("kube-proxy") == c.tree {
		note(evidence.FileKubeProxyKubeconfig, c.value("kube-proxy", "kubeconfig", "clientConnection.kubeconfig"))
	}
}

// value returns what a flag or else a setting of a program says.
func (c *collector) value(program, flag, setting string) string {
	p := c.record.Program(program)
	if p == nil {
		return ""
	}
	if v := p.Flags.Value(flag); v != "" {
		return v
	}
	return p.Settings[setting]
}

// file notes one file or folder; one that does not exist is left out.
func (c *collector) file(names owners, role evidence.FileRole, name string) {
	if !path.IsAbs(name) {
		return
	}
	name = path.Clean(name)
	place, err := c.resolve(name)
	if err != nil {
		c.gap(evidence.PartFiles, name, err)
		return
	}
	if rel, err := filepath.Rel(c.root, place); err == nil {
		name = "/" + rel
	}
	if slices.ContainsFunc(c.record.Files, func(f evidence.NodeFile) bool { return f.Path == name && f.Role == role }) {
		return
	}
	info, err := c.stat(name)
	if err != nil {
		if !missing(err) {
			c.gap(evidence.PartFiles, name, err)
		}
		return
	}
	f := evidence.NodeFile{Path: name, Role: role, Mode: fmt.Sprintf("%04o", info.Mode().Perm())}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	f.UID, f.GID = int(stat.Uid), int(stat.Gid)
	f.Owner = names.users[f.UID] + ":" + names.groups[f.GID]
	if role == evidence.FileCertificate {
		f.SHA256 = c.fingerprint(name)
	}
	c.record.Files = append(c.record.Files, f)
}

// fingerprint returns the digest of the first certificate in a file, or "".
func (c *collector) fingerprint(name string) string {
	data, err := c.read(name)
	if err != nil {
		return ""
	}
	cert := firstCertificate(data)
	if cert == nil {
		return ""
	}
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// keys notes a folder of certificates and private keys and all that is in it.
func (c *collector) keys(names owners, folder string, depth int) {
	if info, err := c.stat(folder); err != nil || !info.IsDir() {
		if err != nil && !missing(err) {
			c.gap(evidence.PartFiles, folder, err)
		}
		return
	}
	c.file(names, evidence.FilePKIFolder, folder)
	paths, err := c.list(folder)
	if err == nil && depth >= maxDepth {
		err = fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	if err != nil {
		c.gap(evidence.PartFiles, folder, err)
		return
	}
	for _, p := range paths {
		info, err := c.stat(p)
		switch {
		case err != nil:
			c.gap(evidence.PartFiles, p, err)
		case info.IsDir():
			c.keys(names, p, depth+1)
		case strings.HasSuffix(p, ".key"):
			c.file(names, evidence.FilePrivateKey, p)
		case slices.Contains([]string{".crt", ".pem", ".cert", ".pub"}, path.Ext(p)):
			c.file(names, evidence.FileCertificate, p)
		}
	}
}

// accounts reads the names in a file like /etc/passwd.
func (c *collector) accounts(name string) map[int]string {
	out := map[int]string{}
	f, err := c.open(name)
	if err != nil {
		return out
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan() && len(out) < 100_000; {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 3 {
			continue
		}
		if id, err := strconv.Atoi(fields[2]); err == nil {
			if _, have := out[id]; !have {
				out[id] = fields[0]
			}
		}
	}
	return out
}
