package web

import (
	"net/http"

	"github.com/kubeguardian/kubeguardian/web/rest"
)

// Policies are what admission and the audit judge by, and what is not read.
type Policies struct {
	Items []Policy `json:"items"`
	// Unread says why kinds of policies of the cluster are not read.
	Unread []string `json:"unread,omitempty"`
	// Status says why no status is written to policies of the cluster; empty: it is,
	// or there are none.
	Status string `json:"status,omitempty"`
}

// A Policy is a policy, or an object that belongs to some, such as a binding.
type Policy struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Source is the file, or "cluster".
	Source string `json:"source"`
	// Enforced says by whom requests are judged by it: admission, apiserver for a
	// native policy of the cluster, or nobody.
	Enforced string `json:"enforced"`
	// Stale says that a version before the current one is in force.
	Stale  bool          `json:"stale,omitempty"`
	Errors []PolicyError `json:"errors,omitempty"`
}

// A PolicyError is a mistake in a policy.
type PolicyError struct {
	// Code says of which kind the mistake is, for programs: one of a fixed list.
	Code     string `json:"code"`
	Message  string `json:"message"`
	Location string `json:"location,omitempty"` // the field, and in text its line
}

func (s *Server) listPolicies(w http.ResponseWriter, _ *http.Request) error {
	policies := s.Policies()
	if policies.Items == nil {
		policies.Items = []Policy{}
	}
	return rest.WriteJSON(w, http.StatusOK, policies)
}
