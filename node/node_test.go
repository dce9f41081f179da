package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kubeguardian/kubeguardian/evidence"
)

var testNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// unpack writes the tree of an archive, with some files more.
func unpack(t *testing.T, archive string, more map[string][]byte) string {
	t.Helper()
	a, err := txtar.ParseFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	files := map[string][]byte{}
	for _, f := range a.Files {
		data := f.Data
		if base := filepath.Base(f.Name); base == "cmdline" || base == "environ" {
			data = bytes.ReplaceAll(bytes.TrimSpace(data), []byte(" "), []byte{0})
		}
		files[f.Name] = data
	}
	for name, data := range more {
		files[name] = data
	}
	for name, data := range files {
		write(t, filepath.Join(root, name), data)
	}
	return root
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// certificate returns a certificate for a name, and its key, in one file.
func certificate(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret := &pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("SECRET")}
	return append(pem.EncodeToMemory(secret), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
}

// kubeadm returns the tree of testdata/kubeadm.txtar.
func kubeadm(t *testing.T) string {
	t.Helper()
	ca := certificate(t, "kubernetes")
	root := unpack(t, "testdata/kubeadm.txtar", map[string][]byte{
		"var/lib/kubelet/pki/kubelet-client-2026.pem": certificate(t, "system:node:cp-1.example"),
		"etc/kubernetes/pki/ca.crt":                   ca,
		"etc/kubernetes/pki/etcd/ca.crt":              ca,
	})
	link(t, "/var/lib/kubelet/pki/kubelet-client-2026.pem", filepath.Join(root, "var/lib/kubelet/pki/kubelet-client-current.pem"))
	link(t, "../usr/lib/os-release", filepath.Join(root, "etc/os-release"))
	link(t, "usr/lib", filepath.Join(root, "lib"))
	link(t, "socket:[4002]", filepath.Join(root, "proc/400/fd/7"))
	link(t, "/dev/null", filepath.Join(root, "proc/400/fd/0"))
	if err := os.MkdirAll(filepath.Join(root, "var/lib/etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []struct {
		name string
		mode os.FileMode
	}{{"etc/kubernetes/admin.conf", 0o644}, {"etc/kubernetes/pki", 0o750}} {
		if err := os.Chmod(filepath.Join(root, mode.name), mode.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "var/lib/apt/lists/partial"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"var/lib/apt/lists", "var/lib/apt/lists/partial"} {
		if err := os.Chtimes(filepath.Join(root, folder), testNow, testNow.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func collect(t *testing.T, root string) *evidence.NodeRecord {
	t.Helper()
	record, err := Collect(t.Context(), Options{Root: root, Tool: "test", Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func TestCollect(t *testing.T) {
	r := collect(t, kubeadm(t))
	for name, pair := range map[string][2]any{
		"name":      {r.Name, "cp-1.example"},
		"hostname":  {r.Hostname, "CP-1"},
		"machine":   {r.Machine + " " + r.Kernel + " " + r.MachineID, "x86_64 6.1.0-37-amd64 3d1219c7c4c5404aaa1f6d2a48adfda4"},
		"os":        {r.OS, evidence.NodeOS{ID: "debian", Name: "Debian GNU/Linux 12 (bookworm)", Version: "12", Like: []string{}}},
		"sysctls":   {r.Sysctls, map[string]string{"kernel.kptr_restrict": "1"}},
		"listeners": {r.Listeners, []evidence.Listener{{Address: "0.0.0.0:10250", Process: "kubelet"}, {Address: "127.0.0.1:10257"}}},
		"automatic": {r.AutomaticUpdates, "unattended-upgrades"},
		"updates": {*r.Updates, evidence.NodeUpdates{
			Manager: "dpkg", Lists: testNow.Add(-time.Hour), Restart: "kernel 6.1.0-40-amd64",
			Security: []string{"openssl 3.0.15-1~deb12u1 -> 3.0.17-1~deb12u3"},
		}},
		"ssh": {*r.SSH, evidence.SSHServer{
			Source: "/etc/ssh/sshd_config", PermitRootLogin: "no", KeyboardInteractive: true,
			Matches: []string{"Match all: kbdinteractiveauthentication yes", "Match Address 10.0.0.0/8: passwordauthentication yes"},
		}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %+v, want %+v", name, pair[0], pair[1])
		}
	}
}

func TestPrograms(t *testing.T) {
	r := collect(t, kubeadm(t))
	var names []string
	for _, p := range r.Programs {
		names = append(names, p.Name+" "+p.Source)
	}
	want := []string{"etcd process 501", "kube-apiserver process 500", "kube-proxy process 502", "kube-scheduler /etc/kubernetes/manifests/kube-scheduler.yaml", "kubelet process 400"}
	if !slices.Equal(names, want) {
		t.Fatalf("programs %q", names)
	}
	kubelet := r.Program("kubelet").Settings
	if !reflect.DeepEqual(kubelet, map[string]string{
		"authentication.anonymous.enabled": "false", "authentication.x509.clientCAFile": "/etc/kubernetes/pki/ca.crt",
		"readOnlyPort": "0", "podPidsLimit": "8192", "tlsCipherSuites": "A,B", "staticPodPath": "/etc/kubernetes/manifests",
	}) {
		t.Errorf("kubelet %v", kubelet)
	}
	api := r.Program("kube-apiserver")
	if api.Image != "registry.k8s.io/kube-apiserver:v1.37.1" || api.Flags.Value("etcd-servers") != "https://127.0.0.1:2379" || len(api.Unread) > 0 {
		t.Errorf("API server %+v", api)
	}
	if !reflect.DeepEqual(api.Encryption, []evidence.EncryptionRule{{Resources: []string{"secrets"}, Providers: []string{"aescbc", "kms v2", "kms v1", "identity"}}}) {
		t.Errorf("encryption %+v", api.Encryption)
	}
	if !reflect.DeepEqual(api.Anonymous, &evidence.Anonymous{Enabled: true, Paths: []string{"/livez"}}) {
		t.Errorf("anonymous %+v", api.Anonymous)
	}
	if api.AuditPolicy == nil || len(api.AuditPolicy.Rules) != 1 || api.AuditPolicy.Rules[0].Level != "Metadata" {
		t.Errorf("audit policy %+v", api.AuditPolicy)
	}
	etcd := r.Program("etcd")
	if !etcd.Flags.Bool("client-cert-auth", false) || etcd.UID == nil || *etcd.UID != 998 {
		t.Errorf("etcd %+v", etcd)
	}
	if v := r.Program("kube-proxy").Settings["metricsBindAddress"]; v != "0.0.0.0:10249" {
		t.Errorf("kube-proxy, by its own file system: %q", v)
	}
	if v := r.Program("kube-scheduler").Settings["enableProfiling"]; v != "false" {
		t.Errorf("scheduler %q", v)
	}
	if gap := r.Gap(evidence.PartPrograms); gap != "/etc/kubernetes/manifests/broken.yaml: not the manifest of a pod" {
		t.Errorf("gap %q", gap)
	}
}

func TestFiles(t *testing.T) {
	r := collect(t, kubeadm(t))
	modes, digests := map[string]string{}, map[string]string{}
	for _, f := range r.Files {
		modes[string(f.Role)+" "+f.Path] = f.Mode
		digests[f.Path] = f.SHA256
		if f.UID != os.Getuid() || f.UID == 0 && f.Owner != "root:root" {
			t.Errorf("%s belongs to %d, %s", f.Path, f.UID, f.Owner)
		}
	}
	want := map[string]string{
		"manifest /etc/kubernetes/manifests/broken.yaml":                        "0600",
		"manifest /etc/kubernetes/manifests/kube-apiserver.yaml":                "0600",
		"manifest /etc/kubernetes/manifests/kube-scheduler.yaml":                "0600",
		"control-plane-kubeconfig /etc/kubernetes/admin.conf":                   "0644",
		"pki-folder /etc/kubernetes/pki":                                        "0750",
		"pki-folder /etc/kubernetes/pki/etcd":                                   "0755",
		"private-key /etc/kubernetes/pki/ca.key":                                "0600",
		"private-key /etc/kubernetes/pki/etcd/ca.key":                           "0600",
		"certificate /etc/kubernetes/pki/ca.crt":                                "0600",
		"certificate /etc/kubernetes/pki/etcd/ca.crt":                           "0600",
		"etcd-data /var/lib/etcd":                                               "0700",
		"cni /etc/cni/net.d/10-calico.conflist":                                 "0600",
		"kubelet-service /etc/systemd/system/kubelet.service.d/10-kubeadm.conf": "0600",
		"kubelet-config /var/lib/kubelet/config.yaml":                           "0600",
		"kubelet-kubeconfig /etc/kubernetes/kubelet.conf":                       "0600",
		"kubelet-ca /etc/kubernetes/pki/ca.crt":                                 "0600",
	}
	if !reflect.DeepEqual(modes, want) {
		t.Errorf("files %v", modes)
	}
	if a := digests["/etc/kubernetes/pki/etcd/ca.crt"]; len(a) != 64 {
		t.Errorf("digest %q", a)
	}
}

// TestNoSecrets looks for what stands in every file that may hold a secret.
func TestNoSecrets(t *testing.T) {
	text, err := json.Marshal(collect(t, kubeadm(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"SECRET", "U0VDUkVU", "key1", "PRIVATE KEY"} {
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			t.Errorf("%s is in the record: …%s…", word, text[max(0, at-80):at+len(word)])
		}
	}
}

// TestGaps takes away what can be taken away, and wants each to be named.
func TestGaps(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, root string)
		want  evidence.NodeGap
	}{
		"hidden processes": {func(t *testing.T, root string) {
			remove(t, root, "proc/1/cmdline", "proc/1/net/tcp", "proc/1/net", "proc/1")
		},
			evidence.NodeGap{Part: evidence.PartPrograms, Path: "/proc", Reason: "processes of others are hidden"}},
		"k3s": {func(t *testing.T, root string) {
			write(t, filepath.Join(root, "proc/700/cmdline"), []byte("/usr/local/bin/k3s\x00server"))
		},
			evidence.NodeGap{Part: evidence.PartPrograms, Reason: "k3s runs the components in one process: their flags are not seen"}},
		"two kubelets": {func(t *testing.T, root string) { write(t, filepath.Join(root, "proc/700/cmdline"), []byte("kubelet")) },
			evidence.NodeGap{Part: evidence.PartPrograms, Path: "kubelet", Reason: "runs several times (process 700 too): only process 400 is looked at"}},
		"sshd elsewhere": {func(t *testing.T, root string) { remove(t, root, "etc/ssh/sshd_config") },
			evidence.NodeGap{Part: evidence.PartSSH, Path: "/etc/ssh/sshd_config", Reason: "an SSH server runs with another configuration"}},
		"a pipe": {func(t *testing.T, root string) {
			remove(t, root, "etc/ssh/sshd_config")
			pipe(t, filepath.Join(root, "etc/ssh/sshd_config"))
		},
			evidence.NodeGap{Part: evidence.PartSSH, Path: "/etc/ssh/sshd_config", Reason: "not a regular file"}},
		"no dpkg": {func(t *testing.T, root string) { remove(t, root, "var/lib/dpkg/status") },
			evidence.NodeGap{Part: evidence.PartUpdates, Reason: "the package manager of Debian GNU/Linux 12 (bookworm) is not read"}},
		"no lists": {func(t *testing.T, root string) {
			remove(t, root, "var/lib/apt/lists/security.debian.org_dists_bookworm-security_main_binary-amd64_Packages")
		},
			evidence.NodeGap{Part: evidence.PartUpdates, Path: "/var/lib/apt/lists", Reason: "no list of a security archive: run apt-get update"}},
		"packed lists": {func(t *testing.T, root string) {
			write(t, filepath.Join(root, "var/lib/apt/lists/x-security_Packages.lz4"), nil)
		},
			evidence.NodeGap{Part: evidence.PartUpdates, Path: "/var/lib/apt/lists", Reason: "x-security_Packages.lz4: lists packed as .lz4 are not read"}},
		"the firewall of a tree": {func(*testing.T, string) {},
			evidence.NodeGap{Part: evidence.PartFirewall, Reason: "only seen on the running system"}},
		"deep keys": {func(t *testing.T, root string) {
			write(t, filepath.Join(root, "etc/kubernetes/pki/a/b/c/d/e/x.key"), nil)
		},
			evidence.NodeGap{Part: evidence.PartFiles, Path: "/etc/kubernetes/pki/a/b/c/d", Reason: "nested more than 4 levels deep"}},
		"a circle of links": {func(t *testing.T, root string) {
			link(t, "super-admin.conf", filepath.Join(root, "etc/kubernetes/super-admin.conf"))
		},
			evidence.NodeGap{Part: evidence.PartFiles, Path: "/etc/kubernetes/super-admin.conf", Reason: "too many levels of symbolic links"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := kubeadm(t)
			tt.spoil(t, root)
			if r := collect(t, root); !slices.Contains(r.Gaps, tt.want) {
				t.Errorf("gaps %+v, want %+v", r.Gaps, tt.want)
			}
		})
	}
}

func TestUnread(t *testing.T) {
	root := kubeadm(t)
	remove(t, root, "etc/kubernetes/authn.yaml", "etc/kubernetes/enc.yaml", "var/lib/kubelet/config.yaml")
	write(t, filepath.Join(root, "etc/kubernetes/audit.yaml"), []byte("rules: ["))
	write(t, filepath.Join(root, "etc/kubernetes/enc.yaml"), bytes.Repeat([]byte("x"), maxFile+1))
	r := collect(t, root)
	want := map[string]string{
		"authentication-config": "no such file or directory", "audit-policy-file": "not a valid audit policy", "encryption-provider-config": "over 4 MiB",
	}
	if got := r.Program("kube-apiserver").Unread; !reflect.DeepEqual(got, want) {
		t.Errorf("API server %v", got)
	}
	if got := r.Program("kubelet").Unread; !reflect.DeepEqual(got, map[string]string{"config": "no such file or directory"}) {
		t.Errorf("kubelet %v", got)
	}
}

func TestCollectFails(t *testing.T) {
	empty := t.TempDir()
	if _, err := Collect(t.Context(), Options{Root: empty}); err == nil || err.Error() != "read node: "+empty+" has no /proc" {
		t.Errorf("an empty root: %v", err)
	}
	if err := os.Mkdir(filepath.Join(empty, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(t.Context(), Options{Root: empty}); err == nil || err.Error() != "read node: it has no host name" {
		t.Errorf("without a name: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Collect(ctx, Options{Root: kubeadm(t)}); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

// TestThisMachine collects from the machine that the test runs on, whatever it
// is, with the rights that the test has.
func TestThisMachine(t *testing.T) {
	r, err := Collect(t.Context(), Options{Tool: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Name == "" || r.Kernel == "" || len(r.Sysctls) == 0 || r.SeenAt.IsZero() {
		t.Errorf("record %+v", r)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if set, err := evidence.Read("node.json", text); err != nil || len(set.Nodes) != 1 {
		t.Errorf("read again: %v", err)
	}
}

func TestEtcdConfigFile(t *testing.T) {
	root := kubeadm(t)
	write(t, filepath.Join(root, "proc/501/cmdline"), []byte("etcd\x00--config-file=/etc/etcd.yaml\x00--auto-tls=true"))
	write(t, filepath.Join(root, "etc/etcd.yaml"), []byte(strings.TrimSpace(`
data-dir: /data
client-transport-security: {cert-file: /c, client-cert-auth: true}
peer-transport-security: {cert-file: /p, auto-tls: true}
initial-cluster-token: SECRET`)))
	want := evidence.Flags{
		"config-file": {"/etc/etcd.yaml"}, "data-dir": {"/data"}, "cert-file": {"/c"}, "client-cert-auth": {"true"},
		"peer-cert-file": {"/p"}, "peer-auto-tls": {"true"},
	}
	if got := collect(t, root).Program("etcd").Flags; !reflect.DeepEqual(got, want) {
		t.Errorf("etcd %v", got)
	}
}

func remove(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
}
