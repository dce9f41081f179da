package enrichment

import (
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/event"
)

// The classes of users.
const (
	person       = "person"
	workload     = "workload"
	controller   = "controller"
	node         = "node"
	controlPlane = "control-plane"
	anonymous    = "anonymous"
)

const accountPrefix = "system:serviceaccount:"

// class returns the class of who made the request. A name alone does not make a
// node: a client certificate may carry any name.
func class(r *record) string {
	name := r.user
	switch {
	case name == "" || name == "system:anonymous":
		return anonymous
	case strings.HasPrefix(name, accountPrefix+"kube-system:"):
		return controller
	case strings.HasPrefix(name, accountPrefix):
		return workload
	case strings.HasPrefix(name, "system:node:") && slices.Contains(r.Record.Value(r.enricher.refs.groups).List, "system:nodes"):
		return node
	case name == "system:apiserver" || name == "system:kube-controller-manager" || name == "system:kube-scheduler":
		return controlPlane
	}
	return person
}

func userNamespace(r *record) event.Value {
	account, ok := strings.CutPrefix(r.user, accountPrefix)
	namespace, _, whole := strings.Cut(account, ":")
	if !ok || !whole {
		return event.Value{}
	}
	return event.Text(namespace)
}
