package falco

import (
	"net/netip"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/finding"
)

// The fields of Falco that say where something happened.
const (
	fieldNamespace = "k8s.ns.name"
	fieldPod       = "k8s.pod.name"
)

// describe fills in what KubeGuardian's own alerts say beyond Falco's: what the
// alert is about, and by what it is joined with others into an incident. Only
// the fields that the output of the rule names are there to tell it.
func describe(a *alert.Alert) {
	s := said{fields: a.OutputFields}
	if a.Source == event.K8sAudit {
		s.request(a)
	} else {
		s.process(a)
	}
	a.Entities = s.entities
}

// said is what the fields of one alert tell.
type said struct {
	fields   map[string]any
	entities []alert.Entity
}

// text returns a field that has a value.
func (s *said) text(names ...string) string {
	for _, name := range names {
		if v, ok := s.fields[name].(string); ok && v != "" && v != "<NA>" && len(v) <= maxName {
			return v
		}
	}
	return ""
}

// add adds an entity whose name has parts, unless one of them is not known.
func (s *said) add(kind alert.EntityKind, parts ...string) {
	for _, part := range parts {
		if part == "" {
			return
		}
	}
	s.entities = append(s.entities, alert.Entity{Kind: kind, Name: strings.Join(parts, "/")})
}

// process describes an alert about a system call.
func (s *said) process(a *alert.Alert) {
	namespace, pod, container := s.text(fieldNamespace), s.text(fieldPod), s.text("container.id")
	switch {
	case namespace != "" && pod != "":
		a.Subject = finding.Subject{
			APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: pod, Container: containerName(s.text("container.name")),
		}
		s.add(alert.Pod, namespace, pod)
	case namespace != "":
		a.Subject = finding.Subject{APIVersion: "v1", Kind: "Namespace", Name: namespace}
	case a.Hostname != "":
		a.Subject = finding.Subject{APIVersion: "v1", Kind: "Node", Name: a.Hostname}
	}
	if container == "host" || container == "" {
		s.add(alert.Node, a.Hostname)
	} else {
		s.add(alert.Container, container)
	}
	image, tag := s.text("container.image.repository"), s.text("container.image.tag")
	if full := s.text("container.image"); full != "" {
		image, tag = full, ""
	}
	if image != "" && tag != "" {
		image += ":" + tag
	}
	s.add(alert.Image, image)
}

// containerName returns the name that a pod gives its container. Docker's own
// name has it as the second of several parts.
func containerName(name string) string {
	if parts := strings.Split(name, "_"); len(parts) == 6 && parts[0] == "k8s" {
		return parts[1]
	}
	return name
}

// request describes an alert about a request to the API server.
func (s *said) request(a *alert.Alert) {
	resource, namespace, name := s.text("ka.target.resource"), s.text("ka.target.namespace"), s.text("ka.target.name")
	a.Subject = finding.Subject{Kind: kind(resource), Namespace: namespace, Name: name}
	if a.Subject.Kind == "Namespace" {
		a.Subject.Namespace = ""
	}
	s.add(alert.User, s.text("ka.user.name"))
	s.add(alert.User, s.text("ka.impuser.name"))
	switch resource {
	case "pods":
		s.add(alert.Pod, namespace, name)
	case "nodes":
		s.add(alert.Node, name)
	case "serviceaccounts":
		if namespace != "" && name != "" {
			s.add(alert.User, "system:serviceaccount:"+namespace+":"+name)
		}
	default:
		if namespace == "" {
			s.add(alert.Object, resource, name)
		} else {
			s.add(alert.Object, resource, namespace, name)
		}
	}
	if address, err := netip.ParseAddr(s.lastSource()); err == nil {
		s.add(alert.Address, address.String())
	}
}

// lastSource returns the last address of the way that a request took: the ones
// before it are what the caller says.
func (s *said) lastSource() string {
	switch v := s.fields["ka.sourceips"].(type) {
	case string: // (a,b) where the list was printed
		list := strings.Split(strings.Trim(v, "()"), ",")
		return strings.TrimSpace(list[len(list)-1])
	case []any:
		if len(v) > 0 {
			last, _ := v[len(v)-1].(string)
			return last
		}
	}
	return ""
}

// kind returns the kind of a built-in resource that rules speak of; of any other
// the resource stands in for it, as audit events do not tell the kind.
func kind(resource string) string {
	kinds := map[string]string{
		"clusterrolebindings": "ClusterRoleBinding", "clusterroles": "ClusterRole", "configmaps": "ConfigMap",
		"cronjobs": "CronJob", "daemonsets": "DaemonSet", "deployments": "Deployment", "ingresses": "Ingress",
		"jobs": "Job", "namespaces": "Namespace", "networkpolicies": "NetworkPolicy", "nodes": "Node",
		"persistentvolumes": "PersistentVolume", "pods": "Pod", "replicasets": "ReplicaSet",
		"rolebindings": "RoleBinding", "roles": "Role", "secrets": "Secret", "serviceaccounts": "ServiceAccount",
		"services": "Service", "statefulsets": "StatefulSet",
	}
	if k, ok := kinds[resource]; ok {
		return k
	}
	return resource
}
