package container

import "strings"

// The names of runtimes, as rules see them in container.type.
const (
	Containerd = "containerd"
	CRIO       = "cri-o"
	Docker     = "docker"
	Podman     = "podman"
)

// An ID is what the path of a control group says of the container that the
// group is of. The zero ID is the host.
type ID struct {
	Full    string // 64 hexadecimal digits
	Runtime string // by the way the path is named; the runtime itself knows better
	PodUID  string // of the pod, empty outside Kubernetes
}

// Host reports whether a process with this identity runs outside containers.
func (id ID) Host() bool { return id.Full == "" }

// Short returns the first 12 characters of the id, or host.
func (id ID) Short() string {
	if id.Host() {
		return "host"
	}
	return id.Full[:shortDigits]
}

const (
	shortDigits = 12
	idDigits    = 64
	maxPath     = 4096    // bytes of a path that are looked at, as many as Linux allows
	maxGroups   = 1 << 16 // bytes of /proc/PID/cgroup that are looked at
)

// namings are the prefixes that runtimes put before the id of a container in
// the name of its group. That of a monitor beside the container, as in
// crio-conmon-ID, has no id after the prefix.
var namings = []struct{ prefix, runtime string }{
	{"cri-containerd-", Containerd},
	{"nerdctl-", Containerd},
	{"crio-", CRIO},
	{"docker-", Docker},
	{"libpod-payload-", Podman},
	{"libpod-", Podman},
}

// ParsePath returns the identity that the path of a control group shows, of
// whichever version, driver and runtime. Of containers within containers it is
// the innermost. A path of the host gives the zero ID.
func ParsePath(path string) ID {
	id, _ := parsePath(path)
	return id
}

// parsePath returns the depth at which the id stands too.
func parsePath(path string) (ID, int) {
	path = path[:min(len(path), maxPath)]
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		full, runtime := parseName(parts[i])
		if full == "" {
			continue
		}
		if runtime == "" {
			runtime = plainRuntime(parts[:i])
		}
		return ID{Full: full, Runtime: runtime, PodUID: podUID(parts[:i+1])}, i
	}
	return ID{}, 0
}

// parseName returns the id in the name of one group. The runtime is empty if
// the name is the bare id.
func parseName(name string) (full, runtime string) {
	name = strings.TrimSuffix(name, ".scope")
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		// A systemd triple that a runtime without systemd took for a name:
		// kubepods-pod1.slice:cri-containerd:ID.
		slice, prefix, ok := cutLast(name[:i], ':')
		if !ok || slice == "" {
			return "", ""
		}
		name = prefix + "-" + name[i+1:]
	}
	if isID(name) {
		return name, ""
	}
	for _, n := range namings {
		if id, ok := strings.CutPrefix(name, n.prefix); ok && isID(id) {
			return id, n.runtime
		}
	}
	return "", ""
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// plainRuntime returns the runtime that names groups by the bare id below these
// parents.
func plainRuntime(parents []string) string {
	if len(parents) > 0 && parents[len(parents)-1] == "docker" {
		return Docker
	}
	return Containerd
}

func isID(s string) bool {
	if len(s) != idDigits {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// podUID returns the uid of the pod whose group is among these, or is named in
// a systemd triple: pod1 or kubepods-burstable-pod1.slice. Systemd has its own
// use for hyphens, so the kubelet writes those of a uid as underscores.
func podUID(parts []string) string {
	for i := len(parts) - 1; i >= 0; i-- {
		name, _, _ := strings.Cut(parts[i], ":")
		uid, ok := strings.CutPrefix(name, "pod")
		if slice, isSlice := strings.CutSuffix(name, ".slice"); isSlice {
			at := strings.LastIndex(slice, "-pod")
			if at < 0 || !strings.Contains(slice, "kubepods") {
				continue
			}
			uid, ok = strings.ReplaceAll(slice[at+len("-pod"):], "_", "-"), true
		}
		if ok && isUID(uid) {
			return uid
		}
	}
	return ""
}

// isUID reports whether s has the form of a pod's uid: a UUID, or the digest
// that static pods have in its place.
func isUID(s string) bool {
	switch len(s) {
	case 36:
		for i, c := range []byte(s) {
			if hyphen := i == 8 || i == 13 || i == 18 || i == 23; hyphen != (c == '-') || !hyphen && !isHex(c) {
				return false
			}
		}
		return true
	case 32:
		return strings.IndexFunc(s, func(r rune) bool { return r > 'f' || !isHex(byte(r)) }) < 0
	}
	return false
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// ParseGroups returns the identity that /proc/PID/cgroup shows: one line for
// each hierarchy, as 4:memory:/path, with that of version 2 as 0::/path. Where
// hierarchies differ, as on hosts with both versions or with containers in
// containers, the one that is nested deepest counts.
func ParseGroups(groups string) ID {
	best, depth := ID{}, -1
	for line := range strings.Lines(groups[:min(len(groups), maxGroups)]) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			continue
		}
		_, path, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		path = strings.TrimSuffix(path, " (deleted)") // of a group that ended before its process
		if id, at := parsePath(path); !id.Host() && at > depth {
			best, depth = id, at
		}
	}
	return best
}
