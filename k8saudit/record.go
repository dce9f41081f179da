package k8saudit

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// A record is one audit event: the places of its parts in the document that it
// came in. Its texts share the memory of the document or of the arena, and are
// made when they are asked for. A string that is absent and one that is empty
// are both missing: the API server leaves empty ones out.
type record struct {
	doc   []byte
	arena *arena
	at    span
	time  time.Time

	kind, version, level, auditID, stage, uri, verb span
	user, username, groups                          span
	impersonated, impersonatedName, otherGroups     span
	sourceIPs, userAgent                            span
	objectRef, resource, namespace, name            span
	apiGroup, apiVersion, subresource               span
	responseStatus, code, reason                    span
	request, response                               span
	received, stageTime, annotations                span

	wrapper envelope // of an object that is no event: what else it may be
	wrapped span

	roots [rootCount]uint32 // cells; 0: none yet
	era   uint32            // of the arena that the roots are of
}

// The roots of a record.
const (
	requestRoot = iota
	responseRoot
	userRoot
	annotationsRoot
	wholeRoot
	rootCount
)

func (r *record) root(which int, s span) node {
	if s.form == absent {
		return node{}
	}
	if r.arena.enter(r); r.roots[which] == 0 {
		r.roots[which] = uint32(len(r.arena.cells))
		r.arena.cells = append(r.arena.cells, cell{span: s})
	}
	return node{r, r.roots[which]}
}

// part returns a part of the event that is not asked for so often that its node
// is kept.
func (r *record) part(s span) node {
	if s.form == absent {
		return node{}
	}
	r.arena.enter(r)
	r.arena.cells = append(r.arena.cells, cell{span: s})
	return node{r, uint32(len(r.arena.cells) - 1)}
}

func (r *record) requestObject() node  { return r.root(requestRoot, r.request) }
func (r *record) responseObject() node { return r.root(responseRoot, r.response) }
func (r *record) whole() node          { return r.root(wholeRoot, r.at) }

// text returns the text of a value, "" for one that is absent or null.
func (r *record) text(s span) string {
	switch s.form {
	case plain, atom: // most are
		return alias(r.doc[s.start:s.end])
	case null:
		return ""
	}
	return r.arena.text(r.doc, s)
}

// is reports whether the text of a value is s.
func (r *record) is(v span, s string) bool {
	if v.form == plain {
		return string(r.doc[v.start:v.end]) == s
	}
	return r.text(v) == s
}

// Value returns the value of a ka.*, jevt.* or json.* field.
func (r *record) Value(ref event.Ref) event.Value {
	if int(ref.ID) < len(extractors.byID) && ref.ID > 0 {
		if get := extractors.byID[ref.ID]; get != nil {
			return get(r, ref)
		}
		return event.Value{}
	}
	if get, ok := extractors.byName[ref.Name]; ok {
		return get(r, ref)
	}
	return event.Value{}
}

// An extractor returns the value of one field.
type extractor func(*record, event.Ref) event.Value

// extractors has how each field is had, by its number, and by its name for a
// reference that was not made by [event.Resolve].
var extractors = newExtractors()

type extractorTable struct {
	byID   []extractor
	byName map[string]extractor
}

func newExtractors() extractorTable {
	m := map[string]extractor{
		"ka.auditid":                              scalar(func(r *record) span { return r.auditID }),
		"ka.stage":                                scalar(func(r *record) span { return r.stage }),
		"ka.user.name":                            scalar(func(r *record) span { return r.username }),
		"ka.user.groups":                          list(func(r *record) span { return r.groups }),
		"ka.impuser.name":                         scalar(func(r *record) span { return r.impersonatedName }),
		"ka.verb":                                 scalar(func(r *record) span { return r.verb }),
		"ka.uri":                                  scalar(func(r *record) span { return r.uri }),
		"ka.uri.param":                            uriParam,
		"ka.target.name":                          scalar(func(r *record) span { return r.name }),
		"ka.target.namespace":                     scalar(func(r *record) span { return r.namespace }),
		"ka.target.resource":                      scalar(func(r *record) span { return r.resource }),
		"ka.target.subresource":                   scalar(func(r *record) span { return r.subresource }),
		"ka.target.pod.name":                      targetPod,
		"ka.resp.name":                            responseAt("metadata", "name"),
		"ka.response.code":                        responseCode,
		"ka.response.reason":                      scalar(func(r *record) span { return r.reason }),
		"ka.useragent":                            scalar(func(r *record) span { return r.userAgent }),
		"ka.sourceips":                            list(func(r *record) span { return r.sourceIPs }),
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
		m[name+".rawtime"] = rawTime
	}
	addBodyFields(m)
	fields := event.Fields(event.K8sAudit)
	byID := make([]extractor, len(fields)+1)
	for i, f := range fields {
		byID[i+1] = m[f.Name]
	}
	return extractorTable{byID, m}
}

func present(s string) event.Value {
	if s == "" {
		return event.Value{}
	}
	return event.Text(s)
}

// scalar is the extractor of a text.
func scalar(at func(*record) span) extractor {
	return func(r *record, _ event.Ref) event.Value { return present(r.text(at(r))) }
}

// list is the extractor of an array, or of the one element that the reference
// selects. What is no array is missing.
func list(at func(*record) span) extractor {
	return func(r *record, ref event.Ref) event.Value {
		s := at(r)
		if s.form != container || r.doc[s.start] != '[' {
			return event.Value{}
		}
		start := len(r.arena.texts)
		in := reader{b: r.doc, i: int(s.start)}
		i := 0
		for more := in.open('[', ']'); more; more = in.more(']') {
			if v := in.value(maxDepth); ref.Index < 0 || ref.Index == i {
				r.arena.texts = append(r.arena.texts, r.arena.text(r.doc, v))
			}
			i++
		}
		return r.listed(start)
	}
}

// listed returns the texts that were added from a length on.
func (r *record) listed(start int) event.Value {
	return event.List(r.arena.texts[start:len(r.arena.texts):len(r.arena.texts)])
}

func annotation(key string) extractor {
	return func(r *record, _ event.Ref) event.Value { return r.annotation(key) }
}

// annotation returns an annotation; an empty one is there.
func (r *record) annotation(key string) event.Value {
	if r.annotations.form != container || r.doc[r.annotations.start] != '{' {
		return event.Value{}
	}
	return r.root(annotationsRoot, r.annotations).child(key).value()
}

// value returns a value as jevt.value has it: missing only if it is absent.
func (r *record) value(s span) event.Value {
	if s.form == absent {
		return event.Value{}
	}
	return event.Text(r.arena.text(r.doc, s))
}

func responseCode(r *record, _ event.Ref) event.Value {
	if r.is(r.code, "0") {
		return event.Value{}
	}
	return present(r.text(r.code))
}

func clock(r *record, _ event.Ref) event.Value {
	e := event.Event{Time: r.time}
	return event.Text(e.Clock())
}

func rawTime(r *record, _ event.Ref) event.Value {
	start := len(r.arena.bytes)
	r.arena.bytes = strconv.AppendInt(r.arena.bytes, r.time.UnixNano(), 10)
	return event.Text(r.arena.since(start))
}

// uriParam returns the first value of a query parameter, as the reference does,
// or all of them.
func uriParam(r *record, ref event.Ref) event.Value {
	_, query, _ := strings.Cut(r.text(r.uri), "?")
	var all event.Value
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if k, err := url.QueryUnescape(key); err != nil || k != ref.Key {
			continue
		}
		v, err := url.QueryUnescape(value)
		switch {
		case err != nil:
		case all.Missing():
			all = event.Text(v)
		default:
			all.Text += " " + v
		}
		if r.arena.compat == Falco && !all.Missing() {
			break
		}
	}
	return all
}

func targetPod(r *record, _ event.Ref) event.Value {
	if !r.is(r.resource, "pods") || r.text(r.subresource) != "" {
		return event.Value{}
	}
	return r.responseObject().at("metadata", "name").value()
}

// pointerValue answers jevt.value. What rules ask for most is at hand, and the
// bodies are shared with the other fields; only for the rest the event is taken
// apart once more.
func pointerValue(r *record, ref event.Ref) event.Value {
	path := ref.Pointer
	switch {
	case len(path) == 0:
		return r.value(r.at)
	case path[0] == "requestObject":
		return r.requestObject().at(path[1:]...).value()
	case path[0] == "responseObject":
		return r.responseObject().at(path[1:]...).value()
	case path[0] == "user" && len(path) > 1:
		return r.root(userRoot, r.user).at(path[1:]...).value()
	case len(path) == 2 && path[0] == "annotations":
		return r.annotation(path[1])
	}
	s, ok := r.member(path[0])
	switch {
	case !ok:
		return r.whole().at(path...).value()
	case len(path) == 1:
		return r.value(s)
	}
	return r.part(s).at(path[1:]...).value()
}

// member returns the place of a member of the event that is at hand.
func (r *record) member(name string) (s span, ok bool) {
	switch name {
	case "stage":
		return r.stage, true
	case "level":
		return r.level, true
	case "verb":
		return r.verb, true
	case "auditID":
		return r.auditID, true
	case "requestURI":
		return r.uri, true
	case "userAgent":
		return r.userAgent, true
	case "user":
		return r.user, true
	case "objectRef":
		return r.objectRef, true
	case "responseStatus":
		return r.responseStatus, true
	case "impersonatedUser":
		return r.impersonated, true
	case "sourceIPs":
		return r.sourceIPs, true
	case "annotations":
		return r.annotations, true
	}
	return span{}, false
}

func wholeEvent(r *record, _ event.Ref) event.Value {
	return event.Text(indent(r.doc[r.at.start:r.at.end]))
}

// Subject names the object that the request is about; a request for a list, or
// for no resource, leaves out what it does not have. It owns its memory.
func (r *record) Subject() event.Subject {
	group, version := r.text(r.apiGroup), r.text(r.apiVersion)
	s := event.Subject{
		Kind: r.targetKind(), Namespace: strings.Clone(r.text(r.namespace)), Name: strings.Clone(r.text(r.name)), APIVersion: strings.Clone(version),
	}
	if group != "" {
		s.APIVersion = group + "/" + version
	}
	if s.Kind == "Namespace" {
		s.Namespace = ""
	}
	if s.Name == "" && r.is(r.verb, "create") && r.text(r.subresource) == "" {
		// A generated name is known from the response only.
		name, _ := r.responseObject().at("metadata", "name").text()
		s.Name = strings.Clone(name)
	}
	return s
}

// targetKind returns the kind of a built-in resource. Of any other the audit
// event does not tell the kind, so the resource stands in for it.
func (r *record) targetKind() string {
	resource := r.text(r.resource)
	if k, ok := kinds[resource]; ok && builtinGroup(r.text(r.apiGroup)) {
		return k
	}
	return strings.Clone(resource)
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
