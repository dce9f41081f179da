package k8saudit

import (
	"path"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// addBodyFields adds the fields that look into the request object. Where the
// reference implementation of a field departs from what its name promises,
// that is kept and noted, so that existing rules give the same alerts.
func addBodyFields(m map[string]extractor) {
	for name, path := range map[string]string{
		"ka.req.binding.role":           "roleRef.name",
		"ka.req.configmap.obj":          "data",
		"ka.req.service.type":           "spec.type",
		"ka.req.pod.host_ipc":           "spec.hostIPC",
		"ka.req.pod.host_network":       "spec.hostNetwork",
		"ka.req.pod.host_pid":           "spec.hostPID",
		"ka.req.pod.run_as_user":        "spec.securityContext.runAsUser",
		"ka.req.pod.run_as_group":       "spec.securityContext.runAsGroup",
		"ka.req.pod.fs_group":           "spec.securityContext.fsGroup",
		"ka.req.container.host_network": "spec.hostNetwork",
		"ka.req.container.image":        "spec.containers.0.image",
	} {
		m[name] = requestAt(strings.Split(path, ".")...)
	}
	m["ka.req.configmap.name"] = m["ka.target.name"]
	m["ka.req.service.ports"] = list(servicePorts)
	m["ka.req.binding.subjects"] = each([]string{"subjects"}, texts())
	m["ka.req.binding.subjects.user_names"] = each([]string{"subjects"}, subjectNames("User"))
	m["ka.req.binding.subjects.group_names"] = each([]string{"subjects"}, subjectNames("Group"))
	m["ka.req.binding.subjects.serviceaccount_names"] = each([]string{"subjects"}, subjectNames("ServiceAccount"))
	m["ka.req.binding.subjects.serviceaccount_ns_names"] = each([]string{"subjects"}, serviceAccounts)
	m["ka.req.role.rules"] = each([]string{"rules"}, texts())
	for _, key := range []string{"apiGroups", "resources", "verbs", "nonResourceURLs"} {
		m["ka.req.role.rules."+key] = each([]string{"rules"}, elements(key))
	}
	m["ka.req.pod.supplemental_groups"] = each([]string{"spec", "securityContext", "supplementalGroups"}, texts())
	m["ka.req.pod.volumes.hostpath"] = each([]string{"spec", "volumes"}, hostPath)
	m["ka.hostpaths"] = list(hostPaths)
	m["ka.req.pod.volumes.flexvolume_driver"] = each([]string{"spec", "volumes"}, texts("flexVolume", "driver"))
	m["ka.req.pod.volumes.volume_type"] = each([]string{"spec", "volumes"}, volumeTypes)
	addContainerFields(m)
	m["ka.req.container.image.repository"] = firstRepository
	m["ka.req.container.privileged"] = anyPrivileged
	m["ka.req.volume.hostpath"] = hasHostPath
}

func addContainerFields(m map[string]extractor) {
	for _, kind := range []string{"containers", "initContainers", "ephemeralContainers"} {
		prefix, path := "ka.req.pod."+kind+".", []string{"spec", kind}
		for name, key := range map[string]string{
			"privileged":                 "privileged",
			"allow_privilege_escalation": "allowPrivilegeEscalation",
			"read_only_fs":               "readOnlyRootFilesystem",
			"run_as_user":                "runAsUser",
			"run_as_group":               "runAsGroup",
			"proc_mount":                 "procMount",
		} {
			m[prefix+name] = each(path, texts("securityContext", key))
		}
		m[prefix+"name"] = each(path, required("name", nil))
		m[prefix+"image"] = each(path, required("image", nil))
		m[prefix+"image.repository"] = each(path, required("image", repository))
		m[prefix+"command"] = each(path, joined("command"))
		m[prefix+"args"] = each(path, joined("args"))
		// One JSON text for each container, so that only contains and alike see
		// into it.
		m[prefix+"add_capabilities"] = each(path, texts("securityContext", "capabilities", "add"))
		m[prefix+"host_port"] = each(path, hostPorts)
	}
}

func requestAt(path ...string) extractor {
	return func(r *record, _ event.Ref) event.Value { return r.request.at(path...).value() }
}

func responseAt(path ...string) extractor {
	return func(r *record, _ event.Ref) event.Value { return r.response.at(path...).value() }
}

// A picker returns what one element contributes to a list; not ok makes the
// whole list missing.
type picker func(*node) (items []string, ok bool)

// each lists what pick finds in each element of the request object's array at
// path, or in the one that the reference selects.
func each(path []string, pick picker) extractor {
	return func(r *record, ref event.Ref) event.Value {
		var all []string
		for i, n := range r.request.at(path...).list() {
			if ref.Index >= 0 && ref.Index != i {
				continue
			}
			items, ok := pick(n)
			if !ok {
				return event.Value{}
			}
			all = append(all, items...)
		}
		return event.List(all)
	}
}

// texts picks the value at a path, if it is there.
func texts(path ...string) picker {
	return func(n *node) ([]string, bool) {
		if s, ok := n.at(path...).text(); ok {
			return []string{s}, true
		}
		return nil, true
	}
}

// elements picks the elements of the array under key.
func elements(key string) picker {
	return func(n *node) ([]string, bool) {
		var out []string
		for _, e := range n.at(key).list() {
			if s, ok := e.text(); ok {
				out = append(out, s)
			}
		}
		return out, true
	}
}

// required picks the value under key, changed by edit, and is not ok without.
func required(key string, edit func(string) string) picker {
	return func(n *node) ([]string, bool) {
		s, ok := n.at(key).text()
		if ok && edit != nil {
			s = edit(s)
		}
		return []string{s}, ok
	}
}

// joined picks the words under key as one text, an empty one if there are none.
func joined(key string) picker {
	return func(n *node) ([]string, bool) {
		words, _ := elements(key)(n)
		return []string{strings.Join(words, " ")}, true
	}
}

// repository cuts an image as the reference does: the port of a registry is
// taken for a tag.
func repository(image string) string {
	image, _, _ = strings.Cut(image, ":")
	image, _, _ = strings.Cut(image, "@")
	return image
}

func subjectNames(kind string) picker {
	return func(n *node) ([]string, bool) {
		if k, _ := n.at("kind").text(); k != kind {
			return nil, true
		}
		return texts("name")(n)
	}
}

func serviceAccounts(n *node) ([]string, bool) {
	names, _ := subjectNames("ServiceAccount")(n)
	ns, ok := n.at("namespace").text()
	if len(names) == 0 || !ok {
		return nil, true
	}
	return []string{ns + ":" + names[0]}, true
}

func volumeTypes(n *node) ([]string, bool) {
	types := slices.DeleteFunc(n.keys(), func(key string) bool { return key == "name" })
	slices.Sort(types)
	return types, true
}

func hostPorts(n *node) ([]string, bool) {
	var out []string
	for _, port := range n.at("ports").list() {
		s, ok := port.at("hostPort").text()
		if !ok {
			s, ok = port.at("containerPort").text()
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, true
}

// servicePorts is one element with all ports, as in the reference.
func servicePorts(r *record) []string {
	items, _ := texts("spec", "ports")(&r.request)
	return items
}

func firstRepository(r *record, _ event.Ref) event.Value {
	v := r.request.at("spec", "containers", "0", "image").value()
	v.Text = repository(v.Text)
	return v
}

func anyPrivileged(r *record, _ event.Ref) event.Value {
	containers := r.request.at("spec", "containers")
	if containers == nil {
		return event.Value{}
	}
	return truth(slices.ContainsFunc(containers.list(), func(n *node) bool {
		s, _ := n.at("securityContext", "privileged").text()
		return s == "true"
	}))
}

func hasHostPath(r *record, ref event.Ref) event.Value {
	prefix, isPrefix := strings.CutSuffix(ref.Key, "*")
	return truth(slices.ContainsFunc(r.request.at("spec", "volumes").list(), func(n *node) bool {
		p, ok := n.at("hostPath", "path").text()
		return ok && slices.ContainsFunc([]string{p, path.Clean(p)}, func(p string) bool {
			return p == ref.Key || isPrefix && strings.HasPrefix(p, prefix)
		})
	}))
}

// hostPath picks the host path of a volume, cleaned: the API server accepts //
// and /var/ for / and /var. The reference gives the path as it was sent.
func hostPath(volume *node) ([]string, bool) {
	paths, _ := texts("hostPath", "path")(volume)
	for i, p := range paths {
		paths[i] = path.Clean(p)
	}
	return paths, true
}

// hostPaths lists the host paths of a pod or of the template of one, each once.
// A JSON patch has them in what it adds. That matters because the client can
// keep the object out of the response, where it would be in full, by asking for
// a table.
func hostPaths(r *record) []string {
	var all []string
	for _, object := range []*node{&r.request, &r.response} {
		for _, spec := range [][]string{{}, {"template", "spec"}, {"jobTemplate", "spec", "template", "spec"}} {
			for _, volume := range object.at("spec").at(spec...).at("volumes").list() {
				paths, _ := hostPath(volume)
				all = append(all, paths...)
			}
		}
	}
	for _, op := range r.request.list() {
		all = append(all, patchedPaths(op.at("value"))...)
		if at, _ := op.at("path").text(); strings.HasSuffix(at, "/hostPath") {
			paths, _ := texts("path")(op.at("value"))
			all = append(all, paths...)
		} else if strings.HasSuffix(at, "/hostPath/path") {
			paths, _ := texts()(op.at("value"))
			all = append(all, paths...)
		}
	}
	for i, p := range all {
		all[i] = path.Clean(p)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// patchedPaths lists the host paths at any place in n.
func patchedPaths(n *node) []string {
	all, _ := texts("hostPath", "path")(n)
	for _, key := range n.keys() {
		all = append(all, patchedPaths(n.at(key))...)
	}
	for _, e := range n.list() {
		all = append(all, patchedPaths(e)...)
	}
	return all
}

func truth(b bool) event.Value {
	if b {
		return event.Text("true")
	}
	return event.Text("false")
}
