// Package containerdtest runs a real containerd for tests, with state and
// socket of its own, and pods in it.
package containerdtest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Image is the name of the image that pods run: one program, /wait, which waits,
// or runs what its arguments name, and a user app with uid 7.
const Image = "registry.test:5000/team/wait:1.2"

// startTime is how long containerd may take for anything.
const startTime = 2 * time.Minute

// A Runtime is a running containerd.
type Runtime struct {
	Socket string
	CRI    cri.RuntimeServiceClient
	group  string // parent of the control groups
	dir    string
	log    bytes.Buffer
	cmd    *exec.Cmd
}

// Start runs containerd for the time of a test. Where that is not possible the
// test is skipped, with KUBEGUARDIAN_REQUIRE=all it fails.
func Start(t *testing.T) *Runtime {
	t.Helper()
	if testing.Short() {
		t.Skip("containerd takes seconds to start")
	}
	for _, program := range []string{"containerd", "runc", "ctr"} {
		if _, err := exec.LookPath(program); err != nil {
			unavailable(t, fmt.Sprintf("no %s installed", program))
		}
	}
	if os.Getuid() != 0 {
		unavailable(t, "containerd needs root")
	}
	dir := shortDir(t)
	r := &Runtime{Socket: filepath.Join(dir, "state", "c.sock"), group: "/kubeguardian-" + rand.Text()[:8], dir: dir}
	t.Cleanup(func() { removeGroups(r.group) })
	r.configure(t)
	r.run(t)
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("containerd: %s", r.log.Bytes()[max(0, r.log.Len()-4000):])
		}
	})
	conn, err := grpc.NewClient("unix:"+r.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.CRI = cri.NewRuntimeServiceClient(conn)
	r.answers(t)
	r.load(t, dir)
	return r
}

func unavailable(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// shortDir returns a folder whose path leaves room for the names of sockets.
// What is mounted below it is unmounted before it is removed.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctrd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmount(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func unmount(dir string) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			points = append(points, f[1])
		}
	}
	slices.Reverse(points)
	for _, p := range points {
		_ = syscall.Unmount(p, syscall.MNT_DETACH)
	}
}

// removeGroups removes the control groups below the tests' own, innermost first.
func removeGroups(group string) {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, _ := filepath.Glob(pattern + group)
		for _, top := range tops {
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			slices.Reverse(dirs)
			for _, dir := range dirs {
				_ = syscall.Rmdir(dir)
			}
		}
	}
}

const configuration = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`

func (r *Runtime) configure(t *testing.T) {
	t.Helper()
	in := func(name string) string { return filepath.Join(r.dir, name) }
	text := fmt.Sprintf(configuration, in("root"), in("state"), r.Socket, in("opt"), Image, in("cni"), in("cni"))
	if err := os.WriteFile(in("config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Restart ends containerd and runs it again. Containers run on meanwhile.
func (r *Runtime) Restart(t *testing.T) {
	t.Helper()
	r.stop()
	r.run(t)
	r.answers(t)
}

// answers waits until what the kubelet asks is answered, which is later than the
// rest.
func (r *Runtime) answers(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(startTime); ; time.Sleep(50 * time.Millisecond) {
		_, err := r.CRI.ListContainers(t.Context(), &cri.ListContainersRequest{})
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("containerd lists no containers: %v", err)
		}
	}
}

func (r *Runtime) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait()
}

// run runs containerd until it answers.
func (r *Runtime) run(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command("containerd", "--config", filepath.Join(r.dir, "config.toml"))
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(startTime); ; time.Sleep(50 * time.Millisecond) {
		err := exec.Command("ctr", "--address", r.Socket, "version").Run()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("containerd does not answer: %v", err)
		}
	}
}

// load puts the image into containerd, from a file, as nothing else is there.
func (r *Runtime) load(t *testing.T, dir string) {
	t.Helper()
	program := filepath.Join(dir, "wait")
	build := exec.Command("go", "build", "-o", program, "./testdata/wait")
	build.Dir, build.Env = sourceDir(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the image's program: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "image.tar")
	if err := writeImage(file, program); err != nil {
		t.Fatalf("build the image: %v", err)
	}
	if out, err := exec.Command("ctr", "--address", r.Socket, "--namespace", "k8s.io", "images", "import", file).CombinedOutput(); err != nil {
		t.Fatalf("import the image: %v\n%s", err, out)
	}
}

func sourceDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/kubeguardian/kubeguardian/sensor/container/containerdtest").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func writeImage(file, program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"wait", 0o755, data},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/wait\napp:x:7:7::/srv:/wait\n")},
		{"etc/group", 0o644, []byte("root:x:0:\napp:x:7:\n")},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	layerFile := file + ".layer"
	if err := os.WriteFile(layerFile, content.Bytes(), 0o600); err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(layerFile)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", runtime.GOARCH, []string{"/wait"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	tag, err := name.NewTag(Image)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, tag, image)
}

// A Pod is a running pod of one container.
type Pod struct {
	Name, Namespace, UID string
	Sandbox, Container   string // ids
}

// RunPod runs a pod in the host's network until the end of the test, with one
// container, made by change from what is usual. It returns once the container
// has started.
func (r *Runtime) RunPod(t *testing.T, podName string, change func(*cri.ContainerConfig)) Pod {
	t.Helper()
	return r.RunPodIn(t, "shop", podName, change)
}

// RunPodIn does the same in a namespace.
func (r *Runtime) RunPodIn(t *testing.T, namespace, podName string, change func(*cri.ContainerConfig)) Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	pod := Pod{Name: podName, Namespace: namespace, UID: "6f2b9b3e-0f8e-4d7c-9f5d-1c2d3e4f5a6b"}
	labels := map[string]string{"io.kubernetes.pod.name": pod.Name, "io.kubernetes.pod.namespace": pod.Namespace, "io.kubernetes.pod.uid": pod.UID}
	sandbox := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: pod.UID},
		LogDirectory: t.TempDir(), Labels: map[string]string{"app": "shop"},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: r.group + "/burstable/pod" + pod.UID,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}, Privileged: true,
			},
		},
	}
	for k, v := range labels {
		sandbox.Labels[k] = v
	}
	s, err := r.CRI.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		t.Fatalf("run the sandbox of pod %s: %v", podName, err)
	}
	pod.Sandbox = s.GetPodSandboxId()
	t.Cleanup(func() { r.remove(t, pod.Sandbox) })
	container := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "web"}, Image: &cri.ImageSpec{Image: Image}, Labels: labels, LogPath: "web.log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
	}
	if change != nil {
		change(container)
	}
	c, err := r.CRI.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: pod.Sandbox, Config: container, SandboxConfig: sandbox})
	if err != nil {
		t.Fatalf("make the container of pod %s: %v", podName, err)
	}
	pod.Container = c.GetContainerId()
	if _, err := r.CRI.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: pod.Container}); err != nil {
		t.Fatalf("start the container of pod %s: %v", podName, err)
	}
	return pod
}

// RemovePod ends a pod before the test does.
func (r *Runtime) RemovePod(t *testing.T, pod Pod) {
	t.Helper()
	r.remove(t, pod.Sandbox)
}

// remove ends a pod and all that it runs; one that is gone is no mistake.
func (r *Runtime) remove(t *testing.T, sandbox string) {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	// A container that ends by itself meanwhile may be in the way.
	for try := 0; ; try++ {
		_, err := r.CRI.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox})
		if err == nil || status.Code(err) == codes.NotFound {
			break
		}
		if try == 10 {
			t.Errorf("stop the pod: %v", err)
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if _, err := r.CRI.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil && status.Code(err) != codes.NotFound {
		t.Errorf("remove the pod: %v", err)
	}
}

// PID returns the number of a container's first process.
func (r *Runtime) PID(t *testing.T, container string) int {
	t.Helper()
	out, err := exec.Command("ctr", "--address", r.Socket, "--namespace", "k8s.io", "tasks", "ls").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		var id, pid string
		if n, _ := fmt.Sscan(line, &id, &pid); n == 2 && id == container {
			var number int
			if _, err := fmt.Sscan(pid, &number); err == nil {
				return number
			}
		}
	}
	t.Fatalf("container %s has no process:\n%s", container, out)
	return 0
}
