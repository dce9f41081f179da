package container

import (
	"strings"
	"testing"
)

const (
	idA  = "3f2a9c01d7be4455aa66bb77cc88dd99ee00ff112233445566778899aabbccdd"
	idB  = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	uidA = "6f2b9b3e-0f8e-4d7c-9f5d-1c2d3e4f5a6b"
)

func TestParsePath(t *testing.T) {
	systemdUID := strings.ReplaceAll(uidA, "-", "_")
	static := "c4ca4238a0b923820dcc509a6f75849b"
	slice := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + systemdUID + ".slice"
	tests := []struct {
		name, path string
		want       ID
	}{
		{"containerd, plain", "/kubepods/burstable/pod" + uidA + "/" + idA, ID{idA, Containerd, uidA}},
		{"containerd, guaranteed pod", "/kubepods/pod" + uidA + "/" + idA, ID{idA, Containerd, uidA}},
		{"containerd, static pod", "/kubepods/besteffort/pod" + static + "/" + idA, ID{idA, Containerd, static}},
		{"containerd, systemd", slice + "/cri-containerd-" + idA + ".scope", ID{idA, Containerd, uidA}},
		{"containerd, systemd, static pod", "/kubepods.slice/kubepods-pod" + static + ".slice/cri-containerd-" + idA + ".scope", ID{idA, Containerd, static}},
		{"containerd, systemd path without systemd", "/system.slice/containerd.service/kubepods-burstable-pod" + systemdUID + ".slice:cri-containerd:" + idA, ID{idA, Containerd, uidA}},
		{"containerd, own namespace", "/k8s.io/" + idA, ID{idA, Containerd, ""}},
		{"cri-o, systemd", slice + "/crio-" + idA + ".scope", ID{idA, CRIO, uidA}},
		{"cri-o, systemd, crun", slice + "/crio-" + idA + ".scope/container", ID{idA, CRIO, uidA}},
		{"cri-o, plain", "/kubepods/besteffort/pod" + uidA + "/crio-" + idA, ID{idA, CRIO, uidA}},
		{"cri-o, monitor", slice + "/crio-conmon-" + idA + ".scope", ID{}},
		{"docker, plain", "/docker/" + idA, ID{idA, Docker, ""}},
		{"docker, systemd", "/system.slice/docker-" + idA + ".scope", ID{idA, Docker, ""}},
		{"docker, rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + idA + ".scope", ID{idA, Docker, ""}},
		{"podman", "/machine.slice/libpod-" + idA + ".scope", ID{idA, Podman, ""}},
		{"podman, crun", "/machine.slice/libpod-" + idA + ".scope/container", ID{idA, Podman, ""}},
		{"podman, plain", "/libpod_parent/libpod-" + idA, ID{idA, Podman, ""}},
		{"podman, as a service", "/system.slice/web.service/libpod-payload-" + idA, ID{idA, Podman, ""}},
		{"podman, monitor", "/machine.slice/libpod-conmon-" + idA + ".scope", ID{}},
		{"nerdctl", "/system.slice/nerdctl-" + idA + ".scope", ID{idA, Containerd, ""}},
		{"nerdctl, plain", "/default/" + idA, ID{idA, Containerd, ""}},
		{"systemd in a container", "/docker/" + idA + "/init.scope", ID{idA, Docker, ""}},
		{"node in a container", "/docker/" + idB + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + systemdUID + ".slice/cri-containerd-" + idA + ".scope", ID{idA, Containerd, uidA}},
		{"seen from a control group namespace", "/../../pod" + uidA + "/" + idA, ID{idA, Containerd, uidA}},
		{"pod without container", "/kubepods/burstable/pod" + uidA, ID{}},
		{"session", "/user.slice/user-0.slice/session-1.scope", ID{}},
		{"root", "/", ID{}},
		{"empty", "", ID{}},
		{"too short", "/docker/" + idA[:63], ID{}},
		{"too long", "/docker/" + idA + "0", ID{}},
		{"capitals", "/docker/" + strings.ToUpper(idA), ID{}},
		{"foreign prefix", "/system.slice/backup-" + idA + ".scope", ID{}},
		{"triple without slice", "/:cri-containerd:" + idA, ID{}},
		{"triple of two", "/cri-containerd:" + idA, ID{}},
		{"odd pod", "/kubepods/podium/" + idA, ID{idA, Containerd, ""}},
		{"slice of something else", "/tripod-pod" + systemdUID + ".slice/docker-" + idA + ".scope", ID{idA, Docker, ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if have := ParsePath(tt.path); have != tt.want {
				t.Errorf("ParsePath(%q) = %+v, want %+v", tt.path, have, tt.want)
			}
		})
	}
}

func TestParseGroups(t *testing.T) {
	tests := []struct {
		name, groups string
		want         ID
	}{
		{"version 1", "12:pids:/docker/" + idA + "\n11:memory:/docker/" + idA + "\n1:name=systemd:/docker/" + idA + "\n", ID{idA, Docker, ""}},
		{"version 2", "0::/system.slice/docker-" + idA + ".scope\n", ID{idA, Docker, ""}},
		{"both, only version 1 used", "4:memory:/kubepods/pod" + uidA + "/" + idA + "\n1:cpu,cpuacct:/\n0::/\n", ID{idA, Containerd, uidA}},
		{"both used", "4:memory:/docker/" + idA + "\n0::/system.slice/docker-" + idA + ".scope\n", ID{idA, Docker, ""}},
		{"nested in one hierarchy", "2:name=systemd:/docker/" + idB + "\n1:memory:/docker/" + idB + "/kubepods/pod" + uidA + "/" + idA + "\n", ID{idA, Containerd, uidA}},
		{"path with colons", "0::/a.service/kubepods-pod" + strings.ReplaceAll(uidA, "-", "_") + ".slice:cri-containerd:" + idA, ID{idA, Containerd, uidA}},
		{"host", "0::/user.slice/user-0.slice/session-1.scope\n", ID{}},
		{"deleted group", "0::/docker/" + idA + " (deleted)\n", ID{idA, Docker, ""}},
		{"not of this form", "a\nb:c\n", ID{}},
		{"empty", "", ID{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if have := ParseGroups(tt.groups); have != tt.want {
				t.Errorf("ParseGroups(%q) = %+v, want %+v", tt.groups, have, tt.want)
			}
		})
	}
}

func TestShort(t *testing.T) {
	if have := (ID{Full: idA}).Short(); have != "3f2a9c01d7be" {
		t.Error(have)
	}
	if have := (ID{}).Short(); have != "host" {
		t.Error(have)
	}
}

func FuzzParseGroups(f *testing.F) {
	f.Add("4:memory:/kubepods/pod" + uidA + "/" + idA + "\n0::/\n")
	f.Add("0::/kubepods.slice/kubepods-pod" + strings.ReplaceAll(uidA, "-", "_") + ".slice:cri-containerd:" + idA)
	f.Add("0::/machine.slice/libpod-" + idA + ".scope/container")
	f.Fuzz(func(t *testing.T, groups string) {
		id := ParseGroups(groups)
		if id.Host() {
			if id != (ID{}) {
				t.Errorf("the host has %+v", id)
			}
			return
		}
		if !isID(id.Full) || !strings.Contains(groups, id.Full) {
			t.Errorf("id %q is not of the text", id.Full)
		}
		if id.PodUID != "" && !isUID(id.PodUID) {
			t.Errorf("uid %q", id.PodUID)
		}
		if id.Runtime == "" {
			t.Error("no runtime")
		}
	})
}
