package syscall

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// shortID returns the first 12 characters of an id.
func shortID(id string) string { return id[:min(len(id), 12)] }

// containerFields are those of the container. Until the runtime has told about
// it, only its id and start are known, and what was written down of it before it
// started. On the node itself texts are empty, and all else is missing.
func containerFields() map[string]extractor {
	of := func(get func(*Container) event.Value) extractor {
		return func(e *Event, _ event.Ref) event.Value {
			if e.Container == nil {
				return event.Value{}
			}
			return get(e.Container)
		}
	}
	text := func(get func(*Container) string) extractor {
		return of(func(c *Container) event.Value {
			s := get(c)
			if !c.Known && !c.OnHost() && (c.Name == "" || s == "") {
				return event.Value{}
			}
			return event.Text(s)
		})
	}
	flag := func(is func(*Container) bool) extractor {
		return of(func(c *Container) event.Value {
			if !c.Known || c.OnHost() {
				return event.Value{}
			}
			return event.Bool(is(c))
		})
	}
	return map[string]extractor{
		"container.id":       of(func(c *Container) event.Value { return known(shortID(c.ID)) }),
		"container.start_ts": of(func(c *Container) event.Value { return stamp(c.Started) }),
		"container.duration": containerAge,

		"container.full_id":          text((*Container).fullID),
		"container.name":             text((*Container).name),
		"container.type":             text(func(c *Container) string { return c.Type }),
		"container.image":            text((*Container).image),
		"container.image.id":         text(func(c *Container) string { return c.ImageID }),
		"container.image.repository": text(func(c *Container) string { return c.Repository }),
		"container.image.tag":        text(func(c *Container) string { return c.Tag }),
		"container.image.digest":     text(func(c *Container) string { return c.Digest }),
		"container.ip":               text(func(c *Container) string { return c.IP }),
		"container.cni.json":         text(func(c *Container) string { return c.CNI }),
		"container.labels":           text(func(c *Container) string { return labels(c.Labels) }),
		"container.mounts":           text((*Container).mounts),
		"container.label":            containerLabel,

		"container.privileged":   flag(func(c *Container) bool { return c.Privileged }),
		"container.host_pid":     flag(func(c *Container) bool { return c.HostPID }),
		"container.host_network": flag(func(c *Container) bool { return c.HostNetwork }),
		"container.host_ipc":     flag(func(c *Container) bool { return c.HostIPC }),

		"container.mount":             mount(bySource, (*Mount).String),
		"container.mount.dest":        mount(bySource, func(m *Mount) string { return m.Dest }),
		"container.mount.source":      mount(byDest, func(m *Mount) string { return m.Source }),
		"container.mount.mode":        mount(bySource, func(m *Mount) string { return m.Mode }),
		"container.mount.rdwr":        mount(bySource, func(m *Mount) string { return strconv.FormatBool(m.Writable) }),
		"container.mount.propagation": mount(bySource, func(m *Mount) string { return m.Propagation }),
	}
}

func containerAge(e *Event, _ event.Ref) event.Value {
	if e.Container == nil {
		return event.Value{}
	}
	return elapsed(e.Container.Started, e.Time)
}

func (c *Container) fullID() string {
	if c.OnHost() {
		return ""
	}
	return c.ID
}

func (c *Container) name() string {
	if c.OnHost() {
		return HostID
	}
	return c.Name
}

// image returns the image with its tag, or with its digest if it has no tag.
func (c *Container) image() string {
	switch {
	case c.Repository == "":
		return ""
	case c.Tag != "":
		return c.Repository + ":" + c.Tag
	case c.Digest != "":
		return c.Repository + "@" + c.Digest
	}
	return c.Repository
}

// String returns the mount as container.mounts has it.
func (m *Mount) String() string {
	return strings.Join([]string{m.Source, m.Dest, m.Mode, strconv.FormatBool(m.Writable), m.Propagation}, ":")
}

func (c *Container) mounts() string {
	words := make([]string, len(c.Mounts))
	for i := range c.Mounts {
		words[i] = c.Mounts[i].String()
	}
	return strings.Join(words, ",")
}

func bySource(m *Mount) string { return m.Source }
func byDest(m *Mount) string   { return m.Dest }

// mount returns what a mount says: the one at a position, or the first one of
// which a path equals the argument or fits it as a pattern.
func mount(by, get func(*Mount) string) extractor {
	return func(e *Event, ref event.Ref) event.Value {
		if e.Container == nil || ref.Key == "" {
			return event.Value{}
		}
		mounts := e.Container.Mounts
		i, ok := position(ref.Key)
		if !ok {
			i = slices.IndexFunc(mounts, func(m Mount) bool { return glob(ref.Key, by(&m)) })
		}
		if i < 0 || i >= len(mounts) {
			return event.Value{}
		}
		return event.Text(get(&mounts[i]))
	}
}

// position returns the number that an argument is.
func position(key string) (n int, ok bool) {
	for _, c := range []byte(key) {
		if c < '0' || c > '9' || n > 1<<16 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, key != ""
}

// glob reports whether a text fits a pattern, in which * stands for any text,
// also one with slashes, and ? for any byte.
func glob(pattern, s string) bool {
	star, back := -1, 0
	p := 0
	for i := 0; i < len(s); {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, back = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			back++
			p, i = star+1, back
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// labels returns labels by their names, as name:value, joined by commas.
func labels(all map[string]string) string {
	words := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		words = append(words, name+":"+all[name])
	}
	return strings.Join(words, ", ")
}

func label(all map[string]string, name string) event.Value {
	v, ok := all[name]
	if !ok {
		return event.Value{}
	}
	return event.Text(v)
}

func containerLabel(e *Event, ref event.Ref) event.Value {
	if e.Container == nil {
		return event.Value{}
	}
	return label(e.Container.Labels, ref.Key)
}

// podFields are those of the pod of the container.
func podFields() map[string]extractor {
	of := func(get func(*Pod) string) extractor {
		return func(e *Event, _ event.Ref) event.Value {
			if e.Container == nil || e.Container.Pod == nil {
				return event.Value{}
			}
			return event.Text(get(e.Container.Pod))
		}
	}
	return map[string]extractor{
		"k8s.ns.name":             of(func(p *Pod) string { return p.Namespace }),
		"k8s.pod.name":            of(func(p *Pod) string { return p.Name }),
		"k8s.pod.uid":             of(func(p *Pod) string { return p.UID }),
		"k8s.pod.id":              of(func(p *Pod) string { return p.UID }),
		"k8s.pod.full_sandbox_id": of(func(p *Pod) string { return p.SandboxID }),
		"k8s.pod.sandbox_id":      of(func(p *Pod) string { return shortID(p.SandboxID) }),
		"k8s.pod.ip":              of(func(p *Pod) string { return p.IP }),
		"k8s.pod.cni.json":        of(func(p *Pod) string { return p.CNI }),
		"k8s.pod.labels":          of(func(p *Pod) string { return labels(p.Labels) }),
		"k8s.pod.label": func(e *Event, ref event.Ref) event.Value {
			if e.Container == nil || e.Container.Pod == nil {
				return event.Value{}
			}
			return label(e.Container.Pod.Labels, ref.Key)
		},
	}
}
