package container

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Annotations by which containerd's CRI tells a low-level runtime what a
// container is.
const (
	criAnnotation  = "io.kubernetes.cri."
	typeAnnotation = criAnnotation + "container-type"
)

// maxBundle bounds what is read of a container's configuration, in bytes.
const maxBundle = 1 << 20

// bundlesOf returns the folder in which containerd keeps what it starts the
// containers of Kubernetes from: in its folder of states, where its socket is by
// default.
func bundlesOf(socket string) string {
	return filepath.Join(filepath.Dir(socket), "io.containerd.runtime.v2.task", "k8s.io")
}

// Announced returns what the runtime has written down of a container before it
// started it: its name, pod, image by name and mounts. So these are known as early
// as the first program of the container, without a question to anybody. Of
// runtimes other than containerd it returns nil, and so it does where its
// configuration cannot be read: then [Runtime.Lookup] is to know, a moment later.
func (r *Runtime) Announced(id string) *syscall.Details {
	if !isID(id) {
		return nil
	}
	f, err := os.Open(filepath.Join(r.bundles, id, "config.json"))
	if err != nil {
		return nil
	}
	defer f.Close()
	details, err := parseBundle(f)
	if err != nil {
		return nil
	}
	return details
}

// A bundle is what is read of the configuration of an OCI runtime.
type bundle struct {
	Annotations map[string]string `json:"annotations"`
	Mounts      []struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options"`
	} `json:"mounts"`
}

// parseBundle reads the configuration of a container or sandbox that containerd
// made for Kubernetes. Any other is an error.
func parseBundle(in io.Reader) (*syscall.Details, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBundle {
		return nil, fmt.Errorf("configuration of more than %d bytes", maxBundle)
	}
	var b bundle
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, err
	}
	of := func(name string) string { return b.Annotations[criAnnotation+name] }
	pod := &syscall.Pod{Name: of("sandbox-name"), Namespace: of("sandbox-namespace"), UID: of("sandbox-uid"), SandboxID: of("sandbox-id")}
	d := &syscall.Details{Name: of("container-name"), Type: Containerd, Pod: pod}
	switch b.Annotations[typeAnnotation] {
	case "sandbox":
		d.Name = pod.Name
	case "container":
		d.Repository, d.Tag, d.Digest = ParseImage(of("image-name"))
		d.Mounts = b.binds()
	default:
		return nil, fmt.Errorf("annotation %s is %q", typeAnnotation, b.Annotations[typeAnnotation])
	}
	if d.Name == "" || pod.Name == "" || pod.Namespace == "" {
		return nil, fmt.Errorf("no name of container, pod or namespace in the annotations")
	}
	return d, nil
}

// binds returns the files and folders of the node that the container sees.
func (b *bundle) binds() []syscall.Mount {
	var out []syscall.Mount
	for _, m := range b.Mounts {
		if m.Type != "bind" {
			continue
		}
		one := syscall.Mount{Source: m.Source, Dest: m.Destination, Writable: !slices.Contains(m.Options, "ro"), Propagation: "private"}
		for _, p := range []string{"rslave", "rshared"} {
			if slices.Contains(m.Options, p) {
				one.Propagation = p
			}
		}
		out = append(out, one)
	}
	return out
}
