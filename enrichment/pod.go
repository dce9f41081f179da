package enrichment

import (
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// A pod is what matters of the pod, or of the template of pods, that a request
// sets. It may be read from both the request, which has what the client sent,
// and the response, which has what became of it.
type pod struct {
	hostPID, hostIPC, hostNetwork bool
	node                          string // the first that is named
	toleratesAll                  bool
	images, capabilities          []string // of containers of all kinds; capabilities that are added
}

// empty returns a pod of nothing, with the memory of this one.
func (p *pod) empty() pod { return pod{images: p.images[:0], capabilities: p.capabilities[:0]} }

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
		r.podRead, r.hasPod = true, r.readPod()
	}
	if !r.hasPod {
		return nil
	}
	return &r.podMade
}

// readPod reads the pod, and reports whether there is one.
func (r *record) readPod() bool {
	refs := &r.enricher.refs
	resource, subresource, verb := r.resource, r.text(refs.subresource), r.verb
	debug := resource == "pods" && subresource == "ephemeralcontainers"
	creation := verb == "create" || verb == "patch" && r.text(refs.code) == "201"
	switch {
	case resource == "pods" && subresource == "" && creation:
	case debug && (verb == "update" || verb == "patch"):
	case isWorkload(resource) && subresource == "" && (creation || verb == "update" || verb == "patch"):
	default:
		return false
	}
	path := specPath(resource)
	r.addPod(refs.request, path, debug)
	if verb != "patch" || r.patchesPod(resource, path, debug) {
		r.addPod(refs.response, path, debug)
	}
	return true
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

// addPod takes in what a body says of pods. While one is debugged, the rest of it
// was there before.
func (r *record) addPod(body event.Ref, path []string, debug bool) {
	p, at := &r.podMade, func(more ...string) string { return r.below(body, path, more...).Text }
	if !debug {
		p.hostPID = p.hostPID || at("hostPID") == "true"
		p.hostIPC = p.hostIPC || at("hostIPC") == "true"
		p.hostNetwork = p.hostNetwork || at("hostNetwork") == "true"
		if p.node == "" {
			p.node = at("nodeName")
		}
		for i := 0; !p.toleratesAll; i++ {
			n := strconv.Itoa(i)
			if at("tolerations", n) == "" {
				break
			}
			p.toleratesAll = at("tolerations", n, "key") == "" && at("tolerations", n, "operator") == "Exists"
		}
		r.addContainers(body, path, "containers")
		r.addContainers(body, path, "initContainers")
	}
	r.addContainers(body, path, "ephemeralContainers")
}

func (r *record) addContainers(body event.Ref, path []string, kind string) {
	p, at := &r.podMade, func(more ...string) string { return r.below(body, path, more...).Text }
	for i := 0; ; i++ {
		n := strconv.Itoa(i)
		image := at(kind, n, "image")
		if image == "" && at(kind, n) == "" {
			return
		}
		if image != "" {
			p.images = append(p.images, image)
		}
		for j := 0; ; j++ {
			name := at(kind, n, "securityContext", "capabilities", "add", strconv.Itoa(j))
			if name == "" {
				break
			}
			p.capabilities = append(p.capabilities, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		}
	}
}

// registryOf returns the registry of an image.
func registryOf(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "docker.io"
	}
	return host
}

// versioned reports whether an image has a digest or a tag other than latest.
func versioned(image string) bool {
	name := image[strings.LastIndexByte(image, '/')+1:]
	_, tag, _ := strings.Cut(name, ":")
	return strings.Contains(name, "@") || tag != "" && tag != "latest"
}

func addImages(list []string, p *pod) []string       { return append(list, p.images...) }
func addCapabilities(list []string, p *pod) []string { return append(list, p.capabilities...) }

func addRegistries(list []string, p *pod) []string {
	for _, image := range p.images {
		list = append(list, registryOf(image))
	}
	return list
}

func addUnversioned(list []string, p *pod) []string {
	for _, image := range p.images {
		if !versioned(image) {
			list = append(list, image)
		}
	}
	return list
}

func addHostNamespaces(list []string, p *pod) []string {
	if p.hostIPC {
		list = append(list, "ipc")
	}
	if p.hostNetwork {
		list = append(list, "network")
	}
	if p.hostPID {
		list = append(list, "pid")
	}
	return list
}

// ofPod lists what add finds in the pod, sorted and each once.
func ofPod(add func([]string, *pod) []string) extractor {
	return func(r *record) event.Value {
		p := r.pod()
		if p == nil {
			return event.Value{}
		}
		before := len(r.texts)
		r.texts = add(r.texts, p)
		items := r.texts[before:]
		slices.Sort(items)
		items = slices.Compact(items)
		return event.List(items[:len(items):len(items)])
	}
}

// podNode looks at what the client asked for: the scheduler's choice is in later
// responses.
func podNode(r *record) event.Value {
	if p := r.pod(); p != nil && p.node != "" {
		return event.Text(p.node)
	}
	return event.Value{}
}

func podToleratesAll(r *record) event.Value {
	if p := r.pod(); p != nil && p.toleratesAll {
		return event.Text("true")
	}
	return event.Value{}
}
