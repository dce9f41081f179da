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
	m["ka.req.service.ports"] = servicePorts
	m["ka.req.binding.subject.has_name"] = func(*record, event.Ref) event.Value { return event.Text("true") }
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
	m["ka.hostpaths"] = hostPaths
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
		m[prefix+"name"] = each(path, required("name"))
		m[prefix+"image"] = each(path, required("image"))
		m[prefix+"image.repository"] = each(path, imageRepository)
		m[prefix+"command"] = each(path, joined("command"))
		m[prefix+"args"] = each(path, joined("args"))
		m[prefix+"add_capabilities"] = each(path, addedCapabilities)
		m[prefix+"host_port"] = each(path, hostPorts)
		m[prefix+"eff_run_as_user"] = each(path, effective("runAsUser"))
		m[prefix+"eff_run_as_group"] = each(path, effective("runAsGroup"))
	}
}

func requestAt(path ...string) extractor {
	return func(r *record, _ event.Ref) event.Value { return r.requestObject().at(path...).value() }
}

func responseAt(path ...string) extractor {
	return func(r *record, _ event.Ref) event.Value { return r.responseObject().at(path...).value() }
}

// A picker adds what one element contributes to a list to the texts of the
// arena; not ok makes the whole list missing.
type picker func(node) (ok bool)

func (n node) add(s string) { n.r.arena.texts = append(n.r.arena.texts, s) }

// addText adds the text of a node, if it is there.
func (n node) addText() {
	if s, ok := n.text(); ok {
		n.add(s)
	}
}

// each lists what pick finds in each element of the request object's array at
// path, or in the one that the reference selects.
func each(path []string, pick picker) extractor {
	return func(r *record, ref event.Ref) event.Value {
		array, start := r.requestObject().at(path...), len(r.arena.texts)
		for i := range array.list() {
			if (ref.Index < 0 || ref.Index == i) && !pick(array.element(i)) {
				return event.Value{}
			}
		}
		return r.listed(start)
	}
}

// texts picks the value at a path, if it is there.
func texts(path ...string) picker {
	return func(n node) bool { n.at(path...).addText(); return true }
}

// elements picks the elements of the array under key.
func elements(key string) picker {
	return func(n node) bool {
		array := n.at(key)
		for i := range array.list() {
			array.element(i).addText()
		}
		return true
	}
}

// required picks the value under key, and is not ok without.
func required(key string) picker {
	return func(n node) bool {
		s, ok := n.at(key).text()
		n.add(s)
		return ok
	}
}

// joined picks the words under key as one text, an empty one if there are none.
func joined(key string) picker {
	return func(n node) bool {
		start := len(n.r.arena.texts)
		elements(key)(n)
		s := strings.Join(n.r.arena.texts[start:], " ")
		n.r.arena.texts = n.r.arena.texts[:start]
		n.add(s)
		return true
	}
}

func isKind(n node, kind string) bool {
	k, _ := n.at("kind").text()
	return k == kind
}

func subjectNames(kind string) picker {
	return func(n node) bool {
		if isKind(n, kind) {
			n.at("name").addText()
		}
		return true
	}
}

func serviceAccounts(n node) bool {
	name, named := n.at("name").text()
	if ns, ok := n.at("namespace").text(); ok && named && isKind(n, "ServiceAccount") {
		n.add(ns + ":" + name)
	}
	return true
}

func volumeTypes(n node) bool {
	start := len(n.r.arena.texts)
	for i := range n.members() {
		if name := n.element(i).name(); name != "name" {
			n.add(name)
		}
	}
	slices.Sort(n.r.arena.texts[start:])
	return true
}

func hostPorts(n node) bool {
	ports := n.at("ports")
	for i := range ports.list() {
		port := ports.element(i)
		if at := port.at("hostPort"); !at.absent() {
			at.addText()
		} else {
			port.at("containerPort").addText()
		}
	}
	return true
}

// servicePorts is one element with all ports, as in the reference.
func servicePorts(r *record, ref event.Ref) event.Value {
	start := len(r.arena.texts)
	if ref.Index <= 0 {
		r.requestObject().at("spec", "ports").addText()
	}
	return r.listed(start)
}

func firstRepository(r *record, _ event.Ref) event.Value {
	image := r.requestObject().at("spec", "containers", "0", "image")
	v := image.value()
	if !v.Missing() {
		v.Text = image.repository(v.Text)
	}
	return v
}

func anyPrivileged(r *record, _ event.Ref) event.Value {
	containers := r.requestObject().at("spec", "containers")
	if containers.absent() {
		return event.Value{}
	}
	for i := range containers.list() {
		if s, _ := containers.element(i).at("securityContext", "privileged").text(); s == "true" {
			return event.Text("true")
		}
	}
	return event.Text("false")
}

func hasHostPath(r *record, ref event.Ref) event.Value {
	prefix, isPrefix := strings.CutSuffix(ref.Key, "*")
	matches := func(p string) bool { return p == ref.Key || isPrefix && strings.HasPrefix(p, prefix) }
	volumes := r.requestObject().at("spec", "volumes")
	for i := range volumes.list() {
		p, ok := volumes.element(i).at("hostPath", "path").text()
		if ok && (matches(p) || matches(path.Clean(p))) {
			return event.Text("true")
		}
	}
	return event.Text("false")
}

// hostPath picks the host path of a volume, cleaned: the API server accepts //
// and /var/ for / and /var. The reference gives the path as it was sent.
func hostPath(volume node) bool {
	if p, ok := volume.at("hostPath", "path").text(); ok {
		volume.add(path.Clean(p))
	}
	return true
}

// hostPaths lists the host paths of a pod or of the template of one, each once.
// A JSON patch has them in what it adds. That matters because the client can
// keep the object out of the response, where it would be in full, by asking for
// a table.
func hostPaths(r *record, ref event.Ref) event.Value {
	start := len(r.arena.texts)
	for _, object := range [...]node{r.requestObject(), r.responseObject()} {
		spec := object.at("spec")
		addHostPaths(spec)
		addHostPaths(spec.at("template", "spec"))
		addHostPaths(spec.at("jobTemplate", "spec", "template", "spec"))
	}
	patch := r.requestObject()
	for i := range patch.list() {
		op := patch.element(i)
		value := op.at("value")
		addPatchedPaths(value)
		if at, _ := op.at("path").text(); strings.HasSuffix(at, "/hostPath") {
			value.at("path").addText()
		} else if strings.HasSuffix(at, "/hostPath/path") {
			value.addText()
		}
	}
	all := r.arena.texts[start:]
	for i, p := range all {
		all[i] = path.Clean(p)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if ref.Index >= 0 {
		all = all[min(ref.Index, len(all)):min(ref.Index+1, len(all))]
	}
	return event.List(all[:len(all):len(all)])
}

func addHostPaths(spec node) {
	volumes := spec.at("volumes")
	for i := range volumes.list() {
		volumes.element(i).at("hostPath", "path").addText()
	}
}

// addPatchedPaths adds the host paths at any place in n.
func addPatchedPaths(n node) {
	if n.absent() {
		return
	}
	n.at("hostPath", "path").addText()
	for i := range n.members() {
		addPatchedPaths(n.element(i))
	}
	for i := range n.list() {
		addPatchedPaths(n.element(i))
	}
}
