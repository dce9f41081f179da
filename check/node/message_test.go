package node_test

import (
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/kubeguardian/kubeguardian/check/node"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// TestMessages holds what people read: a sentence for each thing that is wrong,
// and what it was concluded from.
func TestMessages(t *testing.T) {
	file := func(role evidence.FileRole, path, mode string, uid int, owner string) evidence.NodeFile {
		return evidence.NodeFile{Path: path, Role: role, Mode: mode, UID: uid, GID: uid, Owner: owner}
	}
	for name, tt := range map[string]struct {
		commands []string
		change   func(r *evidence.NodeRecord)
		check    func(v *node.View) []finding.Verdict
		message  string
		evidence string
	}{
		"anonymous on a path": {
			[]string{"kube-apiserver --authentication-config=/a"},
			func(r *evidence.NodeRecord) {
				r.Programs[0].Anonymous = &evidence.Anonymous{Enabled: true, Paths: []string{"/readyz", "/metrics"}}
			},
			(*node.View).AnonymousRequests, "the API server takes requests without credentials on /metrics", "kube-apiserver (process 1): --authentication-config=/a",
		},
		"authorization": {
			[]string{"kube-apiserver --authorization-mode=ABAC,RBAC"}, nil, (*node.View).Authorization,
			"the API server does not authorize by Node, only by ABAC, RBAC", "kube-apiserver (process 1): --authorization-mode=ABAC,RBAC",
		},
		"what is not given": {
			[]string{"kube-apiserver"}, nil, (*node.View).KubeletConnections,
			"kube-apiserver runs without --kubelet-client-certificate, --kubelet-client-key, --kubelet-certificate-authority",
			"kube-apiserver (process 1): none of --kubelet-client-certificate, --kubelet-client-key, --kubelet-certificate-authority",
		},
		"ciphers": {
			[]string{"kube-apiserver --tls-cert-file=/c --tls-private-key-file=/k --client-ca-file=/a --tls-cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,TLS_AES_128_GCM_SHA256"}, nil,
			(*node.View).ServingTLS, "kube-apiserver offers weak ciphers: TLS_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "",
		},
		"retention": {
			[]string{"kube-apiserver --audit-policy-file=/p --audit-log-path=/l --audit-log-maxage=7 --audit-log-maxbackup=2 --audit-log-maxsize=10"},
			func(r *evidence.NodeRecord) {
				r.Programs[0].AuditPolicy = &auditv1.Policy{Rules: []auditv1.PolicyRule{{Level: auditv1.LevelMetadata}}}
			},
			(*node.View).Auditing,
			"the audit log keeps 7 days, at least 30 are wanted; the audit log keeps 2 old files, at least 10 are wanted; the audit log keeps 10 MB in a file, at least 100 are wanted", "",
		},
		"audit log to the container's output": {
			[]string{"kube-apiserver --audit-policy-file=/p --audit-log-path=- --audit-log-maxage=7"},
			func(r *evidence.NodeRecord) { r.Programs[0].AuditPolicy = &auditv1.Policy{} },
			(*node.View).Auditing,
			"the audit policy leaves out requests for secrets (get, list, watch, create, update, patch, delete); the audit policy leaves out commands in containers (create, get); " +
				"the audit policy leaves out attaching to containers (create, get); the audit policy leaves out changes of roles (create, update, patch, delete); " +
				"the audit policy leaves out changes of cluster roles (create, update, patch, delete); the audit policy leaves out changes of role bindings (create, update, patch, delete); " +
				"the audit policy leaves out changes of cluster role bindings (create, update, patch, delete)", "",
		},
		"encryption": {
			[]string{"kube-apiserver --encryption-provider-config=/e"},
			func(r *evidence.NodeRecord) {
				r.Programs[0].Encryption = []evidence.EncryptionRule{{Resources: []string{"*."}, Providers: []string{"identity", "kms v2"}}, {Resources: []string{"secrets"}, Providers: []string{"kms v2"}}}
			},
			(*node.View).EncryptionAtRest, "secrets are written with identity", "kube-apiserver (process 1): --encryption-provider-config=/e; providers for secrets: identity, kms v2",
		},
		"loopback": {
			[]string{"kube-controller-manager --bind-address=127.0.0.1", "kube-scheduler --bind-address=10.0.0.1"}, nil, (*node.View).LoopbackOnly,
			"kube-scheduler can be reached from the network", "kube-controller-manager (process 1): --bind-address=127.0.0.1; kube-scheduler (process 1): --bind-address=10.0.0.1",
		},
		"etcd": {
			[]string{"etcd --peer-cert-file=/c --peer-key-file=/k --peer-auto-tls --trusted-ca-file=/ca", "kube-apiserver --client-ca-file=/ca"}, nil, (*node.View).EtcdPeers,
			"etcd takes peers without a certificate; etcd makes up its certificate for peers (--peer-auto-tls); etcd trusts every certificate of the cluster's authority (/ca)", "",
		},
		"modes and owners": {
			nil,
			func(r *evidence.NodeRecord) {
				r.Files = []evidence.NodeFile{file(evidence.FileManifest, "/m", "0664", 1000, ":"), file(evidence.FilePlaneKubeconfig, "/k", "0600", 0, "root:root")}
			},
			(*node.View).ControlPlaneFiles, "/m has mode 0664, at most 0600 is wanted; /m belongs to 1000:1000, not to root:root", "/m 0664 1000:1000; /k 0600 root:root",
		},
		"etcd's owner": {
			[]string{"etcd"},
			func(r *evidence.NodeRecord) {
				uid := 998
				r.Programs[0].UID = &uid
				r.Files = []evidence.NodeFile{file(evidence.FileEtcdData, "/d", "0700", 0, "root:root")}
			},
			(*node.View).EtcdData, "/d belongs to root:root, and etcd runs as user 998", "",
		},
		"kubelet": {
			[]string{"kubelet --config=/c --authorization-mode=AlwaysAllow"}, nil, (*node.View).KubeletAuthorization, "the kubelet authorizes by AlwaysAllow", "kubelet (process 1)",
		},
		"read-only port": {
			[]string{"kubelet"},
			func(r *evidence.NodeRecord) {
				r.Listeners = []evidence.Listener{{Address: "[::]:10255", Process: "kubelet"}}
			},
			(*node.View).ReadOnlyPort, "the kubelet tells about pods on port 10255 without authentication; the kubelet listens on [::]:10255", "",
		},
		"limits": {
			[]string{"kubelet --config=/c --make-iptables-util-chains=false --event-qps=0 --streaming-connection-idle-timeout=0s"},
			nil, (*node.View).KubeletLimits,
			"idle connections of exec and port-forward stay open; one pod can use up all process ids of the node; the kubelet does not limit how many events it makes; the kubelet does not keep its iptables chains", "",
		},
		"kube-proxy": {
			[]string{"kube-proxy --metrics-bind-address=10.0.0.1:10249"}, nil, (*node.View).ProxyMetrics, "kube-proxy serves metrics on 10.0.0.1:10249", "",
		},
		"updates": {
			nil,
			func(r *evidence.NodeRecord) {
				r.Updates = &evidence.NodeUpdates{Manager: "dpkg", Lists: now, Security: strings.Fields("a b c d e f g h i j"), Restart: "kernel 6"}
			},
			(*node.View).Patched, "10 security updates are not installed: a; b; c; d; e; f; g; h; and 2 more; kernel 6: a restart is needed to take effect", "dpkg, package lists of 2026-11-26",
		},
		"one update": {
			nil, func(r *evidence.NodeRecord) {
				r.Updates = &evidence.NodeUpdates{Lists: now, Security: []string{"a 1 -> 2"}}
			},
			(*node.View).Patched, "1 security update is not installed: a 1 -> 2", "",
		},
		"logins": {
			nil, func(r *evidence.NodeRecord) {
				r.SSH = &evidence.SSHServer{Source: "/etc/ssh/sshd_config", PermitRootLogin: "prohibit-password", Password: true}
				r.AutomaticUpdates = "unattended-upgrades"
			},
			(*node.View).Hardened, "SSH takes passwords; root may log in by SSH (PermitRootLogin prohibit-password)",
			"/etc/ssh/sshd_config: PermitRootLogin prohibit-password; updates by unattended-upgrades",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := record("a", tt.commands...)
			if tt.change != nil {
				tt.change(&r)
			}
			found := tt.check(node.New(live(t), []evidence.NodeRecord{r}, now))
			if len(found) != 1 || found[0].Status != finding.Fail {
				t.Fatalf("states %q", states(found))
			}
			if found[0].Message != tt.message {
				t.Errorf("message %q\nwant    %q", found[0].Message, tt.message)
			}
			if tt.evidence != "" && found[0].Evidence != tt.evidence {
				t.Errorf("evidence %q\nwant     %q", found[0].Evidence, tt.evidence)
			}
		})
	}
}

// TestReasons holds why something is unknown: it must say what to do, or what
// stood in the way.
func TestReasons(t *testing.T) {
	for name, tt := range map[string]struct {
		commands []string
		change   func(r *evidence.NodeRecord)
		check    func(v *node.View) []finding.Verdict
		reason   string
	}{
		"a file of the API server": {
			[]string{"kube-apiserver --encryption-provider-config=/e"},
			func(r *evidence.NodeRecord) {
				r.Programs[0].Unread = map[string]string{"encryption-provider-config": "permission denied"}
			},
			(*node.View).EncryptionAtRest, "--encryption-provider-config /e of kube-apiserver is not read: permission denied",
		},
		"two files of the kubelet": {
			[]string{"kubelet --config=/c --config-dir=/d"},
			func(r *evidence.NodeRecord) { r.Programs[0].Unread = map[string]string{"config-dir": "not YAML"} },
			(*node.View).KubeletCertificates, "--config-dir /d of kubelet is not read: not YAML",
		},
		"files": {
			nil,
			func(r *evidence.NodeRecord) {
				for _, path := range []string{"/a", "/b", "/c", "/d"} {
					r.Gaps = append(r.Gaps, evidence.NodeGap{Part: evidence.PartFiles, Path: path, Reason: "permission denied"})
				}
			},
			(*node.View).NetworkFiles, "files are not seen: /a: permission denied; /b: permission denied; /c: permission denied; and 1 more",
		},
		"old lists": {
			nil,
			func(r *evidence.NodeRecord) { r.Updates = &evidence.NodeUpdates{Lists: r.SeenAt.AddDate(0, 0, -30)} },
			(*node.View).Patched, "the package lists are 30 days old: run apt-get update",
		},
		"automatic updates": {
			nil,
			func(r *evidence.NodeRecord) {
				r.Gaps = []evidence.NodeGap{{Part: evidence.PartAutomatic, Reason: "how Arch updates itself is not read"}}
			},
			(*node.View).Hardened, "automatic updates are not seen: how Arch updates itself is not read",
		},
		"etcd's user": {
			[]string{"etcd"},
			func(r *evidence.NodeRecord) {
				r.Files = []evidence.NodeFile{{Path: "/d", Role: evidence.FileEtcdData, Mode: "0700"}}
			},
			(*node.View).EtcdData, "which user etcd runs as is not seen, to compare with the owner of /d",
		},
		"a mode that is none": {
			nil,
			func(r *evidence.NodeRecord) {
				r.Files = []evidence.NodeFile{{Path: "/d", Role: evidence.FileCNI, Mode: "rw"}}
			},
			(*node.View).NetworkFiles, `mode "rw" of /d is none`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := record("a", tt.commands...)
			tt.change(&r)
			found := tt.check(node.New(live(t), []evidence.NodeRecord{r}, now))
			if len(found) != 1 || found[0].Status != finding.Unknown || found[0].Reason != tt.reason {
				t.Errorf("%q: %q, want %q", states(found), found[0].Reason, tt.reason)
			}
		})
	}
}
