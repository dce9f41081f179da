package event

import "slices"

// An ID is the number of a field of a source: one more than its position in
// [Fields], 0 if the source has no such field of its own. Sources number their
// fields each by itself.
type ID uint16

var fieldIDs = newFieldIDs()

func newFieldIDs() map[string]ID {
	ids := map[string]ID{}
	for _, own := range [][]Field{slices.Concat(auditFields, enrichmentFields), syscallFields} {
		for i, f := range own {
			ids[f.Name] = ID(i + 1)
		}
	}
	return ids
}

// id returns the number of a field by its name.
func id(name string) ID { return fieldIDs[name] }

// auditAlertFields answer who did what to what, from where, in which request.
var auditAlertFields = []string{
	"ka.user.name", "ka.verb", "ka.target.resource", "ka.target.subresource", "ka.target.name", "ka.target.namespace",
	"ka.sourceips", "ka.auditid",
}

var auditFields = []Field{
	{"ka.auditid", TypeString, NoArg, "id of the request, shared by its stages; the client can choose it"},
	{"ka.stage", TypeString, NoArg, "stage of the request"},
	{"ka.auth.decision", TypeString, NoArg, "authorization decision: allow or forbid"},
	{"ka.auth.reason", TypeString, NoArg, "which binding and role allowed the request"},
	{"ka.auth.openshift.decision", TypeString, NoArg, "OpenShift's authentication decision"},
	{"ka.auth.openshift.username", TypeString, NoArg, "OpenShift's user name"},
	{"ka.validations.admission.policy.failure", TypeString, NoArg, "failure of a ValidatingAdmissionPolicy in audit mode"},
	{"ka.security.pod.violations", TypeString, NoArg, "Pod Security standards that the pod violates"},
	{"ka.user.name", TypeString, NoArg, "who made the request"},
	{"ka.user.groups", TypeList, IndexArg, "groups of who made the request"},
	{"ka.impuser.name", TypeString, NoArg, "user that the request impersonates"},
	{"ka.verb", TypeString, NoArg, "verb of the request"},
	{"ka.uri", TypeString, NoArg, "path and query as sent"},
	{"ka.uri.param", TypeString, KeyArg, "first value of a query parameter, decoded"},
	{"ka.target.name", TypeString, NoArg, "name of the target object"},
	{"ka.target.namespace", TypeString, NoArg, "namespace of the target object"},
	{"ka.target.resource", TypeString, NoArg, "resource of the target object"},
	{"ka.target.subresource", TypeString, NoArg, "subresource of the target object"},
	{"ka.target.pod.name", TypeString, NoArg, "name of the pod in the response to a request for pods"},
	{"ka.req.binding.subjects", TypeList, IndexArg, "subjects of a binding, each as JSON"},
	{"ka.req.binding.subjects.user_names", TypeList, IndexArg, "users among the subjects of a binding"},
	{"ka.req.binding.subjects.group_names", TypeList, IndexArg, "groups among the subjects of a binding"},
	{"ka.req.binding.subjects.serviceaccount_names", TypeList, IndexArg, "service accounts among the subjects of a binding"},
	{"ka.req.binding.subjects.serviceaccount_ns_names", TypeList, IndexArg, "service accounts among the subjects of a binding, as namespace:name"},
	{"ka.req.binding.subject.has_name", TypeString, KeyArg, "deprecated: always true"},
	{"ka.req.binding.role", TypeString, NoArg, "role of a binding"},
	{"ka.req.configmap.name", TypeString, NoArg, "name of a config map"},
	{"ka.req.configmap.obj", TypeString, NoArg, "data of a config map as JSON"},
	{"ka.req.role.rules", TypeList, IndexArg, "rules of a role, each as JSON"},
	{"ka.req.role.rules.apiGroups", TypeList, IndexArg, "apiGroups of all rules of a role, or of the rule at a position"},
	{"ka.req.role.rules.resources", TypeList, IndexArg, "resources of all rules of a role, or of the rule at a position"},
	{"ka.req.role.rules.verbs", TypeList, IndexArg, "verbs of all rules of a role, or of the rule at a position"},
	{"ka.req.role.rules.nonResourceURLs", TypeList, IndexArg, "nonResourceURLs of all rules of a role, or of the rule at a position"},
	{"ka.req.service.type", TypeString, NoArg, "type of a service"},
	{"ka.req.service.ports", TypeList, IndexArg, "ports of a service, one element of JSON"},
	{"ka.req.pod.host_ipc", TypeString, NoArg, "spec.hostIPC of a pod"},
	{"ka.req.pod.host_network", TypeString, NoArg, "spec.hostNetwork of a pod"},
	{"ka.req.pod.host_pid", TypeString, NoArg, "spec.hostPID of a pod"},
	{"ka.req.pod.run_as_user", TypeString, NoArg, "spec.securityContext.runAsUser of a pod"},
	{"ka.req.pod.run_as_group", TypeString, NoArg, "spec.securityContext.runAsGroup of a pod"},
	{"ka.req.pod.fs_group", TypeString, NoArg, "spec.securityContext.fsGroup of a pod"},
	{"ka.req.pod.supplemental_groups", TypeList, IndexArg, "spec.securityContext.supplementalGroups of a pod"},
	{"ka.req.pod.volumes.hostpath", TypeList, IndexArg, "hostPath of the volumes that have one, cleaned (//etc/ is /etc), or of the volume at a position"},
	{"ka.req.pod.volumes.flexvolume_driver", TypeList, IndexArg, "driver of the flex volumes, or of the volume at a position"},
	{"ka.req.pod.volumes.volume_type", TypeList, IndexArg, "types of the volumes, or of the volume at a position"},
	{"ka.req.pod.containers.name", TypeList, IndexArg, "name; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.image", TypeList, IndexArg, "image; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.image.repository", TypeList, IndexArg, "image cut at the first colon; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.command", TypeList, IndexArg, "command, joined by blanks; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.args", TypeList, IndexArg, "args, joined by blanks; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.privileged", TypeList, IndexArg, "securityContext.privileged; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.allow_privilege_escalation", TypeList, IndexArg, "securityContext.allowPrivilegeEscalation; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.read_only_fs", TypeList, IndexArg, "securityContext.readOnlyRootFilesystem; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.run_as_user", TypeList, IndexArg, "securityContext.runAsUser; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.run_as_group", TypeList, IndexArg, "securityContext.runAsGroup; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.eff_run_as_user", TypeList, IndexArg, "as the reference has it: runAsUser of the container itself, else of the spec, else 0; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.eff_run_as_group", TypeList, IndexArg, "as the reference has it: runAsGroup of the container itself, else of the spec, else 0; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.proc_mount", TypeList, IndexArg, "securityContext.procMount; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.add_capabilities", TypeList, IndexArg, "securityContext.capabilities.add as JSON, one element for each container; of all containers, or of the one at a position"},
	{"ka.req.pod.containers.host_port", TypeList, IndexArg, "hostPort, or containerPort, of the ports; of all containers, or of the one at a position"},
	{"ka.req.pod.initContainers.name", TypeList, IndexArg, "name; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.image", TypeList, IndexArg, "image; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.image.repository", TypeList, IndexArg, "image cut at the first colon; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.command", TypeList, IndexArg, "command, joined by blanks; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.args", TypeList, IndexArg, "args, joined by blanks; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.privileged", TypeList, IndexArg, "securityContext.privileged; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.allow_privilege_escalation", TypeList, IndexArg, "securityContext.allowPrivilegeEscalation; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.read_only_fs", TypeList, IndexArg, "securityContext.readOnlyRootFilesystem; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.run_as_user", TypeList, IndexArg, "securityContext.runAsUser; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.run_as_group", TypeList, IndexArg, "securityContext.runAsGroup; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.eff_run_as_user", TypeList, IndexArg, "as the reference has it: runAsUser of the container itself, else of the spec, else 0; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.eff_run_as_group", TypeList, IndexArg, "as the reference has it: runAsGroup of the container itself, else of the spec, else 0; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.proc_mount", TypeList, IndexArg, "securityContext.procMount; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.add_capabilities", TypeList, IndexArg, "securityContext.capabilities.add as JSON, one element for each container; of all init containers, or of the one at a position"},
	{"ka.req.pod.initContainers.host_port", TypeList, IndexArg, "hostPort, or containerPort, of the ports; of all init containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.name", TypeList, IndexArg, "name; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.image", TypeList, IndexArg, "image; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.image.repository", TypeList, IndexArg, "image cut at the first colon; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.command", TypeList, IndexArg, "command, joined by blanks; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.args", TypeList, IndexArg, "args, joined by blanks; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.privileged", TypeList, IndexArg, "securityContext.privileged; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.allow_privilege_escalation", TypeList, IndexArg, "securityContext.allowPrivilegeEscalation; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.read_only_fs", TypeList, IndexArg, "securityContext.readOnlyRootFilesystem; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.run_as_user", TypeList, IndexArg, "securityContext.runAsUser; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.run_as_group", TypeList, IndexArg, "securityContext.runAsGroup; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.eff_run_as_user", TypeList, IndexArg, "as the reference has it: runAsUser of the container itself, else of the spec, else 0; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.eff_run_as_group", TypeList, IndexArg, "as the reference has it: runAsGroup of the container itself, else of the spec, else 0; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.proc_mount", TypeList, IndexArg, "securityContext.procMount; of all ephemeral containers, or of the one at a position"},
	{"ka.req.pod.ephemeralContainers.add_capabilities", TypeList, IndexArg, "securityContext.capabilities.add as JSON, one element for each container; of all ephemeral containers, or of the one at a position"},
	{"ka.req.container.image", TypeString, NoArg, "deprecated: image of the first container"},
	{"ka.req.container.image.repository", TypeString, NoArg, "deprecated: image of the first container, cut at the first colon"},
	{"ka.req.container.host_network", TypeString, NoArg, "deprecated: ka.req.pod.host_network"},
	{"ka.req.container.privileged", TypeString, NoArg, "deprecated: whether any container is privileged, true or false"},
	{"ka.req.volume.hostpath", TypeString, KeyArg, "deprecated: whether a volume has this host path (or prefix, with a final *), true or false"},
	{"ka.hostpaths", TypeList, IndexArg, "host paths, cleaned, of the pod or pod template in the request or in the response"},
	{"ka.resp.name", TypeString, NoArg, "name of the object in the response"},
	{"ka.response.code", TypeString, NoArg, "status code of the response"},
	{"ka.response.reason", TypeString, NoArg, "reason of the response"},
	{"ka.useragent", TypeString, NoArg, "user agent, as the client claims"},
	{"ka.sourceips", TypeList, IndexArg, "addresses of the caller and of proxies; the client can forge all but the last"},
	{"ka.cluster.name", TypeString, NoArg, "cluster, where the source names it"},
	{"jevt.value", TypeString, PointerArg, "value at a JSON pointer of the event"},
	{"jevt.obj", TypeString, NoArg, "the whole event as indented JSON"},
	{"jevt.rawtime", TypeString, NoArg, "nanoseconds since 1970"},
	{"jevt.time", TypeString, NoArg, "local time of day with nanoseconds"},
	{"json.value", TypeString, PointerArg, "value at a JSON pointer of the event"},
	{"json.obj", TypeString, NoArg, "the whole event as indented JSON"},
	{"json.rawtime", TypeString, NoArg, "nanoseconds since 1970"},
}
