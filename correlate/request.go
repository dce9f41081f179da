package correlate

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/event"
)

// maxQuery bounds the query of a request whose command is kept.
const maxQuery = 64 << 10

// An AuditReader finds requests among the events of the audit log. It is safe
// for concurrent use.
type AuditReader struct {
	verb, resource, subresource, namespace, name event.Ref
	uri, user, code, auditID, received           event.Ref
}

// NewAuditReader resolves the fields that requests are read from. The error is
// for a field that audit events do not have.
func NewAuditReader() (*AuditReader, error) {
	r := &AuditReader{}
	received := "/requestReceivedTimestamp"
	for _, f := range []struct {
		ref  *event.Ref
		name string
		arg  *string
	}{
		{&r.verb, "ka.verb", nil}, {&r.resource, "ka.target.resource", nil}, {&r.subresource, "ka.target.subresource", nil},
		{&r.namespace, "ka.target.namespace", nil}, {&r.name, "ka.target.name", nil}, {&r.uri, "ka.uri", nil},
		{&r.user, "ka.user.name", nil}, {&r.code, "ka.response.code", nil}, {&r.auditID, "ka.auditid", nil},
		{&r.received, "jevt.value", &received},
	} {
		field, known := event.Lookup(event.K8sAudit, f.name)
		if !known {
			return nil, fmt.Errorf("audit events have no field %s", f.name)
		}
		ref, err := event.Resolve(field, f.arg)
		if err != nil {
			return nil, err
		}
		*f.ref = ref
	}
	return r, nil
}

// Request returns the request for a command that an event of the audit log is
// about; false for any other event, and for a request that was refused. All
// stages of a request have its id. A command that is over 64 KiB or not well
// written is as one that the log does not say.
func (r *AuditReader) Request(e *event.Event) (Request, bool) {
	text := func(ref event.Ref) string { return strings.Clone(textOf(e.Value(ref))) }
	code := text(r.code)
	if verb := text(r.verb); (verb != "get" && verb != "create") || !(code == "101" || strings.HasPrefix(code, "2")) {
		return Request{}, false
	}
	req := Request{ID: text(r.auditID), User: text(r.user), Time: e.Time, Namespace: text(r.namespace), Pod: text(r.name)}
	if at, err := time.Parse(time.RFC3339Nano, text(r.received)); err == nil {
		req.Time = at
	}
	path, query, _ := strings.Cut(text(r.uri), "?")
	switch text(r.resource) + "/" + text(r.subresource) {
	case "pods/exec":
	case "nodes/proxy":
		if !req.setKubeletPath(path) {
			return Request{}, false
		}
	default:
		return Request{}, false
	}
	if values, err := url.ParseQuery(query); err == nil && len(query) <= maxQuery {
		req.Command = append(values["command"], values["cmd"]...)
		if req.Container == "" {
			req.Container = values.Get("container")
		}
	}
	return req, true
}

// setKubeletPath takes pod and container from the path of a request to the
// kubelet that went through the API server.
func (req *Request) setKubeletPath(path string) bool {
	_, path, _ = strings.Cut(path, "/proxy/")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 4 || (parts[0] != "exec" && parts[0] != "run") {
		return false
	}
	req.Namespace, req.Pod, req.Container = parts[1], parts[2], parts[len(parts)-1]
	return true
}

func textOf(v event.Value) string {
	if v.Missing() {
		return ""
	}
	return v.String()
}
