package enrichment

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// A pod is what matters of the pod, or of the template of pods, that a request
// sets. It may be read from both the request, which has what the client sent,
// and the response, which has what became of it.
type pod struct {
	specs []podSpec
}

type podSpec struct {
	HostPID             bool         `json:"hostPID"`
	HostIPC             bool         `json:"hostIPC"`
	HostNetwork         bool         `json:"hostNetwork"`
	NodeName            string       `json:"nodeName"`
	Containers          []container  `json:"containers"`
	InitContainers      []container  `json:"initContainers"`
	EphemeralContainers []container  `json:"ephemeralContainers"`
	Tolerations         []toleration `json:"tolerations"`
}

type container struct {
	Image           string `json:"image"`
	SecurityContext struct {
		Capabilities struct {
			Add []string `json:"add"`
		} `json:"capabilities"`
	} `json:"securityContext"`
}

type toleration struct {
	Key      string `json:"key"`
	Operator string `json:"operator"`
}

// An object is anything that holds a pod.
type object struct {
	Spec struct {
		podSpec
		Template    *template `json:"template"`
		JobTemplate *struct {
			Spec struct {
				Template *template `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

type template struct {
	Spec *podSpec `json:"spec"`
}

// pod returns what the object says of pods, or nil.
func (o *object) pod(resource string) *podSpec {
	t := o.Spec.Template
	if o.Spec.JobTemplate != nil {
		t = o.Spec.JobTemplate.Spec.Template
	}
	switch {
	case resource == "pods":
		return &o.Spec.podSpec
	case t != nil:
		return t.Spec
	}
	return nil
}

// isWorkload reports whether pods are made of the template of such an object.
func isWorkload(resource string) bool {
	switch resource {
	case "deployments", "daemonsets", "statefulsets", "replicasets", "replicationcontrollers", "jobs", "cronjobs":
		return true
	}
	return false
}

// pod returns the pod that the request sets, or nil.
func (r *record) pod() *pod {
	if !r.podRead {
		r.podRead, r.podMade = true, r.readPod()
	}
	return r.podMade
}

func (r *record) readPod() *pod {
	refs := &r.enricher.refs
	resource, subresource, verb := r.text(refs.resource), r.text(refs.subresource), r.text(refs.verb)
	debug := resource == "pods" && subresource == "ephemeralcontainers"
	creation := verb == "create" || verb == "patch" && r.text(refs.code) == "201"
	switch {
	case resource == "pods" && subresource == "" && creation:
	case debug && (verb == "update" || verb == "patch"):
	case isWorkload(resource) && subresource == "" && (creation || verb == "update" || verb == "patch"):
	default:
		return nil
	}
	request, response := []byte(r.text(refs.request)), []byte(r.text(refs.response))
	p := &pod{}
	said := p.add(resource, debug, request)
	if bytes.HasPrefix(request, []byte("[")) {
		said = !isWorkload(resource) || bytes.Contains(bytes.ToLower(request), []byte("template"))
		if debug {
			said = bytes.Contains(request, []byte("ephemeralContainers"))
		}
	}
	if said || verb != "patch" {
		p.add(resource, debug, response)
	}
	return p
}

// add takes in what an object says. A patch about something else says nothing,
// and then the response has only what somebody else wrote.
func (p *pod) add(resource string, debug bool, data []byte) bool {
	var o object
	if len(data) == 0 || json.Unmarshal(data, &o) != nil {
		return false
	}
	spec := o.pod(resource)
	if spec == nil {
		return false
	}
	if debug {
		// The rest of the pod was there before.
		spec = &podSpec{EphemeralContainers: spec.EphemeralContainers}
	}
	p.specs = append(p.specs, *spec)
	return true
}

// containers are those of all kinds.
func (p *pod) containers() []container {
	var all []container
	for _, s := range p.specs {
		all = slices.Concat(all, s.Containers, s.InitContainers, s.EphemeralContainers)
	}
	return all
}

func (p *pod) images() []string {
	var images []string
	for _, c := range p.containers() {
		if c.Image != "" {
			images = append(images, c.Image)
		}
	}
	return images
}

func (p *pod) registries() []string {
	registries := p.images()
	for i, image := range registries {
		host, _, ok := strings.Cut(image, "/")
		if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
			host = "docker.io"
		}
		registries[i] = host
	}
	return registries
}

func (p *pod) unversioned() []string {
	return slices.DeleteFunc(p.images(), func(image string) bool {
		name := image[strings.LastIndexByte(image, '/')+1:]
		_, tag, _ := strings.Cut(name, ":")
		return strings.Contains(name, "@") || tag != "" && tag != "latest"
	})
}

func (p *pod) capabilities() []string {
	var all []string
	for _, c := range p.containers() {
		for _, name := range c.SecurityContext.Capabilities.Add {
			all = append(all, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		}
	}
	return all
}

func (p *pod) hostNamespaces() []string {
	var all []string
	for _, s := range p.specs {
		for name, joined := range map[string]bool{"pid": s.HostPID, "ipc": s.HostIPC, "network": s.HostNetwork} {
			if joined {
				all = append(all, name)
			}
		}
	}
	return all
}

// ofPod lists what get finds in the pod, sorted and each once.
func ofPod(get func(*pod) []string) extractor {
	return func(r *record) event.Value {
		p := r.pod()
		if p == nil {
			return event.Value{}
		}
		items := get(p)
		slices.Sort(items)
		return event.List(slices.Compact(items))
	}
}

// podNode looks at what the client asked for: the scheduler's choice is in later
// responses.
func podNode(r *record) event.Value {
	if p := r.pod(); p != nil {
		for _, s := range p.specs {
			if s.NodeName != "" {
				return event.Text(s.NodeName)
			}
		}
	}
	return event.Value{}
}

func podToleratesAll(r *record) event.Value {
	if p := r.pod(); p != nil {
		for _, s := range p.specs {
			if slices.Contains(s.Tolerations, toleration{Operator: "Exists"}) {
				return event.Text("true")
			}
		}
	}
	return event.Value{}
}
