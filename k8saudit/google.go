package k8saudit

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
)

// A logEntry is what Google Cloud keeps of an API request. The audit event
// itself cannot be had there.
type logEntry struct {
	InsertID         string `json:"insertId"`
	Timestamp        string `json:"timestamp"`
	ReceiveTimestamp string `json:"receiveTimestamp"`
	Labels           map[string]string
	Resource         struct{ Labels map[string]string }
	ProtoPayload     struct {
		ServiceName        string `json:"serviceName"`
		MethodName         string `json:"methodName"`
		ResourceName       string `json:"resourceName"`
		AuthenticationInfo struct {
			PrincipalEmail string `json:"principalEmail"`
		} `json:"authenticationInfo"`
		RequestMetadata struct {
			CallerIP  string `json:"callerIp"`
			UserAgent string `json:"callerSuppliedUserAgent"`
		} `json:"requestMetadata"`
		Status *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"status"`
		Request  json.RawMessage `json:"request"`
		Response json.RawMessage `json:"response"`
	} `json:"protoPayload"`
}

// inferredAnnotation lists the parts of an event that were not observed but
// concluded.
const inferredAnnotation = "kubeguardian.dev/inferred"

// reconstruct makes an audit event of a LogEntry. What is not in the entry
// stays out: groups, extra, the query of the URI.
func reconstruct(data []byte) ([]byte, error) {
	var e logEntry
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	payload := e.ProtoPayload
	if payload.ServiceName != "" && payload.ServiceName != "k8s.io" {
		return nil, errForeign
	}
	verb := payload.MethodName[strings.LastIndexByte(payload.MethodName, '.')+1:]
	if e.InsertID == "" || verb == "" {
		return nil, errors.New("no insertId or no methodName")
	}
	ref := targetOf(payload.ResourceName)
	at := e.Timestamp
	if at == "" {
		at = e.ReceiveTimestamp
	}
	made := map[string]any{
		"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": e.InsertID, "verb": verb,
		"level": "RequestResponse", "stage": "ResponseComplete",
		"requestURI": "/" + strings.TrimPrefix(payload.ResourceName, "/"), "objectRef": ref,
		"user":      map[string]any{"username": payload.AuthenticationInfo.PrincipalEmail},
		"sourceIPs": []string{payload.RequestMetadata.CallerIP}, "userAgent": payload.RequestMetadata.UserAgent,
		"requestReceivedTimestamp": at, "stageTimestamp": at,
	}
	inferred := "level,objectRef,requestURI,stage,verb"
	if sub := ref["subresource"]; sub == "exec" || sub == "attach" {
		made["stage"], made["level"] = "ResponseStarted", "Request"
	}
	status, known := e.status(verb, ref["subresource"])
	made["responseStatus"] = status
	if !known {
		inferred += ",responseStatus"
	}
	for name, body := range map[string]json.RawMessage{"requestObject": payload.Request, "responseObject": payload.Response} {
		if len(body) > 0 {
			made[name] = body
		}
	}
	annotations := map[string]string{}
	maps.Copy(annotations, e.Resource.Labels)
	maps.Copy(annotations, e.Labels)
	annotations[inferredAnnotation] = inferred
	made["annotations"] = annotations
	return json.Marshal(made)
}

// status returns the outcome of a request: what the entry says went wrong, or a
// success, which it does not number.
func (e *logEntry) status(verb, subresource string) (status map[string]any, known bool) {
	if s := e.ProtoPayload.Status; s != nil && s.Code != 0 {
		return map[string]any{"code": httpCode(s.Code), "reason": s.Message, "message": s.Message}, true
	}
	switch {
	case subresource == "exec" || subresource == "attach":
		return map[string]any{"code": 101}, false
	case verb == "create":
		return map[string]any{"code": 201}, false
	}
	return map[string]any{"code": 200}, false
}

// httpCode returns the HTTP status for a code of google.rpc.
func httpCode(rpc int) int {
	codes := map[int]int{1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401}
	if code, ok := codes[rpc]; ok {
		return code
	}
	return rpc
}

// targetOf splits a resource name: GROUP/VERSION/[namespaces/NS/]RESOURCE/NAME/SUBRESOURCE.
func targetOf(name string) map[string]string {
	ref := map[string]string{}
	parts := strings.Split(strings.Trim(name, "/"), "/")
	if len(parts) < 3 {
		return ref
	}
	if ref["apiVersion"] = parts[1]; parts[0] != "core" {
		ref["apiGroup"] = parts[0]
	}
	parts = parts[2:]
	if parts[0] == "namespaces" && len(parts) > 2 && !slices.Contains([]string{"finalize", "status"}, parts[2]) {
		ref["namespace"] = parts[1]
		parts = parts[2:]
	}
	for i, key := range []string{"resource", "name", "subresource"} {
		if i < len(parts) {
			ref[key] = parts[i]
		}
	}
	if ref["resource"] == "namespaces" && ref["name"] != "" {
		ref["namespace"] = ref["name"]
	}
	return ref
}
