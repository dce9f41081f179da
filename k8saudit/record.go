package k8saudit

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// A record is one audit event. A string that is absent and one that is empty
// are both missing: the API server leaves empty ones out.
type record struct {
	auditEvent
	raw                      []byte
	request, response, whole node
}

// Value returns the value of a ka.*, jevt.* or json.* field.
func (r *record) Value(ref event.Ref) event.Value {
	if get, ok := extractors[ref.Name]; ok {
		return get(r, ref)
	}
	return event.Value{}
}

// An extractor returns the value of one field.
type extractor func(*record, event.Ref) event.Value

var extractors = newExtractors()

func newExtractors() map[string]extractor {
	m := map[string]extractor{
		"ka.auditid":                              text(func(r *record) string { return r.AuditID }),
		"ka.stage":                                text(func(r *record) string { return r.Stage }),
		"ka.user.name":                            text(func(r *record) string { return r.User.Username }),
		"ka.user.groups":                          list(func(r *record) []string { return r.User.Groups }),
		"ka.impuser.name":                         text(func(r *record) string { return r.ImpersonatedUser.Username }),
		"ka.verb":                                 text(func(r *record) string { return r.Verb }),
		"ka.uri":                                  text(func(r *record) string { return r.RequestURI }),
		"ka.uri.param":                            uriParam,
		"ka.target.name":                          text(func(r *record) string { return r.ObjectRef.Name }),
		"ka.target.namespace":                     text(func(r *record) string { return r.ObjectRef.Namespace }),
		"ka.target.resource":                      text(func(r *record) string { return r.ObjectRef.Resource }),
		"ka.target.subresource":                   text(func(r *record) string { return r.ObjectRef.Subresource }),
		"ka.target.pod.name":                      targetPod,
		"ka.resp.name":                            responseAt("metadata", "name"),
		"ka.response.code":                        text(responseCode),
		"ka.response.reason":                      text(func(r *record) string { return r.ResponseStatus.Reason }),
		"ka.useragent":                            text(func(r *record) string { return r.UserAgent }),
		"ka.sourceips":                            list(func(r *record) []string { return r.SourceIPs }),
		"ka.auth.decision":                        annotation("authorization.k8s.io/decision"),
		"ka.auth.reason":                          annotation("authorization.k8s.io/reason"),
		"ka.auth.openshift.decision":              annotation("authentication.openshift.io/decision"),
		"ka.auth.openshift.username":              annotation("authentication.openshift.io/username"),
		"ka.security.pod.violations":              annotation("pod-security.kubernetes.io/audit-violations"),
		"ka.validations.admission.policy.failure": annotation("validation.policy.admission.k8s.io/validation_failure"),
		"ka.cluster.name":                         annotation("cluster_name"),
		"jevt.time":                               clock,
	}
	for _, name := range []string{"jevt", "json"} {
		m[name+".value"] = pointerValue
		m[name+".obj"] = wholeEvent
		m[name+".rawtime"] = text(func(r *record) string { return strconv.FormatInt(r.StageTimestamp.UnixNano(), 10) })
	}
	addBodyFields(m)
	return m
}

func present(s string) event.Value {
	if s == "" {
		return event.Value{}
	}
	return event.Text(s)
}

func text(get func(*record) string) extractor {
	return func(r *record, _ event.Ref) event.Value { return present(get(r)) }
}

func list(get func(*record) []string) extractor {
	return func(r *record, ref event.Ref) event.Value { return element(get(r), ref) }
}

// element returns a list, or the one element that the reference selects.
func element(items []string, ref event.Ref) event.Value {
	if ref.Index >= len(items) {
		return event.Value{}
	}
	if ref.Index >= 0 {
		items = items[ref.Index : ref.Index+1]
	}
	return event.List(items)
}

func annotation(key string) extractor {
	return func(r *record, _ event.Ref) event.Value {
		if s, ok := r.Annotations[key]; ok {
			return event.Text(s)
		}
		return event.Value{}
	}
}

func responseCode(r *record) string {
	if r.ResponseStatus.Code == 0 {
		return ""
	}
	return strconv.Itoa(r.ResponseStatus.Code)
}

func clock(r *record, _ event.Ref) event.Value {
	e := event.Event{Time: r.StageTimestamp}
	return event.Text(e.Clock())
}

func uriParam(r *record, ref event.Ref) event.Value {
	_, query, _ := strings.Cut(r.RequestURI, "?")
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if k, err := url.QueryUnescape(key); err != nil || k != ref.Key {
			continue
		}
		if v, err := url.QueryUnescape(value); err == nil {
			return event.Text(v)
		}
	}
	return event.Value{}
}

func targetPod(r *record, ref event.Ref) event.Value {
	if r.ObjectRef.Resource != "pods" || r.ObjectRef.Subresource != "" {
		return event.Value{}
	}
	return r.response.at("metadata", "name").value()
}

// pointerValue answers jevt.value. The scalars that rules ask for most are at
// hand; the bodies are shared with the other fields; only the rest needs the
// event to be decoded once more.
func pointerValue(r *record, ref event.Ref) event.Value {
	path := ref.Pointer
	if len(path) == 0 {
		return r.whole.value()
	}
	switch path[0] {
	case "requestObject":
		return r.request.at(path[1:]...).value()
	case "responseObject":
		return r.response.at(path[1:]...).value()
	}
	if len(path) == 1 {
		switch path[0] {
		case "stage":
			return present(r.Stage)
		case "level":
			return present(r.Level)
		case "verb":
			return present(r.Verb)
		}
	}
	return r.whole.at(path...).value()
}

func wholeEvent(r *record, _ event.Ref) event.Value {
	var b bytes.Buffer
	if err := json.Indent(&b, r.raw, "", "  "); err != nil {
		return event.Value{}
	}
	return event.Text(b.String())
}

// Subject names the object that the request is about; a request for a list, or
// for no resource, leaves out what it does not have.
func (r *record) Subject() event.Subject {
	ref := r.ObjectRef
	s := event.Subject{Kind: kind(ref), Namespace: ref.Namespace, Name: ref.Name, APIVersion: ref.APIVersion}
	if ref.APIGroup != "" {
		s.APIVersion = ref.APIGroup + "/" + ref.APIVersion
	}
	if s.Kind == "Namespace" {
		s.Namespace = ""
	}
	if s.Name == "" && r.Verb == "create" && ref.Subresource == "" {
		// A generated name is known from the response only.
		s.Name, _ = r.response.at("metadata", "name").text()
	}
	return s
}

// kind returns the kind of a built-in resource. Of any other the audit event
// does not tell the kind, so the resource stands in for it.
func kind(ref objectRef) string {
	if k, ok := kinds[ref.Resource]; ok && builtinGroup(ref.APIGroup) {
		return k
	}
	return ref.Resource
}

func builtinGroup(group string) bool {
	return slices.Contains([]string{"", "apps", "batch", "autoscaling", "policy"}, group) || strings.HasSuffix(group, ".k8s.io")
}

// kinds has the built-in kinds by resource.
var kinds = map[string]string{
	"pods": "Pod", "secrets": "Secret", "configmaps": "ConfigMap", "namespaces": "Namespace", "nodes": "Node",
	"services": "Service", "serviceaccounts": "ServiceAccount", "events": "Event", "endpoints": "Endpoints",
	"endpointslices": "EndpointSlice", "leases": "Lease", "limitranges": "LimitRange", "resourcequotas": "ResourceQuota",
	"persistentvolumes": "PersistentVolume", "persistentvolumeclaims": "PersistentVolumeClaim",
	"podtemplates": "PodTemplate", "replicationcontrollers": "ReplicationController",
	"deployments": "Deployment", "daemonsets": "DaemonSet", "statefulsets": "StatefulSet", "replicasets": "ReplicaSet",
	"controllerrevisions": "ControllerRevision", "jobs": "Job", "cronjobs": "CronJob",
	"horizontalpodautoscalers": "HorizontalPodAutoscaler", "poddisruptionbudgets": "PodDisruptionBudget",
	"roles": "Role", "rolebindings": "RoleBinding", "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding",
	"certificatesigningrequests": "CertificateSigningRequest", "customresourcedefinitions": "CustomResourceDefinition",
	"ingresses": "Ingress", "ingressclasses": "IngressClass", "networkpolicies": "NetworkPolicy",
	"storageclasses": "StorageClass", "priorityclasses": "PriorityClass", "runtimeclasses": "RuntimeClass",
	"csidrivers": "CSIDriver", "csinodes": "CSINode", "volumeattachments": "VolumeAttachment", "apiservices": "APIService",
	"flowschemas": "FlowSchema", "prioritylevelconfigurations": "PriorityLevelConfiguration",
	"mutatingwebhookconfigurations": "MutatingWebhookConfiguration", "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
	"validatingadmissionpolicies": "ValidatingAdmissionPolicy", "validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding",
	"mutatingadmissionpolicies": "MutatingAdmissionPolicy", "mutatingadmissionpolicybindings": "MutatingAdmissionPolicyBinding",
	"subjectaccessreviews": "SubjectAccessReview", "selfsubjectaccessreviews": "SelfSubjectAccessReview",
	"selfsubjectrulesreviews": "SelfSubjectRulesReview", "selfsubjectreviews": "SelfSubjectReview", "tokenreviews": "TokenReview",
}
