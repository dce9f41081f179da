package container

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A talker is a runtime that tells of changes, as CRI-O and newer containerds
// do, and lists nothing by itself.
type talker struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
	events chan *cri.ContainerEventResponse

	mu      sync.Mutex
	running map[string]string // names of containers by id
}

func (s *talker) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "cri-o"}, nil
}

func (s *talker) GetContainerEvents(_ *cri.GetEventsRequest, out grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	for {
		select {
		case <-out.Context().Done():
			return nil
		case e, open := <-s.events:
			if !open {
				return errors.New("the stream ends")
			}
			if err := out.Send(e); err != nil {
				return err
			}
		}
	}
}

func (s *talker) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &cri.ListContainersResponse{}
	for id := range s.running {
		if r.GetFilter().GetId() == id {
			out.Containers = append(out.Containers, &cri.Container{Id: id, PodSandboxId: idB})
		}
	}
	return out, nil
}

func (s *talker) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{}, nil
}

func (s *talker) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cri.ContainerStatusResponse{Status: &cri.ContainerStatus{Metadata: &cri.ContainerMetadata{Name: s.running[r.GetContainerId()]}}}, nil
}

func (s *talker) PodSandboxStatus(context.Context, *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	return &cri.PodSandboxStatusResponse{Status: &cri.PodSandboxStatus{Id: idB}}, nil
}

func (s *talker) ImageStatus(context.Context, *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	return &cri.ImageStatusResponse{}, nil
}

func (s *talker) tell(id, name string, what cri.ContainerEventType) {
	s.mu.Lock()
	s.running[id] = name
	s.mu.Unlock()
	s.events <- &cri.ContainerEventResponse{ContainerId: id, ContainerEventType: what}
}

// listen serves on a socket and returns a client that never lists by itself
// after the first time.
func (s *talker) listen(t *testing.T) *Runtime {
	t.Helper()
	socket := t.TempDir() + "/cri.sock"
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, s)
	cri.RegisterImageServiceServer(server, s)
	go server.Serve(ln)
	t.Cleanup(server.Stop)
	r, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	r.pace.list, r.pace.relist = time.Hour, time.Hour
	return r
}

func run(t *testing.T, r *Runtime) {
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
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// nameOf returns what is known already, without asking.
func nameOf(r *Runtime, id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.known[id]; e != nil && e.details != nil {
		return e.details.Name
	}
	return ""
}

// TestEvents: a container is known before anything asks for it, told of again
// when it changes, and kept a while after it was deleted.
func TestEvents(t *testing.T) {
	s := &talker{events: make(chan *cri.ContainerEventResponse), running: map[string]string{}}
	r := s.listen(t)
	run(t, r)
	s.tell(idA, "web", cri.ContainerEventType_CONTAINER_CREATED_EVENT)
	until(t, "created", func() bool { return nameOf(r, idA) == "web" })
	if stats, err := r.Stats(); err != nil || !stats.Events || stats.Late != 0 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	s.tell(idA, "web2", cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	until(t, "started", func() bool { return nameOf(r, idA) == "web2" })
	s.tell(idA, "web3", cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
	s.tell(idA, "web4", cri.ContainerEventType_CONTAINER_DELETED_EVENT)
	s.tell("no id", "", cri.ContainerEventType_CONTAINER_CREATED_EVENT)
	s.tell(idB, "next", cri.ContainerEventType_CONTAINER_CREATED_EVENT)
	until(t, "next", func() bool { return nameOf(r, idB) == "next" })
	if name := nameOf(r, idA); name != "web2" {
		t.Errorf("after the end: %q", name)
	}
	r.pace.keep = 0
	r.reconcile(map[string]bool{idB: true})
	if name := nameOf(r, idA); name != "" {
		t.Errorf("kept for ever: %q", name)
	}
	close(s.events)
	until(t, "end of the stream", func() bool { stats, _ := r.Stats(); return !stats.Events })
}

// TestManyContainers holds the table to its bound, and counts what is beyond.
func TestManyContainers(t *testing.T) {
	r, err := Dial("/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	listed := map[string]bool{}
	for i := range maxContainers + 10 {
		id := []byte(idA)
		for at := range 4 {
			id[at] = "0123456789abcdef"[i>>(4*at)&15]
		}
		listed[string(id)] = true
	}
	r.reconcile(listed)
	stats, _ := r.Stats()
	// Each of those that are too many was refused, each that waits for nobody
	// to ask was counted.
	if want := uint64(10 + maxContainers - maxAsks); stats.Containers > maxContainers || stats.Overflow < want {
		t.Errorf("stats %+v, want an overflow of %d", stats, want)
	}
	r.pace.keep = 0
	for id, e := range r.known {
		e.pending = false
		_ = id
	}
	r.reconcile(nil)
	r.reconcile(nil)
	if stats, _ := r.Stats(); stats.Containers != 0 {
		t.Errorf("%d containers after all have ended", stats.Containers)
	}
}
