package container

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

const bundleText = `{"ociVersion": "1.3.0", "annotations": {
	"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "web", "io.kubernetes.cri.image-name": "quay.io/shop/cart:7",
	"io.kubernetes.cri.sandbox-name": "cart-1", "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.sandbox-id": "s"},
	"mounts": [
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rslave", "ro"]},
		{"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rprivate", "rw"]}]}`

// crioText is how CRI-O writes: labels of the kubelet as annotations beside its own.
const crioText = `{"ociVersion": "1.2.1", "annotations": {
	"io.container.manager": "cri-o", "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.ContainerName": "k8s_web_cart-1_shop_u_0",
	"io.kubernetes.container.name": "web", "io.kubernetes.cri-o.ImageName": "quay.io/shop/cart:7", "io.kubernetes.cri-o.SandboxID": "s",
	"io.kubernetes.cri-o.SandboxName": "k8s_cart-1_shop_u_0", "io.kubernetes.pod.name": "cart-1", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u"},
	"mounts": [
		{"destination": "/dev/shm", "type": "bind", "source": "/run/containers/storage/overlay-containers/s/userdata/shm", "options": ["rw", "bind"]}]}`

// TestAnnounced has the files of both runtimes where they keep them.
func TestAnnounced(t *testing.T) {
	id := strings.Repeat("ab", 32)
	containerd, crio := "run/containerd/io.containerd.runtime.v2.task/k8s.io/"+id+"/config.json", "run/containers/storage/overlay-containers/"+id+"/userdata/config.json"
	for _, c := range []struct{ runtime, socket, file, text, name, image string }{
		{Containerd, "run/containerd/containerd.sock", containerd, bundleText, "web", "quay.io/shop/cart"},
		{CRIO, "run/crio/crio.sock", crio, crioText, "web", "quay.io/shop/cart"},
		{CRIO, "run/crio/crio.sock", crio, strings.Replace(crioText, `: "container"`, `: "sandbox"`, 1), "cart-1", ""},
	} {
		root := t.TempDir()
		r, err := Dial(filepath.Join(root, c.socket))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if d := r.Announced(id); d != nil {
			t.Errorf("%s: without a file %+v", c.runtime, d)
		}
		file := filepath.Join(root, c.file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(c.text), 0o600)); err != nil {
			t.Fatal(err)
		}
		want := syscall.Pod{Name: "cart-1", Namespace: "shop", UID: "u", SandboxID: "s"}
		d := r.Announced(id)
		if d == nil || d.Type != c.runtime || d.Pod == nil || !reflect.DeepEqual(*d.Pod, want) {
			t.Fatalf("%s: %+v", c.runtime, d)
		}
		if d.Name != c.name || d.Repository != c.image || len(d.Mounts) > 0 != (c.image != "") {
			t.Errorf("%s: %+v, want %s of image %q", c.runtime, d, c.name, c.image)
		}
		if d := r.Announced("../" + id[3:]); d != nil {
			t.Errorf("what is no id gives %+v", d)
		}
	}
}

func TestBundle(t *testing.T) {
	have, err := parseBundle(strings.NewReader(bundleText))
	want := &syscall.Details{
		Name: "web", Type: Containerd, Repository: "quay.io/shop/cart", Tag: "7", Pod: &syscall.Pod{Name: "cart-1", Namespace: "shop", UID: "u", SandboxID: "s"},
		Mounts: []syscall.Mount{{Source: "/", Dest: "/host", Propagation: "rslave"}, {Source: "/srv", Dest: "/data", Writable: true, Propagation: "private"}},
	}
	if err != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v, %v", have, err)
	}
	for _, bad := range []string{
		"", "{}", strings.Replace(bundleText, `"cart-1"`, `""`, 1), strings.Replace(bundleText, `"container"`, `"pod"`, 1),
		`{"annotations": {"x": "` + strings.Repeat("x", maxBundle) + `"}}`,
	} {
		if d, err := parseBundle(strings.NewReader(bad)); err == nil {
			t.Errorf("%.60s gives %+v", bad, d)
		}
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(bundleText)
	f.Add(crioText)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseBundle(strings.NewReader(text)); err == nil && (d.Name == "" || d.Pod.Name == "" || d.Pod.Namespace == "") {
			t.Errorf("without a name: %+v", d)
		}
	})
}
