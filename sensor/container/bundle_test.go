package container

import (
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
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseBundle(strings.NewReader(text)); err == nil && (d.Name == "" || d.Pod.Name == "" || d.Pod.Namespace == "") {
			t.Errorf("without a name: %+v", d)
		}
	})
}
