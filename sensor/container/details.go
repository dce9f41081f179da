package container

import (
	"encoding/json"
	"maps"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// Labels by which the kubelet tells a runtime what a pod is.
const (
	podNameLabel      = "io.kubernetes.pod.name"
	podNamespaceLabel = "io.kubernetes.pod.namespace"
	podUIDLabel       = "io.kubernetes.pod.uid"
	kubeletLabels     = "io.kubernetes."
)

// maxInfo bounds what is read of a runtime's own description, in bytes.
const maxInfo = 4 << 20

// A containerInfo is what is read of a runtime's own description of a
// container, with the names of containerd and of CRI-O.
type containerInfo struct {
	Privileged bool `json:"privileged"`
	Config     struct {
		Linux struct {
			SecurityContext struct {
				Privileged bool `json:"privileged"`
			} `json:"security_context"`
		} `json:"linux"`
	} `json:"config"`
}

// A podInfo is what is read of a runtime's own description of a sandbox.
type podInfo struct {
	CNIResult json.RawMessage `json:"cniResult"`
}

// readInfo reads what a runtime says beyond the standard. It is not promised to
// be there, or to be of this form.
func readInfo(info map[string]string, into any) {
	if text := info["info"]; len(text) <= maxInfo {
		_ = json.Unmarshal([]byte(text), into)
	}
}

// containerDetails joins what a runtime says of a container, its sandbox and
// its image. The image and the sandbox may be nil.
func containerDetails(runtime string, c *cri.ContainerStatusResponse, sandbox *cri.PodSandboxStatusResponse, image *cri.Image) *syscall.Details {
	s := c.GetStatus()
	var info containerInfo
	readInfo(c.GetInfo(), &info)
	d := &syscall.Details{
		Name: s.GetMetadata().GetName(), Type: runtime,
		Privileged: info.Privileged || info.Config.Linux.SecurityContext.Privileged,
		Labels:     maps.Clone(s.GetLabels()),
	}
	for _, m := range s.GetMounts() {
		d.Mounts = append(d.Mounts, mount(m))
	}
	setImage(d, s, image)
	setPod(d, sandbox)
	if d.Pod == nil {
		d.Pod = podOfLabels(s.GetLabels())
	}
	return d
}

// sandboxDetails describes the container that holds a pod's namespaces.
func sandboxDetails(runtime string, sandbox *cri.PodSandboxStatusResponse) *syscall.Details {
	d := &syscall.Details{Name: sandbox.GetStatus().GetMetadata().GetName(), Type: runtime, Labels: maps.Clone(sandbox.GetStatus().GetLabels())}
	setPod(d, sandbox)
	return d
}

var propagations = map[cri.MountPropagation]string{
	cri.MountPropagation_PROPAGATION_PRIVATE:           "private",
	cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
	cri.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
}

func mount(m *cri.Mount) syscall.Mount {
	return syscall.Mount{Source: m.GetHostPath(), Dest: m.GetContainerPath(), Writable: !m.GetReadonly(), Propagation: propagations[m.GetPropagation()]}
}

// setImage prefers the name by which the image was asked for; a runtime that
// knows only its id has the name in the image's tags.
func setImage(d *syscall.Details, s *cri.ContainerStatus, image *cri.Image) {
	names := []string{s.GetImage().GetUserSpecifiedImage(), s.GetImage().GetImage()}
	names = append(names, image.GetRepoTags()...)
	for _, name := range append(names, image.GetRepoDigests()...) {
		if repository, tag, digest := ParseImage(name); repository != "" {
			d.Repository, d.Tag, d.Digest = repository, tag, digest
			break
		}
	}
	for _, name := range append([]string{s.GetImageRef()}, image.GetRepoDigests()...) {
		repository, _, digest := ParseImage(name)
		if d.Digest == "" && repository != "" && digest != "" {
			d.Digest = digest
		}
	}
	d.ImageID = image.GetId()
	if d.ImageID == "" {
		d.ImageID = s.GetImageId()
	}
}

// setPod adds what the sandbox shows. The kubelet's labels on a sandbox are not
// the pod's own.
func setPod(d *syscall.Details, sandbox *cri.PodSandboxStatusResponse) {
	s := sandbox.GetStatus()
	if s == nil {
		return
	}
	var info podInfo
	readInfo(sandbox.GetInfo(), &info)
	options := s.GetLinux().GetNamespaces().GetOptions()
	d.HostNetwork = options.GetNetwork() == cri.NamespaceMode_NODE
	d.HostPID = options.GetPid() == cri.NamespaceMode_NODE
	d.HostIPC = options.GetIpc() == cri.NamespaceMode_NODE
	m := s.GetMetadata()
	pod := &syscall.Pod{
		Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUid(),
		SandboxID: s.GetId(), IP: s.GetNetwork().GetIp(), Labels: map[string]string{},
	}
	if len(info.CNIResult) > 0 && string(info.CNIResult) != "null" {
		pod.CNI = string(info.CNIResult)
	}
	for key, value := range s.GetLabels() {
		if !strings.HasPrefix(key, kubeletLabels) {
			pod.Labels[key] = value
		}
	}
	d.IP, d.CNI, d.Pod = pod.IP, pod.CNI, pod
}

// podOfLabels returns the pod that a container's labels name, nil without one.
func podOfLabels(labels map[string]string) *syscall.Pod {
	if labels[podNameLabel] == "" {
		return nil
	}
	return &syscall.Pod{Name: labels[podNameLabel], Namespace: labels[podNamespaceLabel], UID: labels[podUIDLabel]}
}

// ParseImage splits the name of an image, as host:5000/app:1.2@sha256:…, into
// its parts; those that it does not have are empty. The bare id of an image has
// no repository.
func ParseImage(name string) (repository, tag, digest string) {
	repository, digest, _ = strings.Cut(name, "@")
	if slash, colon := strings.LastIndexByte(repository, '/'), strings.LastIndexByte(repository, ':'); colon > slash {
		repository, tag = repository[:colon], repository[colon+1:]
	}
	if repository == "sha256" || tag == "" && digest == "" && isID(repository) {
		return "", "", ""
	}
	return repository, tag, digest
}
