package evidence

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// A Use is one right that somebody used, by the audit log of the API server:
// all requests that are alike are one Use. SeenAt is the end of the log.
type Use struct {
	Origin
	User       string
	Groups     []string
	Verb       string
	Group      string
	Resource   string // with its subresource: "pods/exec"
	Namespace  string
	Credential string    // how the user logged on: "X509SHA256", "JTI"; "" where the log does not say
	From       time.Time // when the log begins
}

const auditGroup = "audit.k8s.io/"

// maxUses bounds the different uses of one log.
const maxUses = 1_000_000

// auditEvent is what is read of an event.
type auditEvent struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Stage      string `json:"stage"`
	Verb       string `json:"verb"`
	User       struct {
		Username string              `json:"username"`
		Groups   []string            `json:"groups"`
		Extra    map[string][]string `json:"extra"`
	} `json:"user"`
	Impersonated *struct {
		Username string   `json:"username"`
		Groups   []string `json:"groups"`
	} `json:"impersonatedUser"`
	Object *struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Group       string `json:"apiGroup"`
	} `json:"objectRef"`
	Status struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Received time.Time `json:"requestReceivedTimestamp"`
}

// auditList reads an audit.k8s.io EventList.
func auditList(d document) (*Set, error) {
	var list struct {
		Items []auditEvent `json:"items"`
	}
	if err := d.json(&list); err != nil {
		return nil, err
	}
	return d.uses(list.Items)
}

// auditLog reads the log file of an API server, one event on a line, and
// reports whether data is one.
func auditLog(d document) (set *Set, is bool, err error) {
	first, _, _ := bytes.Cut(bytes.TrimSpace(d.data), []byte("\n"))
	var head auditEvent
	if json.Unmarshal(first, &head) != nil || head.Kind != "Event" || !strings.HasPrefix(head.APIVersion, auditGroup) {
		return nil, false, nil
	}
	var events []auditEvent
	line := 0
	for text := range bytes.Lines(d.data) {
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		var e auditEvent
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, true, d.errorf(line, "not an audit event: %v", err)
		}
		events = append(events, e)
	}
	set, err = d.uses(events)
	return set, true, err
}

// uses joins the requests that were answered. One that was refused used no
// right.
func (d document) uses(events []auditEvent) (*Set, error) {
	seen := map[string]*Use{}
	set := &Set{}
	var from, to time.Time
	for i, e := range events {
		if e.Received.IsZero() || e.User.Username == "" || e.Verb == "" {
			return nil, d.errorf(0, "audit event %d: want user, verb and requestReceivedTimestamp", i+1)
		}
		if from.IsZero() || e.Received.Before(from) {
			from = e.Received
		}
		if e.Received.After(to) {
			to = e.Received
		}
		if e.Stage == "RequestReceived" || e.Stage == "Panic" || e.Status.Code == 401 || e.Status.Code == 403 || e.Object == nil {
			continue
		}
		u := e.use()
		key := strings.Join([]string{u.User, u.Verb, u.Group, u.Resource, u.Namespace, u.Credential}, "\x00")
		if seen[key] == nil {
			if seen[key] = &u; len(seen) > maxUses {
				return nil, d.errorf(0, "more than %d different requests", maxUses)
			}
			set.Uses = append(set.Uses, u)
		}
	}
	for i := range set.Uses {
		set.Uses[i].Origin = Origin{Kind: Audit, Tool: "audit log", Source: d.name, SeenAt: to}
		set.Uses[i].From = from
	}
	return set, nil
}

func (e *auditEvent) use() Use {
	u := Use{
		User: e.User.Username, Groups: e.User.Groups, Verb: e.Verb,
		Group: e.Object.Group, Resource: e.Object.Resource, Namespace: e.Object.Namespace,
	}
	if e.Object.Subresource != "" {
		u.Resource += "/" + e.Object.Subresource
	}
	if id := e.User.Extra["authentication.kubernetes.io/credential-id"]; len(id) > 0 {
		u.Credential, _, _ = strings.Cut(id[0], "=")
	}
	if e.Impersonated != nil {
		u.User, u.Groups, u.Credential = e.Impersonated.Username, e.Impersonated.Groups, ""
	}
	return u
}
