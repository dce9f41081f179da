package ruletest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apiserver/pkg/apis/audit"
	auditapi "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// errNotRecorded is for an event that the audit policy does not record.
var errNotRecorded = errors.New("the audit policy does not record the event")

// A recorder cuts events down to what an API server with an audit policy would
// have written of them.
type recorder struct{ auditapi.PolicyRuleEvaluator }

// newRecorder reads an audit policy with the API server's own code.
func newRecorder(path string) (*recorder, error) {
	p, err := policy.LoadPolicyFromFile(path)
	if err != nil {
		return nil, err
	}
	return &recorder{policy.NewPolicyRuleEvaluator(p)}, nil
}

// A request is what an audit policy judges by, and what it may keep from being
// recorded.
type request struct {
	Level      audit.Level `json:"level"`
	Stage      audit.Stage `json:"stage"`
	RequestURI string      `json:"requestURI"`
	Verb       string      `json:"verb"`
	User       struct {
		Username string   `json:"username"`
		Groups   []string `json:"groups"`
	} `json:"user"`
	ObjectRef *audit.ObjectReference `json:"objectRef"`
}

// cut returns the event as it is recorded, or [errNotRecorded].
func (r *recorder) cut(data []byte) ([]byte, error) {
	var req request
	var all map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(data, &req), json.Unmarshal(data, &all)); err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	config := r.EvaluatePolicyRule(req.attributes())
	if config.Level == audit.LevelNone || slices.Contains(config.OmitStages, req.Stage) {
		return nil, errNotRecorded
	}
	if !config.Level.Less(req.Level) {
		return data, nil // no more than that is there
	}
	delete(all, "responseObject")
	if config.Level.Less(audit.LevelRequest) {
		delete(all, "requestObject")
	}
	all["level"] = json.RawMessage(strconv.Quote(string(config.Level)))
	return json.Marshal(all)
}

// attributes is what an API server finds the rule of the policy by: the user is
// who sent the request, also under impersonation.
func (r *request) attributes() authorizer.Attributes {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	a := authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: r.User.Username, Groups: r.User.Groups},
		Verb: r.Verb, Path: path,
	}
	if ref := r.ObjectRef; ref != nil {
		a.ResourceRequest = true
		a.Namespace, a.Name, a.APIGroup, a.APIVersion = ref.Namespace, ref.Name, ref.APIGroup, ref.APIVersion
		a.Resource, a.Subresource = ref.Resource, ref.Subresource
	}
	return a
}
