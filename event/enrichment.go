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
	{"kg.owner.kind", TypeString, NoArg, "kind of the topmost known owner of the pod or workload that the request is about, such as Deployment"},
	{"kg.owner.name", TypeString, NoArg, "name of this owner"},
	{"kg.owner.writer", TypeString, NoArg, "who wrote the spec of this owner last"},
	{"kg.owner.auditid", TypeString, NoArg, "id of the request by which they did"},
	{"kg.token.id", TypeString, NoArg, "id of the service account token that was sent"},
	{"kg.token.pod", TypeString, NoArg, "pod that this token is bound to"},
	{"kg.token.node", TypeString, NoArg, "node of this pod"},
	{"kg.token.elsewhere", TypeString, NoArg, "address of the caller if it is neither the pod's nor the node's, the first time that the token comes from there; missing if the pod's address is not known"},
	{"kg.token.before", TypeString, NoArg, "another address from which the token was used before, the first time that it comes from here; missing if both belong to its pod and node"},
	{"kg.token.dead_pod", TypeString, NoArg, "pod that the token is bound to, if it was removed a minute ago or longer"},
	{"kg.token.minted_by", TypeString, NoArg, "who asked for this token, if that was not the control plane"},
	{"kg.token.chain", TypeList, NoArg, "whose tokens led to this one, the first one first"},
	{"kg.token.first_use", TypeString, NoArg, "true for the first request with the token, from its first address"},
}
