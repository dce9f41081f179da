package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubeguardian/kubeguardian/sensor/syscall"
)

// sockets are where runtimes listen for the kubelet, most common first.
var sockets = [...]string{
	"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock",
	"/run/cri-dockerd.sock", "/var/run/containerd/containerd.sock", "/var/run/crio/crio.sock",
}

// ErrNoRuntime is the error of [Find] on a host without a container runtime.
var ErrNoRuntime = errors.New("no socket of a container runtime")

// Find returns the socket of a runtime at one of the usual places below root.
func Find(root string) (string, error) {
	for _, name := range sockets {
		if info, err := os.Stat(root + name); err == nil && info.Mode()&os.ModeSocket != 0 {
			return root + name, nil
		}
	}
	return "", ErrNoRuntime
}

// A Runtime knows the containers of a runtime on the same host, by its CRI
// socket. It asks for what it does not know yet in the background, so nothing
// waits for it. It is safe for concurrent use.
type Runtime struct {
	conn    *grpc.ClientConn
	bundles func(id string) []string // files that it may start a container from
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	pace    pace
	asks    chan ask

	mu    sync.Mutex
	name  string // of the runtime, empty until it has answered
	known map[string]*entry
	stats Stats
	err   error // of the last call, nil if it went well
}

// An entry is what is known of one container.
type entry struct {
	details *syscall.Details // nil as long as it is not known
	pending bool             // it is being asked for
	tried   time.Time        // when that ended without an answer
	gone    time.Time        // since when the runtime does not list it
}

// An ask is a container to ask for, and how often that was tried.
type ask struct {
	id    string
	tries int
}

// A pace says how often a [Runtime] asks.
type pace struct {
	list    time.Duration   // containers, when events do not tell of changes
	relist  time.Duration   // containers, when they do
	retry   []time.Duration // before a container is asked for again that the runtime does not know yet
	again   time.Duration   // before that starts anew
	keep    time.Duration   // what is known of a container that is not listed any more
	timeout time.Duration   // of a call
}

var defaultPace = pace{
	list: 5 * time.Second, relist: time.Minute,
	retry: []time.Duration{10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second},
	again: 10 * time.Second, keep: time.Minute, timeout: 2 * time.Second,
}

const (
	maxContainers = 4096     // of which something is known
	maxAsks       = 1024     // that wait
	maxAnswer     = 16 << 20 // bytes of one answer
	askers        = 2
)

// Stats count what a [Runtime] has done.
type Stats struct {
	Containers int    // that are known now
	Failed     uint64 // calls that failed
	Late       uint64 // lookups of a container that was not known yet
	Overflow   uint64 // lookups that could not be noted, as there were too many
	Events     bool   // the runtime tells of changes, it is not only polled
}

// Dial returns the runtime behind a socket. It need not listen yet, or may go
// away for a while: [Runtime.Run] keeps trying.
func Dial(socket string) (*Runtime, error) {
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return &Runtime{
		conn: conn, bundles: bundlesOf(socket), runtime: cri.NewRuntimeServiceClient(conn), images: cri.NewImageServiceClient(conn),
		pace: defaultPace, asks: make(chan ask, maxAsks), known: map[string]*entry{},
	}, nil
}

// Close ends the connection. Details that were looked up stay valid.
func (r *Runtime) Close() error { return r.conn.Close() }

// Run keeps what is known up to date until ctx ends.
func (r *Runtime) Run(ctx context.Context) {
	var running sync.WaitGroup
	for range askers {
		running.Go(func() { r.answer(ctx) })
	}
	running.Go(func() { r.follow(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			running.Wait()
			return
		case <-timer.C:
			r.list(ctx)
			timer.Reset(r.interval())
		}
	}
}

func (r *Runtime) interval() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stats.Events && r.err == nil {
		return r.pace.relist
	}
	return r.pace.list
}

// Name returns the name of the runtime, empty as long as it has not answered.
func (r *Runtime) Name() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// Stats returns the counts so far, and the error of the last call, nil if it
// went well.
func (r *Runtime) Stats() (Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats := r.stats
	stats.Containers = len(r.known)
	return stats, r.err
}

// Lookup returns what is known of a container. As long as that is nothing it
// returns nil and has the runtime asked, so that a later lookup may know.
func (r *Runtime) Lookup(id string) *syscall.Details {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[id]
	if e != nil && e.details != nil {
		return e.details
	}
	r.stats.Late++
	if e == nil {
		if e = r.add(id); e == nil {
			return nil
		}
	}
	if !e.pending && time.Since(e.tried) > r.pace.again {
		r.ask(e, id)
	}
	return nil
}

// add notes a container, nil if there are too many.
func (r *Runtime) add(id string) *entry {
	if len(r.known) >= maxContainers && !r.dropGone() {
		r.stats.Overflow++
		return nil
	}
	e := &entry{}
	r.known[id] = e
	return e
}

// dropGone makes room: containers that are not listed any more, and those that
// the runtime does not know, are forgotten.
func (r *Runtime) dropGone() bool {
	for id, e := range r.known {
		if !e.gone.IsZero() || e.details == nil && !e.pending {
			delete(r.known, id)
		}
	}
	return len(r.known) < maxContainers
}

// ask has the runtime asked for a container. With too many that wait, this one
// is asked for when it is looked up again.
func (r *Runtime) ask(e *entry, id string) {
	select {
	case r.asks <- ask{id: id}:
		e.pending = true
	default:
		r.stats.Overflow++
	}
}

// answer asks the runtime for containers, one after the other.
func (r *Runtime) answer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-r.asks:
			details, err := r.describe(ctx, a.id)
			if err == nil || !r.retry(ctx, a) {
				r.settle(a.id, details)
			}
		}
	}
}

// retry has a container asked for again after a while: a runtime knows a
// container by its id a moment after its control group is there.
func (r *Runtime) retry(ctx context.Context, a ask) bool {
	if a.tries >= len(r.pace.retry) || ctx.Err() != nil {
		return false
	}
	time.AfterFunc(r.pace.retry[a.tries], func() {
		select {
		case r.asks <- ask{a.id, a.tries + 1}:
		default:
			r.settle(a.id, nil)
		}
	})
	return true
}

// settle keeps the answer, or that there is none.
func (r *Runtime) settle(id string, details *syscall.Details) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[id]
	if e == nil {
		return
	}
	e.pending, e.tried = false, time.Now()
	if details != nil {
		e.details = details
	}
}

// describe asks for a container, or for a sandbox, which runtimes do not list
// as a container although it is one to the kernel.
func (r *Runtime) describe(ctx context.Context, id string) (*syscall.Details, error) {
	name, err := r.version(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.pace.timeout)
	defer cancel()
	c, err := r.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if r.failed(err) {
		return nil, err
	}
	if err != nil || c.GetStatus() == nil {
		sandbox, err := r.sandbox(ctx, id)
		if err != nil {
			return nil, err
		}
		return sandboxDetails(name, sandbox), nil
	}
	sandboxID, err := r.sandboxOf(ctx, id)
	if err != nil {
		return nil, err
	}
	sandbox, err := r.sandbox(ctx, sandboxID)
	if err != nil {
		return nil, err
	}
	image, err := r.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: c.GetStatus().GetImageRef()}})
	if r.failed(err) {
		return nil, err
	}
	return containerDetails(name, c, sandbox, image.GetImage()), nil
}

// sandbox asks for a sandbox; one that the runtime does not know is an error.
func (r *Runtime) sandbox(ctx context.Context, id string) (*cri.PodSandboxStatusResponse, error) {
	sandbox, err := r.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	r.failed(err)
	if err == nil && sandbox.GetStatus() == nil {
		err = status.Error(codes.NotFound, "no status of the sandbox")
	}
	return sandbox, err
}

// sandboxOf returns the id of a container's sandbox, which its status lacks.
func (r *Runtime) sandboxOf(ctx context.Context, id string) (string, error) {
	list, err := r.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: id}})
	if r.failed(err) {
		return "", err
	}
	for _, c := range list.GetContainers() {
		if c.GetId() == id {
			return c.GetPodSandboxId(), nil
		}
	}
	return "", status.Error(codes.NotFound, "the container is not listed")
}

// failed notes whether the runtime answers. What it does not know is an answer.
func (r *Runtime) failed(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch code := status.Code(err); {
	case code == codes.OK || code == codes.NotFound:
		r.err = nil
		return false
	case errors.Is(err, context.Canceled) || code == codes.Canceled:
		return true
	default:
		r.err = fmt.Errorf("ask the container runtime: %w", err)
		r.stats.Failed++
		return true
	}
}

// version returns the name of the runtime, which it is asked for once.
func (r *Runtime) version(ctx context.Context) (string, error) {
	if name := r.Name(); name != "" {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.pace.timeout)
	defer cancel()
	v, err := r.runtime.Version(ctx, &cri.VersionRequest{})
	if r.failed(err) {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.name = v.GetRuntimeName()
	return r.name, nil
}

// list compares what is known with the runtime's own list: new containers are
// asked for, those that have ended are forgotten after a while, in which events
// of theirs may still be on their way.
func (r *Runtime) list(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.pace.timeout)
	defer cancel()
	containers, err := r.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	if r.failed(err) {
		return
	}
	sandboxes, err := r.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if r.failed(err) {
		return
	}
	listed := map[string]bool{}
	for _, c := range containers.GetContainers() {
		listed[c.GetId()] = c.GetState() != cri.ContainerState_CONTAINER_EXITED
	}
	for _, s := range sandboxes.GetItems() {
		listed[s.GetId()] = s.GetState() == cri.PodSandboxState_SANDBOX_READY
	}
	r.reconcile(listed)
}

func (r *Runtime) reconcile(listed map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, runs := range listed {
		e := r.known[id]
		if e == nil && runs && isID(id) {
			e = r.add(id)
		}
		if e != nil && e.details == nil && !e.pending {
			r.ask(e, id)
		}
	}
	now := time.Now()
	for id, e := range r.known {
		switch {
		case listed[id] || e.pending:
			e.gone = time.Time{}
		case e.gone.IsZero():
			e.gone = now
		case now.Sub(e.gone) > r.pace.keep:
			delete(r.known, id)
		}
	}
}

// follow has the runtime tell of changes, where it can.
func (r *Runtime) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.stream(ctx)
		r.setEvents(false)
		if status.Code(err) == codes.Unimplemented {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.pace.list):
		}
	}
}

func (r *Runtime) setEvents(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Events = on
}

func (r *Runtime) stream(ctx context.Context) error {
	events, err := r.runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		e, err := events.Recv()
		if err != nil {
			return err
		}
		r.setEvents(true)
		r.changed(e.GetContainerId(), e.GetContainerEventType())
	}
}

// changed has a container asked for again when it was made or started, and
// begins to forget it when it was deleted.
func (r *Runtime) changed(id string, what cri.ContainerEventType) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[id]
	if what == cri.ContainerEventType_CONTAINER_DELETED_EVENT {
		if e != nil && e.gone.IsZero() {
			e.gone = time.Now()
		}
		return
	}
	if what == cri.ContainerEventType_CONTAINER_STOPPED_EVENT || !isID(id) {
		return
	}
	if e == nil {
		if e = r.add(id); e == nil {
			return
		}
	}
	if !e.pending {
		r.ask(e, id)
	}
}
