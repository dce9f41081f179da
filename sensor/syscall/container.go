package syscall

// HostID is the id of the container of processes that are in none.
const HostID = "host"

// A Container is what is known of the container of a process. It is immutable
// once it is published by an event.
type Container struct {
	ID      string  `json:"id"`               // in full; [HostID] outside containers
	Started Instant `json:"started,omitzero"` // start of its first process
	Known   bool    `json:"known"`            // the runtime has told the rest; until then all that is empty is missing
	Details
}

// Details are what the runtime says of a container. A text that it does not say
// is empty.
type Details struct {
	Name        string            `json:"name,omitzero"`
	Type        string            `json:"type,omitzero"` // runtime: containerd, cri-o, docker …
	ImageID     string            `json:"image_id,omitzero"`
	Repository  string            `json:"repository,omitzero"` // image without tag and digest
	Tag         string            `json:"tag,omitzero"`
	Digest      string            `json:"digest,omitzero"` // sha256:…
	Privileged  bool              `json:"privileged,omitzero"`
	HostPID     bool              `json:"host_pid,omitzero"`
	HostNetwork bool              `json:"host_network,omitzero"`
	HostIPC     bool              `json:"host_ipc,omitzero"`
	IP          string            `json:"ip,omitzero"`  // IPv4 address
	CNI         string            `json:"cni,omitzero"` // result of the network plugin, JSON
	Labels      map[string]string `json:"labels,omitzero"`
	Mounts      []Mount           `json:"mounts,omitzero"`
	Pod         *Pod              `json:"pod,omitzero"` // nil outside pods
}

// A Mount is one mount of a container.
type Mount struct {
	Source      string `json:"source"`
	Dest        string `json:"dest"`
	Mode        string `json:"mode,omitzero"`
	Writable    bool   `json:"writable,omitzero"`
	Propagation string `json:"propagation,omitzero"`
}

// A Pod is the pod of a container.
type Pod struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	UID       string            `json:"uid,omitzero"`
	SandboxID string            `json:"sandbox_id,omitzero"` // in full
	IP        string            `json:"ip,omitzero"`
	CNI       string            `json:"cni,omitzero"` // result of the network plugin, JSON
	Labels    map[string]string `json:"labels,omitzero"`
}

// Host returns the container of processes that are in none.
func Host() *Container { return &Container{ID: HostID, Known: true} }

// OnHost reports whether it stands for the node itself.
func (c *Container) OnHost() bool { return c.ID == HostID }
