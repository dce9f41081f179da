package container_test

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/sensor/container"
	"github.com/kubeguardian/kubeguardian/sensor/container/containerdtest"
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// dial follows a runtime for the time of a test.
func dial(t *testing.T, socket string) *container.Runtime {
	t.Helper()
	r, err := container.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		r.Close()
	})
	return r
}

// eventually waits until a lookup knows a container.
func eventually(t *testing.T, r *container.Runtime, id string) *syscall.Details {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if d := r.Lookup(id); d != nil {
			return d
		}
	}
	stats, err := r.Stats()
	t.Fatalf("container %s is not known: %+v, %v", id, stats, err)
	return nil
}

func TestContainerd(t *testing.T) {
	c := containerdtest.Start(t)
	mounted := t.TempDir()
	r := dial(t, c.Socket)
	pod := c.RunPod(t, "cart-1", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Privileged = true
		config.Mounts = []*cri.Mount{
			{HostPath: mounted, ContainerPath: "/data", Readonly: true},
			{HostPath: mounted, ContainerPath: "/more"},
		}
	})
	announced := r.Announced(pod.Container)
	if announced == nil || announced.Name != "web" || announced.Repository != "registry.test:5000/team/wait" || announced.Tag != "1.2" ||
		announced.Pod.Name != "cart-1" || announced.Pod.Namespace != "shop" || announced.Pod.UID != pod.UID || announced.Pod.SandboxID != pod.Sandbox {
		t.Errorf("announced is %+v", announced)
	} else if more := (syscall.Mount{Source: mounted, Dest: "/more", Writable: true, Propagation: "private"}); !slices.Contains(announced.Mounts, more) {
		t.Errorf("announced mounts are %+v", announced.Mounts)
	}
	if d := r.Announced(pod.Sandbox); d == nil || d.Name != "cart-1" || d.Pod.SandboxID != pod.Sandbox {
		t.Errorf("announced sandbox is %+v", d)
	}
	if d := r.Announced("../" + pod.Container[3:]); d != nil {
		t.Errorf("a path is taken for an id: %+v", d)
	}
	have := *eventually(t, r, pod.Container)
	if !strings.HasPrefix(have.ImageID, "sha256:") {
		t.Errorf("image id %q", have.ImageID)
	}
	want := syscall.Details{
		Name: "web", Type: "containerd", Repository: "registry.test:5000/team/wait", Tag: "1.2", Privileged: true, HostNetwork: true,
		ImageID: have.ImageID, Digest: have.Digest, Labels: have.Labels,
		Mounts: []syscall.Mount{
			{Source: mounted, Dest: "/data", Propagation: "private"},
			{Source: mounted, Dest: "/more", Writable: true, Propagation: "private"},
		},
		Pod: &syscall.Pod{Name: "cart-1", Namespace: "shop", UID: pod.UID, SandboxID: pod.Sandbox, Labels: map[string]string{"app": "shop"}},
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v\npod %+v", have, want, have.Pod)
	}
	sandbox := eventually(t, r, pod.Sandbox)
	if sandbox.Name != "cart-1" || sandbox.Pod == nil || sandbox.Pod.SandboxID != pod.Sandbox || sandbox.Privileged {
		t.Errorf("sandbox %+v", sandbox)
	}
	if name := r.Name(); name != "containerd" {
		t.Errorf("runtime %q", name)
	}
	if stats, err := r.Stats(); err != nil || stats.Events {
		t.Errorf("stats %+v, %v: this containerd does not tell of changes", stats, err)
	}

	t.Run("identity and users of its first process", func(t *testing.T) {
		pid := c.PID(t, pod.Container)
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		id := container.ParseGroups(string(groups))
		if id.Full != pod.Container || id.PodUID != pod.UID || id.Runtime != container.Containerd {
			t.Errorf("identity %+v of %s", id, groups)
		}
		users := container.NewUsers("/proc", "/")
		if user := *users.Of(id, pid).User(7); user != (syscall.User{UID: 7, Name: "app", Home: "/srv", Shell: "/wait"}) {
			t.Errorf("user %+v", user)
		}
		if user := users.Of(container.ID{}, os.Getpid()).User(0); user.Name != "root" {
			t.Errorf("user of the host %+v", user)
		}
	})
}

// TestContainerOfUnknownID: what the runtime does not know stays unknown, and
// that is no failure.
func TestContainerOfUnknownID(t *testing.T) {
	c := containerdtest.Start(t)
	r := dial(t, c.Socket)
	id := strings.Repeat("0a", 32)
	for range 50 {
		if d := r.Lookup(id); d != nil {
			t.Fatalf("details %+v", d)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if stats, err := r.Stats(); err != nil || stats.Late != 50 || stats.Failed != 0 {
		t.Errorf("stats %+v, %v", stats, err)
	}
}

// TestRuntimeThatComesLater starts before the runtime does, and says so.
func TestRuntimeThatIsAway(t *testing.T) {
	r := dial(t, t.TempDir()+"/none.sock")
	r.Lookup(strings.Repeat("0a", 32))
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := r.Stats(); err != nil && strings.Contains(err.Error(), "ask the container runtime") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no error")
		}
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	if name, err := container.Find(root); err != container.ErrNoRuntime {
		t.Errorf("have %q, %v", name, err)
	}
	if err := os.MkdirAll(root+"/run/containerd", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/run/containerd/containerd.sock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if name, err := container.Find(root); err != container.ErrNoRuntime {
		t.Errorf("a file that is no socket: have %q, %v", name, err)
	}
}
