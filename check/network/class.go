package network

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A class is the pods that no policy can tell apart: of one namespace, with the
// same labels and named ports, all on the host's network or none.
type class struct {
	namespace string
	labels    labels.Set
	host      bool
	named     map[portName][]span
	workloads []*inventory.Workload
}

// The columns of a row are all classes and then the places outside the pods
// that controls ask about.
type columns struct {
	classes    []*class
	of         map[*inventory.Workload]int
	stranger   int            // a class for pods to come, without labels in a namespace without labels
	metadata   int            // the metadata service of a cloud
	node       int            // some node, where that is certain
	maybeNode  int            // some node, where it is possible
	all        set            // of the columns
	pods       set            // the classes that policies select
	hosts      set            // the classes on the host's network
	namespaces map[string]set // the classes of each
	spaceOf    map[string]labels.Set
	labelled   map[label][]int
	spaces     map[label][]string // namespaces by label; their own namespace is ""
	picked     map[string]set     // remembers what selectors match
}

// newColumns sorts the workloads of an inventory into classes.
func newColumns(n *Network) *columns {
	c := &columns{
		of: map[*inventory.Workload]int{}, namespaces: map[string]set{}, spaceOf: map[string]labels.Set{},
		labelled: map[label][]int{}, spaces: map[label][]string{}, picked: map[string]set{},
	}
	for _, ns := range slices.Sorted(maps.Keys(n.workloads)) {
		c.addNamespace(ns, n.labelsOf(ns), n.workloads[ns])
	}
	c.stranger = len(c.classes)
	c.classes = append(c.classes, &class{labels: labels.Set{}})
	c.namespaces[""], c.spaceOf[""] = between(c.stranger, c.stranger+1), labels.Set{}
	c.metadata, c.node, c.maybeNode = c.stranger+1, c.stranger+2, c.stranger+3
	c.all = between(0, c.maybeNode+1)
	var hosts []int
	for i, class := range c.classes {
		if class.host {
			hosts = append(hosts, i)
		}
		for k, v := range class.labels {
			c.labelled[label{class.namespace, k, v}] = append(c.labelled[label{class.namespace, k, v}], i)
		}
	}
	c.hosts = setOf(hosts)
	c.pods = between(0, c.stranger+1).andNot(c.hosts)
	return c
}

func (c *columns) addNamespace(ns string, of labels.Set, ws []*inventory.Workload) {
	first, known := len(c.classes), map[string]int{}
	for _, w := range ws {
		key := view(w)
		at, have := known[key]
		if !have {
			at = len(c.classes)
			known[key] = at
			spec := w.Template.Spec
			c.classes = append(c.classes, &class{namespace: ns, labels: w.Template.Labels, host: spec.HostNetwork, named: namedPorts(spec)})
		}
		c.classes[at].workloads = append(c.classes[at].workloads, w)
		c.of[w] = at
	}
	c.namespaces[ns], c.spaceOf[ns] = between(first, len(c.classes)), of
	for k, v := range of {
		c.spaces[label{"", k, v}] = append(c.spaces[label{"", k, v}], ns)
	}
}

// view writes what policies can tell of the pods of a workload.
func view(w *inventory.Workload) string {
	key := []byte(labels.Set(w.Template.Labels).String())
	key = strconv.AppendBool(append(key, '\n'), w.Template.Spec.HostNetwork)
	for _, containers := range [][]corev1.Container{w.Template.Spec.Containers, w.Template.Spec.InitContainers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				if p.Name != "" {
					key = strconv.AppendInt(append(append(append(key, '\n'), p.Name...), p.Protocol...), int64(p.ContainerPort), 10)
				}
			}
		}
	}
	return string(key)
}

// A selection is a selector of namespaces and one of pods. Without the first it
// is about one namespace, without the second about all pods.
type selection struct {
	namespaces *metav1.LabelSelector
	namespace  string
	pods       *metav1.LabelSelector
}

// pick returns the classes that a selection matches: none where a selector is
// not valid. Pods on the host's network cannot be selected.
func (c *columns) pick(s selection) set {
	var spaces, pods labels.Selector
	var err error
	if pods, err = metav1.LabelSelectorAsSelector(cmp.Or(s.pods, &metav1.LabelSelector{})); err != nil {
		return set{}
	}
	key := s.namespace + "\n" + pods.String()
	if s.namespaces != nil {
		if spaces, err = metav1.LabelSelectorAsSelector(s.namespaces); err != nil {
			return set{}
		}
		key = spaces.String() + "\n\n" + pods.String()
	}
	found, known := c.picked[key]
	if !known {
		found = c.search(s, spaces, pods)
		c.picked[key] = found
	}
	return found
}

func (c *columns) search(s selection, spaces, pods labels.Selector) set {
	if spaces != nil && spaces.Empty() && pods.Empty() {
		return c.pods
	}
	names := []string{s.namespace}
	if spaces != nil {
		names = c.matching(s.namespaces, spaces)
	}
	var out set
	var members []int
	for _, ns := range names {
		if pods.Empty() {
			out = out.or(c.namespaces[ns])
			continue
		}
		for _, i := range c.candidates(ns, s.pods) {
			if pods.Matches(c.classes[i].labels) {
				members = append(members, i)
			}
		}
	}
	return out.or(setOf(members)).and(c.pods)
}

// matching returns the namespaces that a selector matches; its form as given
// narrows the search.
func (c *columns) matching(given *metav1.LabelSelector, selector labels.Selector) []string {
	candidates := func(yield func(string) bool) {
		for k, v := range given.MatchLabels {
			slices.Values(c.spaces[label{"", k, v}])(yield)
			return
		}
		maps.Keys(c.spaceOf)(yield)
	}
	var out []string
	for ns := range candidates {
		if selector.Matches(c.spaceOf[ns]) {
			out = append(out, ns)
		}
	}
	return out
}

func (c *columns) candidates(ns string, given *metav1.LabelSelector) []int {
	for k, v := range given.MatchLabels {
		return c.labelled[label{ns, k, v}]
	}
	return slices.Collect(c.namespaces[ns].all)
}

// name says which workloads a class has, for people.
func (c *columns) name(i int) string {
	if i == c.stranger {
		return "pods of any other namespace"
	}
	var names []string
	for _, w := range c.classes[i].workloads[:min(2, len(c.classes[i].workloads))] {
		names = append(names, w.Subject().String())
	}
	if more := len(c.classes[i].workloads) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, " and ")
}
