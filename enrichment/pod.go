package enrichment

import (
	"encoding/json"
	"slices"
	"strconv"
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
	hostPID, hostIPC, hostNetwork bool
	node                          string
	containers                    []container // of all kinds
	tolerations                   []toleration
}

type container struct {
	image        string
	capabilities []string // that are added
}

type toleration struct {
	Key      string `json:"key"`
	Operator string `json:"operator"`
}

// specPath is where an object of a resource has the spec of its pods.
func specPath(resource string) []string {
	switch resource {
	case "pods":
		return []string{"spec"}
	case "cronjobs":
		return []string{"spec", "jobTemplate", "spec", "template", "spec"}
	}
	return []string{"spec", "template", "spec"}
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
	path, p := specPath(resource), &pod{}
	p.add(r, refs.request, path, debug)
	if verb != "patch" || r.patchesPod(resource, path, debug) {
		p.add(r, refs.response, path, debug)
	}
	return p
}

// patchesPod reports whether a patch is about the pod: after one about something
// else the response has only what somebody else wrote.
func (r *record) patchesPod(resource string, path []string, debug bool) bool {
	request := r.text(r.enricher.refs.request)
	switch object := strings.HasPrefix(request, "{"); {
	case debug && !object:
		return strings.Contains(request, "ephemeralContainers")
	case !isWorkload(resource):
		return true
	case object:
		return !r.below(r.enricher.refs.request, path).Missing()
	}
	return strings.Contains(strings.ToLower(request), "template")
}

// add takes in what a body says of pods. While one is debugged, the rest of it
// was there before.
func (p *pod) add(r *record, body event.Ref, path []string, debug bool) {
	at := func(more ...string) string { return r.below(body, path, more...).Text }
	var spec podSpec
	kinds := []string{"ephemeralContainers"}
	if !debug {
		kinds = []string{"containers", "initContainers", "ephemeralContainers"}
		spec.hostPID, spec.hostIPC, spec.hostNetwork = at("hostPID") == "true", at("hostIPC") == "true", at("hostNetwork") == "true"
		spec.node = at("nodeName")
		decode(at("tolerations"), &spec.tolerations)
	}
	for _, kind := range kinds {
		for i := 0; ; i++ {
			n := strconv.Itoa(i)
			c := container{image: at(kind, n, "image")}
			if c.image == "" && at(kind, n) == "" {
				break
			}
			decode(at(kind, n, "securityContext", "capabilities", "add"), &c.capabilities)
			spec.containers = append(spec.containers, c)
		}
	}
	p.specs = append(p.specs, spec)
}

// decode reads a small part of a body. The API server refuses one that is not
// what it should be, so that nothing is lost with it.
func decode(text string, to any) {
	if text != "" {
		_ = json.Unmarshal([]byte(text), to)
	}
}

// containers are those of all kinds.
func (p *pod) containers() []container {
	var all []container
	for _, s := range p.specs {
		all = append(all, s.containers...)
	}
	return all
}

func (p *pod) images() []string {
	var images []string
	for _, c := range p.containers() {
		if c.image != "" {
			images = append(images, c.image)
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
		for _, name := range c.capabilities {
			all = append(all, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		}
	}
	return all
}

func (p *pod) hostNamespaces() []string {
	var all []string
	for _, s := range p.specs {
		for name, joined := range map[string]bool{"pid": s.hostPID, "ipc": s.hostIPC, "network": s.hostNetwork} {
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
			if s.node != "" {
				return event.Text(s.node)
			}
		}
	}
	return event.Value{}
}

func podToleratesAll(r *record) event.Value {
	if p := r.pod(); p != nil {
		for _, s := range p.specs {
			if slices.Contains(s.tolerations, toleration{Operator: "Exists"}) {
				return event.Text("true")
			}
		}
	}
	return event.Value{}
}
