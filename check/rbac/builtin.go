package rbac

// userFacing are the ClusterRoles that every cluster has for its users, and
// the rights they are meant to have.
var userFacing = map[string]rights{
	"cluster-admin": ^named,
	"admin":         viewing | editing | writeRoles | changeRoles | bindHere,
	"edit":          viewing | editing,
	"view":          viewing,
}

const (
	viewing = observe
	editing = readSecrets | escalate | execute | makePods | makeTokens | destroy | writeConfig | steer |
		enter | makeSecrets | becomeAccounts
)

// internal are the other roles of Kubernetes' own components that are meant to
// have rights that deserve attention, as version 1.37 creates them.
var internal = map[roleKey]rights{
	{"", "system:aggregate-to-admin"}:                                         writeRoles,
	{"", "system:aggregate-to-edit"}:                                          readSecrets | escalate | execute | makePods | makeTokens | destroy | writeConfig | steer,
	{"", "system:aggregate-to-view"}:                                          observe,
	{"", "system:certificates.k8s.io:kube-apiserver-client-approver"}:         signClients,
	{"", "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver"}: signClients,
	{"", "system:controller:attachdetach-controller"}:                         observe,
	{"", "system:controller:certificate-controller"}:                          approve | signClients,
	{"", "system:controller:clusterrole-aggregation-controller"}:              escalate | writeRoles,
	{"", "system:controller:cronjob-controller"}:                              makePods | destroy | observe,
	{"", "system:controller:daemon-set-controller"}:                           makePods | destroy | observe,
	{"", "system:controller:deployment-controller"}:                           makePods | destroy | observe,
	{"", "system:controller:device-taint-eviction-controller"}:                destroy | observe,
	{"", "system:controller:disruption-controller"}:                           wildcard,
	{"", "system:controller:endpoint-controller"}:                             steer | observe,
	{"", "system:controller:endpointslice-controller"}:                        steer | observe,
	{"", "system:controller:endpointslicemirroring-controller"}:               steer,
	{"", "system:controller:ephemeral-volume-controller"}:                     observe,
	{"", "system:controller:expand-controller"}:                               writeVolumes,
	{"", "system:controller:generic-garbage-collector"}:                       wildcard | readSecrets | execute | makePods | writeRoles | proxyNodes | approve | writeHooks | writeVolumes | destroy | writeConfig | steer | observe,
	{"", "system:controller:horizontal-pod-autoscaler"}:                       wildcard | observe,
	{"", "system:controller:job-controller"}:                                  makePods | destroy | observe,
	{"", "system:controller:namespace-controller"}:                            wildcard | readSecrets | execute | proxyNodes | destroy | writeConfig | steer | observe,
	{"", "system:controller:node-controller"}:                                 destroy | observe,
	{"", "system:controller:persistent-volume-binder"}:                        makePods | writeVolumes | destroy | observe,
	{"", "system:controller:pod-garbage-collector"}:                           destroy | observe,
	{"", "system:controller:pv-protection-controller"}:                        writeVolumes,
	{"", "system:controller:pvc-protection-controller"}:                       observe,
	{"", "system:controller:replicaset-controller"}:                           makePods | destroy | observe,
	{"", "system:controller:replication-controller"}:                          makePods | destroy | observe,
	{"", "system:controller:resource-claim-controller"}:                       observe,
	{"", "system:controller:resourcequota-controller"}:                        wildcard | readSecrets | execute | observe,
	{"", "system:controller:root-ca-cert-publisher"}:                          writeConfig,
	{"", "system:controller:selinux-warning-controller"}:                      observe,
	{"", "system:controller:service-controller"}:                              steer,
	{"", "system:controller:statefulset-controller"}:                          makePods | destroy | observe,
	{"", "system:controller:storage-version-migrator-controller"}:             wildcard | readSecrets | execute | makePods | writeRoles | proxyNodes | approve | writeHooks | writeVolumes | writeConfig | steer | observe,
	{"", "system:controller:ttl-after-finished-controller"}:                   destroy,
	{"", "system:heapster"}:                                                   observe,
	{"", "system:kube-controller-manager"}:                                    wildcard | readSecrets | makeTokens | observe,
	{"", "system:kube-scheduler"}:                                             destroy | observe,
	{"", "system:kubelet-api-admin"}:                                          wildcard | proxyNodes,
	{"", "system:node"}:                                                       readSecrets | makePods | makeTokens | destroy | observe,
	{"", "system:persistent-volume-provisioner"}:                              writeVolumes,
	{"", "system:volume-scheduler"}:                                           writeVolumes,
	{"kube-public", "system:controller:bootstrap-signer"}:                     writeConfig | observe,
	{"kube-system", "system:controller:bootstrap-signer"}:                     readSecrets,
	{"kube-system", "system:controller:cloud-provider"}:                       writeConfig | observe,
	{"kube-system", "system:controller:token-cleaner"}:                        readSecrets,
}

// The label of the roles and bindings that the API server creates when it
// starts.
const (
	bootstrap         = "kubernetes.io/bootstrapping"
	bootstrapDefaults = "rbac-defaults"
)

// known reports whether Kubernetes creates a role for itself, and the rights
// it is meant to have. The label alone excuses nothing: anyone can set it, so
// rights that deserve attention are excused by name.
func known(r *role) (meant rights, ours bool) {
	if r.object.GetLabels()[bootstrap] != bootstrapDefaults {
		return 0, false
	}
	meant = internal[r.roleKey]
	if r.namespace == "" {
		meant |= userFacing[r.name]
	}
	return meant, true
}

// deviates reports whether a role has a right that Kubernetes did not give it.
func (r *role) deviates(right rights) bool { return !r.ours || r.rights&^r.meant&right != 0 }
