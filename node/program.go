package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/evidence"
)

// maxProcesses bounds how many processes are looked at.
const maxProcesses = 100_000

// single are distributions whose components are no processes of their own.
var single = []string{"k3s", "k0s", "kubelite"}

// manifestFolders are where static pods stand, by distribution.
var manifestFolders = []string{"/etc/kubernetes/manifests", "/var/lib/rancher/rke2/agent/pod-manifests"}

// programs finds what Kubernetes runs on the node: a running process says more
// than the manifest that it may have been started from.
func (c *collector) programs(ctx context.Context) {
	c.processes(ctx)
	folders := slices.Clone(manifestFolders)
	c.configurations()
	if kubelet := c.record.Program("kubelet"); kubelet != nil {
		for _, folder := range []string{kubelet.Flags.Value("pod-manifest-path"), kubelet.Settings["staticPodPath"]} {
			if path.IsAbs(folder) && !slices.Contains(folders, path.Clean(folder)) {
				folders = append(folders, path.Clean(folder))
			}
		}
	}
	for _, folder := range folders {
		c.manifests(folder)
	}
	c.configurations()
	slices.SortFunc(c.record.Programs, func(a, b evidence.Program) int { return strings.Compare(a.Name, b.Name) })
}

func (c *collector) processes(ctx context.Context) {
	proc, err := procfs.NewFS(filepath.Join(c.root, "proc"))
	if err != nil {
		c.gap(evidence.PartPrograms, "/proc", err)
		return
	}
	all, err := proc.AllProcs()
	if err != nil {
		c.gap(evidence.PartPrograms, "/proc", err)
		return
	}
	if len(all) > maxProcesses {
		c.gap(evidence.PartPrograms, "/proc", fmt.Errorf("%d processes, only %d are looked at", len(all), maxProcesses))
		all = all[:maxProcesses]
	}
	slices.SortFunc(all, func(a, b procfs.Proc) int { return a.PID - b.PID })
	if len(all) == 0 || all[0].PID != 1 {
		c.gap(evidence.PartPrograms, "/proc", errors.New("processes of others are hidden"))
	}
	for _, p := range all {
		if ctx.Err() != nil {
			return
		}
		c.process(p)
	}
}

func (c *collector) process(p procfs.Proc) {
	argv, err := p.CmdLine()
	if err != nil || len(argv) == 0 { // gone, or of the kernel
		return
	}
	base := path.Base(argv[0])
	switch {
	case strings.HasPrefix(base, "sshd"), base == "dropbear":
		c.ssh = true
	case slices.Contains(single, base):
		c.gap(evidence.PartPrograms, "", fmt.Errorf("%s runs the components in one process: their flags are not seen", base))
	}
	name := evidence.ProgramName(argv)
	if name == "" {
		return
	}
	source := fmt.Sprintf("process %d", p.PID)
	if have := c.record.Program(name); have != nil {
		c.gap(evidence.PartPrograms, name, fmt.Errorf("runs several times (%s too): only %s is looked at", source, have.Source))
		return
	}
	program := evidence.Program{Name: name, Source: source, Flags: evidence.ParseFlags(argv[1:])}
	if status, err := p.NewStatus(); err == nil {
		uid := int(status.UIDs[1]) // the effective one
		program.UID = &uid
	}
	if name == "etcd" {
		c.environment(p, &program)
	}
	c.places[name] = filepath.Join(c.root, "proc", fmt.Sprint(p.PID), "root")
	c.record.Programs = append(c.record.Programs, program)
}

// environment takes etcd's settings from its variables.
func (c *collector) environment(p procfs.Proc, program *evidence.Program) {
	variables, err := p.Environ()
	if err != nil {
		program.Unread = map[string]string{"environment": reason(err)}
		return
	}
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		program.Flags.AddVariable(name, value)
	}
}

// manifests reads the static pods in a folder.
func (c *collector) manifests(folder string) {
	names, err := c.glob(folder, "*.yaml", "*.yml", "*.json")
	if err != nil {
		c.gap(evidence.PartPrograms, folder, err)
		return
	}
	for _, name := range names {
		data, err := c.read(name)
		if err == nil {
			err = c.manifest(name, data)
		}
		if err != nil && c.record.Program(strings.TrimSuffix(path.Base(name), path.Ext(name))) == nil {
			c.gap(evidence.PartPrograms, name, err)
		}
	}
}

func (c *collector) manifest(name string, data []byte) error {
	var pod corev1.Pod
	if err := yaml.Unmarshal(data, &pod); err != nil {
		return errors.New("not the manifest of a pod")
	}
	for i := range pod.Spec.Containers {
		program := evidence.ProgramOf(&pod.Spec, &pod.Spec.Containers[i])
		if program == nil {
			continue
		}
		if running := c.record.Program(program.Name); running != nil {
			running.Image = program.Image
			continue
		}
		program.Source = name
		c.record.Programs = append(c.record.Programs, *program)
	}
	return nil
}

// place returns the files as a program sees them; where they may not be looked
// into, the node's, since the folders of Kubernetes stand at the same place.
func (c *collector) place(program string) tree {
	own := tree{c.places[program]}
	if own.root == "" {
		return c.tree
	}
	if _, err := own.list("/"); err != nil {
		return c.tree
	}
	if entries, _ := own.list("/"); len(entries) == 0 {
		return c.tree
	}
	return own
}

// readFor reads a file that a flag of a program names. The reason why it cannot
// be read is kept with the program.
func (c *collector) readFor(p *evidence.Program, flag string) []byte {
	name := p.Flags.Value(flag)
	if name == "" {
		return nil
	}
	var data []byte
	err := errors.New("not an absolute path")
	if path.IsAbs(name) {
		data, err = c.place(p.Name).read(name)
		if errors.Is(err, fs.ErrNotExist) {
			data, err = c.read(name)
		}
	}
	if err != nil {
		c.unread(p, flag, err)
		return nil
	}
	return data
}

func (c *collector) unread(p *evidence.Program, flag string, err error) {
	if p.Unread == nil {
		p.Unread = map[string]string{}
	}
	p.Unread[flag] = reason(err)
}
