package enrichment

import (
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
)

// maxEntities bounds the entities of one alert: a binding may have thousands of
// subjects.
const maxEntities = 50

// entities returns whom and what an event involves, and who is behind it.
func (r *record) entities(behind *alert.Attribution) []alert.Entity {
	var l entityList
	refs := &r.enricher.refs
	r.caller(&l)
	l.add(alert.User, r.user)
	l.add(alert.User, r.text(refs.impersonated))
	l.add(alert.Token, r.text(refs.issued))
	l.add(alert.Token, r.token.id)
	l.add(alert.Pod, userNamespace(r).Text, r.token.pod)
	l.add(alert.Node, r.token.node)
	if behind != nil {
		l.add(alert.Workload, behind.Kind, behind.Namespace, behind.Name)
	}
	r.targets(&l)
	for _, account := range r.Record.Value(refs.boundAccounts).List {
		l.add(alert.User, accountPrefix+account)
	}
	for _, user := range r.Record.Value(refs.boundUsers).List {
		l.add(alert.User, user)
	}
	if p := r.pod(); p != nil {
		for _, image := range addImages(nil, p) {
			l.add(alert.Image, image)
		}
	}
	if address := lastAddress(r); address.IsValid() {
		l.add(alert.Address, address.String())
	}
	return l
}

// caller adds who has come to a kubelet past the API server, of a request by which
// that asks whether they may. The object is what commands involve that entered a
// container of the node in no other way: see package correlate.
func (r *record) caller(l *entityList) {
	node, ok := strings.CutPrefix(r.user, "system:node:")
	refs := &r.enricher.refs
	if !ok || r.resource != "subjectaccessreviews" || r.text(refs.askedFor) != "nodes" {
		return
	}
	l.add(alert.User, r.text(refs.asker))
	l.add(alert.Node, node)
	if r.text(refs.askedPart) == "proxy" {
		l.add(alert.Object, "nodes", node, "proxy")
	}
}

// targets adds the object that the request is about.
func (r *record) targets(l *entityList) {
	refs := &r.enricher.refs
	resource, namespace, name := r.resource, r.text(refs.namespace), r.text(refs.name)
	if name == "" {
		name = r.object.name // generated
	}
	if name == "" {
		return
	}
	switch resource {
	case "pods":
		l.add(alert.Pod, namespace, name)
	case "nodes":
		l.add(alert.Node, name)
	case "serviceaccounts":
		l.add(alert.User, accountPrefix+namespace+":"+name)
	default:
		if namespace == "" {
			l.add(alert.Object, resource, name)
		} else {
			l.add(alert.Object, resource, namespace, name)
		}
	}
}

type entityList []alert.Entity

// add adds an entity whose name has parts, unless one of them is not known.
func (l *entityList) add(kind alert.EntityKind, parts ...string) {
	for _, part := range parts {
		if part == "" {
			return
		}
	}
	e := alert.Entity{Kind: kind, Name: clip(strings.Join(parts, "/"))}
	for _, known := range *l {
		if known == e {
			return
		}
	}
	if len(*l) < maxEntities {
		*l = append(*l, e)
	}
}
