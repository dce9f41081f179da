package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// A naming is how a runtime names, for a low-level runtime, what a container is:
// the keys of annotations.
type naming struct {
	runtime, kind, container, image, pod, namespace, uid, sandbox string
}

func namingsOfBundles() []naming {
	return []naming{
		{
			Containerd, "io.kubernetes.cri.container-type", "io.kubernetes.cri.container-name", "io.kubernetes.cri.image-name",
			"io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-uid", "io.kubernetes.cri.sandbox-id",
		},
		{
			CRIO, "io.kubernetes.cri-o.ContainerType", "io.kubernetes.container.name", "io.kubernetes.cri-o.ImageName",
			podNameLabel, podNamespaceLabel, podUIDLabel, "io.kubernetes.cri-o.SandboxID",
		},
	}
}

// maxBundle bounds what is read of a container's configuration, in bytes.
const maxBundle = 1 << 20

// bundlesOf returns where runtimes keep what they start the containers of
// Kubernetes from, by the id of a container. With containerd that is in its folder
// of states, where its socket is by default; with CRI-O in the folder for what is
// running of the storage that it shares with others, which is beside that of its
// socket.
func bundlesOf(socket string) func(id string) []string {
	dir := filepath.Dir(socket)
	return func(id string) []string {
		return []string{
			filepath.Join(dir, "io.containerd.runtime.v2.task/k8s.io", id, "config.json"),
			filepath.Join(dir, "../containers/storage/overlay-containers", id, "userdata/config.json"),
		}
	}
}

// Announced returns what the runtime has written down of a container before it
// started it: its name, pod, image by name and mounts. So these are known as early
// as the first program of the container, without a question to anybody. Of
// runtimes other than containerd and CRI-O it returns nil, and so it does where
// their configuration cannot be read: then [Runtime.Lookup] is to know, a moment
// later.
func (r *Runtime) Announced(id string) *syscall.Details {
	if !isID(id) {
		return nil
	}
	for _, name := range r.bundles(id) {
		if details, err := readBundle(name); err == nil {
			return details
		}
	}
	return nil
}

func readBundle(name string) (*syscall.Details, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseBundle(f)
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

// parseBundle reads the configuration of a container or sandbox that a runtime
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
	for _, n := range namingsOfBundles() {
		if kind := b.Annotations[n.kind]; kind != "" {
			return b.details(n, kind)
		}
	}
	return nil, errors.New("no annotation says what it is to Kubernetes")
}

func (b *bundle) details(n naming, kind string) (*syscall.Details, error) {
	a := b.Annotations
	pod := &syscall.Pod{Name: a[n.pod], Namespace: a[n.namespace], UID: a[n.uid], SandboxID: a[n.sandbox]}
	d := &syscall.Details{Name: a[n.container], Type: n.runtime, Pod: pod}
	switch kind {
	case "sandbox":
		d.Name = pod.Name
	case "container":
		d.Repository, d.Tag, d.Digest = ParseImage(a[n.image])
		d.Mounts = b.binds()
	default:
		return nil, fmt.Errorf("annotation %s is %q", n.kind, kind)
	}
	if d.Name == "" || pod.Name == "" || pod.Namespace == "" {
		return nil, errors.New("no name of container, pod or namespace in the annotations")
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
