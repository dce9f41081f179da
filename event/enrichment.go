package event

// enrichmentFields are not Falco's: package enrichment derives them from audit
// events. They are missing from an event that was not enriched.
var enrichmentFields = []Field{
	{"kg.user.class", TypeString, NoArg, "who made the request: person (a human or anything from outside), workload (a service account), controller (one of kube-system), node, control-plane or anonymous"},
	{"kg.user.namespace", TypeString, NoArg, "namespace of the service account that made the request"},
	{"kg.pod.images", TypeList, NoArg, "images of the pod, pod template or ephemeral container that the request sets"},
	{"kg.pod.registries", TypeList, NoArg, "registries of these images; docker.io for an image that names none"},
	{"kg.pod.unversioned", TypeList, NoArg, "those of these images that have neither a digest nor a tag other than latest"},
	{"kg.pod.capabilities", TypeList, NoArg, "capabilities that its containers add, in upper case and without CAP_"},
	{"kg.pod.host_namespaces", TypeList, NoArg, "namespaces of the node that it joins: pid, ipc, network"},
	{"kg.pod.node", TypeString, NoArg, "node that it is put on by name, past the scheduler"},
	{"kg.pod.tolerates_all", TypeString, NoArg, "true if it tolerates every taint"},
	{"kg.role.powers", TypeList, NoArg, "what the role in the request allows that leads further: everything, escalate, bind, impersonate, tokens, exec, nodes-proxy, approve, admission, secrets"},
}
