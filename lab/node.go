package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// nodeFiles is the configuration of the node's programs, and what they need in
// the cluster.
//
//go:embed etc
var nodeFiles embed.FS

// nodeComponents lists the programs of the node in the order in which they
// start. Their paths are those inside of the sandbox.
func nodeComponents() []component {
	return []component{
		{"containerd", []string{"--config=" + home + "/etc/containerd.toml"}, true},
		{"kubelet", []string{
			"--config=" + home + "/etc/kubelet.yaml",
			"--kubeconfig=" + home + "/kubelet.kubeconfig",
			"--hostname-override=lab",
			"--node-ip=" + nodeIP,
		}, true},
		{"kube-proxy", []string{"--config=" + home + "/etc/kube-proxy.yaml"}, true},
		{"netpol", []string{"--kubeconfig=" + home + "/netpol.kubeconfig"}, true},
	}
}

// nodePossible says what this machine or its user lacks for a node.
func nodePossible() error {
	if os.Getuid() != 0 {
		return withHint(errors.New("start a node: not root"), "run as root, or leave --node out")
	}
	for tool, of := range map[string]string{"ip": "iproute2", "nsenter": "util-linux", "nft": "nftables"} {
		if _, err := exec.LookPath(tool); err != nil {
			return withHint(fmt.Errorf("start a node: %s not found in PATH", tool), "install "+of)
		}
	}
	return nil
}

// sandbox makes the empty node of a lab whose directory is prepared.
func (l *lab) sandbox(ctx context.Context, st state, bound bool, exits chan exit) error {
	if err := nodePossible(); err != nil {
		return err
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := claimCgroups(all, l.dir); err != nil {
		return err
	}
	if err := networkFree(ctx); err != nil { // not even taken by a lab's node
		return err
	}
	if err := fs.WalkDir(nodeFiles, "etc", l.copyNodeFile); err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := start(l.dir, "sandbox", exec.Command(self, "sandbox", l.dir, st.NodeBinaries), bound, exits); err != nil {
		return err
	}
	return l.await(ctx, exits, "sandbox", func(context.Context) error {
		_, err := os.Stat(l.path(sandboxFile))
		return err
	})
}

func (l *lab) copyNodeFile(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if entry.IsDir() {
		return os.Mkdir(l.path(path), 0o700)
	}
	data, err := nodeFiles.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(l.path(path), data, 0o600)
}

// startNode starts the programs in the sandbox and waits until pods run.
func (l *lab) startNode(ctx context.Context, st state, c *client, bound bool, exits chan exit) error {
	if err := l.applyCluster(ctx, st); err != nil {
		return err
	}
	for _, part := range nodeComponents() {
		if err := l.start(st, part, bound, exits); err != nil {
			return err
		}
		if part.name == "containerd" { // the kubelet gives up when it finds none
			if err := l.await(ctx, exits, part.name, l.importImages); err != nil {
				return err
			}
		}
	}
	if err := l.await(ctx, exits, "kubelet", c.nodeReady); err != nil {
		return err
	}
	return l.await(ctx, exits, "kubelet", c.dnsReady)
}

// applyCluster creates what the node's programs need in the cluster.
func (l *lab) applyCluster(ctx context.Context, st state) error {
	cmd := exec.CommandContext(ctx, filepath.Join(st.Binaries, "kubectl"), "--kubeconfig="+l.path("admin.kubeconfig"),
		"create", "-f", l.path("etc/cluster.yaml"))
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+l.path("kubectl"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the node's objects: %w: %s", err, out)
	}
	return nil
}

// importImages gives containerd the images of the node's own pods.
func (l *lab) importImages(ctx context.Context) error {
	out, err := l.inside(ctx, "ctr", "images", "import", home+"/bin/"+nodeImages).CombinedOutput()
	if err != nil {
		return fmt.Errorf("import images: %w: %s", err, out)
	}
	return nil
}

// inside prepares a command that runs in the sandbox.
func (l *lab) inside(ctx context.Context, args ...string) *exec.Cmd {
	self, err := os.Executable()
	cmd := exec.CommandContext(ctx, self, append([]string{"node", "--dir", l.dir, "--"}, args...)...)
	cmd.Err = errors.Join(cmd.Err, err)
	return cmd
}

// enter becomes a command in the sandbox of a lab's node.
func (l *lab) enter(args []string) error {
	running, err := processes(l.dir)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(running, func(p process) bool { return p.name == initName })
	if i < 0 {
		return withHint(fmt.Errorf("enter the node: none runs for the lab in %s", l.dir), "start it first: lab up --node")
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("enter the node: %w", err)
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := joinCgroups(all); err != nil {
		return err
	}
	argv := append([]string{"nsenter", "--target=" + strconv.Itoa(running[i].pid),
		"--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--"}, args...)
	return fmt.Errorf("enter the node: %w", syscall.Exec(nsenter, argv, nodeEnvironment()))
}

// nodeEnvironment is this process's, but for what differs on the node.
func nodeEnvironment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "PATH" || name == "KUBECONFIG" || name == "CONTAINERD_NAMESPACE"
	})
	return append(env, "KUBECONFIG="+home+"/admin.kubeconfig", "CONTAINERD_NAMESPACE=k8s.io",
		"PATH="+home+"/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

// endNode ends the node if the lab in dir has it, and removes all that it made
// outside of the lab's directory.
func endNode(dir string) error {
	all, err := hierarchies()
	if err != nil {
		return nil // a machine that cannot have one
	}
	if cgroupOwner(all[0]) != dir {
		return nil
	}
	// The cable goes while its owner is known, so that a failure is not the end.
	if err := disconnect(); err != nil {
		return err
	}
	return releaseCgroups(all)
}

// nodeReady succeeds when the node is ready for pods.
func (c *client) nodeReady(ctx context.Context) error {
	return c.has(ctx, "/api/v1/nodes/lab", `"KubeletReady"`)
}

// dnsReady succeeds when the cluster's DNS, which is a pod, answers.
func (c *client) dnsReady(ctx context.Context) error {
	return c.has(ctx, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", `"availableReplicas":1`)
}

// nodeFacts prints what the caller of `lab up --node` may want to know.
func (l *lab) nodeFacts() string {
	return strings.Join([]string{
		"# containerd: " + l.path("cri/containerd.sock"),
		"# a shell on the node: lab node --dir " + quote(l.dir) + " bash",
	}, "\n") + "\n"
}
