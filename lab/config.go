package main

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Addresses of the cluster's inside. Nothing answers at them without a node.
const (
	serviceRange = "10.96.0.0/16"
	serviceIP    = "10.96.0.1" // of the service "kubernetes": the first of the range
	podRange     = "10.244.0.0/16"
)

// auditPolicy is used when the user gives none.
//
//go:embed audit-policy.yaml
var auditPolicy []byte

// options are what the user may choose about a lab. A lab that is up keeps
// them, so that a second `up` can tell whether it is the same lab.
type options struct {
	Binaries          string `json:"binaries,omitempty"`
	Port              int    `json:"port,omitempty"`
	WebhookKubeconfig string `json:"webhookKubeconfig,omitempty"`
	AuditPolicy       string `json:"auditPolicy,omitempty"`
	Node              bool   `json:"node,omitempty"`
}

// resolve makes the paths absolute and checks that they can be read.
func (o *options) resolve() error {
	for _, option := range []struct {
		flag string
		path *string
	}{{"--binaries", &o.Binaries}, {"--webhook-kubeconfig", &o.WebhookKubeconfig}, {"--audit-policy", &o.AuditPolicy}} {
		if *option.path == "" {
			continue
		}
		f, err := os.Open(*option.path)
		if err != nil {
			return fmt.Errorf("%s: %w", option.flag, err)
		}
		f.Close()
		if *option.path, err = filepath.Abs(*option.path); err != nil {
			return fmt.Errorf("%s: %w", option.flag, err)
		}
	}
	return nil
}

// A component is a program of the lab with its arguments.
type component struct {
	name string
	args []string
	node bool // runs in the node's sandbox
}

// components lists all programs of a lab in the order in which they start.
func components(dir string, port int, opts options) []component {
	all := controlPlane(dir, port, opts)
	if opts.Node {
		all = append(all, nodeComponents()...)
	}
	return all
}

func controlPlane(dir string, port int, opts options) []component {
	return []component{
		etcd(dir),
		apiServer(dir, port, opts),
		controllerManager(dir),
		scheduler(dir),
	}
}

// address is where the API server listens: on loopback, or on this machine's
// end of the cable to its node.
func address(opts options) string {
	if opts.Node {
		return machineIP
	}
	return "127.0.0.1"
}

// server is the API server's URL.
func server(port int, opts options) string { return fmt.Sprintf("https://%s:%d", address(opts), port) }

// etcd serves on sockets in the lab's directory: no port to collide on, and
// no other user of the machine can reach it. The paths are relative to the
// working directory because a socket's path must not exceed 107 bytes.
func etcd(dir string) component {
	const client, peer = "unix://etcd.sock", "unix://etcd-peer.sock"
	return component{name: "etcd", args: []string{
		"--name=lab",
		"--data-dir=" + filepath.Join(dir, "etcd"),
		"--log-level=warn",
		"--unsafe-no-fsync", // the data never outlives the lab
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=lab=" + peer,
	}}
}

func apiServer(dir string, port int, opts options) component {
	in := func(name string) string { return filepath.Join(dir, name) }
	pki := func(name string) string { return filepath.Join(dir, "pki", name) }
	args := []string{
		"--bind-address=" + address(opts),
		fmt.Sprintf("--secure-port=%d", port),
		"--advertise-address=" + address(opts), // else it looks for a default route and fails without one
		"--etcd-servers=unix://etcd.sock",
		"--client-ca-file=" + pki("ca.crt"),
		"--tls-cert-file=" + pki("apiserver.crt"),
		"--tls-private-key-file=" + pki("apiserver.key"),
		"--service-cluster-ip-range=" + serviceRange,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("service-account.pub"),
		"--service-account-signing-key-file=" + pki("service-account.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", // so that only admission policies stand in the way
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + pki("front-proxy-client.key"),
		"--audit-policy-file=" + in("audit-policy.yaml"),
		"--audit-log-path=" + in("audit.jsonl"),
		"--audit-log-mode=blocking-strict", // a request that cannot be logged is not served
		"--audit-log-maxsize=1024",         // MiB before rotation: the log stays one file
	}
	if opts.Node {
		args = append(args,
			"--kubelet-certificate-authority="+pki("ca.crt"),
			"--kubelet-client-certificate="+pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key="+pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP")
	} else {
		args = append(args, "--endpoint-reconciler-type=none") // an endpoint may not be a loopback address
	}
	if opts.WebhookKubeconfig != "" {
		args = append(args,
			"--audit-webhook-config-file="+opts.WebhookKubeconfig,
			"--audit-webhook-batch-max-wait=1s",
			// Five attempts, each wait 1.5 times the one before: the last comes
			// at least 81 s after the first (10 + 15 + 22.5 + 33.75).
			"--audit-webhook-initial-backoff=10s",
			"--admission-control-config-file="+in("admission.json"))
	}
	return component{name: "kube-apiserver", args: args}
}

func controllerManager(dir string) component {
	pki := func(name string) string { return filepath.Join(dir, "pki", name) }
	return component{name: "kube-controller-manager", args: []string{
		"--kubeconfig=" + filepath.Join(dir, "controller-manager.kubeconfig"),
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--kube-api-qps=200", "--kube-api-burst=400", // the default spends 5 s of the start on waiting
		"--service-account-private-key-file=" + pki("service-account.key"),
		"--root-ca-file=" + pki("ca.crt"),
		"--cluster-signing-cert-file=" + pki("ca.crt"),
		"--cluster-signing-key-file=" + pki("ca.key"),
		"--service-cluster-ip-range=" + serviceRange,
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + podRange,
		"--flex-volume-plugin-dir=" + filepath.Join(dir, "flexvolume"),
	}}
}

func scheduler(dir string) component {
	return component{name: "kube-scheduler", args: []string{
		"--kubeconfig=" + filepath.Join(dir, "scheduler.kubeconfig"),
		"--secure-port=0",
		"--leader-elect=false",
	}}
}

// An identity is a user whose kubeconfig the lab writes.
type identity struct{ file, user, group string }

func identities(node bool) []identity {
	all := []identity{
		{"admin", "admin", "system:masters"},
		{"developer", "developer", "developers"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
	}
	if node {
		all = append(all,
			identity{"kubelet", "system:node:lab", "system:nodes"},
			identity{"proxy", "system:kube-proxy", ""},
			identity{"netpol", "netpol", ""})
	}
	return all
}

// configure writes all files that the components read.
func configure(dir string, port int, opts options) error {
	pkiDir := filepath.Join(dir, "pki")
	if err := os.MkdirAll(pkiDir, 0o700); err != nil {
		return err
	}
	ca, err := writeCertificates(pkiDir)
	if err != nil {
		return err
	}
	for _, id := range identities(opts.Node) {
		if err := writeKubeconfig(dir, server(port, opts), ca, id); err != nil {
			return err
		}
	}
	policy := auditPolicy
	if opts.AuditPolicy != "" {
		if policy, err = os.ReadFile(opts.AuditPolicy); err != nil {
			return fmt.Errorf("read audit policy: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "audit-policy.yaml"), policy, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "admission.json"), admissionConfig(opts.WebhookKubeconfig), 0o600)
}

// writeCertificates fills the pki directory and returns the cluster's authority.
func writeCertificates(dir string) (ca pair, err error) {
	if ca, err = newAuthority("lab"); err != nil {
		return ca, err
	}
	frontProxy, err := newAuthority("lab-front-proxy")
	if err != nil {
		return ca, err
	}
	server, err := ca.server("kube-apiserver", "127.0.0.1", serviceIP, machineIP)
	if err != nil {
		return ca, err
	}
	kubelet, err := ca.server("kubelet", nodeIP)
	if err != nil {
		return ca, err
	}
	kubeletClient, err := ca.client("apiserver-kubelet-client")
	if err != nil {
		return ca, err
	}
	proxyClient, err := frontProxy.client("front-proxy-client")
	if err != nil {
		return ca, err
	}
	for name, p := range map[string]pair{
		"ca": ca, "front-proxy-ca": frontProxy, "apiserver": server, "front-proxy-client": proxyClient,
		"kubelet": kubelet, "apiserver-kubelet-client": kubeletClient,
	} {
		if err := p.write(dir, name); err != nil {
			return ca, err
		}
	}
	return ca, writeServiceAccountKeys(dir)
}

// writeKubeconfig writes a kubeconfig that needs no other file.
func writeKubeconfig(dir, server string, ca pair, id identity) error {
	var groups []string
	if id.group != "" {
		groups = []string{id.group}
	}
	client, err := ca.client(id.user, groups...)
	if err != nil {
		return err
	}
	key, err := keyPEM(client.key)
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: lab
  context: {cluster: lab, user: %[3]s}
current-context: lab
`, server, encode(ca.certPEM()), id.file, encode(client.certPEM()), encode(key))
	return os.WriteFile(filepath.Join(dir, id.file+".kubeconfig"), []byte(text), 0o600)
}

func encode(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// admissionConfig tells the API server to authenticate to admission webhooks
// with the client certificate of a kubeconfig. From that file it takes the
// user named "*" or like the webhook's host:port, else the current context's.
func admissionConfig(kubeconfig string) []byte {
	type object map[string]any
	var plugins []object
	for _, name := range []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"} {
		plugins = append(plugins, object{"name": name, "configuration": object{
			"apiVersion":     "apiserver.config.k8s.io/v1",
			"kind":           "WebhookAdmissionConfiguration",
			"kubeConfigFile": kubeconfig,
		}})
	}
	data, err := json.MarshalIndent(object{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins,
	}, "", "  ")
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return data
}
