package container

import (
	"reflect"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

func TestParseImage(t *testing.T) {
	digest := "sha256:" + idA
	tests := []struct{ name, repository, tag, digest string }{
		{"nginx", "nginx", "", ""},
		{"nginx:1.25", "nginx", "1.25", ""},
		{"docker.io/library/nginx:1.25", "docker.io/library/nginx", "1.25", ""},
		{"registry:5000/app", "registry:5000/app", "", ""},
		{"registry:5000/app:1", "registry:5000/app", "1", ""},
		{"registry:5000/app@" + digest, "registry:5000/app", "", digest},
		{"registry:5000/app:1@" + digest, "registry:5000/app", "1", digest},
		{digest, "", "", ""},
		{idA, "", "", ""},
		{"", "", "", ""},
	}
	for _, tt := range tests {
		if repository, tag, digest := ParseImage(tt.name); repository != tt.repository || tag != tt.tag || digest != tt.digest {
			t.Errorf("ParseImage(%q) = %q, %q, %q", tt.name, repository, tag, digest)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add("registry:5000/app:1@sha256:" + idA)
	f.Add("sha256:" + idA)
	f.Fuzz(func(t *testing.T, name string) {
		repository, tag, digest := ParseImage(name)
		if repository == "" {
			return
		}
		again := repository
		if tag != "" {
			again += ":" + tag
		}
		if digest != "" {
			again += "@" + digest
		}
		if strings.TrimRight(name, ":@") != strings.TrimRight(again, ":@") && !strings.Contains(name, ":@") {
			t.Errorf("%q became %q", name, again)
		}
	})
}

func TestContainerDetails(t *testing.T) {
	sandbox := &cri.PodSandboxStatusResponse{
		Status: &cri.PodSandboxStatus{
			Id: idB, Metadata: &cri.PodSandboxMetadata{Name: "cart-1", Namespace: "shop", Uid: uidA},
			Network: &cri.PodSandboxNetworkStatus{Ip: "10.1.2.3"},
			Labels:  map[string]string{"app": "cart", podNameLabel: "cart-1"},
			Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{
				Pid: cri.NamespaceMode_NODE, Ipc: cri.NamespaceMode_NODE,
			}}},
		},
		Info: map[string]string{"info": `{"cniResult":{"Interfaces":{}}}`},
	}
	pod := &syscall.Pod{Name: "cart-1", Namespace: "shop", UID: uidA, SandboxID: idB, IP: "10.1.2.3", CNI: `{"Interfaces":{}}`, Labels: map[string]string{"app": "cart"}}
	digest := "sha256:" + idA
	tests := []struct {
		name    string
		status  *cri.ContainerStatus
		info    string
		sandbox *cri.PodSandboxStatusResponse
		image   *cri.Image
		want    syscall.Details
	}{
		{
			"as CRI-O tells",
			&cri.ContainerStatus{
				Metadata: &cri.ContainerMetadata{Name: "web"}, Image: &cri.ImageSpec{Image: "quay.io/shop/cart:7"},
				ImageRef: "quay.io/shop/cart@" + digest, ImageId: idB,
				Mounts: []*cri.Mount{{HostPath: "/var/log", ContainerPath: "/logs", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}},
			},
			`{"privileged":true}`, sandbox, nil,
			syscall.Details{
				Name: "web", Type: CRIO, ImageID: idB, Repository: "quay.io/shop/cart", Tag: "7", Digest: digest, Privileged: true,
				HostPID: true, HostIPC: true, IP: "10.1.2.3", CNI: pod.CNI, Pod: pod,
				Mounts: []syscall.Mount{{Source: "/var/log", Dest: "/logs", Writable: true, Propagation: "rshared"}},
			},
		},
		{
			"image by its id, with tags",
			&cri.ContainerStatus{Image: &cri.ImageSpec{Image: digest}, ImageRef: digest}, `not JSON`, nil,
			&cri.Image{Id: digest, RepoTags: []string{"docker.io/library/nginx:1.25"}, RepoDigests: []string{"docker.io/library/nginx@sha256:" + idB}},
			syscall.Details{Type: CRIO, ImageID: digest, Repository: "docker.io/library/nginx", Tag: "1.25", Digest: "sha256:" + idB},
		},
		{
			"image by its id, with a digest only",
			&cri.ContainerStatus{Image: &cri.ImageSpec{Image: digest}}, "", nil,
			&cri.Image{Id: digest, RepoDigests: []string{"docker.io/library/nginx@sha256:" + idB}},
			syscall.Details{Type: CRIO, ImageID: digest, Repository: "docker.io/library/nginx", Digest: "sha256:" + idB},
		},
		{
			"image of which nothing is known, pod by labels",
			&cri.ContainerStatus{Image: &cri.ImageSpec{Image: digest}, Labels: map[string]string{podNameLabel: "a", podNamespaceLabel: "b", podUIDLabel: "c"}}, "", nil, nil,
			syscall.Details{Type: CRIO, Labels: map[string]string{podNameLabel: "a", podNamespaceLabel: "b", podUIDLabel: "c"}, Pod: &syscall.Pod{Name: "a", Namespace: "b", UID: "c"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			response := &cri.ContainerStatusResponse{Status: tt.status, Info: map[string]string{"info": tt.info}}
			if have := *containerDetails(CRIO, response, tt.sandbox, tt.image); !reflect.DeepEqual(have, tt.want) {
				t.Errorf("have %+v, pod %+v\nwant %+v", have, have.Pod, tt.want)
			}
		})
	}
}
