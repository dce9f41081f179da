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
	name := r.text(r.enricher.refs.user)
	switch {
	case name == "" || name == "system:anonymous":
		return anonymous
	case strings.HasPrefix(name, accountPrefix+"kube-system:"):
		return controller
	case strings.HasPrefix(name, accountPrefix):
		return workload
	case strings.HasPrefix(name, "system:node:") && slices.Contains(r.Record.Value(r.enricher.refs.groups).List, "system:nodes"):
		return node
	case slices.Contains([]string{"system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"}, name):
		return controlPlane
	}
	return person
}

func userNamespace(r *record) event.Value {
	account, ok := strings.CutPrefix(r.text(r.enricher.refs.user), accountPrefix)
	namespace, _, whole := strings.Cut(account, ":")
	if !ok || !whole {
		return event.Value{}
	}
	return event.Text(namespace)
}
