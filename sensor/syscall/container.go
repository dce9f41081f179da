package syscall

// HostID is the id of the container of processes that are in none.
const HostID = "host"

// A Container is what is known of the container of a process. It is immutable
// once it is published by an event.
type Container struct {
	ID      string // in full; [HostID] outside containers
	Started int64  // start of its first process, in nanoseconds since 1970; 0 if not known
	Known   bool   // the runtime has told the rest; until then it is missing
	Details
}

// Details are what the runtime says of a container. A text that it does not say
// is empty.
type Details struct {
	Name        string
	Type        string // runtime: containerd, cri-o, docker …
	ImageID     string
	Repository  string // image without tag and digest
	Tag         string
	Digest      string // sha256:…
	Privileged  bool
	HostPID     bool
	HostNetwork bool
	HostIPC     bool
	IP          string // IPv4 address
	CNI         string // result of the network plugin, JSON
	Labels      map[string]string
	Mounts      []Mount
	Pod         *Pod // nil outside pods
}

// A Mount is one mount of a container.
type Mount struct {
	Source, Dest string
	Mode         string
	Writable     bool
	Propagation  string
}

// A Pod is the pod of a container.
type Pod struct {
	Name, Namespace, UID string
	SandboxID            string // in full
	IP                   string
	CNI                  string // result of the network plugin, JSON
	Labels               map[string]string
}

// Host returns the container of processes that are in none.
func Host() *Container { return &Container{ID: HostID, Known: true} }

// OnHost reports whether it stands for the node itself.
func (c *Container) OnHost() bool { return c.ID == HostID }
